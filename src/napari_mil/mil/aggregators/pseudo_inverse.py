"""The pseudo-inverse inside Nyström attention, by an iteration of products or by eigenvectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .eigen_inverse import Spectrum


class PseudoInverse:
    """Z ≈ A⁺ of A (H, m, m), as what it does to vectors: Z itself is never made.

    Z₀ = Aᵀ / (max row sum · max column sum), both maxima over all heads;  Z ← ¼ Z (13I − AZ (15I − AZ (7I − AZ)))

    With Y_k = A Z_k and p(Y) = ¼ (13I − 15Y + 7Y² − Y³) this is Z = Z₀ p(Y₀) p(Y₁) …, Y_{k+1} = Y_k p(Y_k), and all
    of them are polynomials of the symmetric Y₀ = A Aᵀ / (…): they commute, each takes two products to make instead of
    four, and three to go back through. Where a processor has to go back, eigenvectors of Y₀ do for all of them.
    """

    def __init__(self, a: Tensor, iterations: int, by_eigenvectors: bool | None = None) -> None:
        self.a = a
        self.scale = 1 / (a.sum(dim=-1).amax() * a.sum(dim=-2).amax())
        y = _Gram.apply(a) * self.scale
        self.spectrum: Spectrum | None = None
        if by_eigenvectors is None:
            by_eigenvectors = y.requires_grad and y.device.type == "cpu" and bool(y.isfinite().all())
        if by_eigenvectors:
            self.spectrum = Spectrum.of(y, iterations)
            return
        self.powers: list[tuple[Tensor, Tensor | None]] = []  # Y_k and its square
        for _ in range(iterations - 1):
            following, square = _Iteration.apply(y)
            self.powers.append((y, square))
            y = following
        self.powers.append((y, None))

    def right(self, x: Tensor) -> Tensor:
        """Z x, x (H, m, e)."""
        return self.a.transpose(1, 2) @ self._polynomials(x) * self.scale

    def left(self, x: Tensor) -> Tensor:
        """xᵀ Z, x (H, m)."""
        return self._polynomials(self.a @ x[..., None] * self.scale)[..., 0]

    def _polynomials(self, x: Tensor) -> Tensor:
        """Π p(Y_k) x = Π ¼ (13x − 15u + Y² (7x − u)), u = Y x."""
        if self.spectrum is not None:
            return self.spectrum.times(x)
        for y, square in self.powers:
            x = _Polynomial.apply(y, square, x)
        return x


class _Polynomial(torch.autograd.Function):
    """Symmetric Y (H, m, m), Y² or None, x (H, m, e) → ¼ (13x − 15u + Y² r), u = Y x, r = 7x − u."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, square: Tensor | None, x: Tensor) -> Tensor:
        u = _times(y, x)
        r = 7 * x - u
        half: Tensor | None = None
        if square is not None:
            last = _times(square, r)
        else:
            half = _times(y, r)
            last = _times(y, half)
        ctx.save_for_backward(y, square, x, r, half)
        return (13 * x).sub_(u, alpha=15).add_(last).div_(4)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        y, square, x, r, half = ctx.saved_tensors
        g = g / 4
        if square is not None:
            to_r = _times(square, g)
        else:
            to_half = _times(y, g)
            to_r = _times(y, to_half)
        to_u = -15 * g - to_r
        to_x = (13 * g).add_(to_r, alpha=7).add_(_times(y, to_u))
        if square is not None:
            return _outer(to_u, x), _outer(g, r), to_x
        return _outer(torch.cat([to_u, g, to_half], dim=2), torch.cat([x, half, r], dim=2)), None, to_x


def _times(y: Tensor, x: Tensor) -> Tensor:
    """Y x; for single vectors on a processor head by head, which reads Y faster."""
    if x.shape[2] == 1 and y.device.type == "cpu":
        return torch.stack([torch.mv(of_head, vector[:, 0]) for of_head, vector in zip(y, x, strict=True)])[..., None]
    return torch.bmm(y, x)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ, (H, m, e) each."""
    return a * b.transpose(1, 2) if a.shape[2] == 1 else torch.bmm(a, b.transpose(1, 2))


class _Iteration(torch.autograd.Function):
    """Symmetric Y (H, m, m) → ¼ (13Y − 15Y² + 7Y³ − Y⁴) and Y².

    Its gradient is meant for a symmetric Y: symmetrised, it is that among symmetric matrices.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        square = torch.bmm(y, y)
        following = torch.baddbmm(y, square, torch.sub(y, square, alpha=1 / 7), beta=13 / 4, alpha=7 / 4)
        following.sub_(square, alpha=15 / 4)
        ctx.save_for_backward(y, square)
        return following, square

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_following: Tensor, to_square: Tensor) -> Tensor:
        y, square = ctx.saved_tensors
        # both twice as large from here on, being a sum with the transpose
        g = to_following + to_following.transpose(1, 2)
        outer = torch.baddbmm(to_square, g, _less(torch.sub(y, square, alpha=2 / 7), 15 / 7), alpha=7 / 8)
        to_y = torch.baddbmm(g, square, g, beta=13 / 8, alpha=7 / 8)
        return to_y.baddbmm_(y, outer + outer.transpose(1, 2))


def _less(x: Tensor, number: float) -> Tensor:
    """x − number · I, in its place."""
    x.diagonal(dim1=1, dim2=2).sub_(number)
    return x


class _Gram(torch.autograd.Function):
    """A (H, m, m) → A Aᵀ."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        ctx.save_for_backward(a)
        return torch.bmm(a, a.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_gram: Tensor) -> Tensor:
        (a,) = ctx.saved_tensors
        return torch.bmm(to_gram + to_gram.transpose(1, 2), a)
