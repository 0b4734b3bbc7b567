"""The completed factor-2 chain: its plan, its pixels, and where napari will draw them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mil.slide import open_slide
from napari_mil.slide.chain import LAST_LEVEL_PX, plan_chain
from napari_mil.slide.source import mean_downsamples

from .conftest import Pixels, fake_slide, halved, pattern


def floors(width: int, height: int, factors: list[int]) -> tuple[tuple[int, int], ...]:
    return tuple((width // f, height // f) for f in factors)


@given(
    width=st.integers(1000, 200_000),
    height=st.integers(1000, 200_000),
    factors=st.sampled_from([[1], [1, 4, 16], [1, 2, 4, 8], [1, 4, 16, 64], [1, 3, 9], [1, 10]]),
)
def test_any_slide_gets_a_chain_of_factor_two_steps(width: int, height: int, factors: list[int]) -> None:
    dimensions = tuple((max(1, w), max(1, h)) for w, h in floors(width, height, factors))
    chain = plan_chain(dimensions, mean_downsamples(dimensions))
    assert chain[0].size == (width, height)
    assert chain[0].downsample == (1.0, 1.0)
    assert chain[0].native == 0
    assert max(chain[-1].size) <= LAST_LEVEL_PX
    assert all(max(level.size) > LAST_LEVEL_PX for level in chain[:-1])
    for finer, coarser in itertools.pairwise(chain):
        for axis in (0, 1):
            assert 1.19 <= coarser.downsample[axis] / finer.downsample[axis] <= 2.4
    for level in chain:
        for axis, side in enumerate((width, height)):
            drawn = side / level.size[axis]  # napari's scale for this level
            end_off = abs(level.size[axis] * level.downsample[axis] - side) / level.downsample[axis]
            if level.size[axis] > 1:  # a line one pixel wide cannot get thinner
                assert end_off <= 0.5 + 1e-6, "the far edge is drawn at most half a pixel of it off"
            if level.native is not None:
                assert drawn == pytest.approx(level.downsample[axis], rel=1e-12)


def test_native_levels_are_used_where_they_fit() -> None:
    dimensions = floors(46_000, 32_914, [1, 4, 16])
    chain = plan_chain(dimensions, mean_downsamples(dimensions))
    assert [level.native for level in chain] == [0, None, 1, None, 2, None, None]
    assert chain[2].downsample == (4.0, 32_914 / 8228)
    assert chain[3].downsample == (8.0, 2 * 32_914 / 8228)
    assert chain[3].size == (5750, 4114)


def test_a_level_of_another_field_is_left_out() -> None:
    dimensions = ((40_000, 20_000), (10_000, 7_000), (2500, 1250))
    chain = plan_chain(dimensions, mean_downsamples(dimensions))
    assert [level.native for level in chain if level.native is not None] == [0, 2]


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), levels=st.integers(1, 5))
def test_thin_slides_get_a_chain_too(width: int, height: int, levels: int) -> None:
    dimensions = tuple((max(1, width >> k), max(1, height >> k)) for k in range(levels))
    chain = plan_chain(dimensions, mean_downsamples(dimensions))
    assert chain[0].size == (width, height)
    assert max(chain[-1].size) <= LAST_LEVEL_PX
    assert min(min(level.size) for level in chain) >= 1


def test_a_padded_level_is_cut_to_what_its_file_states() -> None:
    chain = plan_chain(((10_000, 9_000), (5120, 4608)), (1.0, 2.0))
    assert chain[1].size == (5000, 4500)
    assert chain[1].downsample == (2.0, 2.0)
    assert chain[1].native == 1


def test_halved_levels_are_the_mean_of_two_by_two() -> None:
    base = pattern(1024, 3072)
    slide, _ = fake_slide([base])
    assert [level.shape for level in slide.levels] == [(1024, 3072, 3), (512, 1536, 3), (256, 768, 3)]
    once = halved(base)
    np.testing.assert_array_equal(slide.levels[1][:], once)
    np.testing.assert_array_equal(slide.levels[2][:], halved(once))


@pytest.mark.parametrize(("height", "width"), [(1025, 1027), (2047, 1029), (2051, 1537), (1, 4000), (3001, 2)])
def test_odd_edges_repeat_their_last_pixels(height: int, width: int) -> None:
    base = pattern(height, width)
    slide, _ = fake_slide([base])
    wanted_h, wanted_w = (math.floor(v / 2 + 0.5) for v in (height, width))
    padded = np.pad(base, ((0, 2 * wanted_h - height), (0, 2 * wanted_w - width), (0, 0)), mode="edge")
    level = slide.levels[1]
    assert level.shape == (wanted_h, wanted_w, 3)
    np.testing.assert_array_equal(level[:], halved(padded))


def test_virtual_levels_come_from_the_nearest_finer_native_one(pyramid_file: tuple[Path, list[Pixels]]) -> None:
    path, natives = pyramid_file
    with open_slide(path) as slide:
        assert [level.shape[:2] for level in slide.levels] == [(1901, 2603), (951, 1302), (475, 650)]
        np.testing.assert_array_equal(slide.levels[0][:], natives[0])
        np.testing.assert_array_equal(slide.levels[1][:400, :400], halved(natives[0][:800, :800]))
        np.testing.assert_array_equal(slide.levels[2][:], natives[1])
        x, y = slide.chain_downsamples[2]
        assert (x, y) == (2603 / 650, 1901 / 475)
        assert slide.levels_mpp is not None
        assert slide.levels_mpp[2] == pytest.approx((x * 0.5, y * 0.5), rel=1e-6)


@pytest.mark.parametrize("max_px", [1, 7, 100, 512, 1000, 5000])
def test_thumbnail_keeps_shape_and_content(max_px: int) -> None:
    base = np.zeros((1500, 3000, 3), np.uint8)
    base[:, 1500:] = 240
    slide, _ = fake_slide([base])
    thumbnail = slide.thumbnail(max_px)
    longest = min(max_px, 3000)
    assert thumbnail.shape == (max(1, round(longest / 2)), longest, 3)
    assert thumbnail.flags.writeable
    assert abs(float(thumbnail.mean()) - 120) < 2
