"""The rank loss against its definition: every size, margin, range and label type, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import MethodError
from napari_mil.mil import rank_loss

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


def test_memory_does_not_grow_with_the_pairs() -> None:
    """4,000 × 46,000 pairs would be 1.5 GB; the loss takes blocks of 8 MB."""
    import tracemalloc

    psutil = pytest.importorskip("psutil")
    s = torch.linspace(-3, 3, 50_000, requires_grad=True)
    y = (torch.arange(50_000) % 25 < 2).long()
    process = psutil.Process()
    tracemalloc.start()
    before = process.memory_info().rss
    rank_loss(s, y).backward()
    grown = process.memory_info().rss - before
    tracemalloc.stop()
    assert grown < 100e6
    assert torch.isfinite(s.grad).all()
