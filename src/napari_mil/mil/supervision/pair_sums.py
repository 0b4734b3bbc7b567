"""Σ_ij softplus(b_j − a_i + shift) over all pairs, exact to rounding, without looking at each pair.

Scores are put into cells of width h, s = c + u with c the cell's centre and |u| ≤ h/2. For a pair of cells

    softplus(t + (v − u)) = Σ_p f_p(t) (v − u)^p,   t = c_b − c_a + shift,

a Taylor series that converges like (h/π)^p, since softplus has its nearest poles at ±iπ. With (v − u)^p by the binomial
theorem all pairs of two cells need only the cells' moments Σ u^q and Σ v^k: O(n + m) work for the patches, O(cells²)
for the rest. Ten to twenty terms reach float64's rounding, relative even where the loss is tiny.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 1 << 20
"""Pairs looked at together when each is looked at: 8 MB in float64, small enough for a cache."""
SCORES = 1 << 14
"""Scores that a polynomial is taken at together, for the same reason."""
FEW_PAIRS = 300_000
"""Up to so many, each pair is looked at: that is faster."""
CELLS, MOST_CELLS = 256, 1024
"""Cells that a range of scores is cut into, as long as they are neither too narrow nor too wide."""
NARROW, WIDE = 1 / 16, 1 / 2
"""Widths of a cell: narrower gains nothing, wider needs too many terms."""


class _SoftplusPairSum(torch.autograd.Function):
    """The sum and its gradient: d/db_j = Σ_i σ(b_j − a_i + shift), d/da_i = −Σ_j σ(b_j − a_i + shift)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, shift: float) -> Tensor:
        # cells are summed by bincount, which a GPU does in an order that changes from run to run
        width = cell_width(a, b) if a.device.type == "cpu" and len(a) * len(b) > FEW_PAIRS else None
        if width is None:
            total, to_a, to_b = by_blocks(a, b, shift)
        else:
            total, to_a, to_b = by_cells(a, b, shift, width)
        ctx.save_for_backward(to_a, to_b)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        to_a, to_b = ctx.saved_tensors
        return gradient * to_a, gradient * to_b, None


def softplus_pair_sum(a: Tensor, b: Tensor, shift: float) -> Tensor:
    """Σ_ij softplus(b_j − a_i + shift), a (n,), b (m,) → scalar."""
    total: Tensor = _SoftplusPairSum.apply(a, b, shift)
    return total


