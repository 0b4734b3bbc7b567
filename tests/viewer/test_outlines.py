"""Geometry ⇄ vertices: holes survive every edit, crossing outlines never vanish."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from napari_mil.viewer.outlines import (
    Outline,
    ellipse_points,
    join,
    outline_from_vertices,
    outlines_of,
    polygon_of,
)

SQUARE = np.array([[0, 0], [100, 0], [100, 100], [0, 100]], dtype=float)
HOLE = np.array([[20, 20], [40, 20], [40, 40], [20, 40]], dtype=float)
OTHER = np.array([[60, 60], [80, 60], [80, 80]], dtype=float)

coordinates = st.integers(0, 60_000)
points = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=40, unique=True)


def holed(*holes):
    return Outline("a", (SQUARE, *holes))


@pytest.mark.parametrize("holes", [(), (HOLE,), (HOLE, OTHER)])
def test_run_goes_there_and_back(holes):
    outline = holed(*holes)
    again = outline_from_vertices("a", outline.vertices, "polygon")
    assert len(again.rings) == 1 + len(holes)
    assert again.geometry.equals(outline.geometry)
    assert outline.geometry.area == pytest.approx(10_000 - sum(shapely.Polygon(h).area for h in holes))


def test_the_window_triangulates_a_hole_as_a_hole():
    import bermuda

    (triangles, corners), _ = bermuda.triangulate_polygons_with_edge([holed(HOLE, OTHER).vertices])
    a, b, c = (corners[triangles[:, k]] for k in range(3))
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum()
    assert area == pytest.approx(10_000 - 400 - 200, rel=1e-5)


@given(points)
def test_any_outline_gives_valid_polygons_or_nothing(corners):
    shell = np.array(corners, dtype=float)
    geometry = polygon_of(shell)
    assert geometry.is_valid
    assert geometry.geom_type in ("Polygon", "MultiPolygon")
    line = shapely.LinearRing(shell)
    if shapely.Polygon(shell).is_valid:
        assert geometry.equals(shapely.Polygon(shell))
    elif not shapely.polygonize([shapely.union_all(line)]).is_empty:
        assert geometry.area > 0


def test_a_lasso_walked_twice_stays_whole():
    twice = np.vstack([SQUARE, SQUARE + 0.5])
    assert polygon_of(twice).area == pytest.approx(10_000, rel=0.05)
    bow = np.array([[0, 0], [10, 10], [0, 10], [10, 0]], dtype=float)
    assert polygon_of(bow).area == pytest.approx(50)
    assert polygon_of(np.array([[0, 0], [5, 5], [9, 9]], dtype=float)).is_empty
    assert polygon_of(np.array([[0, 0], [np.nan, 5], [9, 0]])).is_empty


@given(points, st.integers(0, 200), st.integers(-50, 50), st.integers(-50, 50))
def test_moving_one_vertex_moves_it_alone(corners, index, dx, dy):
    outline = Outline("a", (np.array(corners, dtype=float),))
    run = outline.vertices.copy()
    place = index % len(run)
    run[place] += (dy, dx)
    moved = outline.moved(run)
    assert np.array_equal(moved.vertices, run)
    others = np.arange(len(run)) != place
    assert np.array_equal(moved.rings[0][others], outline.rings[0][others])
    assert moved is outline if dx == dy == 0 else moved is not outline


@pytest.mark.parametrize("copy", [0, 4, 10])
def test_moving_any_copy_of_a_seam_vertex_moves_them_all(copy):
    outline = holed(HOLE, OTHER)
    assert [outline.slots[i] for i in (0, 4, 10)] == [(0, 0)] * 3
    run = outline.vertices.copy()
    run[copy] = (-7, -3)
    moved = outline.moved(run)
    assert moved.rings[0][0] == pytest.approx((-3, -7))
    assert (moved.vertices[[0, 4, 10]] == (-7, -3)).all()
    assert moved.geometry.is_valid
    assert len(moved.geometry.interiors) == 2


def test_truth_keeps_its_precision_where_nothing_moved():
    ring = np.array([[100_000.123456, 5.1], [100_100.7, 5.2], [100_050.3, 90.9]])
    outline = Outline("a", (ring,))
    run = outline.vertices.copy()
    run[1] += 4
    moved = outline.moved(run)
    assert (moved.rings[0][[0, 2]] == ring[[0, 2]]).all()


def test_inserting_and_removing_vertices():
    outline = holed(HOLE)
    more = outline.inserted(2, np.array([50.0, 101.0]))  # (y, x), between the second and third corner of the shell
    assert len(more.rings[0]) == 5
    assert more.rings[0][2] == pytest.approx((101, 50))
    assert outline.inserted(5, np.array([10.0, 10.0])) is outline  # the seam between shell and hole
    closing = Outline("a", (SQUARE,)).inserted(4, np.array([50.0, -1.0]))
    assert closing.rings[0][-1] == pytest.approx((-1, 50))
    assert len(outline.removed(1).rings[0]) == 3
    three = holed(OTHER)
    filled = three.removed(5)
    assert len(filled.rings) == 1
    triangle = Outline("a", (OTHER,))
    assert triangle.removed(0) is None


def test_ellipse_and_rectangle():
    corners = np.array([[0, 0], [0, 40], [100, 40], [100, 0]], dtype=float)  # (y, x)
    outline = outline_from_vertices("a", corners, "ellipse")
    assert outline.shape_type == "ellipse"
    assert outline.geometry.area == pytest.approx(np.pi * 50 * 20, rel=0.01)
    assert outline.geometry.bounds == pytest.approx((0, 0, 40, 100), abs=1e-9)
    assert len(ellipse_points(corners)) == 64
    assert outline_from_vertices("a", corners, "rectangle").geometry.area == 4000


def test_parts_make_one_lesion():
    two = shapely.MultiPolygon(
        [shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10).difference(shapely.box(22, 2, 25, 5))]
    )
    outlines = outlines_of("a", two)
    assert [len(outline.rings) for outline in outlines] == [1, 2]
    assert join(outlines).equals(two)
    overlapping = outlines_of("a", shapely.box(0, 0, 10, 10)) + outlines_of("a", shapely.box(5, 5, 15, 15))
    assert join(overlapping).area == pytest.approx(175)
