"""Lesion and LesionSet: what was outlined on one slide, with holes and parts, in level-0 pixels."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import shapely
from shapely.geometry.base import BaseGeometry

from napari_mil.errors import LesionError

from .classes import ClassRoles, Rgb, Role, class_color, fold


def new_id() -> str:
    """A fresh UUID, the kind of id QuPath gives its objects."""
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Lesion:
    """One outlined object.

    Parameters
    ----------
    geometry : shapely geometry
        In level-0 pixels, x right, y down. Polygons count as area; lines and points are kept but cover nothing.
    label : str
        Class name; "" means none was given.
    name : str
        The object's own name.
    id : str
        Unique within a set; a UUID unless the file it came from had another.
    color : (r, g, b) or None
        0 to 255; None means the colour of its class.
    locked : bool
        Whether it is protected from editing.
    properties : mapping
        All the file said of it, as it stood there; what we don't understand goes back into the file unchanged.
    """

    geometry: BaseGeometry
    label: str = "Tumor"
    name: str = ""
    id: str = field(default_factory=new_id)
    color: Rgb | None = None
    locked: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.id)

    @cached_property
    def area_geometry(self) -> BaseGeometry:
        """The valid Polygon or MultiPolygon that the object covers; an empty Polygon for lines and points."""
        return polygonal(self.geometry)

    @property
    def has_area(self) -> bool:
        """Whether it covers anything, so that it can be a lesion."""
        return not self.area_geometry.is_empty

    @property
    def shown_color(self) -> Rgb:
        """Its own colour, else that of its class."""
        return self.color or class_color(self.label)

    def with_geometry(self, geometry: BaseGeometry) -> Lesion:
        """The same object with another geometry."""
        return replace(self, geometry=geometry)

    def with_label(self, label: str, color: Rgb | None = None) -> Lesion:
        """The same object in another class and in that class's colour, unless one is given."""
        return replace(self, label=label, color=color)


@dataclass(frozen=True, init=False)
class LesionSet(Sequence[Lesion]):
    """The outlines of one slide; never changed in place, every edit gives a new set.

    Parameters
    ----------
    lesions : iterable of Lesion
        In the order of the file; ids must differ.
    problems : iterable of str
        Sentences about what was repaired or had to be left out when they were read.
    meta : mapping
        What belongs to the file as a whole (``format``, ``shift``, unknown members).

    Raises
    ------
    LesionError
        When two objects have the same id.
    """

    lesions: tuple[Lesion, ...]
    problems: tuple[str, ...]
    meta: Mapping[str, Any]

    def __init__(
        self, lesions: Iterable[Lesion] = (), problems: Iterable[str] = (), meta: Mapping[str, Any] | None = None
    ) -> None:
        object.__setattr__(self, "lesions", tuple(lesions))
        object.__setattr__(self, "problems", tuple(problems))
        object.__setattr__(self, "meta", dict(meta or {}))
        if len(self.by_id) < len(self.lesions):
            ids = [lesion.id for lesion in self.lesions]
            twice = next(i for i in ids if ids.count(i) > 1)
            raise LesionError(f"Two lesions have the id {twice}; expected each id once. Give one of them a new id.")

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.lesions)

    def __iter__(self) -> Iterator[Lesion]:
        return iter(self.lesions)

    @overload
    def __getitem__(self, index: int) -> Lesion: ...
    @overload
    def __getitem__(self, index: slice) -> LesionSet: ...
    def __getitem__(self, index: int | slice) -> Lesion | LesionSet:
        if isinstance(index, slice):
            return self.with_lesions(self.lesions[index])
        return self.lesions[index]

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {label or '(no class)'}" for label, n in self.labels.items())
        return f"LesionSet({counts or 'empty'}{f'; {len(self.problems)} problems' if self.problems else ''})"

    @cached_property
    def by_id(self) -> dict[str, Lesion]:
        """The objects by id."""
        return {lesion.id: lesion for lesion in self.lesions}

    @property
    def labels(self) -> dict[str, int]:
        """Class names in order of appearance, each with its number of objects."""
        counts: dict[str, int] = {}
        for lesion in self.lesions:
            counts[lesion.label] = counts.get(lesion.label, 0) + 1
        return counts

    def with_lesions(self, lesions: Iterable[Lesion]) -> LesionSet:
        """Other objects, same problems and meta."""
        return LesionSet(lesions, self.problems, self.meta)

    def add(self, *lesions: Lesion) -> LesionSet:
        """With these objects at the end."""
        return self.with_lesions((*self.lesions, *lesions))

    def remove(self, ids: str | Iterable[str]) -> LesionSet:
        """Without the objects of these ids; unknown ids are an error."""
        gone = {ids} if isinstance(ids, str) else set(ids)
        self._expect(gone)
        return self.with_lesions(lesion for lesion in self.lesions if lesion.id not in gone)

    def replace(self, *lesions: Lesion) -> LesionSet:
        """With these objects in the place of those of the same ids; unknown ids are an error."""
        new = {lesion.id: lesion for lesion in lesions}
        self._expect(new)
        return self.with_lesions(new.get(lesion.id, lesion) for lesion in self.lesions)

    def _expect(self, ids: Iterable[str]) -> None:
        unknown = [i for i in ids if i not in self.by_id]
        if unknown:
            raise LesionError(f"No lesion has the id {unknown[0]}; expected one of this slide's {len(self)} lesions.")

    def of_role(self, role: Role, classes: ClassRoles | None = None) -> list[Lesion]:
        """Objects with area whose class has this role."""
        roles = classes or ClassRoles()
        chosen = {label for label in self.labels if roles.role(label) is role}
        return [lesion for lesion in self.lesions if lesion.label in chosen and lesion.has_area]

    def region(self, role: Role = Role.LESION, classes: ClassRoles | None = None) -> BaseGeometry:
        """Union of all objects of a role; for lesions, less the exclusions."""
        area = union([lesion.area_geometry for lesion in self.of_role(role, classes)])
        if role is Role.LESION and not area.is_empty:
            holes = [lesion.area_geometry for lesion in self.of_role(Role.EXCLUSION, classes)]
            area = polygonal(shapely.difference(area, union(holes))) if holes else area
        return area

    def union(self, labels: Iterable[str] | str | None = None) -> BaseGeometry:
        """Union of all objects of these classes, or, without any, of all lesions less the exclusions.

        Names are compared without regard to case; "Tumor" takes in "Tumor: Positive".
        """
        if labels is None:
            return self.region()
        wanted = {fold(label) for label in ([labels] if isinstance(labels, str) else labels)}
        chosen = {label for label in self.labels if {fold(label), fold(label.split(":")[0])} & wanted}
        return union([lesion.area_geometry for lesion in self.lesions if lesion.label in chosen])


def polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """The valid Polygon or MultiPolygon part of any geometry, an empty Polygon if it has none.

    An outline that crosses itself is repaired so that every loop that it encloses stays filled.
    """
    if geometry.geom_type in ("Polygon", "MultiPolygon") and geometry.is_valid:
        return geometry
    if geometry.geom_type not in ("Polygon", "MultiPolygon"):
        return union([polygonal(part) for part in flat_parts(geometry) if part.geom_type == "Polygon"])
    fixed: BaseGeometry = shapely.make_valid(geometry, method="structure")
    if not fixed.is_valid:  # GEOS can leave parts that overlap
        parts = [part for part in flat_parts(fixed) if part.geom_type == "Polygon" and part.is_valid]
        fixed = union(parts)
        if not fixed.is_valid:
            fixed = shapely.make_valid(geometry)
    if fixed.geom_type in ("Polygon", "MultiPolygon"):
        return fixed
    return union([part for part in flat_parts(fixed) if part.geom_type == "Polygon"])


def flat_parts(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Single parts of a geometry, collections within collections opened."""
    if not hasattr(geometry, "geoms"):
        return [geometry]
    return [part for child in geometry.geoms for part in flat_parts(child)]


def gather(parts: Sequence[BaseGeometry]) -> BaseGeometry:
    """Single parts as one geometry: a part alone, a Multi… of parts of a kind, else a collection."""
    if len(parts) == 1:
        return parts[0]
    polygons = [part for part in parts if isinstance(part, shapely.Polygon)]
    lines = [part for part in parts if isinstance(part, shapely.LineString)]
    points = [part for part in parts if isinstance(part, shapely.Point)]
    if len(polygons) == len(parts):
        return shapely.MultiPolygon(polygons)
    if len(lines) == len(parts):
        return shapely.MultiLineString(lines)
    if len(points) == len(parts):
        return shapely.MultiPoint(points)
    return shapely.GeometryCollection(list(parts))


def union(geometries: Sequence[BaseGeometry]) -> BaseGeometry:
    """Union of valid polygons, always a Polygon or MultiPolygon, without lines or points."""
    geometries = [geometry for geometry in geometries if not geometry.is_empty]
    if len(geometries) < 2:
        return geometries[0] if geometries else shapely.Polygon()
    merged: BaseGeometry = shapely.union_all(list(geometries))
    if merged.geom_type in ("Polygon", "MultiPolygon"):
        return merged
    polygons = [g for g in flat_parts(merged) if isinstance(g, shapely.Polygon) and not g.is_empty]
    return shapely.MultiPolygon(polygons) if polygons else shapely.Polygon()
