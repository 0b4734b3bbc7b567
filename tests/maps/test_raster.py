"""Where each pixel of a map lies, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import MilError
from napari_mil.geometry import PatchGrid, level0_to_world
from napari_mil.maps import attention_map, cells_of, normalise, patch_table, patch_values
from napari_mil.maps import raster as raster_module


def lattice(rows: int, cols: int, stride: tuple[int, int], origin: tuple[int, int] = (0, 0)) -> np.ndarray:
    y, x = np.mgrid[:rows, :cols]
    return np.stack([x.ravel(), y.ravel()], axis=1) * np.array(stride) + np.array(origin)


def pixel_centres_um(amap) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(rows, cols, 2) world (y, x) of the pixel centres, as napari places them."""
    rows, cols = amap.data.shape
    index = np.stack(np.mgrid[:rows, :cols], axis=-1)
    return index * np.array(amap.scale) + np.array(amap.translate)


strides = st.tuples(st.integers(1, 700), st.integers(1, 700))
mpps = st.tuples(st.floats(0.05, 20), st.floats(0.05, 20))


@given(
    rows=st.integers(1, 6),
    cols=st.integers(1, 6),
    stride=strides,
    patch=strides,
    origin=st.tuples(st.integers(-10, 200_000), st.integers(0, 200_000)),
    mpp=mpps,
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_single_lattice_pixels_are_on_their_cells_and_mean_over_covering_patches(
    rows, cols, stride, patch, origin, mpp, seed
) -> None:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(seed)
    coords = lattice(rows, cols, stride, origin)
    coords = coords[generator.random(len(coords)) < 0.7]
    if len(coords) == 0:
        return
    coords = coords[generator.permutation(len(coords))]
    grid = PatchGrid(coords, patch, stride, mpp)
    scores = generator.normal(size=len(coords))
    amap = attention_map(grid, scores)
    centres = pixel_centres_um(amap)
    assert amap.data.dtype == np.float32
    assert amap.bound_um == 0
    assert amap.cell_px_level0 == stride
    covered = np.zeros(amap.data.shape, dtype=bool)
    for (x, y), _ in zip(coords, scores, strict=True):
        cell = (np.array([x, y]) - coords.min(axis=0)) // stride
        centre = np.array([x, y]) + np.array(stride) / 2
        np.testing.assert_allclose(centres[cell[1], cell[0]], level0_to_world(centre, mpp), atol=1e-6, rtol=0)
    for r, c in np.ndindex(amap.data.shape):
        twice = 2 * coords.min(axis=0) + (2 * np.array([c, r]) + 1) * np.array(stride)  # the cell's centre, doubled
        inside = ((2 * coords <= twice) & (twice < 2 * (coords + np.array(patch)))).all(axis=1)
        own = (coords == coords.min(axis=0) + np.array([c, r]) * np.array(stride)).all(axis=1)
        # along one axis a patch narrower than half a cell still has its own cell
        first = coords.min(axis=0) + np.array([c, r]) * np.array(stride)
        narrow = np.array(patch) <= np.array(stride) / 2
        along = ((2 * coords <= twice) & (twice < 2 * (coords + np.array(patch)))) | (narrow & (coords == first))
        use = inside | own | along.all(axis=1)
        covered[r, c] = use.any()
        if use.any():
            assert amap.data[r, c] == pytest.approx(scores[use].mean(), rel=1e-5, abs=1e-6)
    np.testing.assert_array_equal(~np.isnan(amap.data), covered)


@given(seed=st.integers(0, 500), contours=st.integers(2, 4), patch=st.integers(16, 512))
@settings(max_examples=30, deadline=None)
def test_several_lattices_keep_each_patch_within_half_a_cell(seed: int, contours: int, patch: int) -> None:
    generator = np.random.default_rng(seed)
    parts, left = [], 0
    for _ in range(contours):  # contours side by side, each with a lattice of its own, no overlap between them
        part = lattice(
            3, 3, (patch, patch), (left + int(generator.integers(patch)), int(generator.integers(5 * patch)))
        )
        parts.append(part)
        left = int(part[:, 0].max()) + patch
    coords = np.concatenate(parts)
    grid = PatchGrid(coords, patch, patch, 0.25)
    scores = generator.normal(size=len(coords))
    amap = attention_map(grid, scores)
    cell = np.array(amap.cell_px_level0)
    assert (cell <= patch).all()
    assert amap.bound_um <= cell.max() / 2 * 0.25 + 1e-9
    np.testing.assert_allclose(amap.at(grid.centers), scores, rtol=1e-5)
    centres = pixel_centres_um(amap).reshape(-1, 2)
    for corner in coords:  # the centre of some cell lies where the patch's first cell should be, within the bound
        wanted = level0_to_world(corner + cell / 2, 0.25)
        assert np.abs(centres - wanted).max(axis=1).min() <= amap.bound_um + 1e-6


def test_rounded_lattice_of_a_fractional_downsample_stays_one_pixel_per_patch() -> None:
    steps = np.round(np.arange(50) * 224 * 3.9998 / 2).astype(int)  # drifts by 2 px over the slide
    x, y = np.meshgrid(steps, steps)
    grid = PatchGrid(np.stack([x.ravel(), y.ravel()], axis=1), 448, 448, 0.25)
    amap = attention_map(grid, np.arange(2500.0))
    assert amap.data.shape == (50, 50)
    assert 0 < amap.bound_um <= 3 * 0.25
    np.testing.assert_array_equal(amap.data.ravel(), np.arange(2500, dtype=np.float32))


def test_common_divisor_of_two_lattices_is_exact() -> None:
    grid = PatchGrid([[0, 0], [448, 0], [112, 448]], 448, 448, 0.5)
    amap = attention_map(grid, [1, 2, 3])
    assert amap.cell_px_level0 == (112, 448)
    assert amap.bound_um == 0
    np.testing.assert_array_equal(amap.data[1], [np.nan, 3, 3, 3, 3, np.nan, np.nan, np.nan])


def test_nan_scores_stay_nan_whatever_the_normalisation() -> None:
    grid = PatchGrid(lattice(1, 4, (10, 10)), 10, 10, 1)
    for kind in ("raw", "softmax", "percentile", "rank"):
        data = attention_map(grid, [1.0, np.nan, 3.0, 2.0], normalisation=kind).data  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.isnan(data), [[False, True, False, False]])
    overlapping = PatchGrid(lattice(1, 3, (10, 10)), 20, 10, 1)
    np.testing.assert_array_equal(
        np.isnan(attention_map(overlapping, [1.0, np.nan, 3.0]).data[0]), [False, True, True, False]
    )


