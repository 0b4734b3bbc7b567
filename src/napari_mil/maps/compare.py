"""Do two maps agree, and does a map agree with the outlines?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import MilError
from napari_mil.geometry import PatchGrid

from .ranking import auroc, average_precision, pearson, spearman
from .raster import AttentionMap, Floats, patch_values

if TYPE_CHECKING:
    import pandas as pd

    from napari_mil.lesion import ClassRoles, LesionSet

COLUMNS = ("map", "against", "n", "spearman", "pearson", "auroc", "average_precision", "lesion_share_top_k", "top_k")


def compare_maps(
    maps: Mapping[str, AttentionMap],
    lesions: LesionSet | npt.ArrayLike | None = None,
    grid: PatchGrid | None = None,
    *,
    classes: ClassRoles | None = None,
    partial: bool = False,
) -> pd.DataFrame:
    """Compare maps of one slide with each other and, where given, with its lesions.

    Parameters
    ----------
    maps : {name: AttentionMap}
        Rasters may differ: values are compared at the cell centres of the coarser one, where both have one.
    lesions : LesionSet or (N,) array of int, optional
        Outlines, or the labels of the patches (1, 0, −1 unknown and left out).
    grid : PatchGrid, optional
        The patches that lesions are compared on; without it the cells of each map are.
    classes, partial
        As in `patch_labels`, for outlines.

    Returns
    -------
    DataFrame
        One row per pair of maps (`against` another map: `n` common cells, Spearman's and Pearson's correlation), and
        one per map `against` "lesions": `n` patches whose label is known, AUROC, average precision, and the lesion
        share among the `top_k` patches of highest value, k being the number of lesion patches. NaN where a measure
        is not defined (one class only, a constant map).

    Raises
    ------
    MilError
        When maps are of slides of different scale, or labels do not fit the grid.
    """
    import pandas as pd

    _same_scale(maps, grid)
    rows: list[dict[str, Any]] = []
    for (name, amap), (other, second) in combinations(maps.items(), 2):
        a, b = _common(amap, second)
        rows.append({"map": name, "against": other, "n": len(a), "spearman": spearman(a, b), "pearson": pearson(a, b)})
    if lesions is not None:
        for name, amap in maps.items():
            where = grid if grid is not None else cells_of(amap)
            labels = _labels(lesions, where, classes, partial, own=grid is not None)
            rows.append({"map": name, "against": "lesions"} | _against(labels, patch_values(amap, where)))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"n": "int64", "top_k": "Int64"})


def cells_of(amap: AttentionMap) -> PatchGrid:
    """The cells of a map that have a value, as patches, row by row."""
    rows, cols = np.nonzero(~np.isnan(amap.data))
    coords = np.stack([cols, rows], axis=1) * amap.cell_px_level0 + np.asarray(amap.origin_px_level0)
    return PatchGrid(coords, amap.cell_px_level0, amap.cell_px_level0, amap.mpp)


def lesion_share(labels: npt.ArrayLike, scores: npt.ArrayLike, k: int | None = None) -> float:
    """Share of lesions (label 1) among the k highest scores; ties at the k-th place count in proportion.

    Parameters
    ----------
    k : int, optional
        The number of lesions where not given (R-precision). NaN when k is 0.
    """
    y, s = np.asarray(labels) == 1, np.asarray(scores, dtype=float)
    k = int(y.sum()) if k is None else min(k, len(y))
    if k == 0:
        return float("nan")
    threshold = np.partition(s, len(s) - k)[len(s) - k]
    above, tied = s > threshold, s == threshold
    return float((y[above].sum() + (k - above.sum()) * y[tied].mean()) / k)


def _same_scale(maps: Mapping[str, AttentionMap], grid: PatchGrid | None) -> None:
    scales = {name: amap.mpp for name, amap in maps.items()} | ({} if grid is None else {"the grid": grid.mpp})
    first = next(iter(scales.items()), None)
    for name, mpp in scales.items():
        if first is not None and not np.allclose(mpp, first[1], rtol=1e-6):
            raise MilError(
                f"{name} has {mpp[0]:g} × {mpp[1]:g} µm per pixel and {first[0]} {first[1][0]:g} × {first[1][1]:g}: "
                "these are not of one slide; compare maps of the same slide."
            )


def _common(a: AttentionMap, b: AttentionMap) -> tuple[Floats, Floats]:
    """Values of two maps at the cells of the coarser one, where both have one."""
    swap = np.prod(b.cell_px_level0) > np.prod(a.cell_px_level0)
    coarse, fine = (b, a) if swap else (a, b)
    x, y = coarse.cell_centers_level0
    other = fine.at(np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1))
    both = ~(np.isnan(coarse.data) | np.isnan(other))
    first, second = coarse.data[both].astype(np.float64), other[both].astype(np.float64)
    return (second, first) if swap else (first, second)


def _labels(
    lesions: Any, where: PatchGrid, classes: ClassRoles | None, partial: bool, *, own: bool
) -> npt.NDArray[Any]:
    if isinstance(lesions, np.ndarray | list | tuple):
        labels = np.asarray(lesions)
        if not own or labels.shape != (len(where),):
            expected = f"({len(where)},), one for each patch of the grid" if own else "a grid to go with the labels"
            raise MilError(f"Labels have shape {labels.shape}; expected {expected}.")
        return labels
    from napari_mil.lesion import patch_labels

    return patch_labels(lesions, where, classes=classes, partial=partial)


def _against(labels: npt.NDArray[Any], values: Floats) -> dict[str, Any]:
    use = (labels >= 0) & ~np.isnan(values)
    y, s = labels[use], values[use]
    return {
        "n": len(y),
        "auroc": auroc(y, s),
        "average_precision": average_precision(y, s),
        "lesion_share_top_k": lesion_share(y, s),
        "top_k": int((y == 1).sum()),
    }