def by_blocks(a: Tensor, b: Tensor, shift: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sum and gradients (n,), (m,), pair by pair in blocks: O(n m) time, O(n + m) memory."""
    total = a.new_zeros(())
    to_a, to_b = torch.empty_like(a), torch.zeros_like(b)
    rows = max(1, BLOCK // len(b))
    for start in range(0, len(a), rows):
        t = (b + shift)[None, :] - a[start : start + rows, None]  # (rows, m)
        total += F.softplus(t, threshold=60.0).sum()
        t.sigmoid_()
        to_a[start : start + rows] = -t.sum(dim=1)
        to_b += t.sum(dim=0)
    return total, to_a, to_b


def cell_width(a: Tensor, b: Tensor) -> float | None:
    """Width h of the cells, None where the scores range too far for them."""
    spread = max(float(a.max() - a.min()), float(b.max() - b.min()))
    width = min(max(spread / CELLS, NARROW), WIDE)
    return width if spread / width < MOST_CELLS else None


@dataclass(frozen=True)
class _Cells:
    """Scores of one side in cells of width h, as offsets in units of h."""

    first: float
    """Centre of the first cell."""
    count: int
    index: Tensor
    """(n,) cell of each score."""
    offset: Tensor
    """(n,) (s − centre)/h, in [−½, ½]."""
    moments: Tensor
    """(terms, count) Σ offset^k of each cell."""


def _into_cells(s: Tensor, width: float, terms: int) -> _Cells:
    low = float(s.min())
    place = (s - low) / width
    index = place.floor()
    offset = place - index - 0.5
    index = index.long()
    count = int(index.max()) + 1
    power, moments = torch.ones_like(s), []
    for _ in range(terms):
        moments.append(torch.bincount(index, weights=power, minlength=count))
        power = power * offset
    return _Cells(low + width / 2, count, index, offset, torch.stack(moments))


def by_cells(a: Tensor, b: Tensor, shift: float, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sum and gradients (n,), (m,), by Taylor series between cells of a width."""
    terms = 2 + math.ceil(36.7 / math.log(math.pi / width))  # (h/π)^terms below float64's rounding
    left, right = _into_cells(a, width, terms), _into_cells(b, width, terms)
    # every distance between two cells: t of (cell j of b, cell i of a) stands at j − i + (cells of a) − 1
    steps = torch.arange(1 - left.count, right.count, dtype=a.dtype)
    t = right.first - left.first + shift + width * steps
    sigma = _sigmoid_series(t, width, terms)
    total = a.new_zeros(())
    of_a, of_b = torch.zeros_like(left.moments), torch.zeros_like(right.moments)
    signs, between = (-1.0) ** torch.arange(terms, dtype=a.dtype), _toeplitz(F.softplus(t, threshold=60.0), left.count)
    for p in range(terms):
        binomial = torch.tensor([math.comb(p, q) for q in range(p + 1)], dtype=a.dtype)
        u = left.moments[: p + 1].T * (signs[: p + 1] * binomial)  # (cells of a, p + 1): (p over q) (−u)^q
        v = right.moments[: p + 1].T * binomial  # (cells of b, p + 1): (p over k) v^k
        # Σ_q (p over q) (−u)^q v^(p−q), summed over the pairs of cells; f_0 is softplus, f_p = σ_{p−1}/p
        series = ((between @ u) * right.moments[: p + 1].flip(0).T).sum()
        total = total + (series if p == 0 else series * (width / p))
        between = _toeplitz(sigma[p], left.count)  # (cells of b, cells of a)
        of_b[: p + 1] += (between @ u).T.flip(0)  # factor of v^(p−q)
        of_a[: p + 1] += (between.T @ v).T.flip(0)  # factor of (−u)^(p−k)
    to_b = _polynomial(of_b, right.index, right.offset)
    to_a = -_polynomial(of_a, left.index, -left.offset)
    return total, to_a, to_b


def _sigmoid_series(t: Tensor, width: float, terms: int) -> Tensor:
    """Taylor coefficients of σ at t, times width^p: (terms, len(t)).

    From σ' = σ (1 − σ): (p + 1) σ_{p+1} = σ_p (1 − 2 σ_0) − Σ_{0<k<p} σ_k σ_{p−k}, whose first step is written so that
    it keeps its digits where σ is near 1.
    """
    s0, rest = torch.sigmoid(t), torch.sigmoid(-t)
    series = [s0, s0 * rest * width]
    for p in range(1, terms - 1):
        products = sum((series[k] * series[p - k] for k in range(1, p)), torch.zeros_like(t))
        series.append((series[p] * (rest - s0) - products) * (width / (p + 1)))
    return torch.stack(series)


def _toeplitz(values: Tensor, columns: int) -> Tensor:
    """values at row − column + columns − 1, as a matrix (rows, columns)."""
    return values.unfold(0, columns, 1).flip(1)


def _polynomial(coefficients: Tensor, index: Tensor, x: Tensor) -> Tensor:
    """Σ_k coefficients[k, index] x^k, (n,)."""
    columns = coefficients.T.contiguous()
    result = torch.empty_like(x)
    for part in range(0, len(x), SCORES):
        some = slice(part, part + SCORES)
        terms = x[some, None].repeat(1, len(coefficients))
        terms[:, 0] = 1
        torch.cumprod(terms, 1, out=terms)
        torch.sum(terms.mul_(columns[index[some]]), 1, out=result[some])
    return result
