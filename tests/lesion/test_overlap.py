"""Shares of patches: exact against GEOS's intersection, also along patch borders."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.geometry import PatchGrid
from napari_mil.lesion import overlap_fractions
from napari_mil.lesion.model import polygonal
from napari_mil.lesion.overlap import overlaps

from .strategies import polygons


def by_geos(region: shapely.Geometry, grid: PatchGrid) -> np.ndarray:
    """Shares (N,) by constructing every intersection."""
    boxes = shapely.box(*grid.boxes.T.astype(float))
    return shapely.area(shapely.intersection(region, boxes)) / shapely.area(boxes)


def lattice(n: int, patch: int | tuple[int, int], stride: int | tuple[int, int], start: int = 0) -> PatchGrid:
    """n × n patches."""
    x, y = np.meshgrid(np.arange(n), np.arange(n))
    coords = np.column_stack([x.ravel(), y.ravel()]) * np.broadcast_to(stride, 2) + start
    return PatchGrid(coords, patch, stride, 0.5)


corners = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3, max_size=9)


@settings(max_examples=150, deadline=None)
@given(corners, st.tuples(st.integers(1, 5), st.integers(1, 5)), st.integers(-3, 3))
def test_whole_number_outlines_along_patch_borders(
    points: list[tuple[int, int]], patch: tuple[int, int], start: int
) -> None:
    region = polygonal(shapely.Polygon(points))
    grid = lattice(6, patch, 2, start)
    np.testing.assert_allclose(overlap_fractions(region, grid), by_geos(region, grid), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(polygons(), st.integers(50, 700), st.integers(30, 500))
def test_any_polygon_with_holes(polygon: shapely.Polygon, patch: int, stride: int) -> None:
    left, top, *_ = polygon.bounds
    grid = lattice(8, patch, stride)
    grid = PatchGrid(grid.coords + np.array([int(left) - 100, int(top) - 100]), patch, stride, 0.5)
    np.testing.assert_allclose(overlap_fractions(polygon, grid), by_geos(polygon, grid), atol=1e-9)


def test_shares_of_a_partition_add_up_to_the_area() -> None:
    angle = np.linspace(0, 2 * np.pi, 5001)[:-1]
    radius = 900 + 80 * np.sin(40 * angle)
    blob = shapely.Polygon(np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None] + 1000)
    grid = lattice(20, 100, 100)
    assert overlap_fractions(blob, grid).sum() * 100**2 == pytest.approx(blob.area, rel=1e-12)


def test_many_edges_take_the_question_first() -> None:
    """Above a thousand vertices patches beside the polygon are left out before the sum; nothing may change."""
    angle = np.linspace(0, 2 * np.pi, 3001)[:-1]
    shell = np.column_stack([np.cos(angle), np.sin(angle)]) * 900 + 1000
    ring = shapely.Polygon(shell, [(shell - 1000) * 0.8 + 1000])
    grid = lattice(40, 50, 50)
    np.testing.assert_allclose(overlap_fractions(ring, grid), by_geos(ring, grid), atol=1e-12)


def test_nothing_to_do() -> None:
    assert overlap_fractions(shapely.Polygon(), lattice(2, 5, 5)).tolist() == [0, 0, 0, 0]
    assert len(overlap_fractions(shapely.box(0, 0, 1, 1), PatchGrid(np.zeros((0, 2)), 5, 5, 0.5))) == 0
    assert len(overlaps([], lattice(2, 5, 5)).area) == 0


def test_pairs_are_kept_apart() -> None:
    found = overlaps([shapely.box(0, 0, 5, 5), shapely.box(0, 0, 10, 2)], lattice(2, 5, 5))
    pairs = {(int(p), int(b)): a for p, b, a in zip(found.polygon, found.patch, found.area, strict=True)}
    assert pairs == pytest.approx({(0, 0): 25, (1, 0): 10, (1, 1): 10})
