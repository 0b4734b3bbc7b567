"""The grid: sizes, the lattice, and what drops a patch."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_mil.errors import SlideError
from napari_mil.slide import SlideWarning, TileConfig, TissueMask, open_slide, read_patches, tile, tissue_mask
from napari_mil.slide.tiling import covered

from .conftest import FakeSource, fake_slide, pattern


class Empty(FakeSource):
    """A slide of any size without pixels."""

    def __init__(self, width: int, height: int, mpp: tuple[float, float] | None) -> None:
        super().__init__([np.zeros((1, 1, 3), np.uint8)], mpp=mpp)
        self.level_dimensions = ((width, height),)
        self.level_downsamples = (1.0,)


def empty(width: int, height: int, mpp: tuple[float, float] | None = (0.5, 0.5)):  # type: ignore[no-untyped-def]
    from napari_mil.slide import Slide

    return Slide(Path("empty.svs"), Empty(width, height, mpp))


@given(
    size=st.tuples(st.integers(1, 6000), st.integers(1, 6000)),
    mpp=st.tuples(st.floats(0.1, 0.5), st.floats(0.1, 0.5)),
    patch_px=st.integers(16, 512),
    stride_px=st.one_of(st.none(), st.integers(16, 600)),
    target=st.floats(0.5, 2.0),
)
@settings(max_examples=120, deadline=None)
def test_lattice(
    size: tuple[int, int], mpp: tuple[float, float], patch_px: int, stride_px: int | None, target: float
) -> None:
    config = TileConfig(target_mpp=target, patch_px=patch_px, stride_px=stride_px)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlideWarning)
        grid = tile(empty(*size, mpp), config)
    patch = [round(patch_px * target / m) for m in mpp]
    stride = [round((stride_px or patch_px) * target / m) for m in mpp]
    assert list(grid.patch_px_level0) == patch
    assert list(grid.stride_px_level0) == stride
    assert grid.mpp == mpp
    wanted = [
        (x, y) for y in range(0, size[1] - patch[1] + 1, stride[1]) for x in range(0, size[0] - patch[0] + 1, stride[0])
    ]
    assert [tuple(c) for c in grid.coords] == wanted
    assert len(grid) == 0 or (grid.boxes.max(axis=0)[2:] <= size).all()


@pytest.mark.parametrize(
    ("mpp", "patch", "um"),
    [
        ((0.25, 0.25), (448, 448), 112),
        ((0.499, 0.499), (224, 224), 112),
        ((0.2431, 0.2431), (461, 461), 112),
        ((0.25, 0.5), (448, 224), 112),
    ],
)
def test_patch_size_follows_each_axis(mpp: tuple[float, float], patch: tuple[int, int], um: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = tile(empty(3000, 2000, mpp))
    assert grid.patch_px_level0 == patch
    assert grid.patch_um == pytest.approx((um, um), rel=0.003)


def test_a_coarser_slide_is_tiled_at_its_own_scale_and_says_so() -> None:
    with pytest.warns(SlideWarning, match=r"has 1 µm per pixel, coarser than the 0.5 wanted.*224 µm instead of 112"):
        grid = tile(empty(3000, 2000, (1.0, 1.0)))
    assert grid.patch_px_level0 == (224, 224)
    with pytest.warns(SlideWarning):
        grid = tile(empty(3000, 2000, (0.5, 1.0)), TileConfig(stride_px=112))
    assert grid.patch_px_level0 == (448, 224), "still square in µm, and no axis enlarged"
    assert grid.stride_px_level0 == (224, 112)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # 0.505 is 0.5 as scanners have it
        assert tile(empty(3000, 2000, (0.505, 0.505))).patch_px_level0 == (224, 224)


def test_unknown_scale_is_asked_for() -> None:
    slide = empty(3000, 2000, None)
    with pytest.raises(SlideError, match=r"µm per pixel of empty\.svs are unknown.*give them"):
        tile(slide)
    slide.set_mpp(0.5)
    assert len(tile(slide)) == 13 * 8


def test_a_slide_smaller_than_a_patch_gives_none_and_says_so() -> None:
    with pytest.warns(SlideWarning, match="smaller than one patch of 224 x 224"):
        grid = tile(empty(223, 500))
    assert len(grid) == 0
    assert len(tile(empty(224, 224))) == 1


def test_tissue_decides_strictly_above_the_share() -> None:
    array = np.zeros((20, 40), bool)
    array[0, 0] = True  # 1 of 100 pixels of the first patch
    array[0, 10:15] = True  # 5 of the second: exactly 5 %, not more
    array[0, 20:26] = True  # 6 of the third
    mask = TissueMask(array, 10.0)
    config = TileConfig(patch_px=100, min_tissue=0.05)
    assert tile(empty(400, 200), config, mask).coords.tolist() == [[200, 0]]
    assert len(tile(empty(400, 200), config)) == 8, "without a mask every patch"
    assert tile(empty(400, 200), TileConfig(patch_px=100, min_tissue=0), mask).coords.tolist() == [
        [0, 0],
        [100, 0],
        [200, 0],
    ]


def test_ignored_regions_drop_what_they_cover_by_more_than_half() -> None:
    config = TileConfig(patch_px=100)
    slide = empty(400, 200)
    half = shapely.box(0, 0, 50, 100)
    assert len(tile(slide, config, ignore=half)) == 8
    assert len(tile(slide, config, ignore=shapely.box(0, 0, 50.01, 100))) == 7
    two = shapely.unary_union([shapely.box(-50, -50, 160, 300), shapely.Point(350, 150).buffer(60)])
    kept = tile(slide, config, ignore=two).coords.tolist()
    assert kept == [[200, 0], [300, 0], [200, 100]]
    hole = shapely.Polygon([(0, -9), (400, -9), (400, 200), (0, 200)], [[(100, 0), (200, 0), (200, 100), (100, 100)]])
    assert tile(slide, config, ignore=hole).coords.tolist() == [[100, 0]]
    bow = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])  # crosses itself
    assert len(tile(slide, config, ignore=bow)) == 8
    assert len(tile(slide, config, ignore=shapely.Polygon())) == 8


def test_covered_equals_the_double_loop() -> None:
    rng = np.random.default_rng(3)
    shapes = shapely.unary_union(
        [shapely.Point(*rng.uniform(0, 3000, 2)).buffer(rng.uniform(20, 400)) for _ in range(30)]
    )
    grid = tile(empty(3000, 3000), TileConfig(patch_px=64, stride_px=48))
    slow = [shapely.box(*box).intersection(shapes).area > 32 * 64 for box in grid.boxes]
    np.testing.assert_array_equal(covered(grid, shapes), slow)


def test_jpeg_filter_drops_flat_patches() -> None:
    image = np.full((448, 896, 3), 240, np.uint8)
    image[:224, 224:448] = pattern(224, 224)
    image[224:, :224] = 100
    slide, _ = fake_slide([image], mpp=(0.5, 0.5))
    grid = tile(slide, TileConfig(jpeg_filter_kb=10))
    assert grid.coords.tolist() == [[224, 0]]
    everything = tile(slide)
    buffer = io.BytesIO()
    Image.fromarray(read_patches(slide, everything, [0], 224)[0]).save(buffer, "JPEG", quality=75)
    assert buffer.tell() <= 10_000


def test_preview_is_the_same_each_time_and_in_order() -> None:
    slide = empty(10_000, 10_000)
    config = TileConfig(max_patches=100)
    first, again = tile(slide, config), tile(slide, config)
    assert len(first) == 100
    assert first == again
    order = first.coords[:, 1] * 10_000 + first.coords[:, 0]
    assert (np.diff(order) > 0).all()
    assert len(np.unique(first.coords[:, 1])) > 20, "spread over the slide"
    assert len(tile(slide, TileConfig(max_patches=10**6))) == 44 * 44


def test_settings_are_checked() -> None:
    for nonsense in ({"patch_px": 0}, {"target_mpp": -1}, {"min_tissue": 1.5}, {"stride": 3}, {"max_patches": 0}):
        with pytest.raises(ValueError):
            TileConfig(**nonsense)  # type: ignore[arg-type]
    assert TileConfig.model_validate_json(TileConfig(stride_px=112).model_dump_json()) == TileConfig(stride_px=112)


def test_real_slide(shared_data: Path) -> None:
    with open_slide(shared_data / "wsi" / "CMU-1-Small-Region.svs") as slide:
        mask = tissue_mask(slide)
        grid = tile(slide, TileConfig(), mask)
        assert grid.patch_px_level0 == (224, 224)
        assert 50 < len(grid) < 90
        assert len(tile(slide)) == 9 * 13
        small = tile(slide, TileConfig(jpeg_filter_kb=10), mask)
        assert 20 < len(small) < len(grid)
        coords = {tuple(c) for c in grid.coords}
        assert all(tuple(c) in coords for c in small.coords)
