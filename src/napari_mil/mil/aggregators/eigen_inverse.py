"""Polynomials of a symmetric matrix by its eigenvectors: half the work of products, where a processor goes back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Spectrum(NamedTuple):
    """Y = U diag(λ) Uᵀ, and f(λ) of the iteration y_0 = λ, y_{k+1} = y_k p(y_k), f = Π p(y_k)."""

    handle: Tensor
    """(H, m, m), of no value; its gradient is Σ (Uᵀ g)(Uᵀ x)ᵀ over all products with f(Y)."""
    vectors: Tensor
    """U (H, m, m)."""
    values: Tensor
    """f(λ) (H, m)."""

    @classmethod
    def of(cls, y: Tensor, iterations: int) -> Spectrum:
        """Of a symmetric Y (H, m, m)."""
        return cls(*_Spectrum.apply(y, iterations))

    def times(self, x: Tensor) -> Tensor:
        """f(Y) x, x (H, m, e)."""
        product: Tensor = _Times.apply(*self, x)
        return product


class _Spectrum(torch.autograd.Function):
    """The gradient of Y is U (D ∘ G) Uᵀ with D the divided differences of f (Daleckii and Krein 1965)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
        # in float64: f is a thousand times steeper where λ is small than where it is large
        level, vectors = torch.linalg.eigh(y.double())
        levels, values = [], torch.ones_like(level)
        for _ in range(iterations):
            levels.append(level.to(y.dtype))
            values = values * _p(level)
            level = level * _p(level)
        vectors = vectors.to(y.dtype)
        ctx.save_for_backward(vectors, *levels)
        return y.new_empty(()).expand_as(y), vectors, values.to(y.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gathered: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        u, *levels = ctx.saved_tensors
        return u @ (divided_differences(levels) * gathered) @ u.transpose(1, 2), None


class _Times(torch.autograd.Function):
    """U f(λ) Uᵀ x."""

    @staticmethod
    def forward(ctx: Any, handle: Tensor, u: Tensor, values: Tensor, x: Tensor) -> Tensor:
        turned = u.transpose(1, 2) @ x
        ctx.save_for_backward(u, values, turned)
        return u @ (values[..., None] * turned)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        u, values, turned = ctx.saved_tensors
        g = u.transpose(1, 2) @ g
        return g @ turned.transpose(1, 2), None, None, u @ (values[..., None] * g)


def divided_differences(levels: list[Tensor]) -> Tensor:
    """f[λ_i, λ_j] (H, m, m) from y_k(λ) (H, m) of each k, without a division: f'(λ_i) where both are the same.

    By the rules of products and chains, with p[a, b] = ¼ (7(a + b) − 15 − (a² + ab + b²)) and E_k = y_k[λ_i, λ_j]:

    f_{k+1}[i, j] = f_k(λ_i) p[a, b] E_k + f_k[i, j] p(b),   E_{k+1} = E_k (a p[a, b] + p(b)).

    The terms have one sign for λ in [0, 1], so it keeps its digits.
    """
    f = torch.ones_like(levels[0])[..., None]  # f_k(λ_i)
    difference, chain = torch.zeros_like(f), torch.ones_like(f)  # f_k[i, j], E_k
    for y in levels:
        a, b = y[..., None], y[:, None, :]
        half, p_b = a / 2 + b / 2, _p(b)
        slope = (3.5 - half).mul_(half).addcmul_(a / 2, b / 2).sub_(3.75).mul_(chain)  # p[a, b] E_k
        difference = torch.addcmul(difference * p_b, f, slope)
        chain = torch.addcmul(chain * p_b, a, slope)
        f = f * _p(a)
    return difference


def _p(y: Tensor) -> Tensor:
    """¼ (13 − 15y + 7y² − y³)."""
    return (13 - y * (15 - y * (7 - y))) / 4
