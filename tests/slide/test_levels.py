"""The array-likes and dask arrays that napari is given."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import SlideError
from napari_mil.slide.blocks import FAILED_GREY, Blocks
from napari_mil.slide.dask_levels import dask_level
from napari_mil.slide.halving import halve
from napari_mil.slide.levels import Level
from napari_mil.slide.slide import Slide

from .conftest import FakeSource, Pixels, fake_slide, pattern

BASE = pattern(1100, 1300, 7)


def axis_index(length: int) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.slices(length),
        st.integers(-length, length - 1),
        st.lists(st.integers(-length, length - 1), max_size=4).map(lambda v: np.array(v, dtype=int)),
    )


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_indexing_is_numpys(data: st.DataObject) -> None:
    slide, _ = fake_slide([BASE])
    rows, columns = data.draw(axis_index(1100)), data.draw(axis_index(1300))
    channel = data.draw(st.one_of(st.just(slice(None)), st.integers(0, 2), st.slices(3)))
    index = data.draw(st.sampled_from([(rows,), (rows, columns), (rows, columns, channel), (..., channel)]))
    if sum(isinstance(part, np.ndarray) for part in index) > 1:  # numpy would pair them; dask never asks for that
        index = (rows,)
    np.testing.assert_array_equal(slide.levels[0][index], BASE[index])


def test_a_level_looks_like_an_array() -> None:
    slide, _ = fake_slide([BASE])
    level = slide.levels[0]
    assert (level.shape, level.dtype, level.ndim, level.size) == (BASE.shape, BASE.dtype, 3, BASE.size)
    assert level.chunks == (512, 512, 3)
    assert len(level) == 1100
    assert not hasattr(level, "copy"), "dask would call it"
    np.testing.assert_array_equal(np.asarray(level), BASE)
    with pytest.raises(IndexError):
        level[1100]
    with pytest.raises(IndexError):
        level[0, 0, 0, 0]
    with pytest.raises(IndexError):
        level[None]


def test_pyramid_is_dask_over_the_same_pixels() -> None:
    slide, source = fake_slide([BASE])
    pyramid = slide.pyramid()
    assert source.reads == [], "building it reads nothing"
    assert all(isinstance(level, da.Array) for level in pyramid)
    assert [level.shape for level in pyramid] == [level.shape for level in slide.levels]
    assert pyramid[0].chunks == ((512, 512, 76), (512, 512, 276), (3,))
    assert pyramid[0].dtype == np.uint8
    np.testing.assert_array_equal(pyramid[0][100:900, 3:1290].compute(), BASE[100:900, 3:1290])
    np.testing.assert_array_equal(np.asarray(pyramid[0]), BASE)
    np.testing.assert_array_equal(pyramid[1].compute(), slide.levels[1][:])
    other, _ = fake_slide([BASE[::-1]])
    assert other.pyramid()[0].name != pyramid[0].name


def test_giant_levels_refuse_to_be_whole() -> None:
    def nothing(_: object) -> Any:
        raise AssertionError("a tile was read")

    array = dask_level(Level((200_000, 200_000), 0, nothing, "giant.svs"), "giant-test")
    assert array.npartitions == 391**2
    for whole in (lambda: np.asarray(array), array.compute, lambda: np.asarray(array[:, :])):
        with pytest.raises(SlideError, match=r"120\.0 GB of a level of 200000 x 200000 pixels"):
            whole()
    with pytest.raises(SlideError, match="take a smaller region or a coarser level"):
        Level((200_000, 200_000), 0, nothing, "giant.svs")[:]


def test_tiles_that_fail_are_grey_named_and_not_retried() -> None:
    slide, source = fake_slide([BASE])
    source.fails = lambda level, x, y: (x, y) == (512, 0)
    got = slide.levels[0][:]
    assert (got[:512, 512:1024] == FAILED_GREY).all()
    wanted = BASE.copy()
    wanted[:512, 512:1024] = FAILED_GREY
    np.testing.assert_array_equal(got, wanted)
    assert slide.problems == ["cannot read 0 512 0"]
    np.testing.assert_array_equal(slide.failed_boxes(), [[512, 0, 1024, 512]])
    slide.levels[0][:], slide.levels[1][:]
    assert source.reads.count((0, 512, 0)) == 1
    assert (slide.levels[1][10:240, 260:500] == FAILED_GREY).all(), "the halved level shows the rest and the gap"
    with pytest.raises(SlideError, match="cannot read 0 512 0"):
        slide.read(600, 0, 10, 10)


def test_padding_of_a_level_is_not_mixed_into_the_halved_one() -> None:
    padded = pattern(16, 2304, 3)  # 2053 columns of tissue, an odd number
    source = FakeSource([pattern(64, 8212), padded])
    source.level_downsamples = (1.0, 4.0)
    slide = Slide(Path("fake.tiff"), source)
    index = [level.native for level in slide.tiles.chain].index(1)
    assert slide.levels[index].shape == (16, 2053, 3)
    np.testing.assert_array_equal(slide.levels[index + 1][:], halve(padded[:, :2053]))


def test_what_failed_keeps_nothing_alive() -> None:
    slide, source = fake_slide([BASE])
    held: list[weakref.ref[Pixels]] = []

    def fails(level: int, x: int, y: int) -> bool:
        decoded = np.zeros((512, 512, 3), np.uint8)
        held.append(weakref.ref(decoded))
        raise SlideError("damaged")

    source.fails = fails
    depths = []
    for _ in range(3):
        with pytest.raises(SlideError, match="damaged") as info:
            slide.read(0, 0, 10, 10)
        depths.append(len(info.traceback))
        del info
    gc.collect()
    assert [reference() for reference in held] == [None]
    assert len(set(depths)) == 1, "errors do not gather the frames of those who met them before"


def test_nobody_waits_for_what_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    slide, _ = fake_slide([BASE])

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Blocks, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            slide.read(0, 0, 10, 10)
    got: list[Pixels] = []
    other = threading.Thread(target=lambda: got.append(slide.read(0, 0, 10, 10)), daemon=True)
    other.start()
    other.join(10)
    np.testing.assert_array_equal(got, [BASE[:10, :10]])


def test_closing_forgets_the_tiles() -> None:
    from napari_mil.slide import tile_cache

    slide, _ = fake_slide([BASE])
    before = len(tile_cache())
    slide.levels[0][:]
    assert len(tile_cache()) == before + 9
    slide.close()
    assert len(tile_cache()) == before
    with pytest.raises(SlideError):
        slide.levels[0][:10, :10]
    assert slide.problems == []


def test_napari_takes_the_pyramid(pyramid_file: tuple[Path, Any]) -> None:
    layers = pytest.importorskip("napari.layers")
    from napari_mil.slide import open_slide

    with open_slide(pyramid_file[0]) as slide:
        layer = layers.Image(slide.pyramid(), multiscale=True, rgb=True, cache=False)
        for factors, downsample in zip(layer.downsample_factors, slide.chain_downsamples, strict=True):
            assert factors == pytest.approx(downsample[::-1], rel=2e-3)
