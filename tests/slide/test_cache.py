"""The process-wide cache of decoded blocks."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import SlideError
from napari_mil.slide.cache import SLAB_BYTES, Block, Key, TileCache, default_limit, set_cache_limit, tile_cache

SHAPE = (16, 64, 3)  # 3 KiB, exactly one place
BYTES = 16 * 64 * 3


def fill(cache: TileCache, key: Key, value: int = 0, shape: tuple[int, int, int] = SHAPE) -> bool:
    """Claim a block, fill it if nobody did, and release it; whether it was there."""
    [block], mine = cache.claim([(key, shape)])
    for new in mine:
        new.pixels[...] = value
        cache.finish(new)
    cache.release([block])
    return not mine


def here(cache: TileCache, keys: range) -> set[int]:
    return {key for key in keys if cache.has([(key,)])}


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(0, 5))
def test_never_over_the_limit_and_least_recent_goes_first(asked: list[int], places: int) -> None:
    cache = TileCache(places * BYTES + 100)
    model: dict[int, None] = {}  # oldest first
    for key in asked:
        assert fill(cache, (key,)) == (key in model)
        model.pop(key, None)
        model[key] = None
        while len(model) > places:
            del model[next(iter(model))]
        assert cache.used_bytes <= cache.limit_bytes
        assert here(cache, range(9)) == set(model)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40), st.booleans()), max_size=80), st.integers(0, 400_000))
@settings(deadline=None)
def test_blocks_of_all_sizes_keep_their_pixels_while_they_are_claimed(
    asked: list[tuple[int, int, bool]], limit: int
) -> None:
    cache = TileCache(limit)
    held: list[tuple[Block, int]] = []
    sizes: dict[int, int] = {}
    for key, size, hold in asked:
        size = sizes.setdefault(key, size)
        [block], mine = cache.claim([((key,), (size, 64, 3))])
        assert block.pixels.shape == (size, 64, 3)
        if mine:
            block.pixels[...] = key
            cache.finish(block)
        assert (block.pixels == key).all()
        if hold:
            held.append((block, key))
        else:
            cache.release([block])
        assert cache.used_bytes <= limit
        assert all((block.pixels == key).all() for block, key in held)
        if len(held) > 6:
            cache.release([held.pop(0)[0]])
    cache.release([block for block, _ in held])
    cache.clear()
    cache.set_limit(0)
    assert (cache.used_bytes, len(cache)) == (0, 0)


def slabs(cache: TileCache) -> set[int]:
    return {block._slab.memory.ctypes.data for block in cache._blocks.values() if block._slab is not None}


def test_memory_is_used_again() -> None:
    cache = TileCache(4 * SLAB_BYTES)
    for key in range(2000):
        fill(cache, (key,), shape=(256, 256, 3))
    assert cache.used_bytes == 4 * SLAB_BYTES
    memory = slabs(cache)
    for key in range(2000, 4000):
        fill(cache, (key,), shape=(256, 256, 3))
    assert memory == slabs(cache)
    fill(cache, ("other size",), shape=(512, 512, 3))
    assert cache.has([("other size",)])
    assert cache.used_bytes == 4 * SLAB_BYTES


def test_a_block_is_decoded_once_for_all_who_wait() -> None:
    cache = TileCache(1_000_000)
    calls: list[int] = []
    got: list[int] = []

    def ask() -> None:
        [block], mine = cache.claim([(("k",), SHAPE)])
        if mine:
            calls.append(1)
            time.sleep(0.05)
            block.pixels[...] = 9
            cache.finish(block)
        cache.wait(block)
        got.append(int(block.pixels.min()))
        cache.release([block])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert got == [9] * 8


@pytest.mark.parametrize("limit", [0, 1_000_000])
def test_what_fails_is_told_to_all_and_not_kept(limit: int) -> None:
    cache = TileCache(limit)
    [first], mine = cache.claim([(("k",), SHAPE)])
    assert mine == [first]
    [second], mine = cache.claim([(("k",), SHAPE)])
    assert second is first
    assert mine == []
    assert cache.peek([("k",)]) == [None]
    reason = SlideError("gone")
    cache.finish(first, reason)
    cache.wait(second)
    assert second.error is reason
    cache.release([first, second])
    assert cache.peek([("k",)]) == [None]
    assert not fill(cache, ("k",))


def test_a_block_dropped_in_use_is_whole_until_its_release() -> None:
    cache = TileCache(BYTES)
    fill(cache, (1, 0), 7)
    [block] = cache.peek([(1, 0)])
    assert block is not None
    cache.drop(1)
    assert not cache.has([(1, 0)])
    fill(cache, (2, 0), 8)  # no place: memory of its own, not kept
    assert not cache.has([(2, 0)])
    assert (block.pixels == 7).all()
    cache.release([block])
    fill(cache, (2, 0), 8)
    assert cache.has([(2, 0)])


def test_what_is_being_read_when_the_limit_is_lowered_goes_with_its_release() -> None:
    cache = TileCache(8 * SLAB_BYTES)
    blocks, mine = cache.claim([((1, i), SHAPE) for i in range(3)])
    cache.set_limit(0)
    for block in mine:
        cache.finish(block)
    assert cache.used_bytes == SLAB_BYTES
    cache.release(blocks)
    assert (cache.used_bytes, len(cache)) == (0, 0)


def test_limit_can_be_set_and_given_back() -> None:
    cache = TileCache(5 * BYTES)
    for key in range(5):
        fill(cache, (key, 0))
    cache.set_limit(2 * BYTES + 10)
    assert cache.used_bytes == 2 * BYTES
    assert cache.has([(3, 0), (4, 0)])
    cache.drop(4)
    assert not cache.has([(4, 0)])
    cache.clear()
    assert len(cache) == 0
    with pytest.raises(ValueError, match="expected 0 or more"):
        cache.set_limit(-1)
    set_cache_limit(12345)
    assert tile_cache().limit_bytes == 12345
    set_cache_limit(None)
    assert tile_cache().limit_bytes == default_limit() <= 2 * 1024**3


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8), st.integers(0, 6)), max_size=80))
@settings(deadline=None)
def test_the_limit_may_change_all_the_time(asked: list[tuple[int, int, int]]) -> None:
    cache = TileCache(4 * BYTES)
    held: list[Block] = []
    for key, size, places in asked:
        cache.set_limit(places * BYTES)
        blocks, mine = cache.claim([((key, size), (16 * size, 64, 3))])
        for block in mine:
            block.pixels[...] = key
            cache.finish(block)
        held += blocks
        assert all((block.pixels == block.key[0]).all() for block in held)
        if len(held) > 3:
            cache.release(held[:2])
            del held[:2]
    cache.release(held)
    assert cache.used_bytes <= cache.limit_bytes


def test_numpy_would_see_a_place_that_is_used_by_two() -> None:
    """Places of one slab do not overlap."""
    cache = TileCache(SLAB_BYTES)
    blocks, _ = cache.claim([((i,), (100, 100, 3)) for i in range(64)])
    for i, block in enumerate(blocks):
        block.pixels[...] = i
    assert [int(np.unique(block.pixels).item()) for block in blocks] == list(range(64))
