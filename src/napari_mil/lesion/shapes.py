"""Between outlines and the simple rings that a drawing layer can hold.

A drawing layer knows neither holes nor parts. Each part becomes a ring of its own, its holes joined to the outer
boundary by bridges of no width (a keyhole). The truth stays the Lesion: an edited ring is brought back with
`with_exterior`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from napari_mil.errors import LesionError

from .model import Lesion, flat_parts, gather, polygonal
from .parts import polygons_of

Points = npt.NDArray[np.float64]
_SAME_PX = 1e-6
_NEAREST = 32


@dataclass(frozen=True, eq=False)
class Outline:
    """One ring, path or set of points to draw.

    Attributes
    ----------
    lesion_id : str
    part : int
        Which part of the lesion; `with_exterior` wants it back.
    kind : {"polygon", "path", "points"}
    points : (n, 2) array
        (x, y) in level-0 pixels; a polygon's first point is not repeated at its end.
    """

    lesion_id: str
    part: int
    kind: Literal["polygon", "path", "points"]
    points: Points


def to_shapes(lesions: Iterable[Lesion]) -> list[Outline]:
    """All that is to be drawn, in order, one entry for each part of each lesion."""
    outlines: list[Outline] = []
    for lesion in lesions:
        for part, geometry in enumerate(flat_parts(lesion.geometry)):
            if geometry.is_empty:
                continue
            if isinstance(geometry, shapely.Polygon):
                outlines.append(Outline(lesion.id, part, "polygon", keyhole(geometry)))
            else:
                kind: Literal["path", "points"] = "points" if geometry.geom_type == "Point" else "path"
                outlines.append(Outline(lesion.id, part, kind, shapely.get_coordinates(geometry)))
    return outlines


def keyhole(polygon: shapely.Polygon) -> Points:
    """One ring (n, 2) that fills like the polygon: its holes are joined to the boundary by bridges of no width.

    Without holes it is the outer ring. The first point is not repeated at the end.
    """
    polygon = shapely.force_2d(polygon)
    ring = _open(polygon.exterior)
    if not polygon.interiors:
        return ring
    shapely.prepare(polygon)
    outward = polygon.exterior.is_ccw
    holes = [_open(hole) if hole.is_ccw != outward else _open(hole)[::-1] for hole in polygon.interiors]
    bridges: list[shapely.LineString] = []
    for hole in sorted(holes, key=lambda xy: float(xy[:, 0].min())):
        at, start = _bridge(polygon, ring, hole, bridges)
        bridges.append(shapely.LineString([ring[at], hole[start]]))
        round_trip = np.vstack([hole[start:], hole[: start + 1], ring[at : at + 1]])
        ring = np.vstack([ring[: at + 1], round_trip, ring[at + 1 :]])
    return ring


def _open(ring: BaseGeometry) -> Points:
    xy: Points = shapely.get_coordinates(ring)[:-1]
    return xy


def _bridge(polygon: shapely.Polygon, ring: Points, hole: Points, bridges: list[shapely.LineString]) -> tuple[int, int]:
    """Indices (in ring, in hole) of a bridge that stays inside the polygon and crosses no other bridge."""
    _, first, count = np.unique(ring, axis=0, return_index=True, return_counts=True)
    single = np.sort(first[count == 1])  # a point that has a bridge already comes last
    candidates = [single, np.setdiff1d(np.arange(len(ring)), single)]
    for start in np.argsort(hole[:, 0], kind="stable"):
        for indices in candidates:
            distance = np.hypot(*(ring[indices] - hole[start]).T)
            nearest = indices[np.argsort(distance, kind="stable")]
            for chunk in (nearest[:_NEAREST], nearest[_NEAREST:]):
                found = _free(polygon, ring, chunk, hole[start], bridges)
                if found is not None:
                    return found, int(start)
    nearest_pair = np.hypot(*(ring[:, None] - hole[None]).transpose(2, 0, 1))
    at, start = np.unravel_index(int(nearest_pair.argmin()), nearest_pair.shape)
    return int(at), int(start)


def _free(
    polygon: shapely.Polygon,
    ring: Points,
    indices: npt.NDArray[np.intp],
    point: Points,
    bridges: list[shapely.LineString],
) -> int | None:
    """The first of some ring points that a straight bridge from a point can reach."""
    if len(indices) == 0:
        return None
    ends = np.stack([np.broadcast_to(point, (len(indices), 2)), ring[indices]], axis=1)
    lines = np.asarray(shapely.linestrings(ends), dtype=object)
    reachable = np.flatnonzero(shapely.covers(polygon, lines))
    if bridges:
        reachable = reachable[~shapely.crosses(shapely.MultiLineString(bridges), lines[reachable])]
    return int(indices[reachable[0]]) if len(reachable) else None


def with_exterior(lesion: Lesion, ring: npt.ArrayLike, part: int = 0) -> Lesion:
    """The lesion after a person moved or edited the ring that shows one of its parts.

    A moved ring moves the part with its holes, to the last digit; in a float32 ring rounding counts as no change. An
    edited one replaces the part: the keyhole ring is turned back into a polygon with holes, crossings repaired. When
    one of the two points at the foot of a bridge was dragged, its twin follows, so that no slit opens.

    Parameters
    ----------
    lesion : Lesion
    ring : (n, 2) array
        (x, y) in level-0 pixels.
    part : int
        `Outline.part` of the shape.

    Raises
    ------
    LesionError
        When the ring encloses no area.
    """
    parts = flat_parts(lesion.geometry)
    if not 0 <= part < len(parts):
        raise LesionError(f"The lesion has {len(parts)} part(s); part {part} was edited. Draw the shape again.")
    new = np.asarray(ring, dtype=float)
    if new.ndim != 2 or new.shape[1] != 2 or len(new) < 3 or not np.isfinite(new).all():
        raise LesionError(
            f"The edited outline has shape {new.shape}; expected at least three points (x, y). Undo the edit."
        )
    if len(new) > 3 and np.array_equal(new[0], new[-1]):
        new = new[:-1]
    single = isinstance(ring, np.ndarray) and ring.dtype == np.float32  # as napari keeps its shapes
    edited = _edited(parts[part], new, 2 * float(np.spacing(np.float32(np.abs(new).max()))) if single else _SAME_PX)
    if edited.is_empty:
        raise LesionError("The edited outline encloses no area; expected an outline with an inside. Undo the edit.")
    return lesion.with_geometry(_joined([*parts[:part], *flat_parts(edited), *parts[part + 1 :]]))


def _edited(old: BaseGeometry, new: Points, tolerance: float) -> BaseGeometry:
    if isinstance(old, shapely.Polygon) and not old.is_empty:
        for shown in (keyhole(old), _open(old.exterior)):
            if shown.shape == new.shape:
                step = new - shown
                move = np.median(step, axis=0)
                if np.abs(step - move).max() <= tolerance:
                    return old if np.abs(move).max() <= tolerance else translate(old, *move)
        shown = keyhole(old)
        if shown.shape == new.shape:
            new = _with_twins(shown, new)
    return polygonal(shapely.Polygon(new))


def _with_twins(old: Points, new: Points) -> Points:
    """Points that coincided before and of which one was moved: all go along."""
    _, group = np.unique(old, axis=0, return_inverse=True)
    moved = (old != new).any(axis=1)
    result = new.copy()
    for twin in np.unique(group[moved]):
        members = np.flatnonzero(group == twin)
        movers = members[moved[members]]
        if 0 < len(movers) < len(members):
            result[members] = new[movers[0]]
    return result


def _joined(parts: list[BaseGeometry]) -> BaseGeometry:
    """One geometry of parts; overlapping areas are merged."""
    areas = [part for part in parts if isinstance(part, shapely.Polygon)]
    others = [part for part in parts if part.geom_type != "Polygon"]
    return gather([*polygons_of(polygonal(gather(areas)) if areas else shapely.Polygon()), *others])