def test_normalisations() -> None:
    scores = np.array([2.0, -1.0, 2.0, 700.0])
    np.testing.assert_array_equal(normalise(scores, "raw"), scores)
    soft = normalise(scores, "softmax")
    assert soft.sum() == pytest.approx(1)
    assert soft[3] == pytest.approx(1)
    np.testing.assert_array_equal(normalise(scores, "rank"), [2.5, 1, 2.5, 4])
    np.testing.assert_array_equal(normalise(scores, "percentile"), [62.5, 25, 62.5, 100])
    with pytest.raises(MilError, match="expected one of raw, softmax"):
        normalise(scores, "zscore")  # type: ignore[arg-type]


def test_scores_that_do_not_fit_and_empty_grids_are_refused() -> None:
    grid = PatchGrid([[0, 0], [5, 0]], 5, 5, 1)
    with pytest.raises(MilError, match=r"shape \(3,\); expected \(2,\)"):
        attention_map(grid, [1, 2, 3])
    with pytest.raises(MilError, match="Pick the column of one class"):
        attention_map(grid, np.zeros((2, 3)))
    with pytest.raises(MilError, match="no patches"):
        attention_map(PatchGrid([], 5, 5, 1), [])


def test_giant_rasters_are_coarsened_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster_module, "MAX_CELLS", 10_000)
    grid = PatchGrid([[0, 0], [100_003, 0], [0, 99_999]], 1, 1, 0.5)
    amap = attention_map(grid, [1, 2, 3])
    assert amap.data.size <= 10_000
    assert np.isfinite(amap.data).sum() == 3
    assert 0 < amap.bound_um <= max(amap.cell_px_level0) / 2 * 0.5


def test_extreme_overlap() -> None:
    generator = np.random.default_rng(0)
    single = attention_map(PatchGrid(generator.integers(0, 2000, (500, 2)), 448, 1, 0.25), np.ones(500))
    several = attention_map(PatchGrid(generator.integers(0, 20_000, (500, 2)), 448, 20, 0.25), np.ones(500))
    for amap in (single, several):
        assert np.nanmin(amap.data) == np.nanmax(amap.data) == 1
        assert amap.bound_um <= 448 / 16 * 0.25


def test_cells_and_patch_values_are_the_way_back() -> None:
    generator = np.random.default_rng(1)
    coords = lattice(6, 7, (32, 16), (5, 9))[generator.permutation(42)[:30]]
    grid = PatchGrid(coords, (32, 16), (32, 16), (0.5, 0.25))
    scores = generator.normal(size=30)
    amap = attention_map(grid, scores)
    np.testing.assert_allclose(patch_values(amap, grid), scores, rtol=1e-6)
    assert {tuple(c) for c in cells_of(amap).coords} == {tuple(c) for c in coords}
    outside = PatchGrid([[-500, 9], [5, 9]], (32, 16), (32, 16), (0.5, 0.25))
    assert np.isnan(patch_values(amap, outside)[0])
    assert np.isnan(amap.at([[-1, 0], [1e6, 1e6]])).all()


def test_patch_table_ranks_the_highest_first() -> None:
    table = patch_table(PatchGrid([[0, 0], [5, 0], [0, 5], [5, 5]], 5, 5, 1), [0.1, 0.9, np.nan, 0.1])
    assert list(table.columns) == ["x", "y", "score", "rank", "percentile"]
    np.testing.assert_array_equal(table["rank"], [2.5, 1, np.nan, 2.5])
    np.testing.assert_allclose(table["percentile"], [50, 100, np.nan, 50])
    with pytest.raises(MilError, match="one for each patch"):
        patch_table(PatchGrid([[0, 0]], 5, 5, 1), [1, 2])
