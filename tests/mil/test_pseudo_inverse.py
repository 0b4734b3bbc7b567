"""The pseudo-inverse of Nyström attention, by products and by eigenvectors, against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_mil.mil.aggregators.pseudo_inverse import PseudoInverse

ITERATIONS = 6


def defined(a: Tensor) -> Tensor:
    """Z, as the paper writes it."""
    eye = torch.eye(a.shape[-1], dtype=a.dtype)
    z = a.transpose(1, 2) / (a.sum(dim=-1).amax() * a.sum(dim=-2).amax())
    for _ in range(ITERATIONS):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z


def values_and_gradients(a: Tensor, x: Tensor, w: Tensor, by_eigenvectors: bool | None) -> list[Tensor]:
    inputs = [t.clone().requires_grad_() for t in (a, x, w)]
    if by_eigenvectors is None:
        z = defined(inputs[0])
        right, left = z @ inputs[1], torch.einsum("hm,hmn->hn", inputs[2], z)
    else:
        inverse = PseudoInverse(inputs[0], ITERATIONS, by_eigenvectors)
        right, left = inverse.right(inputs[1]), inverse.left(inputs[2])
    weights = torch.linspace(-1, 1, right.numel(), dtype=a.dtype).view_as(right)
    ((right * weights).sum() + (left**2).sum()).backward()
    return [right.detach(), left.detach(), *(t.grad for t in inputs)]


def drawn(heads: int, m: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(m)
    q, k, x = torch.randn(3, heads, m, 4, generator=generator, dtype=torch.float64)
    w = torch.softmax(torch.randn(heads, m, generator=generator, dtype=torch.float64), dim=-1)
    return torch.softmax(spread * q @ k.transpose(1, 2), dim=-1), x, w


@pytest.mark.parametrize("by_eigenvectors", [False, True])
@pytest.mark.parametrize(("m", "spread"), [(1, 1.0), (2, 1.0), (16, 0.3), (16, 1.0), (16, 4.0), (48, 2.0)])
def test_both_ways_are_its_definition(by_eigenvectors: bool, m: int, spread: float) -> None:
    bag = drawn(3, m, spread)
    for found, wanted in zip(
        values_and_gradients(*bag, by_eigenvectors), values_and_gradients(*bag, None), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10 * float(wanted.abs().max()))


@pytest.mark.parametrize("by_eigenvectors", [False, True])
def test_eigenvalues_that_are_the_same(by_eigenvectors: bool) -> None:
    """Identical patches make identical landmarks: all but one eigenvalue is 0."""
    a, x, w = torch.full((2, 8, 8), 1 / 8, dtype=torch.float64), *drawn(2, 8, 1.0)[1:]
    for found, wanted in zip(
        values_and_gradients(a, x, w, by_eigenvectors), values_and_gradients(a, x, w, None), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


def test_numbers_that_are_none_are_handed_on() -> None:
    a = torch.full((1, 4, 4), torch.nan, requires_grad=True)
    assert PseudoInverse(a, ITERATIONS).left(torch.ones(1, 4)).isnan().all()
