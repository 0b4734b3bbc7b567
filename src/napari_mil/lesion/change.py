"""Outlines moved, widened and measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import shapely
from shapely.affinity import translate

from .classes import ClassRoles, Role
from .model import Lesion, LesionSet


def shift(lesions: LesionSet, dx: float, dy: float) -> LesionSet:
    """All objects moved by (dx, dy) level-0 pixels; the sum of all shifts is recorded in ``meta["shift"]``.

    QuPath counts from the origin of the slide's *bounds* on formats that have them (MRXS and others): give
    ``openslide.bounds-x`` and ``-y`` to bring its outlines to level-0 pixels, and the negative to bring them back.
    """
    before = lesions.meta.get("shift") or (0.0, 0.0)
    moved = [lesion.with_geometry(translate(lesion.geometry, dx, dy)) for lesion in lesions]
    return LesionSet(moved, lesions.problems, {**lesions.meta, "shift": [before[0] + dx, before[1] + dy]})


def areas_um2(lesions: Iterable[Lesion], mpp: float | Sequence[float]) -> npt.NDArray[np.float64]:
    """Area of each object (N,) in µm²; 0 for lines and points.

    Parameters
    ----------
    lesions : LesionSet or iterable of Lesion
    mpp : float or (x, y)
        µm per level-0 pixel.
    """
    x, y = (float(value) for value in np.broadcast_to(np.asarray(mpp, dtype=float), (2,)))
    return np.array([lesion.area_geometry.area for lesion in lesions], dtype=float) * x * y


def buffer(lesions: LesionSet, px: float, classes: ClassRoles | None = None) -> LesionSet:
    """Lesions widened by `px` level-0 pixels (narrowed when negative), as a coarser annotator would draw them.

    Only objects whose class is lesion change; one that narrowing removes is left out and listed in `.problems`. Kim et
    al. (MIDL 2025, appendix B) widen by 448·n pixels at 40x, n = 1..5, on training and validation slides only.
    """
    chosen = {lesion.id for lesion in lesions.of_role(Role.LESION, classes)}
    kept: list[Lesion] = []
    problems = list(lesions.problems)
    for lesion in lesions:
        if lesion.id in chosen:
            wide = shapely.buffer(lesion.area_geometry, px)
            if wide.is_empty:
                problems.append(f"{lesion.label} {lesion.name or lesion.id} is narrower than {-2 * px:g} px: left out.")
                continue
            lesion = lesion.with_geometry(wide)
        kept.append(lesion)
    return LesionSet(kept, problems, {**lesions.meta, "buffer_px": px})
