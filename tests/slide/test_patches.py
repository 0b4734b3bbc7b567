"""The pixels of patches: which level, which filter, which place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import SlideError
from napari_mil.geometry import PatchGrid
from napari_mil.slide import RESAMPLING, read_level, read_patch, read_patches
from napari_mil.slide.cache import tile_cache
from napari_mil.slide.patches import resize_area

from .conftest import fake_slide, halved, pattern


def by_area(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mean of the covered area, exactly: each pixel divided, then averaged in blocks."""
    h, w = pixels.shape[:2]
    fine = pixels.astype(float).repeat(height, axis=0).repeat(width, axis=1)
    return fine.reshape(height, h, width, w, 3).mean(axis=(1, 3))


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    wanted=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_area_filter_is_the_mean_of_the_area(size: tuple[int, int], wanted: tuple[int, int], seed: int) -> None:
    pixels = pattern(*size, seed)
    got = resize_area(pixels, *wanted)
    assert got.dtype == np.uint8
    assert np.abs(got - by_area(pixels, *wanted)).max() <= 0.5 + 1e-3
    assert RESAMPLING == "area"


def test_the_best_native_level_is_read() -> None:
    base = np.kron(pattern(256, 256), np.ones((8, 8, 1), np.uint8))
    half = halved(base)
    slide, source = fake_slide([base, halved(half), halved(halved(halved(half)))])
    for patch, out, level in ((64, 64, 0), (64, 33, 0), (64, 16, 1), (64, 15, 1), (128, 8, 2), (512, 1, 2), (8, 64, 0)):
        grid = PatchGrid([[512, 256]], patch, patch, 0.5)
        assert read_level(slide, grid, out) == level
        source.reads.clear()
        tile_cache().clear()
        got = read_patch(slide, grid, 0, out)
        assert {r[0] for r in source.reads} == {level}
        d = 4**level if level < 2 else 16
        exact = by_area(source.levels[level][256 // d : (256 + patch) // d, 512 // d : (512 + patch) // d], out, out)
        assert np.abs(got - exact).max() <= 0.51


def test_a_level_rounded_to_3_9998_is_the_level_of_4() -> None:
    slide, _ = fake_slide([pattern(1601, 2003), pattern(400, 501)])
    assert slide.level_downsamples[1] == pytest.approx(4.0003, abs=1e-3)
    grid = PatchGrid([[400, 800]], 256, 256, 0.25)
    assert read_level(slide, grid, 64) == 1
    assert read_level(slide, grid, 65) == 0
    np.testing.assert_array_equal(read_patch(slide, grid, 0, 64), slide.source.levels[1][200:264, 100:164])  # type: ignore[attr-defined]


def test_anisotropic_patches_become_square() -> None:
    base = pattern(600, 600)
    slide, _ = fake_slide([base], mpp=(0.25, 0.5))
    grid = PatchGrid([[10, 20], [300, 100]], (128, 64), (128, 64), (0.25, 0.5))
    got = read_patches(slide, grid, [1, 0], 64)
    assert got.shape == (2, 64, 64, 3)
    for patch, (x, y) in zip(got, ((300, 100), (10, 20)), strict=True):
        assert np.abs(patch - by_area(base[y : y + 64, x : x + 128], 64, 64)).max() <= 0.51
    assert read_patches(slide, grid, np.array([0]), (32, 16)).shape == (1, 16, 32, 3)
    assert read_patches(slide, grid, [], 8).shape == (0, 8, 8, 3)


def test_beyond_the_edge_is_white_and_what_cannot_be_read_is_raised() -> None:
    slide, source = fake_slide([pattern(100, 100)])
    grid = PatchGrid([[80, 90]], 40, 40, 0.5)
    patch = read_patch(slide, grid, 0, 40)
    assert (patch[10:] == 255).all()
    assert (patch[:, 20:] == 255).all()
    np.testing.assert_array_equal(patch[:10, :20], source.levels[0][90:, 80:])
    source.fails = lambda *_: True
    tile_cache().clear()
    with pytest.raises(SlideError):
        read_patch(slide, grid, 0, 40)
    with pytest.raises(SlideError, match="expected at least 1"):
        read_patch(slide, grid, 0, 0)
