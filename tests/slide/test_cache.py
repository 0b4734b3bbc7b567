"""The process-wide tile cache."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mil.slide.cache import TileCache, default_limit, set_cache_limit, tile_cache


def tile(size: int, value: int = 0) -> np.ndarray:
    return np.full((size, 1, 1), value, np.uint8)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 50)), max_size=60), st.integers(0, 120))
def test_never_over_the_limit_and_least_recent_goes_first(asked: list[tuple[int, int]], limit: int) -> None:
    cache = TileCache(limit)
    model: dict[int, int] = {}  # key → bytes, oldest first
    for key, size in asked:
        size = model.get(key, size)
        cache.get((key,), lambda size=size: tile(size))
        model[key] = model.pop(key, size)
        if size > limit:
            del model[key]
        while sum(model.values()) > limit:
            del model[next(iter(model))]
        assert cache.used_bytes == sum(model.values()) <= limit
        assert {k for k in range(9) if (k,) in cache._tiles} == set(model)


def test_a_tile_is_decoded_once_for_all_who_wait() -> None:
    cache = TileCache(10_000)
    calls: list[int] = []

    def slow() -> np.ndarray:
        calls.append(1)
        time.sleep(0.05)
        return tile(4, 9)

    got: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: got.append(cache.get(("k",), slow))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(got) == 8
    assert all(g is got[0] for g in got)
    assert not got[0].flags.writeable


def test_what_fails_is_raised_to_all_and_not_kept() -> None:
    cache = TileCache(1000)

    def fail() -> np.ndarray:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.get(("k",), fail)
    assert cache.peek(("k",)) is None
    assert cache.get(("k",), lambda: tile(3)).shape == (3, 1, 1)


def test_limit_can_be_set_and_given_back() -> None:
    cache = TileCache(100)
    for key in range(5):
        cache.get((key, 0), lambda: tile(20))
    cache.set_limit(45)
    assert cache.used_bytes == 40
    cache.drop(4)
    assert cache.used_bytes == 20
    cache.clear()
    assert (cache.used_bytes, len(cache)) == (0, 0)
    with pytest.raises(ValueError, match="expected 0 or more"):
        cache.set_limit(-1)
    set_cache_limit(12345)
    assert tile_cache().limit_bytes == 12345
    set_cache_limit(None)
    assert tile_cache().limit_bytes == default_limit() <= 2 * 1024**3
