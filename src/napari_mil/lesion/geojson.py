"""QuPath GeoJSON: a FeatureCollection, a bare list of features, one feature, or one geometry.

What QuPath writes and we don't know goes through unchanged: a feature's properties stay in `Lesion.properties`, its
other members under the key "napari_mil:feature" there while in memory, and the file's own members in `LesionSet.meta`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_mil.errors import LesionError

from .classes import Rgb, class_color
from .model import Lesion, LesionSet, new_id
from .parts import Collector, OutlineError, describe, points

GEOMETRIES = frozenset(
    {"Polygon", "MultiPolygon", "LineString", "MultiLineString", "Point", "MultiPoint", "GeometryCollection"}
)
_MEMBERS = "napari_mil:feature"  # where a feature's unknown members wait, in memory only
_KNOWN = {"type", "geometry", "properties", "id"}
# until version 0.3 QuPath wrote the kind of object where its id belongs
_OLD_KINDS = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathTileObject": "tile",
    "PathCellObject": "cell",
    "TMACoreObject": "tma_core",
    "PathRootObject": "root",
}


def looks_like(data: Any) -> bool:
    """Whether parsed JSON is GeoJSON."""
    if isinstance(data, dict):
        return data.get("type") in GEOMETRIES | {"Feature", "FeatureCollection"}
    return isinstance(data, list) and all(isinstance(item, dict) and looks_like(item) for item in data)


def from_json(data: Any, where: str) -> LesionSet:
    """Objects of parsed GeoJSON; `where` names the file in errors."""
    meta: dict[str, Any] = {}
    if isinstance(data, dict) and data.get("type") == "FeatureCollection":
        features = data.get("features")
        if not isinstance(features, list):
            raise LesionError(
                f"{where}: the FeatureCollection has no list of features; expected one. Export it from QuPath again."
            )
        extra = {key: value for key, value in data.items() if key not in ("type", "features", "napari_mil")}
        if extra:
            meta["geojson"] = extra
        ours = data.get("napari_mil")
        if isinstance(ours, dict):
            meta.update(ours)
    else:
        features = data if isinstance(data, list) else [data]
    collector = Collector()
    for index, feature in enumerate(features):
        try:
            _feature(collector, index, feature)
        except OutlineError as error:
            collector.skip(describe(index, *_label_and_name(feature)), error)
    return collector.finish(**{**meta, "format": "geojson"})


def _label_and_name(feature: Any) -> tuple[str, str]:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return "", ""
    return _class_name(properties.get("classification")), str(properties.get("name") or "")


def _feature(collector: Collector, index: int, feature: Any) -> None:
    if not isinstance(feature, dict):
        raise OutlineError("is not a feature")
    if feature.get("type") == "FeatureCollection":
        raise OutlineError("is a whole collection inside a list of features")
    if feature.get("type") in GEOMETRIES:
        feature = {"type": "Feature", "geometry": feature, "properties": {}}
    properties = feature.get("properties")
    properties = dict(properties) if isinstance(properties, dict) else {}
    label, name = _label_and_name(feature)
    what = describe(index, label, name)
    geometry = feature.get("geometry")
    shape = _geometry(collector, what, geometry)
    members = {key: value for key, value in feature.items() if key not in _KNOWN}
    rest = {key: value for key, value in geometry.items() if key not in ("type", "coordinates", "geometries")}
    if rest:
        members["geometry"] = rest
    raw_id = feature.get("id")
    if raw_id in _OLD_KINDS:
        properties.setdefault("objectType", _OLD_KINDS[raw_id])
    identity = new_id() if raw_id in (None, "", *_OLD_KINDS) else str(raw_id)
    if raw_id is not None and str(raw_id) == identity and not isinstance(raw_id, str):
        members["id"] = raw_id
    if members:
        properties[_MEMBERS] = members
    own = color_of(properties.get("color"))
    collector.add(
        Lesion(
            geometry=shape,
            label=label,
            name=name,
            id=identity,
            color=own or _class_rgb(properties.get("classification")),
            locked=bool(properties.get("isLocked") or properties.get("locked")),
            properties=properties,
        ),
        what,
    )


def _geometry(collector: Collector, what: str, geometry: Any) -> BaseGeometry:
    """A shapely geometry, its unusable parts listed; OutlineError when nothing is left."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in GEOMETRIES:
        raise OutlineError(f"has geometry of type {kind!r}, which GeoJSON doesn't have" if kind else "has no geometry")
    if kind == "GeometryCollection":
        return shapely.GeometryCollection(
            [_geometry(collector, what, part) for part in geometry.get("geometries") or []]
        )
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list | tuple) or not coordinates:
        raise OutlineError("has no points")
    if kind == "Polygon":
        return collector.polygon(what, coordinates[0], coordinates[1:])
    if kind == "MultiPolygon":
        return shapely.MultiPolygon(_parts(collector, what, coordinates))
    if kind == "Point":
        return shapely.Point(points([coordinates])[0])
    if kind == "MultiPoint":
        return shapely.MultiPoint(points(coordinates))
    lines = [points(line) for line in ([coordinates] if kind == "LineString" else coordinates)]
    if min(map(len, lines)) < 2:
        raise OutlineError("is a line of one point")
    return shapely.LineString(lines[0]) if kind == "LineString" else shapely.MultiLineString(lines)


