"""Digital Slide Archive / HistomicsUI JSON: elements, wrapped as ``{"annotation": {...}}`` or in a list.

Angles are radians that turn the image's x axis towards its y axis (y down), as HistomicsUI draws them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from napari_mil.errors import LesionError

from .classes import Rgb
from .model import Lesion, LesionSet, flat_parts, new_id
from .parts import Collector, OutlineError, Points, describe, points, polygons_of
from .xml import rgb_of_hex

_CURVE_POINTS = 128


def looks_like(data: Any) -> bool:
    """Whether parsed JSON is of this kind."""
    return next(_documents(data), None) is not None


def _documents(data: Any) -> Iterator[dict[str, Any]]:
    """The annotation documents in whatever wraps them."""
    if isinstance(data, list):
        for item in data:
            yield from _documents(item)
    elif isinstance(data, dict):
        if isinstance(data.get("elements"), list):
            yield data
        else:
            yield from _documents(data.get("annotation"))


def from_json(data: Any, where: str) -> LesionSet:
    """Objects of parsed JSON; `where` names the file in errors."""
    collector = Collector()
    index = 0
    for document in _documents(data):
        for element in document["elements"]:
            if not isinstance(element, dict):
                raise LesionError(
                    f"{where}: an element of {document.get('name', 'the annotation')!r} is no object; expected type, "
                    "points and so on. Export the annotation again."
                )
            _element(collector, index, element, str(document.get("name") or ""))
            index += 1
    return collector.finish(format="dsa")


def _element(collector: Collector, index: int, element: dict[str, Any], document: str) -> None:
    value = element.get("label")
    name = str(value.get("value") or "") if isinstance(value, dict) else str(value or "")
    group = str(element.get("group") or "")
    user = element.get("user")
    ours = str(user.get("lesion_id") or "") if isinstance(user, dict) else ""
    label = group if group or ours else name or document
    what = describe(index, label, name if name != label else "")
    try:
        geometry = _geometry(collector, what, element)
    except OutlineError as error:
        collector.skip(what, error)
        return
    known = {"type", "points", "holes", "center", "width", "height", "rotation", "radius", "closed", "id"}
    properties = {"dsa": {key: value for key, value in element.items() if key not in known}}
    color = _rgb(element.get("lineColor")) or _rgb(element.get("fillColor"))
    identity = ours or str(element.get("id") or new_id())
    if ours and collector.extend(identity, geometry):
        return
    name = name if group or ours else ""  # otherwise it has become the class
    collector.add(Lesion(geometry, label=label, name=name, id=identity, color=color, properties=properties), what)


def _geometry(collector: Collector, what: str, element: dict[str, Any]) -> BaseGeometry:
    kind = element.get("type")
    if kind == "polyline" and element.get("closed"):
        return collector.polygon(what, element.get("points") or [], element.get("holes") or [])
    if kind in ("polyline", "arrow"):
        xy = points(element.get("points") or [])
        if len(xy) < 2:
            raise OutlineError("is a line of one point")
        return shapely.LineString(xy)
    if kind == "point":
        return shapely.Point(points([element.get("center") or []])[0])
    if kind == "rectangle":
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
        return shapely.Polygon(_placed(element, corners, element.get("width"), element.get("height")))
    angle = np.linspace(0, 2 * np.pi, _CURVE_POINTS, endpoint=False)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    if kind == "circle":
        return shapely.Polygon(_placed(element, circle, element.get("radius"), element.get("radius")))
    if kind == "ellipse":
        return shapely.Polygon(_placed(element, circle / 2, element.get("width"), element.get("height")))
    raise OutlineError(f"is of type {kind!r}, which is no outline")


def _placed(element: dict[str, Any], unit: Points, width: Any, height: Any) -> Points:
    """A unit shape (n, 2) sized, turned and moved to the element's centre."""
    center = points([element.get("center") or []])[0]
    try:
        size = np.array([width, height], dtype=float)
        angle = float(element.get("rotation") or 0)
    except (TypeError, ValueError):
        raise OutlineError("has a size or rotation that is no number") from None
    if not (np.isfinite(size).all() and (size > 0).all() and np.isfinite(angle)):
        raise OutlineError("has no size")
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    placed: Points = (unit * size) @ turn + center
    return placed


def _rgb(text: Any) -> Rgb | None:
    """Colour of "#rrggbb", "rgb(r, g, b)" or "rgba(r, g, b, a)"; None when invisible or something else."""
    if not isinstance(text, str):
        return None
    if text.startswith("#") and len(text) == 4:
        text = "#" + "".join(2 * digit for digit in text[1:])
    numbers = re.findall(r"[\d.]+", text) if text.startswith("rgb") else []
    if len(numbers) == 4 and float(numbers[3]) == 0:
        return None
    if len(numbers) >= 3:
        r, g, b = (min(255, round(float(v))) for v in numbers[:3])
        return r, g, b
    return rgb_of_hex(text[:7])


def to_json(lesions: LesionSet) -> tuple[dict[str, Any], list[str]]:
    """The document, each part of an object an element of its own, and a sentence for what it cannot hold."""
    elements: list[dict[str, Any]] = []
    for lesion in lesions:
        common = {
            **dict(lesion.properties.get("dsa") or {}),
            "group": lesion.label,
            "label": {"value": lesion.name},
            "lineColor": "rgb({}, {}, {})".format(*lesion.shown_color),
            "user": {"lesion_id": lesion.id},
        }
        for polygon in polygons_of(lesion.geometry):
            shell, *holes = (_xyz(ring) for ring in (polygon.exterior, *polygon.interiors))
            elements.append({**common, "type": "polyline", "closed": True, "points": shell, "holes": holes})
        for part in flat_parts(lesion.geometry):
            if part.is_empty or part.geom_type == "Polygon":
                continue
            if part.geom_type == "Point":
                elements.append({**common, "type": "point", "center": _xyz(part)[0]})
            else:
                elements.append({**common, "type": "polyline", "closed": False, "points": _xyz(part)})
    return {"name": "napari-mil", "description": "", "elements": elements}, []


def _xyz(geometry: BaseGeometry) -> list[list[float]]:
    xy = shapely.get_coordinates(geometry)
    if geometry.geom_type == "LinearRing":
        xy = xy[:-1]
    return [[x, y, 0.0] for x, y in xy.tolist()]
