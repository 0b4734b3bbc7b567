"""From the numbers in a file to valid geometry, with a list of everything that was repaired or left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from .model import Lesion, LesionSet, flat_parts, gather, new_id, polygonal

Points = npt.NDArray[np.float64]


class OutlineError(ValueError):
    """One outline of a file cannot be used; the message says why. The rest of the file loads."""


def points(values: Any) -> Points:
    """Coordinates (n, 2) from lists of numbers; a third number (z) is left out.

    Raises
    ------
    OutlineError
        When they are no numbers, not finite, or not pairs.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise OutlineError("has points that are not pairs of numbers") from None
    if array.size == 0:
        raise OutlineError("has no points")
    if array.ndim != 2 or array.shape[1] not in (2, 3, 4):
        raise OutlineError("has points that are not pairs of numbers")
    if not np.isfinite(array[:, :2]).all():
        raise OutlineError("has a point that is not a finite number")
    return array[:, :2]


def ring(values: Any) -> Points:
    """A closed ring (n, 2), the first point again at the end, from at least three different points."""
    xy = points(values)
    if len(np.unique(xy, axis=0)) < 3:
        raise OutlineError(f"has {len(np.unique(xy, axis=0))} different point(s), an area needs three")
    return xy if np.array_equal(xy[0], xy[-1]) else np.vstack([xy, xy[:1]])


def box_of(xy: Points) -> shapely.Polygon:
    """The upright rectangle that points (n, 2) span."""
    (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
    return shapely.Polygon([(left, top), (right, top), (right, bottom), (left, bottom)])


class Collector:
    """Gathers the objects of one file; what cannot be used becomes a problem, not a crash."""

    def __init__(self) -> None:
        self.lesions: list[Lesion] = []
        self.problems: list[str] = []
        self._index: dict[str, int] = {}

    def skip(self, what: str, why: object) -> None:
        """An object is left out."""
        self.problems.append(f"{what} {why}; it was left out.")

    def note(self, what: str, happened: str) -> None:
        """An object was taken, but not quite as it stands in the file."""
        self.problems.append(f"{what} {happened}.")

    def polygon(self, what: str, shell: Any, holes: Iterable[Any] = ()) -> shapely.Polygon:
        """A polygon as it stands in the file, not yet checked for crossings; unusable holes are left out and listed."""
        rings = []
        for i, hole in enumerate(holes):
            try:
                rings.append(ring(hole))
            except OutlineError as error:
                self.skip(f"Hole {i + 1} of {what}", error)
        return shapely.Polygon(ring(shell), rings)

    def add(self, lesion: Lesion, what: str) -> None:
        """Take an object in; an id that another has already is replaced."""
        if lesion.id in self._index:
            self.note(what, f"has the same id as another ({lesion.id}) and got a new one")
            lesion = replace(lesion, id=new_id())
        self._index[lesion.id] = len(self.lesions)
        self.lesions.append(lesion)

    def extend(self, identity: str, geometry: BaseGeometry) -> bool:
        """Give an object that was taken in another part; False when there is none of this id."""
        index = self._index.get(identity)
        if index is None:
            return False
        joined = gather([*flat_parts(self.lesions[index].geometry), *flat_parts(geometry)])
        self.lesions[index] = self.lesions[index].with_geometry(joined)
        return True

    def finish(self, **meta: Any) -> LesionSet:
        """The set, its invalid outlines repaired and counted."""
        geometries = np.array([lesion.geometry for lesion in self.lesions], dtype=object)
        broken = np.flatnonzero(~shapely.is_valid(geometries)) if len(geometries) else np.zeros(0, dtype=int)
        repaired = 0
        for i in broken:
            fixed = repair(self.lesions[i].geometry)
            what = describe(int(i), self.lesions[i].label, self.lesions[i].name)
            if fixed.is_empty:
                self.skip(what, "encloses no area")
            else:
                repaired += 1
            self.lesions[i] = self.lesions[i].with_geometry(fixed)
        if repaired:
            one = "1 outline crossed or touched itself and was repaired."
            many = f"{repaired} outlines crossed or touched themselves and were repaired."
            self.problems.insert(0, one if repaired == 1 else many)
        return LesionSet([lesion for lesion in self.lesions if not lesion.geometry.is_empty], self.problems, meta)


def repair(geometry: BaseGeometry) -> BaseGeometry:
    """A valid geometry: areas as `polygonal`, lines and points of a collection kept beside them."""
    others = [part for part in flat_parts(geometry) if part.geom_type != "Polygon" and not part.is_empty]
    area = polygonal(geometry)
    if not others:
        return area
    return shapely.GeometryCollection([*flat_parts(area), *others])


def describe(index: int, label: str = "", name: str = "") -> str:
    """How a problem names an object: "Outline 3 (Tumor, left lobe)"."""
    about = ", ".join(part for part in (label, name) if part)
    return f"Outline {index + 1}{f' ({about})' if about else ''}"


def polygons_of(geometry: BaseGeometry) -> Sequence[shapely.Polygon]:
    """Single polygons of a geometry, empty ones left out."""
    return [part for part in flat_parts(geometry) if isinstance(part, shapely.Polygon) and not part.is_empty]
