"""Rings for a drawing layer, and edited rings brought back."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import LesionError
from napari_mil.lesion import Lesion, LesionSet, keyhole, to_shapes, with_exterior

from .strategies import polygons

HOLED = shapely.Polygon(
    shapely.box(0, 0, 100, 100).exterior,
    [shapely.box(20, 20, 40, 40).exterior, shapely.box(60, 20, 80, 40).exterior, shapely.box(20, 60, 80, 80).exterior],
)


def shoelace(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def check(polygon: shapely.Polygon) -> None:
    """The keyhole ring fills like the polygon and gives it back."""
    ring = keyhole(polygon)
    points = shapely.get_num_coordinates(polygon) - 1 - len(polygon.interiors)
    assert len(ring) == points + 3 * len(polygon.interiors) - len(polygon.interiors)
    assert shoelace(ring - ring[0]) == pytest.approx(polygon.area, rel=1e-9)
    edges = shapely.linestrings(np.stack([ring, np.roll(ring, -1, axis=0)], axis=1))
    assert shapely.covers(polygon.buffer(1e-6), edges).all()
    back = with_exterior(Lesion(shapely.box(0, 0, 1, 1)), ring).geometry
    assert back.symmetric_difference(polygon).area <= 1e-6 * polygon.area
    assert isinstance(back, shapely.Polygon)
    assert len(back.interiors) == len(polygon.interiors)


def test_keyhole_of_holes_beside_each_other() -> None:
    check(HOLED)
    assert len(keyhole(shapely.box(0, 0, 1, 1))) == 4


@settings(max_examples=60, deadline=None)
@given(polygons())
def test_keyhole_of_anything(polygon: shapely.Polygon) -> None:
    check(polygon)


def test_keyhole_of_a_hundred_holes() -> None:
    x, y = np.meshgrid(np.arange(10), np.arange(10))
    holes = shapely.box(x * 10 + 2, y * 10 + 2, x * 10 + 8, y * 10 + 8).ravel()
    check(shapely.Polygon(shapely.box(0, 0, 100, 100).exterior, [hole.exterior for hole in holes]))


def test_keyhole_of_a_hole_that_touches_the_outside() -> None:
    touching = shapely.Polygon([(0, 0), (10, 0), (10, 10), (0, 10)], [[(0, 5), (4, 3), (4, 7)]])
    assert touching.is_valid
    ring = keyhole(touching)
    assert shoelace(ring) == pytest.approx(touching.area)


def test_shapes_of_parts_lines_and_points() -> None:
    parts = Lesion(shapely.MultiPolygon([shapely.box(0, 0, 1, 1), HOLED]))
    line = Lesion(shapely.LineString([(0, 0), (5, 5)]))
    point = Lesion(shapely.Point(3, 4))
    outlines = to_shapes(LesionSet([parts, line, point]))
    assert [(o.lesion_id, o.part, o.kind) for o in outlines] == [
        (parts.id, 0, "polygon"),
        (parts.id, 1, "polygon"),
        (line.id, 0, "path"),
        (point.id, 0, "points"),
    ]
    assert outlines[3].points.tolist() == [[3, 4]]


class TestEdited:
    def test_moving_takes_the_holes_along(self) -> None:
        lesion = Lesion(shapely.MultiPolygon([shapely.box(500, 0, 510, 10), HOLED]))
        moved = with_exterior(lesion, keyhole(HOLED) + (7.25, -3), part=1)
        expected = shapely.transform(HOLED, lambda xy: xy + (7.25, -3))
        assert moved.geometry.geoms[0].equals_exact(shapely.box(500, 0, 510, 10))
        assert moved.geometry.geoms[1].equals_exact(expected)
        assert moved.id == lesion.id
        by_outer = with_exterior(Lesion(HOLED), shapely.get_coordinates(HOLED.exterior) + (1, 1))
        assert by_outer.geometry.equals(shapely.transform(HOLED, lambda xy: xy + 1))

    def test_unchanged_stays_the_same(self) -> None:
        lesion = Lesion(HOLED)
        assert with_exterior(lesion, keyhole(HOLED)).geometry is lesion.geometry

    def test_rounding_of_a_layer_is_no_edit(self) -> None:
        far = shapely.transform(HOLED, lambda xy: xy + (81234.567, 40321.123))
        lesion = Lesion(far)
        assert with_exterior(lesion, keyhole(far).astype(np.float32)).geometry is far
        moved = with_exterior(lesion, (keyhole(far) + 50).astype(np.float32)).geometry
        assert moved.area == pytest.approx(far.area, rel=1e-9)
        assert moved.centroid.x == pytest.approx(far.centroid.x + 50, abs=0.02)

    def test_scaling_keeps_the_holes(self) -> None:
        bigger = with_exterior(Lesion(HOLED), keyhole(HOLED) * 1.7)
        assert bigger.geometry.area == pytest.approx(HOLED.area * 1.7**2)
        assert len(bigger.geometry.interiors) == 3

    @pytest.mark.parametrize("vertex", range(4))
    def test_dragging_a_corner_leaves_the_holes(self, vertex: int) -> None:
        ring = keyhole(HOLED)
        corner = shapely.get_coordinates(HOLED.exterior)[vertex]
        index = int(np.flatnonzero((ring == corner).all(axis=1))[0])
        ring[index] += np.sign(corner - 50) * 30
        edited = with_exterior(Lesion(HOLED), ring)
        assert len(edited.geometry.interiors) == 3
        assert edited.geometry.area == pytest.approx(HOLED.area + 2 * 100 * 30 / 2)

    def test_dragging_the_foot_of_a_bridge_opens_no_slit(self) -> None:
        ring = keyhole(HOLED)
        _, first, count = np.unique(ring, axis=0, return_index=True, return_counts=True)
        for index in first[count > 1]:
            new = ring.copy()
            new[index] += (1.5, 1)
            edited = with_exterior(Lesion(HOLED), new).geometry
            assert isinstance(edited, shapely.Polygon)
            assert len(edited.interiors) == 3

    def test_crossing_edits_are_repaired(self) -> None:
        edited = with_exterior(Lesion(shapely.box(0, 0, 10, 10)), [(0, 0), (10, 10), (10, 0), (0, 10)])
        assert edited.geometry.is_valid
        assert edited.geometry.area == pytest.approx(50)

    def test_parts_that_meet_are_merged(self) -> None:
        lesion = Lesion(shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10)]))
        edited = with_exterior(lesion, shapely.get_coordinates(shapely.box(5, 0, 30, 10)), part=1)
        assert edited.geometry.is_valid
        assert edited.geometry.equals(shapely.box(0, 0, 30, 10))

    def test_points_beside_an_area_stay(self) -> None:
        lesion = Lesion(shapely.GeometryCollection([shapely.box(0, 0, 10, 10), shapely.Point(50, 50)]))
        edited = with_exterior(lesion, [(0, 0), (20, 0), (20, 10), (0, 10)])
        assert edited.area_geometry.area == 200
        assert shapely.get_num_geometries(edited.geometry) == 2

    @pytest.mark.parametrize(
        "ring", [[(0, 0), (1, 1)], [(0, 0), (1, 1), (2, 2)], [(0, 0), (np.nan, 1), (2, 0)], [1, 2]]
    )
    def test_no_area_is_refused(self, ring: object) -> None:
        with pytest.raises(LesionError, match="Undo the edit"):
            with_exterior(Lesion(HOLED), ring)
        with pytest.raises(LesionError, match="1 part"):
            with_exterior(Lesion(HOLED), keyhole(HOLED), part=1)


@settings(max_examples=30, deadline=None)
@given(polygons(), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_any_move_is_exact(polygon: shapely.Polygon, dx: float, dy: float) -> None:
    moved = with_exterior(Lesion(polygon), keyhole(polygon) + (dx, dy)).geometry
    expected = shapely.transform(polygon, lambda xy: xy + (dx, dy))
    assert moved.equals_exact(expected, 1e-6)