def _parts(collector: Collector, what: str, coordinates: Any) -> list[shapely.Polygon]:
    polygons = []
    reasons = []
    for i, rings in enumerate(coordinates):
        try:
            if not isinstance(rings, list | tuple) or not rings:
                raise OutlineError("has no points")
            polygons.append(collector.polygon(what, rings[0], rings[1:]))
        except OutlineError as error:
            reasons.append((i, error))
    if not polygons:
        raise OutlineError(f"has no usable part: the first one {reasons[0][1]}")
    for i, reason in reasons:
        collector.skip(f"Part {i + 1} of {what}", reason)
    return polygons


def _class_name(classification: Any) -> str:
    if isinstance(classification, str):
        return classification
    if not isinstance(classification, dict):
        return ""
    names = classification.get("names")
    if isinstance(names, list) and not classification.get("name"):
        return ": ".join(str(name) for name in names)
    return str(classification.get("name") or "")


def _class_rgb(classification: Any) -> Rgb | None:
    if not isinstance(classification, dict):
        return None
    return color_of(classification.get("color")) or color_of(classification.get("colorRGB"))


def color_of(value: Any) -> Rgb | None:
    """Colour from [r, g, b], QuPath's signed ARGB integer, or None when it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value >> 16 & 255, value >> 8 & 255, value & 255
    if isinstance(value, list | tuple) and len(value) in (3, 4):
        try:
            r, g, b = (min(255, max(0, int(v))) for v in value[:3])
        except (TypeError, ValueError, OverflowError):
            return None
        return r, g, b
    return None


def signed_rgb(color: Rgb) -> int:
    """QuPath's signed 32-bit ARGB integer of an opaque colour."""
    r, g, b = color
    return (255 << 24 | r << 16 | g << 8 | b) - (1 << 32)


def to_json(lesions: LesionSet) -> dict[str, Any]:
    """A FeatureCollection that QuPath reads, with everything that was read."""
    collection: dict[str, Any] = {"type": "FeatureCollection"}
    collection.update(copy.deepcopy(lesions.meta.get("geojson") or {}))
    ours = {key: value for key, value in lesions.meta.items() if key not in ("geojson", "format")}
    if ours:
        collection["napari_mil"] = ours
    collection["features"] = [_to_feature(lesion) for lesion in lesions]
    return collection


def _to_feature(lesion: Lesion) -> dict[str, Any]:
    properties = copy.deepcopy(dict(lesion.properties))
    members = properties.pop(_MEMBERS, {})
    identity = members.pop("id", lesion.id)
    geometry = {**to_geometry(lesion.geometry), **members.pop("geometry", {})}
    return {
        "type": "Feature",
        "id": identity if str(identity) == lesion.id else lesion.id,
        "geometry": geometry,
        "properties": _to_properties(lesion, properties),
        **members,
    }


def _to_properties(lesion: Lesion, properties: dict[str, Any]) -> dict[str, Any]:
    """What was read, with the lesion's own fields written over it where they differ."""
    properties = {"objectType": "annotation", **properties}
    if lesion.name or properties.get("name"):
        properties["name"] = lesion.name
    if lesion.locked or "isLocked" in properties:
        properties["isLocked"] = lesion.locked
    classification = properties.get("classification")
    if _class_name(classification) != lesion.label:
        properties.pop("classification", None)
        if lesion.label:
            color = lesion.color or class_color(lesion.label)
            properties["classification"] = {"name": lesion.label, "color": list(color)}
    shown = color_of(properties.get("color")) or _class_rgb(properties.get("classification"))
    if lesion.color is None:
        if "color" in properties and color_of(properties["color"]):
            del properties["color"]
    elif lesion.color != shown:
        properties["color"] = list(lesion.color)
    return properties


def to_geometry(geometry: BaseGeometry) -> dict[str, Any]:
    """A GeoJSON geometry with full precision; whole numbers are written as such."""
    kind = geometry.geom_type
    if isinstance(geometry, shapely.Polygon):
        return {"type": kind, "coordinates": _rings(geometry)}
    if isinstance(geometry, shapely.MultiPolygon):
        return {"type": kind, "coordinates": [_rings(part) for part in geometry.geoms]}
    if isinstance(geometry, shapely.GeometryCollection):
        return {"type": kind, "geometries": [to_geometry(part) for part in geometry.geoms]}
    if isinstance(geometry, shapely.MultiLineString):
        return {"type": kind, "coordinates": [_numbers(part) for part in geometry.geoms]}
    if isinstance(geometry, shapely.Point):
        return {"type": kind, "coordinates": _numbers(geometry)[0]}
    if isinstance(geometry, shapely.LinearRing):
        return {"type": "LineString", "coordinates": _numbers(geometry)}
    return {"type": kind, "coordinates": _numbers(geometry)}


def _rings(polygon: shapely.Polygon) -> list[list[list[float]]]:
    return [_numbers(ring) for ring in (polygon.exterior, *polygon.interiors)]


def _numbers(geometry: BaseGeometry) -> list[list[float]]:
    xy = shapely.get_coordinates(geometry)
    whole = np.round(xy)
    if np.array_equal(xy, whole) and np.abs(xy).max(initial=0) < 2**53:
        return [[int(x), int(y)] for x, y in whole.tolist()]
    return [[int(v) if v.is_integer() else v for v in pair] for pair in xy.tolist()]
