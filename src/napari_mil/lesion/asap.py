"""ASAP XML (ASAP, CAMELYON16 and CAMELYON17).

The group gives the class: CAMELYON's ``_0``, ``_1``, ``Tumor`` and ``metastases`` are Tumor, ``_2`` and ``Exclusion``
Exclusion, ``normal`` Normal; any other group is a class of its own. Exclusions stay objects; `LesionSet.region` cuts
them out. A Spline is taken by its control points, as ASAP's own conversion to masks does.

ASAP knows no holes and no parts. We write each ring as a polygon of its own, holes of lesions in the group
"Exclusion", with attributes (LesionId, Part, Ring) that ASAP passes over and from which our reader puts the object
together again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .classes import ClassRoles, Rgb, Role, class_color
from .model import Lesion, LesionSet, flat_parts, new_id
from .parts import Collector, OutlineError, Points, box_of, describe, points, polygons_of
from .xml import hex_color, number, read_number, rgb_of_hex

_CLASS_OF_GROUP = {
    "": "",
    "none": "",
    "_0": "Tumor",
    "_1": "Tumor",
    "tumor": "Tumor",
    "tumour": "Tumor",
    "metastases": "Tumor",
    "metastasis": "Tumor",
    "_2": "Exclusion",
    "exclusion": "Exclusion",
    "normal": "Normal",
}
_DEFAULT_COLOR = (244, 250, 88)  # what ASAP gives to every annotation nobody coloured


@dataclass
class _Rings:
    """The annotations of a file that belong to one object: (part, ring) → points."""

    what: str
    name: str
    group: str
    kind: str
    color: Rgb | None
    rings: dict[tuple[int, int], Points] = field(default_factory=dict)


def from_xml(root: Element, where: str) -> LesionSet:
    """Objects below ``<ASAP_Annotations>``; `where` is part of every reader's signature."""
    collector = Collector()
    groups = {
        group.get("Name", ""): {"parent": group.get("PartOfGroup", "None"), "color": group.get("Color", "")}
        for group in root.iter("Group")
    }
    objects: dict[str, _Rings] = {}
    for index, element in enumerate(root.iter("Annotation")):
        _collect(collector, objects, index, element)
    for identity, found in objects.items():
        _build(collector, identity, found, groups)
    return collector.finish(format="asap", **({"asap_groups": groups} if groups else {}))


def _collect(collector: Collector, objects: dict[str, _Rings], index: int, element: Element) -> None:
    name, group = element.get("Name", ""), element.get("PartOfGroup", "None")
    what = describe(index, group if group != "None" else "", name)
    try:
        xy = _coordinates(element)
        part, ring = int(element.get("Part", 0)), int(element.get("Ring", 0))
    except (OutlineError, ValueError) as error:
        collector.skip(what, error)
        return
    identity = element.get("LesionId") or new_id()
    if identity in objects and (part, ring) in objects[identity].rings:
        identity = new_id()  # copied in another program together with our attributes
    if ring > 0 and (identity not in objects or (part, 0) not in objects[identity].rings):
        identity, part, ring = new_id(), 0, 0  # its outer ring is gone: an exclusion of its own
    color = rgb_of_hex(element.get("Color"))
    entry = objects.setdefault(identity, _Rings(what, name, group, element.get("Type", "Polygon"), color))
    entry.rings[part, ring] = xy


def _coordinates(element: Element) -> Points:
    found = [
        (read_number(c.get("Order") or i), read_number(c.get("X")), read_number(c.get("Y")))
        for i, c in enumerate(element.iter("Coordinate"))
    ]
    if not found:
        raise OutlineError("has no points")
    table = np.array(found)
    return points(table[np.argsort(table[:, 0], kind="stable"), 1:])


def _build(collector: Collector, identity: str, found: _Rings, groups: Mapping[str, Mapping[str, str]]) -> None:
    label = class_of_group(found.group, groups)
    try:
        geometry = _geometry(collector, found)
    except OutlineError as error:
        collector.skip(found.what, error)
        return
    group_color = rgb_of_hex(groups.get(found.group, {}).get("color"))
    own = None if found.color == _DEFAULT_COLOR else found.color
    properties: dict[str, Any] = {}
    if found.group not in ("", "None", label):
        properties["asap_group"] = found.group
    if found.kind in ("Spline", "Rectangle"):
        properties["asap_type"] = found.kind
    color = own or group_color or (found.color if not label else None)
    collector.add(
        Lesion(geometry, label=label, name=found.name, id=identity, color=color, properties=properties), found.what
    )


