"""Which patches are lesion (Kim et al., Ranking-Aware MIL, MIDL 2025, section on patch labels)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from napari_mil.geometry import PatchGrid

from .classes import ClassRoles, Role
from .model import Lesion, LesionSet, flat_parts, polygonal, union
from .overlap import overlap_fractions, overlaps
from .parts import polygons_of

LESION, NOT_LESION, UNKNOWN = 1, 0, -1
_TIE = 1e-9  # a share that is equal to the threshold but for rounding is not above it


def patch_labels(
    lesions: LesionSet | Iterable[Lesion],
    grid: PatchGrid,
    *,
    min_overlap: float = 0.05,
    rule: Literal["union", "released"] = "union",
    partial: bool = False,
    classes: ClassRoles | None = None,
) -> npt.NDArray[np.int8]:
    """Label of each patch: 1 lesion, 0 not, -1 unknown.

    A patch is lesion when the share of its area that lies in the lesions is **above** `min_overlap`. In order of
    precedence: more than half of the patch in an "ignore" region: -1; lesion: 1; more than half of it in a "normal"
    region: 0; else 0, or -1 when `partial`.

    Parameters
    ----------
    lesions : LesionSet or iterable of Lesion
        Outlines in level-0 pixels; lines and points cover nothing.
    grid : PatchGrid
        N patches.
    min_overlap : float
        Share of the patch, 0 to below 1.
    rule : {"union", "released"}
        "union": union of the lesions, less holes and exclusions, exact. "released": as the published code does it, for
        comparison only: each polygon on its own, vertices truncated to whole pixels, exclusions counted as lesion.
    partial : bool
        Not all lesions of the slide are outlined: what is not outlined is unknown. Use it too for a positive slide
        with no outline at all, whose patches are then all -1.
    classes : ClassRoles, optional
        Which classes are lesion, normal, exclusion, ignore; without it `ClassRoles()`.

    Returns
    -------
    (N,) array of int8

    Raises
    ------
    ValueError
        When `min_overlap` or `rule` makes no sense.
    """
    if not 0 <= min_overlap < 1:
        raise ValueError(
            f"min_overlap is {min_overlap}; expected a share of the patch from 0 to below 1, such as 0.05."
        )
    if rule not in ("union", "released"):
        raise ValueError(f"rule is {rule!r}; expected 'union' or 'released'.")
    outlines = lesions if isinstance(lesions, LesionSet) else LesionSet(lesions)
    roles = classes or ClassRoles()
    if rule == "union":
        is_lesion = _united(outlines, grid, min_overlap, roles)
    else:
        is_lesion = _released(outlines, grid, min_overlap, roles)
    labels = np.full(len(grid), UNKNOWN if partial else NOT_LESION, dtype=np.int8)
    if partial:
        labels[_mostly_in(outlines, grid, Role.NORMAL, roles)] = NOT_LESION
    labels[is_lesion] = LESION
    labels[_mostly_in(outlines, grid, Role.IGNORE, roles)] = UNKNOWN
    return labels


def _mostly_in(outlines: LesionSet, grid: PatchGrid, role: Role, roles: ClassRoles) -> npt.NDArray[np.bool_]:
    """Patches (N,) with more than half of their area in the regions of a role."""
    region = outlines.region(role, roles)
    if region.is_empty:
        return np.zeros(len(grid), dtype=bool)
    return overlap_fractions(region, grid) > 0.5 + _TIE


def _united(outlines: LesionSet, grid: PatchGrid, min_overlap: float, roles: ClassRoles) -> npt.NDArray[np.bool_]:
    """Patches (N,) of which the union of the lesions, less the exclusions, covers more than `min_overlap`.

    The union is made only where it matters: a patch is lesion if one outline alone suffices, and not if all of them
    together, overlaps counted twice, don't. The others, and those that an exclusion touches, get the exact union.
    """
    parts = [part for lesion in outlines.of_role(Role.LESION, roles) for part in polygons_of(lesion.area_geometry)]
    cut = outlines.region(Role.EXCLUSION, roles)
    found = overlaps(parts, grid)
    width, height = grid.patch_px_level0
    share = found.area / (float(width) * height)
    largest = np.zeros(len(grid))
    np.maximum.at(largest, found.patch, share)
    total = np.bincount(found.patch, weights=share, minlength=len(grid))
    is_lesion = largest > min_overlap + _TIE
    unsure = ~is_lesion & (total > min_overlap + _TIE)
    if not cut.is_empty:
        unsure |= is_lesion & (overlap_fractions(cut, grid) > 0)
    if unsure.any():
        involved = np.unique(found.polygon[unsure[found.patch]])
        region = union([parts[i] for i in involved])
        region = region if cut.is_empty else polygonal(region.difference(cut))
        is_lesion[unsure] = overlap_fractions(region, grid.select(unsure)) > min_overlap + _TIE
    return is_lesion


def _released(outlines: LesionSet, grid: PatchGrid, min_overlap: float, roles: ClassRoles) -> npt.NDArray[np.bool_]:
    objects = outlines.of_role(Role.LESION, roles) + outlines.of_role(Role.EXCLUSION, roles)
    polygons = [part for lesion in objects for part in flat_parts(lesion.area_geometry)]
    # truncation can split an outline in two; its parts still count together, as the one polygon they came from
    parts: list[BaseGeometry] = []
    source: list[int] = []
    for i, polygon in enumerate(polygons):
        whole = shapely.transform(polygon, np.trunc)
        for part in flat_parts(polygonal(whole)):
            if not part.is_empty:
                parts.append(part)
                source.append(i)
    found = overlaps(parts, grid)
    pair = np.asarray(source, dtype=np.int64)[found.polygon] * max(len(grid), 1) + found.patch
    keys, index = np.unique(pair, return_inverse=True)
    area = np.bincount(index, weights=found.area, minlength=len(keys))
    width, height = grid.patch_px_level0
    above = area / (float(width) * height) > min_overlap + _TIE
    is_lesion = np.zeros(len(grid), dtype=bool)
    is_lesion[keys[above] % max(len(grid), 1)] = True
    return is_lesion
