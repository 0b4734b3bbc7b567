"""Scores of patches → a raster with one pixel per stride cell, placed in µm over its slide.

Why a raster and not a shape per patch: 100,000 patches in a few milliseconds, and napari shows it as an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_mil.errors import MilError
from napari_mil.geometry import Pair, PatchGrid, raster_transform

from .ranking import midranks

Normalisation = Literal["raw", "softmax", "percentile", "rank"]
Ints = npt.NDArray[np.int64]

MAX_CELLS = 2**26  # 256 MB of float32; beyond it cells are doubled until it fits
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
        return ox + (np.arange(cols) + 0.5) * cx, oy + (np.arange(rows) + 0.5) * cy

    def at(self, xy: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Values at level-0 points (…, 2) as (x, y); NaN outside the raster."""
        points = np.asarray(xy, dtype=float)
        index = np.floor((points - np.asarray(self.origin_px_level0)) / np.asarray(self.cell_px_level0))
        rows, cols = self.data.shape
        inside = ((index >= 0) & (index < (cols, rows))).all(axis=-1)
        column, row = (np.where(inside, index[..., k], 0).astype(np.intp) for k in (0, 1))
        return np.where(inside, self.data[row, column], np.float32(np.nan)).astype(np.float32)


def normalise(scores: npt.ArrayLike, normalisation: Normalisation) -> npt.NDArray[np.float64]:
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
    origin = grid.coords.min(axis=0)
    cell = _cell_size(grid, origin)
    first, count = _cover(grid, origin, cell)
    data = _paint(first, count, values)
    scale, translate = raster_transform(origin.tolist(), cell.tolist(), grid.mpp)
    return AttentionMap(
        data=data,
        scale=scale,
        translate=translate,
        normalisation=normalisation,
        cell_px_level0=(int(cell[0]), int(cell[1])),
        origin_px_level0=(int(origin[0]), int(origin[1])),
        bound_um=float((np.abs(first * cell - grid.coords + origin).max(axis=0) * np.asarray(grid.mpp)).max()),
        mpp=grid.mpp,
    )


def patch_values(amap: AttentionMap, grid: PatchGrid) -> npt.NDArray[np.float64]:
    """Mean (N,) of a map over the cells that each patch of a grid covers, empty cells left out; NaN with none."""
    rows, cols = amap.data.shape
    origin, cell = np.asarray(amap.origin_px_level0), np.asarray(amap.cell_px_level0)
    first, count = _cover(grid, origin, cell)
    total, known = np.zeros(len(grid)), np.zeros(len(grid))
    for dx in range(int(count[:, 0].max(initial=0))):
        for dy in range(int(count[:, 1].max(initial=0))):
            x, y = first[:, 0] + dx, first[:, 1] + dy
            use = (dx < count[:, 0]) & (dy < count[:, 1]) & (x >= 0) & (x < cols) & (y >= 0) & (y < rows)
            value = np.where(use, amap.data[np.where(use, y, 0), np.where(use, x, 0)], np.nan)
            here = ~np.isnan(value)
            total[here] += value[here]
            known += here
    return np.divide(total, known, out=np.full(len(grid), np.nan), where=known > 0)


def _cell_size(grid: PatchGrid, origin: Ints) -> Ints:
    """Cell (x, y) in whole level-0 px: the stride, or finer where patches are on several lattices."""
    stride = np.asarray(grid.stride_px_level0, dtype=np.int64)
    cell = np.array([_axis_cell(grid.coords[:, k] - origin[k], int(stride[k])) for k in (0, 1)], dtype=np.int64)
    extent = grid.coords.max(axis=0) - origin + np.asarray(grid.patch_px_level0)
    while np.prod(np.ceil(extent / cell)) > MAX_CELLS:
        cell = cell * 2
    return cell


def _axis_cell(offset: Ints, stride: int) -> int:
    residue = offset % stride
    if not residue.any():
        return stride
    if np.minimum(residue, stride - residue).max() <= stride * SLACK:
        return stride
    exact = int(np.gcd.reduce(np.append(np.unique(residue), stride)))
    return exact if stride // exact <= 2 * FINER else max(stride // FINER, 1)


def _cover(grid: PatchGrid, origin: Ints, cell: Ints) -> tuple[Ints, Ints]:
    """First cell (N, 2) and number of cells (N, 2) whose centres a patch covers; at least one, the nearest."""
    patch = np.asarray(grid.patch_px_level0)
    offset = grid.coords - origin
    # centre of cell i is (i + ½) cell ≥ offset  ⇔  i ≥ (2·offset − cell) / (2·cell), rounded up; whole numbers only
    first = -((cell - 2 * offset) // (2 * cell))
    if (patch % cell == 0).all():
        return first, np.broadcast_to(patch // cell, first.shape)
    after = -((cell - 2 * (offset + patch)) // (2 * cell))
    return first, np.maximum(after - first, 1)


def _paint(first: Ints, count: Ints, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    first = np.maximum(first, 0)
    cols, rows = (first + count).max(axis=0).tolist()
    size = (int(rows), int(cols))
    uniform = (count == count[0]).all()
    total, number = _sum(first, values, size)
    if uniform:
        total, number = (_spread(a, int(count[0, 1]), int(count[0, 0])) for a in (total, number))
    else:
        for dx in range(int(count[:, 0].max())):
            for dy in range(int(count[:, 1].max())):
                use = (dx < count[:, 0]) & (dy < count[:, 1])
                if dx or dy:
                    more = _sum(first[use] + (dx, dy), values[use], size)
                    total, number = total + more[0], number + more[1]
    out = np.full(size, np.nan, dtype=np.float32)
    np.divide(total, number, out=out, where=number > 0, casting="same_kind")
    return out


def _sum(
    index: Ints, values: npt.NDArray[np.float64], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    flat = index[:, 1] * size[1] + index[:, 0]
    cells = size[0] * size[1]
    return (
        np.bincount(flat, weights=values, minlength=cells).reshape(size),
        np.bincount(flat, minlength=cells).reshape(size),
    )


def _spread(raster: npt.NDArray[Any], rows: int, cols: int) -> npt.NDArray[Any]:
    """Each pixel's value added to the rows × cols pixels that start at it."""
    for axis, times in ((0, rows), (1, cols)):
        source = raster if times == 1 else raster.copy()
        for shift in range(1, times):
            if axis == 0:
                raster[shift:] += source[:-shift]
            else:
                raster[:, shift:] += source[:, :-shift]
    return raster