def class_of_group(group: str, groups: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Class of an ASAP group: a known name of its own or of a group it is part of, else the name as it stands."""
    seen: set[str] = set()
    name = group
    while name not in seen:
        seen.add(name)
        known = _CLASS_OF_GROUP.get(name.strip().casefold())
        if known or (known == "" and name == group):
            return known
        name = (groups or {}).get(name, {}).get("parent", "None")
        if name.strip().casefold() in ("", "none"):
            break
    return group.strip()


def _geometry(collector: Collector, found: _Rings) -> BaseGeometry:
    rings = found.rings
    first = rings[min(rings)]
    kind = found.kind.casefold()
    if kind == "dot" and len(first) == 1:
        return shapely.Point(first[0])
    if kind in ("dot", "pointset"):
        return shapely.MultiPoint(first)
    if kind == "measurement":
        if len(first) < 2:
            raise OutlineError("is a line of one point")
        return shapely.LineString(first)
    if kind == "rectangle" and len(first) == 2:
        return box_of(first)
    if kind not in ("polygon", "spline", "rectangle"):
        collector.note(found.what, f"is of unknown type {found.kind!r} and was read as a polygon")
    polygons = [
        collector.polygon(found.what, xy, [hole for (p, r), hole in sorted(rings.items()) if p == part and r > 0])
        for (part, ring), xy in sorted(rings.items(), key=lambda item: item[0])
        if ring == 0
    ]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def to_xml(lesions: LesionSet) -> tuple[Element, list[str]]:
    """The document, and a sentence for everything it cannot hold."""
    root = Element("ASAP_Annotations")
    annotations = SubElement(root, "Annotations")
    colors: dict[str, Rgb] = {}
    problems: list[str] = []
    known: Mapping[str, Mapping[str, str]] = lesions.meta.get("asap_groups") or {}
    for index, lesion in enumerate(lesions):
        group = _group_of(lesion, known)
        if group != "None":
            colors.setdefault(group, rgb_of_hex(known.get(group, {}).get("color")) or class_color(lesion.label))
        holes = "Exclusion" if ClassRoles().role(lesion.label) is Role.LESION else f"{group} (hole)"
        for kind, part, ring, xy in _pieces(lesion):
            if kind is None:
                problems.append(
                    f"{describe(index, lesion.label, lesion.name)} is a line, which ASAP XML cannot hold; "
                    "it was left out. Write GeoJSON to keep it."
                )
                continue
            if ring:
                colors.setdefault(holes, class_color(holes))
            element = SubElement(
                annotations,
                "Annotation",
                Name=lesion.name,
                Type=kind,
                PartOfGroup=holes if ring else group,
                Color=hex_color(lesion.shown_color),
                LesionId=lesion.id,
                Part=str(part),
                Ring=str(ring),
            )
            coordinates = SubElement(element, "Coordinates")
            for order, (x, y) in enumerate(xy.tolist()):
                SubElement(coordinates, "Coordinate", Order=str(order), X=number(x), Y=number(y))
    _write_groups(root, colors, known)
    return root, problems


def _write_groups(root: Element, colors: dict[str, Rgb], known: Mapping[str, Mapping[str, str]]) -> None:
    element = SubElement(root, "AnnotationGroups")
    rows = {name: {"parent": "None", "color": hex_color(color)} for name, color in colors.items()}
    for name, row in {**rows, **known}.items():
        parent, color = row.get("parent") or "None", row.get("color") or hex_color(class_color(name))
        SubElement(SubElement(element, "Group", Name=name, PartOfGroup=parent, Color=color), "Attributes")


def _group_of(lesion: Lesion, known: Mapping[str, Mapping[str, str]]) -> str:
    original = str(lesion.properties.get("asap_group") or "")
    if original and class_of_group(original, known) == lesion.label:
        return original
    return lesion.label or "None"


def _pieces(lesion: Lesion) -> Iterator[tuple[str | None, int, int, Points]]:
    """(type, part, ring, points) of each annotation that an object becomes; type None where ASAP has none."""
    kind = str(lesion.properties.get("asap_type") or "Polygon")
    part = -1
    for part, polygon in enumerate(polygons_of(lesion.geometry)):
        for ring, line in enumerate((polygon.exterior, *polygon.interiors)):
            xy = shapely.get_coordinates(line)[:-1]
            yield (kind if kind == "Spline" or len(xy) == 4 else "Polygon"), part, ring, xy
    others = [p for p in flat_parts(lesion.geometry) if p.geom_type != "Polygon" and not p.is_empty]
    dots = [p for p in others if p.geom_type == "Point"]
    if dots:
        part += 1
        yield ("Dot" if len(dots) == 1 else "PointSet"), part, 0, shapely.get_coordinates(dots)
    for line in others:
        if line.geom_type != "Point":
            part += 1
            xy = shapely.get_coordinates(line)
            yield ("Measurement" if len(xy) == 2 else None), part, 0, xy
