"""The view for a window: every question is answered at once, and becomes exact."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from napari_mil.slide import open_slide, set_cache_limit, tile_cache
from napari_mil.slide.blocks import FAILED_GREY
from napari_mil.slide.tiles import TileId
from napari_mil.slide.view import repeated

from .conftest import Pixels, fake_slide, halved, pattern

SLOW = 0.25  # seconds a read takes; no answer may take anything like it


def big() -> list[Pixels]:
    """4096 x 4096 in three native levels, each true to the finer one."""
    base = np.kron(pattern(512, 512), np.ones((8, 8, 1), np.uint8))
    half = halved(base)
    return [base, halved(half), halved(halved(halved(half)))]


LEVELS = big()


def test_no_answer_waits_and_all_become_exact() -> None:
    slide, source = fake_slide(LEVELS)
    assert [level.native for level in slide.tiles.chain] == [0, None, 1]
    arrived = threading.Event()
    with slide.view(arrived.set) as view:
        source.seconds = SLOW
        longest = 0.0
        for level in view.array_likes:
            for top in range(0, level.shape[0], 512):
                start = time.perf_counter()
                level[top : top + 512, 0:512]
                longest = max(longest, time.perf_counter() - start)
        assert longest < SLOW / 2.5
        assert view.pending > 0
        source.seconds = 0.0
        assert arrived.wait(10)
        assert view.wait(20)
        for i in range(3):
            view.levels[i].compute()
        assert view.wait(20)
        for i in range(3):
            np.testing.assert_array_equal(view.levels[i].compute(), slide.levels[i][:])
        np.testing.assert_array_equal(view.levels[0].compute(), LEVELS[0])


def test_panning_waits_for_no_read() -> None:
    """The gate opens only after all questions: one that waited would never be answered by the exact pixels."""
    slide, source = fake_slide(LEVELS)
    gate, late = threading.Event(), []
    with slide.view() as view:
        source.fails = lambda *_: late.append(gate.wait(20)) or False
        for step in range(60):
            y, x = 512 * (step // 8), 512 * (step % 8)
            assert view.array_likes[0][y : y + 512, x : x + 512].shape == (512, 512, 3)
        assert not late, "every read is still waiting"
        gate.set()


def test_a_missing_tile_is_the_nearest_coarser_one_at_hand() -> None:
    slide, source = fake_slide(LEVELS)
    gate = threading.Event()
    with slide.view() as view:
        source.fails = lambda *_: not gate.wait(20)
        coarse = slide.levels[2][:]
        np.testing.assert_array_equal(
            view.array_likes[0][512:1024, 1024:1536],
            coarse[128:256, 256:384].repeat(4, axis=0).repeat(4, axis=1),
        )
        gate.set()
        assert view.wait(20)
        slide.tiles.load([TileId(1, 0, 1)])  # the level between has come
        tile_cache().forget([(slide.tiles._blocks.token, 0, 2, 1)])
        gate.clear()
        np.testing.assert_array_equal(
            view.array_likes[0][512:1024, 1024:1536],
            slide.levels[1][256:512, 512:768].repeat(2, axis=0).repeat(2, axis=1),
        )
        gate.set()


def test_the_fractional_pyramid_is_answered_in_place(pyramid_file: tuple[Path, list[Pixels]]) -> None:
    with open_slide(pyramid_file[0]) as slide, slide.view() as view:
        first = view.array_likes[0][:]
        coarse = slide.levels[-1][:]
        x, y = slide.chain_downsamples[-1]
        rows = np.minimum(((np.arange(1901) + 0.5) / y).astype(int), coarse.shape[0] - 1)
        columns = np.minimum(((np.arange(2603) + 0.5) / x).astype(int), coarse.shape[1] - 1)
        from_coarse = coarse[rows][:, columns]
        exact = pyramid_file[1][0]
        assert ((first == from_coarse) | (first == exact)).mean() > 0.999
        assert view.wait(20)
        np.testing.assert_array_equal(view.array_likes[0][:], exact)


def test_the_latest_question_is_read_first_and_stale_ones_never() -> None:
    slide, source = fake_slide(LEVELS)
    gate = threading.Event()
    with slide.view(threads=1) as view:
        opened = len(source.reads)
        source.fails = lambda *_: not gate.wait(20)
        level = view.array_likes[0]
        level[0:10, 0:10]
        while not len(source.reads) > opened:  # the only thread is busy with this one
            time.sleep(0.001)
        level[0:10, 512:522]
        level[0:10, 1024:1034]
        time.sleep(0.7)  # both go out of sight
        level[600:610, 0:10]
        level[600:610, 512:522]
        assert view.pending == 5
        gate.set()
        assert view.wait(20)
        assert sorted(source.reads[opened + 1 : opened + 3]) == [(0, 0, 512), (0, 512, 512)]  # together
        assert source.reads[opened + 3 :] == [(0, 1024, 512)]  # the next in the direction of the movement


def test_asking_again_makes_a_question_the_latest() -> None:
    slide, source = fake_slide(LEVELS)
    gate = threading.Event()
    with slide.view(threads=1) as view:
        opened = len(source.reads)
        source.fails = lambda *_: not gate.wait(20)
        level = view.array_likes[0]
        level[0:10, 0:10]
        while not len(source.reads) > opened:
            time.sleep(0.001)
        for left in (512, 1024, 512):
            level[0:10, left : left + 10]
        view.prefetch(0, 2048, 2060, 0, 512)
        gate.set()
        assert view.wait(20)
        assert source.reads[opened:] == [(0, 0, 0), (0, 512, 0), (0, 1024, 0), (0, 0, 2048)]


def test_failed_tiles_are_grey_once_and_named() -> None:
    slide, source = fake_slide(LEVELS)
    calls: list[int] = []
    with slide.view(lambda: calls.append(1)) as view:
        source.fails = lambda level, x, y: (level, x, y) == (0, 512, 512)
        for _ in range(3):
            view.array_likes[0][500:1100, 500:1100]
            assert view.wait(20)
        got = view.array_likes[0][0:1536, 0:1536]
        assert (got[512:1024, 512:1024] == FAILED_GREY).all()
        np.testing.assert_array_equal(got[:512, 512:1024], LEVELS[0][:512, 512:1024])
        assert slide.problems == ["cannot read 0 512 512"]
        assert source.reads.count((0, 512, 512)) == 1
        assert calls


def test_a_window_that_raises_does_not_stop_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    slide, _ = fake_slide(LEVELS)

    def gone() -> None:
        raise RuntimeError("wrapped C++ object has been deleted")

    with slide.view(gone) as view:
        view.array_likes[0][0:2000, 0:2000]
        assert view.wait(20)
        np.testing.assert_array_equal(view.array_likes[0][0:2000, 0:2000], LEVELS[0][0:2000, 0:2000])
    assert "could not be told" in caplog.text


def test_closing_stops_reading_and_telling() -> None:
    slide, source = fake_slide(LEVELS)
    calls: list[int] = []
    before = threading.active_count()
    view = slide.view(lambda: calls.append(1))
    assert threading.active_count() == before, "no thread before there is work"
    source.seconds = 2.0
    view.array_likes[0][:]
    assert threading.active_count() > before
    view.close()
    start = time.perf_counter()
    slide.close()
    assert time.perf_counter() - start < 1.5, "closing waits for nobody"
    count = len(calls)
    time.sleep(2.3)
    assert len(calls) == count
    assert view.pending == 0
    assert threading.active_count() <= before
    assert slide.problems == []
    view.array_likes[0][0:10, 0:10]  # a late question of the window is still answered


def test_a_small_cache_gives_right_pixels_only() -> None:
    set_cache_limit(3 * 512 * 512 * 3)
    slide, _ = fake_slide(LEVELS)
    with slide.view() as view:
        for _ in range(4):
            view.array_likes[0][0:512, 0:512]
            assert view.wait(20)
        np.testing.assert_array_equal(view.array_likes[0][0:512, 0:512], LEVELS[0][0:512, 0:512])


def test_an_unreadable_coarsest_level_still_opens() -> None:
    slide, source = fake_slide(LEVELS)
    source.fails = lambda level, x, y: level == 1
    with slide.view() as view:
        assert (view.array_likes[-1][:] == FAILED_GREY).all()
        view.array_likes[0][:100, :100]
        assert view.wait(20)
        np.testing.assert_array_equal(view.array_likes[0][:100, :100], LEVELS[0][:100, :100])
        assert len(slide.problems) == 4


def test_what_lies_ahead_is_read_when_nothing_else_is_and_tells_nobody() -> None:
    slide, source = fake_slide(LEVELS)
    calls: list[int] = []
    with slide.view(lambda: calls.append(1)) as view:
        level = view.array_likes[0]
        level[0:1024, 0:1024]
        assert view.wait(20)
        level[0:1024, 0:1024]
        told = len(calls)
        level[0:1024, 512:1536]  # to the right
        assert view.wait(20)
        assert {(0, 1536, 0), (0, 1536, 512)} <= set(source.reads), "the next column was read"
        assert not {r for r in source.reads if r[0] == 0 and r[1] > 1536}
        assert told < len(calls) <= told + 2, "only the column that was asked for is told of"
        level[0:1024, 512:1536]
        count = len(calls)
        np.testing.assert_array_equal(level[0:1024, 1024:2048], LEVELS[0][0:1024, 1024:2048])  # there already
        assert view.wait(20)
        assert len(calls) == count


def test_turning_round_takes_back_what_lay_ahead() -> None:
    slide, source = fake_slide(LEVELS)
    gate = threading.Event()
    with slide.view(threads=1) as view:
        view.array_likes[0][0:512, 1024:1536]
        assert view.wait(20)
        source.fails = lambda *_: not gate.wait(20)
        view.array_likes[0][0:512, 1536:2048]
        while view.pending < 1:
            time.sleep(0.001)
        view.array_likes[0][0:512, 1024:1536]
        gate.set()
        assert view.wait(20)
        assert (0, 2048, 0) not in source.reads
        assert (0, 512, 0) in source.reads


def test_the_window_knows_whether_it_is_up_to_date() -> None:
    slide, source = fake_slide(LEVELS)
    gate = threading.Event()
    arrived = threading.Event()
    with slide.view(arrived.set) as view:
        assert view.settled
        source.fails = lambda *_: not gate.wait(20)
        view.array_likes[0][0:512, 0:512]
        assert not view.settled
        assert not view.outdated
        gate.set()
        assert arrived.wait(10)
        assert view.settled
        assert view.outdated
        view.array_likes[0][0:512, 0:512]
        assert not view.outdated
        view.array_likes[0][0:512, 512:1024]
        assert view.wait(20)
        view.array_likes[0][0:512, 0:512]
        assert view.outdated, "a tile beside what was asked for"
        view.drawing()
        assert not view.outdated


def test_tiles_side_by_side_are_read_in_one_batch() -> None:
    slide, source = fake_slide(LEVELS)
    batches: list[int] = []
    read_blocks = source.read_blocks

    def counted(level, blocks, outs):  # type: ignore[no-untyped-def]
        batches.append(len(blocks))
        return read_blocks(level, blocks, outs)

    gate = threading.Event()
    with slide.view(threads=1) as view:
        source.read_blocks = counted  # type: ignore[method-assign]
        source.fails = lambda *_: not gate.wait(20)
        view.array_likes[0][3584:3594, 0:10]  # keeps the only thread busy
        while view.pending and not batches:
            time.sleep(0.001)
        view.array_likes[0][0:512, 0:2048]
        view.array_likes[1][1024:1536, 0:2048]  # halved: 8 x 2 blocks
        gate.set()
        assert view.wait(20)
        assert batches[:3] == [1, 16, 4]


def test_pixels_are_repeated_where_they_belong() -> None:
    rows, columns = np.array([0, 0, 1, 1, 3]), np.array([2, 0, 0, 1])
    pixels = pattern(4, 3)
    np.testing.assert_array_equal(repeated(pixels, rows, columns), pixels[rows][:, columns])
