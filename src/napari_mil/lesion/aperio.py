"""Aperio ImageScope XML: layers (``<Annotation>``) of regions; NegativeROA regions are holes of their layer.

A negative region is cut out of every positive of its layer that it overlaps, except those that lie wholly inside it
(islands in the hole). In files of ours (attribute LesionId) it is a hole of the region before it. One that meets no
positive is kept as an object of class "Exclusion".
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .classes import Rgb, class_color
from .model import Lesion, LesionSet, flat_parts, new_id, polygonal
from .parts import Collector, OutlineError, Points, box_of, describe, points, polygons_of
from .xml import number, read_number

_RECTANGLE, _ELLIPSE, _LINES, _PIN = "1", "2", ("3", "4"), "5"
_ELLIPSE_POINTS = 128


def from_xml(root: Element, where: str) -> LesionSet:
    """Objects below ``<Annotations>``; `where` is part of every reader's signature."""
    collector = Collector()
    for layer in root.iter("Annotation"):
        _layer(collector, layer)
    meta: dict[str, Any] = {}
    if root.get("MicronsPerPixel"):
        meta["aperio_mpp"] = root.get("MicronsPerPixel")
    return collector.finish(format="aperio", **meta)


def _layer(collector: Collector, layer: Element) -> None:
    label = _layer_name(layer)
    color = _rgb_of_bgr(layer.get("LineColor"))
    positives: list[tuple[Element, BaseGeometry]] = []
    negatives: list[tuple[Element, BaseGeometry]] = []
    for index, region in enumerate(layer.iter("Region")):
        try:
            geometry = _geometry(region)
        except OutlineError as error:
            collector.skip(describe(index, label, f"region {region.get('Id', '?')}"), error)
            continue
        if region.get("NegativeROA") != "1":
            positives.append((region, geometry))
        elif positives and region.get("LesionId") and region.get("LesionId") == positives[-1][0].get("LesionId"):
            positives[-1] = (positives[-1][0], _with_hole(positives[-1][1], geometry))
        else:
            negatives.append((region, geometry))
    used: set[int] = set()
    for region, geometry in positives:
        for i, (_, hole) in enumerate(negatives):
            geometry = _cut(geometry, hole, used, i)
        if geometry.is_empty:
            collector.skip(f"Region {region.get('Id', '?')} of layer {label!r}", "lies wholly in a negative region")
            continue
        _add(collector, region, geometry, label, color)
    for i, (region, hole) in enumerate(negatives):
        if i not in used:
            what = f"Negative region {region.get('Id', '?')} of layer {label!r}"
            collector.note(what, "overlaps no outline of its layer and was kept as Exclusion")
            _add(collector, region, hole, "Exclusion", None)


def _with_hole(geometry: BaseGeometry, hole: BaseGeometry) -> BaseGeometry:
    """A polygon with one more ring, as it stood before we wrote the two one after the other."""
    if isinstance(geometry, shapely.Polygon) and isinstance(hole, shapely.Polygon):
        return shapely.Polygon(geometry.exterior, [*geometry.interiors, hole.exterior])
    return geometry


def _cut(geometry: BaseGeometry, hole: BaseGeometry, used: set[int], index: int) -> BaseGeometry:
    area, cut = polygonal(geometry), polygonal(hole)
    if area.is_empty or not area.intersects(cut) or cut.covers(area):
        return geometry
    used.add(index)
    if isinstance(area, shapely.Polygon) and isinstance(cut, shapely.Polygon) and area.contains_properly(cut):
        rest = polygonal(shapely.Polygon(area.exterior, [*area.interiors, cut.exterior]))
        if rest.is_valid and len(cut.interiors) == 0:
            return rest
    return polygonal(area.difference(cut))


def _add(collector: Collector, region: Element, geometry: BaseGeometry, label: str, color: Rgb | None) -> None:
    name = region.get("Text") or ""
    lesion = Lesion(geometry, label=label, name=name, id=region.get("LesionId") or new_id(), color=color)
    if region.get("LesionId") and collector.extend(lesion.id, geometry):
        return
    collector.add(lesion, f"Region {region.get('Id', '?')} of layer {label!r}")


def _layer_name(layer: Element) -> str:
    if layer.get("Name"):
        return str(layer.get("Name"))
    names = (attribute.get("Name") for attribute in layer.findall("Attributes/Attribute"))
    return next((name for name in names if name and name != "Description"), "")


def _geometry(region: Element) -> BaseGeometry:
    found = [[read_number(v.get("X")), read_number(v.get("Y"))] for v in region.iter("Vertex")]
    xy = points(found)
    kind = region.get("Type", "0")
    if kind == _ELLIPSE and len(xy) <= 4:
        return _ellipse(xy)
    if kind == _RECTANGLE and len(xy) == 2:
        return box_of(xy)
    if kind == _PIN or len(xy) == 1:
        return shapely.MultiPoint(xy) if len(xy) > 1 else shapely.Point(xy[0])
    if kind in _LINES:
        return shapely.LineString(xy)
    if len(np.unique(xy, axis=0)) < 3:
        raise OutlineError(f"has {len(np.unique(xy, axis=0))} different points, an area needs three")
    return shapely.Polygon(xy)


def _ellipse(xy: Points) -> shapely.Polygon:
    """Ellipse in the box that the vertices span, as ImageScope stores it."""
    if len(np.unique(xy, axis=0)) < 2:
        raise OutlineError("is an ellipse without corners")
    low, high = xy.min(axis=0), xy.max(axis=0)
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)
    return shapely.Polygon((low + high) / 2 + np.column_stack([np.cos(angle), np.sin(angle)]) * (high - low) / 2)


def _rgb_of_bgr(text: str | None) -> Rgb | None:
    try:
        value = int(text or "")
    except ValueError:
        return None
    return value & 255, value >> 8 & 255, value >> 16 & 255


def to_xml(lesions: LesionSet) -> tuple[Element, list[str]]:
    """The document, one layer for each class and colour, and a sentence for everything it cannot hold."""
    root = Element("Annotations", MicronsPerPixel=str(lesions.meta.get("aperio_mpp", "")))
    layers: dict[tuple[str, Rgb], Element] = {}
    for lesion in lesions:
        color = lesion.color or class_color(lesion.label)
        regions = layers.get((lesion.label, color))
        if regions is None:
            bgr = color[0] | color[1] << 8 | color[2] << 16
            layer = SubElement(
                root,
                "Annotation",
                Id=str(len(layers) + 1),
                Name=lesion.label,
                LineColor=str(bgr),
                Visible="1",
                Type="4",
            )
            regions = layers[lesion.label, color] = SubElement(layer, "Regions")
        for polygon in polygons_of(lesion.geometry):
            for ring, line in enumerate((polygon.exterior, *polygon.interiors)):
                _region(regions, lesion, "0", shapely.get_coordinates(line)[:-1], negative=ring > 0)
        for part in flat_parts(lesion.geometry):
            if part.geom_type != "Polygon" and not part.is_empty:
                _region(regions, lesion, _PIN if part.geom_type == "Point" else "4", shapely.get_coordinates(part))
    return root, []


def _region(regions: Element, lesion: Lesion, kind: str, xy: Points, *, negative: bool = False) -> None:
    element = SubElement(
        regions,
        "Region",
        Id=str(len(regions) + 1),
        Type=kind,
        Text=lesion.name,
        NegativeROA=str(int(negative)),
        LesionId=lesion.id,
    )
    vertices = SubElement(element, "Vertices")
    for x, y in xy.tolist():
        SubElement(vertices, "Vertex", X=number(x), Y=number(y), Z="0")
