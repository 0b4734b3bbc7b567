"""The grid and the one place where slide pixels become micrometres."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_mil.geometry import PatchGrid, level0_to_world, raster_transform, world_to_level0

mpps = st.tuples(st.floats(0.05, 20), st.floats(0.05, 20))
pixels = st.integers(-(2**40), 2**40)
points = hnp.arrays(np.float64, st.tuples(st.integers(0, 20), st.just(2)), elements=st.floats(-1e6, 1e6))
sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096))


def test_the_centre_of_the_first_pixel_is_the_origin_of_the_world() -> None:
    assert level0_to_world([0.5, 0.5], (0.25, 0.5)).tolist() == [0.0, 0.0]
    assert level0_to_world([10.5, 20.5], (0.25, 0.5)).tolist() == [10.0, 2.5]  # (y, x): 20 × 0.5, 10 × 0.25


@given(points, mpps)
def test_world_and_level0_are_inverse(xy: np.ndarray, mpp: tuple[float, float]) -> None:
    there = level0_to_world(xy, mpp)
    assert there.shape == xy.shape
    np.testing.assert_allclose(world_to_level0(there, mpp), xy, atol=1e-6, rtol=1e-12)


@given(st.tuples(pixels, pixels), st.tuples(st.floats(0.5, 5000), st.floats(0.5, 5000)), mpps)
def test_a_raster_lies_on_what_it_covers(
    origin: tuple[int, int], cell: tuple[float, float], mpp: tuple[float, float]
) -> None:
    """The edges of a raster's pixels, drawn by napari half a scale around its centres, are the slide's own."""
    scale, translate = raster_transform(origin, cell, mpp)
    first_corner = np.array(translate) - np.array(scale) / 2
    np.testing.assert_allclose(world_to_level0(first_corner, mpp), origin, atol=1e-3, rtol=1e-12)
    third_corner = np.array(translate) + np.array(scale) * 2.5
    np.testing.assert_allclose(
        world_to_level0(third_corner, mpp), np.add(origin, np.multiply(cell, 3)), rtol=1e-9, atol=1e-3
    )


def test_a_level_of_an_odd_downsample_is_placed_to_a_millionth_of_a_micrometre() -> None:
    scale, translate = raster_transform((0, 0), 3.9998, 0.2525)
    assert scale == pytest.approx((3.9998 * 0.2525,) * 2, abs=1e-12)
    assert translate == pytest.approx(((3.9998 - 1) / 2 * 0.2525,) * 2, abs=1e-9)


@given(st.lists(st.tuples(pixels, pixels), max_size=12), sizes, sizes, mpps)
def test_a_grid_keeps_what_it_is_given(
    coords: list[tuple[int, int]], patch: tuple[int, int], stride: tuple[int, int], mpp: tuple[float, float]
) -> None:
    grid = PatchGrid(coords, patch, stride, mpp)
    assert len(grid) == len(coords)
    assert grid.coords.dtype == np.int64
    assert grid.coords.shape == (len(coords), 2)
    np.testing.assert_array_equal(grid.boxes[:, 2:] - grid.boxes[:, :2], np.broadcast_to(patch, (len(coords), 2)))
    np.testing.assert_array_equal(grid.centers * 2, grid.boxes[:, :2] + grid.boxes[:, 2:])
    assert grid == PatchGrid(grid.coords, patch, stride, mpp)
    assert grid.select(np.arange(len(grid))) == grid


@given(st.tuples(st.integers(0, 30), st.integers(0, 30)), st.integers(1, 40), st.integers(1, 40))
def test_the_patch_under_a_point_covers_it_and_is_the_nearest(at: tuple[int, int], patch: int, stride: int) -> None:
    y, x = np.mgrid[0:5, 0:5] * stride
    grid = PatchGrid(np.column_stack([x.ravel(), y.ravel()]), patch, stride, 0.5)
    found = grid.patch_at(at[0] + 0.25, at[1] + 0.25)
    covering = [i for i, (x0, y0, x1, y1) in enumerate(grid.boxes) if x0 <= at[0] < x1 and y0 <= at[1] < y1]
    if not covering:
        assert found is None
        return
    distance = np.abs(grid.centers - np.array(at) - 0.25).sum(axis=1)
    assert found in covering
    assert distance[found] == distance[covering].min()


def test_the_grid_is_its_own() -> None:
    """Nobody changes a grid from outside: a features file and a map rely on it."""
    mine = np.array([[0, 0], [224, 0]])
    grid = PatchGrid(mine, 224, 224, 0.5)
    mine[0, 0] = 7
    assert grid.coords[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.coords[0, 0] = 1
    with pytest.raises(AttributeError):
        grid.mpp = (1.0, 1.0)  # type: ignore[misc]


def test_two_grids_differ_in_whatever_differs() -> None:
    base = ([[0, 0]], 224, 112, (0.5, 0.25))
    grid = PatchGrid(*base)
    assert grid.patch_um == (112.0, 56.0)
    for i, other in enumerate([[[0, 1]], 225, 111, 0.5]):
        changed = [*base]
        changed[i] = other
        assert PatchGrid(*changed) != grid
    assert grid != "grid"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (([[0, 0, 0]], 224, 224, 0.5), r"shape \(1, 3\)"),
        (([[0.5, 0]], 224, 224, 0.5), "not whole level-0 pixels"),
        (([[0, 0]], 0, 224, 0.5), "patch_px_level0"),
        (([[0, 0]], 224, 10.5, 0.5), "stride_px_level0"),
        (([[0, 0]], 224, float("nan"), 0.5), "stride_px_level0"),
        (([[0, 0]], 224, 224, 0), "mpp"),
        (([[0, 0]], 224, 224, (0.5, float("inf"))), "mpp"),
    ],
)
def test_nonsense_is_named(arguments: tuple, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        PatchGrid(*arguments)


def test_no_patch_is_a_grid_too() -> None:
    grid = PatchGrid([], 224, 224, 0.5)
    assert grid.boxes.shape == (0, 4)
    assert grid.patch_at(3, 3) is None
