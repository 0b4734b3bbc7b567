"""The pixels of patches: which level, which filter, which place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import SlideError
from napari_mil.geometry import PatchGrid
from napari_mil.slide import RESAMPLING, PatchReader, open_slide, read_level, read_patch, read_patches
from napari_mil.slide.cache import tile_cache
from napari_mil.slide.patches import read_plan, resize_area
from napari_mil.slide.slide import Slide
from napari_mil.slide.source import HALF_FILTER

from .conftest import FakeSource, fake_slide, halved, pattern


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


class HalvingSource(FakeSource):
    """A slide whose levels can be decoded at half their size: here by taking each second pixel."""

    def block_size(self, level: int) -> tuple[int, int]:
        return 48, 32

    def can_halve(self, level: int) -> bool:
        return True

    def read_half(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        assert min(x, y, width, height) >= 0
        half = self.levels[level][::2, ::2]
        assert x + width <= half.shape[1]
        assert y + height <= half.shape[0]
        return np.ascontiguousarray(half[y : y + height, x : x + width])


@given(
    corners=st.lists(st.tuples(st.integers(-60, 320), st.sampled_from([-30, 0, 41, 90, 230])), min_size=1, max_size=30),
    patch=st.sampled_from([20, 32, 47]),
    out=st.sampled_from([10, 16, 20, 32]),
    half=st.booleans(),
    odd=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_patches_read_in_rows_are_those_read_alone(
    corners: list[tuple[int, int]], patch: int, out: int, half: bool, odd: bool
) -> None:
    base = pattern(241 if odd else 240, 301 if odd else 300)
    slide = Slide(Path("fake"), (HalvingSource if half else FakeSource)([base]))
    grid = PatchGrid(corners, patch, patch, 0.5)
    reader = PatchReader(slide, grid, out, cache_bytes=40_000)  # a few blocks only
    together = reader.read(range(len(grid)))
    for index, (x, y) in enumerate(corners):
        np.testing.assert_array_equal(together[index], read_patch(slide, grid, index, out))
        np.testing.assert_array_equal(together[index], reader.read([index])[0])
        plan = reader.plan
        if plan.half or plan.size == (out, out):
            continue
        padded = np.pad(base, ((60, 400), (60, 400), (0, 0)), constant_values=255)
        exact = by_area(padded[y + 60 : y + 60 + patch, x + 60 : x + 60 + patch], out, out)
        assert np.abs(together[index] - exact).max() <= 0.5 + 1e-3


def test_a_level_is_halved_only_where_none_is_there() -> None:
    base = np.kron(pattern(64, 64), np.ones((8, 8, 1), np.uint8))
    slide = Slide(Path("fake"), HalvingSource([base, halved(halved(base))]))

    def planned(patch: int, out: int) -> tuple[int, bool, tuple[int, int]]:
        plan = read_plan(slide, PatchGrid([[0, 0]], patch, patch, 0.5), out)
        return plan.level, plan.half, plan.size

    assert planned(64, 64) == (0, False, (64, 64))
    assert planned(127, 64) == (0, True, (64, 64))  # 1 % coarser than wanted
    assert planned(125, 64) == (0, False, (125, 125))  # 2.4 % would be too much
    assert planned(128, 64) == (0, True, (64, 64))
    assert planned(256, 64) == (1, False, (64, 64))  # the level is there
    assert planned(512, 64) == (1, True, (64, 64))
    assert read_plan(slide, PatchGrid([[0, 0]], 128, 128, 0.5), 64).resampling == f"{HALF_FILTER}, {RESAMPLING}"


def test_neighbours_share_what_is_decoded() -> None:
    slide, source = fake_slide([pattern(512, 2048)])
    grid = PatchGrid([(x, y) for y in range(0, 448, 64) for x in range(0, 1984, 64)], 64, 64, 0.5)
    reader, shown = PatchReader(slide, grid, 64), len(tile_cache())
    for start in range(0, len(grid), 16):
        reader.read(np.arange(start, min(start + 16, len(grid))))
    assert len(source.reads) == 4  # each block of 512 px once, whatever the order of the batches
    assert len(tile_cache()) == shown  # and the window's cache keeps what it has


def test_real_jpeg_tiles_at_half_their_size_are_near_the_mean_of_the_area(shared_data: Path) -> None:
    with open_slide(shared_data / "wsi" / "CMU-1-Small-Region.svs") as slide:
        if not slide.source.can_halve(0):
            pytest.skip("its tiles are read through OpenSlide here")
        grid = PatchGrid([(448 * i, 448 * j) for j in range(6) for i in range(4)], 448, 448, slide.mpp or 0.5)
        reader = PatchReader(slide, grid, 224)
        assert reader.plan.half
        got = reader.read(range(len(grid)))
        whole = [resize_area(slide.read(int(x), int(y), 448, 448), 224, 224) for x, y in grid.coords]
    difference = np.abs(got.astype(int) - np.stack(whole))
    assert difference.mean() < 2
    assert np.percentile(difference, 99) < 12
