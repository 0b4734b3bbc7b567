"""The rank loss against its definition: every size, margin, range and label type, and its gradient."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import MethodError
from napari_mil.mil import rank_loss
from napari_mil.mil.supervision.pair_sums import by_blocks, by_cells, cell_width

PAIRS = ("lesion_vs_non", "symmetric", "all")


def definition(s: np.ndarray, y: np.ndarray, sigma: float, margin: float, pairs: str) -> float:
    """METHODS §2.2, in O(n²)."""

    def sp(t: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, t)

    s, y = s[y >= 0].astype(np.float64), y[y >= 0]
    n1, n0 = int((y == 1).sum()), int((y == 0).sum())
    if n1 == 0 or n0 == 0:
        return 0.0
    d = s[y == 1][:, None] - s[y == 0][None]
    down, up = sp(-sigma * (d - margin)).sum(), sp(-sigma * (d + margin)).sum()
    if pairs == "lesion_vs_non":
        return down / (n1 * n0)
    if pairs == "symmetric":
        return (down + up) / (2 * n1 * n0)
    same = 0.0
    for c in (0, 1):
        e = s[y == c][:, None] - s[y == c][None]
        same += 0.5 * (sp(sigma * (e - margin)) + sp(-sigma * (e - margin))).sum()
    return (down + up + same) / (n1 + n0) ** 2


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 10.0, 100.0, 1000.0]))
    labels = rng.choice([-1, 0, 1], size=n, p=draw(st.sampled_from([(0.2, 0.5, 0.3), (0, 0.9, 0.1), (0, 1, 0)])))
    return rng.normal(size=n) * spread + draw(st.sampled_from([0.0, -50.0, 1e3])), labels


@settings(max_examples=150, deadline=None)
@given(scored(), st.sampled_from([0.1, 1.0, 4.0]), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from(PAIRS))
def test_equals_its_definition(data, sigma: float, margin: float, pairs: str) -> None:
    s, y = data
    loss = rank_loss(torch.from_numpy(s), torch.from_numpy(y), sigma=sigma, margin=margin, pairs=pairs)
    np.testing.assert_allclose(loss.item(), definition(s, y, sigma, margin, pairs), rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(scored(), st.sampled_from(PAIRS), st.integers(0, 1000))
def test_bag_order_does_not_matter(data, pairs: str, seed: int) -> None:
    s, y = data
    order = np.random.default_rng(seed).permutation(len(s))
    a = torch.tensor(s, requires_grad=True)
    b = torch.tensor(s[order], requires_grad=True)
    first, second = rank_loss(a, torch.tensor(y), pairs=pairs), rank_loss(b, torch.tensor(y[order]), pairs=pairs)
    np.testing.assert_allclose(first.item(), second.item(), rtol=1e-12, atol=1e-15)
    first.backward()
    second.backward()
    np.testing.assert_allclose(a.grad[order], b.grad, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("spread", [1e-3, 1.0, 20.0])
def test_gradient(pairs: str, spread: float) -> None:
    generator = torch.Generator().manual_seed(3)
    s = (torch.randn(14, generator=generator, dtype=torch.float64) * spread).requires_grad_()
    y = torch.tensor([1, 0, -1, 0, 1, 0, 0, 1, -1, 0, 0, 1, 0, 0])
    assert torch.autograd.gradcheck(lambda t: rank_loss(t, y, sigma=1.3, margin=0.4, pairs=pairs), (s,))
    (gradient,) = torch.autograd.grad(rank_loss(s, y, pairs=pairs), s)
    assert (gradient[y == -1] == 0).all()


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [-1, -1, -1], [1, -1, -1], [0, -1, 0]])
def test_without_a_pair_it_is_zero_and_still_trains(pairs: str, labels: list[int]) -> None:
    s = torch.tensor([0.3, 5.0, -2.0], requires_grad=True)
    loss = rank_loss(s, torch.tensor(labels), pairs=pairs)
    loss.backward()
    assert loss.item() == 0
    assert (s.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.float32])
def test_labels_of_any_type(dtype: torch.dtype) -> None:
    s = torch.tensor([1.0, 0.0, 2.0])
    assert rank_loss(s, torch.tensor([1, 0, -1], dtype=dtype)).item() == pytest.approx(np.log1p(np.exp(-1)))
    assert rank_loss(s[:2], torch.tensor([1, 0], dtype=torch.uint8)).item() == pytest.approx(np.log1p(np.exp(-1)))


def test_worst_pairs_keep_their_gradient() -> None:
    """The published sigmoid saturates there: its gradient is 0."""
    s = torch.tensor([-500.0, 500.0], requires_grad=True)
    loss = rank_loss(s, torch.tensor([1, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(1000.0)
    assert s.grad.tolist() == pytest.approx([-1.0, 1.0])


def test_sampling_draws_pairs_among_so_many_patches() -> None:
    s, y = torch.arange(40.0), torch.tensor([1, 0] * 20)
    draws = {rank_loss(s, y, sample=3, generator=torch.Generator().manual_seed(k)).item() for k in range(8)}
    assert len(draws) > 1
    again = [rank_loss(s, y, sample=3, generator=torch.Generator().manual_seed(5)).item() for _ in range(2)]
    assert again[0] == again[1]
    assert rank_loss(s, y, sample=20).item() == rank_loss(s, y).item()


def test_refusals() -> None:
    with pytest.raises(MethodError, match="pairs is 'some'"):
        rank_loss(torch.zeros(2), torch.tensor([1, 0]), pairs="some")
    with pytest.raises(MethodError, match="expected"):
        rank_loss(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.long))


class TestSumsOverCells:
    """The fast way against the plain one, in float64."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(1, 40),
        st.integers(1, 400),
        st.sampled_from([0.0, 1e-12, 1e-3, 0.5, 4.0, 30.0, 150.0]),
        st.sampled_from([0.0, 25.0, -25.0, 300.0]),
        st.sampled_from([0.0, 1.5]),
        st.integers(0, 99),
    )
    def test_equals_pair_by_pair(self, n: int, m: int, spread: float, apart: float, shift: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        a = (torch.rand(n, generator=generator, dtype=torch.float64) - 0.5) * spread + apart
        b = (torch.rand(m, generator=generator, dtype=torch.float64) - 0.5) * spread
        width = cell_width(a, b)
        for got, wanted in zip(by_cells(a, b, shift, width), by_blocks(a, b, shift), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)  # relative, each gradient for itself

    def test_of_all_lengths_of_series(self) -> None:
        a, b = torch.linspace(-2, 3, 60, dtype=torch.float64), torch.linspace(-4, 5, 200, dtype=torch.float64)
        for width in (1 / 64, 1 / 16, 0.2, 0.5, 1.0):
            for got, wanted in zip(by_cells(a, b, 0.3, width), by_blocks(a, b, 0.3), strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)

    def test_scores_that_range_too_far_are_taken_pair_by_pair(self) -> None:
        s = torch.linspace(-3000, 3000, 1200, dtype=torch.float64)
        assert cell_width(s, s) is None
        y = torch.arange(1200) % 2
        assert rank_loss(s, y).item() == pytest.approx(definition(s.numpy(), y.numpy(), 1, 0, "lesion_vs_non"))

    @pytest.mark.parametrize("pairs", PAIRS)
    def test_large_bags_go_over_cells(self, pairs: str) -> None:
        s = torch.randn(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        y = (torch.arange(3000) % 7 == 0).long()
        loss = rank_loss(s, y, sigma=1.2, margin=0.3, pairs=pairs)
        wanted = definition(s.detach().numpy(), y.numpy(), 1.2, 0.3, pairs)
        assert loss.item() == pytest.approx(wanted, rel=1e-12)
        (gradient,) = torch.autograd.grad(loss, s)
        at = [0, 5, 7]
        for k in at:  # by central differences of the definition
            values = []
            for step in (1e-5, -1e-5):
                moved = s.detach().numpy().copy()
                moved[k] += step
                values.append(definition(moved, y.numpy(), 1.2, 0.3, pairs))
            assert gradient[k].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)

    def test_many_pairs_take_little_time_and_memory(self) -> None:
        """10,000 × 90,000 pairs would be 7 GB; it takes tens of milliseconds and a few MB."""
        psutil = pytest.importorskip("psutil")
        s = torch.randn(100_000, generator=torch.Generator().manual_seed(0), requires_grad=True)
        y = (torch.arange(100_000) % 10 == 0).long()
        rank_loss(s, y).backward()
        before = psutil.Process().memory_info().rss
        times = []
        for _ in range(3):
            start = time.perf_counter()
            rank_loss(s, y).backward()
            times.append(time.perf_counter() - start)
        assert psutil.Process().memory_info().rss - before < 100e6
        assert min(times) < 1.0
        assert torch.isfinite(s.grad).all()
