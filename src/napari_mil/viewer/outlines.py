"""Lesion geometry ⇄ the vertices of one napari shape, holes included.

A shape is one run of vertices. A polygon with holes runs round its shell, back to the shell's first vertex, round the
first hole, back to the shell's first vertex, and so on: each seam is walked there and back, and the triangulation
drops edges that are walked twice. Where a vertex stands more than once in the run, `slots` says so, and moving one of
its copies moves them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

Points = npt.NDArray[np.float64]
ELLIPSE_POINTS = 64


@dataclass(frozen=True, eq=False)
class Outline:
    """One shape of the layer: a part of a lesion.

    Parameters
    ----------
    lesion_id : str
    rings : tuple of (n, 2) float arrays
        (x, y) in level-0 pixels, not closed; the shell first, then the holes. An ellipse has its box's four corners.
    shape_type : str
        "polygon", "rectangle" or "ellipse", as napari calls them.
    """

    lesion_id: str
    rings: tuple[Points, ...]
    shape_type: str = "polygon"

    @cached_property
    def slots(self) -> list[tuple[int, int]]:
        """Ring and place in it of each vertex of the run."""
        if len(self.rings) == 1:
            return [(0, k) for k in range(len(self.rings[0]))]
        run = [*((0, k) for k in range(len(self.rings[0]))), (0, 0)]
        for number, ring in enumerate(self.rings[1:], start=1):
            run += [*((number, k) for k in range(len(ring))), (number, 0)]
            if number < len(self.rings) - 1:
                run.append((0, 0))
        return run

    @cached_property
    def vertices(self) -> npt.NDArray[np.float32]:
        """(m, 2) run of vertices as (y, x), in the precision napari keeps."""
        return np.array([self.rings[r][k][::-1] for r, k in self.slots], dtype=np.float32)

    @property
    def geometry(self) -> BaseGeometry:
        """Valid polygon or polygons, in level-0 (x, y); empty when the outline has no area."""
        shell = ellipse_points(self.rings[0]) if self.shape_type == "ellipse" else self.rings[0]
        return polygon_of(shell, self.rings[1:])

    def moved(self, vertices: npt.NDArray[np.floating]) -> Outline:
        """The outline after some of its vertices moved, their number unchanged."""
        changed = np.flatnonzero((vertices.astype(np.float32) != self.vertices).any(axis=1))
        if len(changed) == 0:
            return self
        rings = [ring.copy() for ring in self.rings]
        for index in changed:
            ring, place = self.slots[index]
            rings[ring][place] = vertices[index][::-1]
        return replace(self, rings=tuple(rings))

    def inserted(self, index: int, vertex: npt.NDArray[np.floating]) -> Outline:
        """The outline with a vertex (y, x) put before `index` of the run; unchanged where that is a seam."""
        before, after = self.slots[index - 1], self.slots[index % len(self.slots)]
        ring, place = before
        if after != (ring, (place + 1) % len(self.rings[ring])):
            return self
        return self._with_ring(ring, np.insert(self.rings[ring], place + 1, vertex[::-1], axis=0))

    def removed(self, index: int) -> Outline | None:
        """The outline without vertex `index` of the run; a hole left with two is filled, a shell so left is None."""
        ring, place = self.slots[index]
        points = np.delete(self.rings[ring], place, axis=0)
        if len(points) >= 3:
            return self._with_ring(ring, points)
        if ring == 0:
            return None
        return replace(self, rings=tuple(r for n, r in enumerate(self.rings) if n != ring))

    def _with_ring(self, number: int, points: Points) -> Outline:
        rings = tuple(points if n == number else ring for n, ring in enumerate(self.rings))
        return replace(self, rings=rings, shape_type="polygon")


def polygon_of(shell: Points, holes: Iterable[Points] = ()) -> BaseGeometry:
    """Polygon of a shell and holes; what a self-crossing outline encloses is filled, so that it never vanishes."""
    polygon = _ring_area(shell)
    if polygon.is_empty:
        return polygon
    inner = [hole for hole in holes if len(hole) >= 3]
    if not inner:
        return polygon
    whole = Polygon(shell, inner)
    if whole.is_valid:
        return whole
    return polygonal(polygon.difference(unary_union([_ring_area(hole) for hole in inner])))


def _ring_area(ring: Points) -> BaseGeometry:
    if len(ring) < 3 or not np.isfinite(ring).all():
        return Polygon()
    polygon = Polygon(ring)
    if polygon.is_valid:
        return polygon if polygon.area > 0 else Polygon()
    noded = unary_union(LineString(np.vstack([ring, ring[:1]])))
    return polygonal(unary_union(list(shapely.polygonize([noded]).geoms)))


def polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """Only the polygons of a geometry, as a Polygon, a MultiPolygon, or an empty Polygon."""
    parts = [
        part for part in shapely.get_parts(shapely.get_parts(geometry)) if isinstance(part, Polygon) and part.area > 0
    ]
    if not parts:
        return Polygon()
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def ellipse_points(corners: Points) -> Points:
    """(64, 2) points of the ellipse inscribed in a box given by four corners in turn."""
    center = corners.mean(axis=0)
    first, second = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_POINTS, endpoint=False)[:, None]
    return np.asarray(center + np.cos(angle) * first + np.sin(angle) * second, dtype=np.float64)


def outlines_of(lesion_id: str, geometry: BaseGeometry) -> list[Outline]:
    """The outlines that show a lesion's geometry, one for each of its parts."""
    found = []
    for polygon in shapely.get_parts(geometry):
        if not isinstance(polygon, Polygon) or polygon.is_empty:
            continue
        rings = tuple(shapely.get_coordinates(ring)[:-1] for ring in (polygon.exterior, *polygon.interiors))
        found.append(Outline(lesion_id, rings))
    return found


def outline_from_vertices(lesion_id: str, vertices: npt.NDArray[np.floating], shape_type: str) -> Outline:
    """Outline of a shape that someone drew, pasted or added; (m, 2) vertices as (y, x)."""
    points = np.asarray(vertices, dtype=np.float64)[:, ::-1]
    if shape_type == "ellipse" and len(points) == 4:
        return Outline(lesion_id, (points,), "ellipse")
    kind = "rectangle" if shape_type == "rectangle" and len(points) == 4 else "polygon"
    return Outline(lesion_id, _rings_of_run(points), kind)


def _rings_of_run(points: Points) -> tuple[Points, ...]:
    rings: list[Points] = []
    start = 0
    while start < len(points):
        again = np.flatnonzero((points[start + 1 :] == points[start]).all(axis=1))
        stop = len(points) if len(again) == 0 else start + 1 + int(again[0])
        rings.append(points[start:stop])
        start = stop + 1
        if start < len(points) and (points[start] == rings[0][0]).all():
            start += 1  # the way back to the shell before the next hole
    if any(len(ring) < 3 for ring in rings):
        return (points,)
    return tuple(rings)


def join(outlines: Iterable[Outline]) -> BaseGeometry:
    """Geometry of a lesion from the outlines of its parts."""
    parts = [outline.geometry for outline in outlines]
    if len(parts) == 1:
        return parts[0]
    polygons = [polygon for part in parts for polygon in shapely.get_parts(part) if not polygon.is_empty]
    together = MultiPolygon(polygons)
    return together if together.is_valid else polygonal(unary_union(polygons))
