"""Scores of patches → a raster with one pixel per stride cell, placed in µm over its slide.

Why a raster and not a shape per patch: 100,000 patches in a few milliseconds, and napari shows it as an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_mil.errors import MilError
from napari_mil.geometry import Pair, PatchGrid, raster_transform

from .ranking import midranks

Normalisation = Literal["raw", "softmax", "percentile", "rank"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_CELLS = 2**24  # 64 MB of float32; beyond it cells are doubled until it fits
FINER = 4  # cells across a stride when patches lie on several lattices: no edge is off by more than 1/8 stride
SLACK = 1 / 16  # of a stride: rounding of a fractional lattice that is left as it is


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """A map of one slide.

    Attributes
    ----------
    data : (rows, cols) array of float32
        One pixel per cell, NaN where no patch lies.
    scale, translate : (float, float)
        (y, x) in µm, for an image layer: pixel centres lie at cell centres in the slide layer's world.
    normalisation : str
        What the values are: "raw", "softmax", "percentile" or "rank".
    cell_px_level0, origin_px_level0 : (int, int)
        (x, y) in level-0 pixels: the size of a cell, and the outer corner of the first one.
    bound_um : float
        How far a patch may lie from the first cell it is drawn in, along x or y: 0 on a single lattice, elsewhere at
        most half a cell.
    mpp : (float, float)
        The slide's level-0 µm per pixel (x, y).
    """

    data: npt.NDArray[np.float32]
    scale: Pair
    translate: Pair
    normalisation: str
    cell_px_level0: tuple[int, int]
    origin_px_level0: tuple[int, int]
    bound_um: float
    mpp: Pair

    @property
    def cell_centers_level0(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Centres of the columns (cols,) and of the rows (rows,) in level-0 pixels."""
        rows, cols = self.data.shape
        (ox, oy), (cx, cy) = self.origin_px_level0, self.cell_px_level0
        x, y = np.arange(cols, dtype=np.float64), np.arange(rows, dtype=np.float64)
        return ox + (x + 0.5) * cx, oy + (y + 0.5) * cy

    def at(self, xy: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Values at level-0 points (…, 2) as (x, y); NaN outside the raster."""
        points = np.asarray(xy, dtype=float)
        index = np.floor((points - np.asarray(self.origin_px_level0)) / np.asarray(self.cell_px_level0))
        rows, cols = self.data.shape
        inside = ((index >= 0) & (index < (cols, rows))).all(axis=-1)
        column, row = (np.where(inside, index[..., k], 0).astype(np.intp) for k in (0, 1))
        return np.where(inside, self.data[row, column], np.float32(np.nan)).astype(np.float32)


def normalise(scores: npt.ArrayLike, normalisation: Normalisation) -> Floats:
    """Scores (N,) as they are shown; patches whose score is NaN stay NaN and count in no sum or rank.

    "raw": as they are. "softmax": exp(s) / Σ exp(s), adding up to 1. "percentile": 100 × mid-rank / N, 100 for the
    highest. "rank": mid-rank, 1 for the lowest and N for the highest, so that hot stays high.
    """
    values = np.array(scores, dtype=np.float64)
    if normalisation not in get_args(Normalisation):
        raise MilError(f"The normalisation is {normalisation!r}; expected one of {', '.join(get_args(Normalisation))}.")
    known = ~np.isnan(values)
    if normalisation == "raw" or not known.any():
        return values
    some = values[known]
    if normalisation == "softmax":
        powers = np.exp(some - some.max())
        values[known] = powers / powers.sum()
    else:
        values[known] = midranks(some) * (100.0 / len(some) if normalisation == "percentile" else 1.0)
    return values


def attention_map(grid: PatchGrid, scores: npt.ArrayLike, *, normalisation: Normalisation = "raw") -> AttentionMap:
    """Paint the scores of a grid's patches into a raster.

    A cell has the size of the grid's stride; cell i spans [origin + i·stride, origin + (i + 1)·stride). Its value is
    the mean over the patches that cover its centre (a patch always covers its own first cell), NaN where there is
    none. A patch whose score is NaN leaves its cells NaN. Patches on several lattices (CLAM starts anew at each
    contour) get finer cells, and `bound_um` says how far they may be off.

    Parameters
    ----------
    grid : PatchGrid
    scores : (N,) array
        One number for each patch. For scores (N, C) pick the column of the class to be shown.
    normalisation : {"raw", "softmax", "percentile", "rank"}
        See `normalise`; applied to the scores before painting.

    Raises
    ------
    MilError
        When there are no patches, or scores do not fit the grid.
    """
    array = np.asarray(scores, dtype=np.float64)
    if len(grid) == 0:
        raise MilError("The grid has no patches, so there is nothing to map; check the slide's tissue settings.")
    if array.shape != (len(grid),):
        hint = " Pick the column of one class." if array.ndim == 2 and len(array) == len(grid) else ""
        raise MilError(f"Scores have shape {array.shape}; expected ({len(grid)},), one for each patch.{hint}")
    values = normalise(array, normalisation)
    x, y = _axes(grid)
    x, y = _coarse_enough(x, y, grid)
    scale, translate = raster_transform((x.origin, y.origin), (x.cell, y.cell), grid.mpp)
    return AttentionMap(
        data=_paint(x, y, values),
        scale=scale,
        translate=translate,
        normalisation=normalisation,
        cell_px_level0=(x.cell, y.cell),
        origin_px_level0=(x.origin, y.origin),
        bound_um=max(x.bound * grid.mpp[0], y.bound * grid.mpp[1]),
        mpp=grid.mpp,
    )


def patch_values(amap: AttentionMap, grid: PatchGrid) -> Floats:
    """Mean (N,) of a map over the cells that each patch of a grid covers, empty cells left out; NaN with none."""
    rows, cols = amap.data.shape
    x, y = (
        _Axis.of(grid.coords[:, k], amap.origin_px_level0[k], amap.cell_px_level0[k], grid.patch_px_level0[k])
        for k in (0, 1)
    )
    total, known = np.zeros(len(grid)), np.zeros(len(grid))
    for dx in range(x.most):
        for dy in range(y.most):
            column, row = x.first + dx, y.first + dy
            use = (dx < x.count) & (dy < y.count) & (column >= 0) & (column < cols) & (row >= 0) & (row < rows)
            value = np.where(use, amap.data[np.where(use, row, 0), np.where(use, column, 0)], np.nan)
            here = ~np.isnan(value)
            total[here] += value[here]
            known += here
    with np.errstate(invalid="ignore"):
        return total / known


@dataclass(frozen=True, eq=False)
class _Axis:
    """Cells along x or y: the first that each patch covers, and how many (one number when all cover as many)."""

    origin: int
    cell: int
    first: Ints  # (N,)
    count: Ints | int  # (N,)
    bound: int  # level-0 px between a patch and its first cell, at most

    @classmethod
    def of(cls, starts: Ints, origin: int, cell: int, patch: int) -> _Axis:
        """A patch covers the cells whose centres lie in [start, start + patch); at least one, the nearest."""
        offset = starts - origin
        # centre of cell i: (i + ½)·cell ≥ offset  ⇔  i ≥ (2·offset − cell) / (2·cell), rounded up; whole numbers only
        first = -((cell - 2 * offset) // (2 * cell))
        bound = int(np.abs(first * cell - offset).max(initial=0))
        if patch % cell == 0:
            return cls(origin, cell, first, patch // cell, bound)
        after: Ints = -((cell - 2 * (offset + patch)) // (2 * cell))
        count = np.maximum(after - first, 1)
        if (count == count[:1]).all():
            return cls(origin, cell, first, int(count.max(initial=1)), bound)
        return cls(origin, cell, first, count, bound)

    @property
    def most(self) -> int:
        return int(np.max(self.count, initial=1))

    @property
    def end(self) -> int:
        return int((self.first + self.count).max())


def _axes(grid: PatchGrid) -> tuple[_Axis, _Axis]:
    made = []
    for k in (0, 1):
        starts = np.ascontiguousarray(grid.coords[:, k])
        origin = int(starts.min())
        patch = grid.patch_px_level0[k]
        cell = _cell_size(starts - origin, grid.stride_px_level0[k], patch)
        made.append(_Axis.of(starts, origin, cell, patch))
    return made[0], made[1]


def _cell_size(offset: Ints, stride: int, patch: int) -> int:
    """Whole level-0 px: the stride, or finer (not beyond 1/16 patch) where the patches lie on several lattices."""
    residue = offset - offset // stride * stride
    if not residue.any():
        return stride
    if np.minimum(residue, stride - residue).max() <= stride * SLACK:
        return stride
    exact = int(np.gcd.reduce(np.append(np.unique(residue), stride)))
    finest = max(patch // (4 * FINER), 1)
    if exact >= finest and stride // exact <= 2 * FINER:
        return exact
    return min(stride, max(stride // FINER, finest))


def _coarse_enough(x: _Axis, y: _Axis, grid: PatchGrid) -> tuple[_Axis, _Axis]:
    """The axes with cells doubled until the raster is no giant (patches far apart with a tiny stride)."""
    cells = [x.cell, y.cell]
    while x.end * y.end > MAX_CELLS:
        cells = [2 * c for c in cells]
        x, y = (
            _Axis.of(grid.coords[:, k], axis.origin, cells[k], grid.patch_px_level0[k]) for k, axis in enumerate((x, y))
        )
    return x, y


def _paint(x: _Axis, y: _Axis, values: Floats) -> npt.NDArray[np.float32]:
    size = (y.end, x.end)
    start = y.first * size[1] + x.first
    total, number = _sum(start, values, size)
    if isinstance(x.count, int) and isinstance(y.count, int):
        total, number = (_spread(raster, y.count, x.count) for raster in (total, number))
    else:
        for dx in range(x.most):
            for dy in range(y.most):
                use = (dx < x.count) & (dy < y.count)
                if dx or dy:
                    more = _sum(start[use] + dy * size[1] + dx, values[use], size)
                    total, number = total + more[0], number + more[1]
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is the NaN of an empty cell
        return (total / number).astype(np.float32)


def _sum(flat: Ints, values: Floats, size: tuple[int, int]) -> tuple[Floats, Floats]:
    cells = size[0] * size[1]
    total = np.bincount(flat, weights=values, minlength=cells).astype(np.float64, copy=False)
    number = np.bincount(flat, minlength=cells).astype(np.float64)
    return total.reshape(size), number.reshape(size)


def _spread(raster: Floats, rows: int, cols: int) -> Floats:
    """Each pixel's value added to the rows × cols pixels that start at it, in log₂ steps along each axis."""
    for times in (rows, cols):
        window, width = raster, 1  # sums of `width` pixels
        result: Floats | None = None
        reach = 0  # how many pixels are in the result
        while times:
            if times & 1:
                result = window if result is None else _shifted_sum(result, window, reach)
                reach += width
            times >>= 1
            if times:
                window, width = _shifted_sum(window, window, width), 2 * width
        assert result is not None
        raster = result.T
    return raster


def _shifted_sum(a: Floats, b: Floats, shift: int) -> Floats:
    """a[i] + b[i − shift] along the first axis."""
    total = a.copy(order="K")
    total[shift:] += b[: max(len(b) - shift, 0)]
    return total
