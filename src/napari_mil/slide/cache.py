"""One tile cache for the process: decoded tiles of every open slide, least recently used out first."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Key = tuple[Hashable, ...]

_LARGEST_DEFAULT = 2 * 1024**3
_tokens = itertools.count(1)


class _Loading:
    """A tile that some thread is decoding now; the others wait for it."""

    __slots__ = ("done", "error", "tile")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.tile: Pixels | None = None
        self.error: BaseException | None = None


class TileCache:
    """Least-recently-used cache of decoded tiles, limited in bytes. Thread-safe.

    Parameters
    ----------
    limit_bytes : int
        Most bytes of pixels held. A tile larger than the limit is handed out and not kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Key, Pixels] = OrderedDict()
        self._loading: dict[Key, _Loading] = {}
        self._bytes = 0
        self._limit = int(limit_bytes)

    @property
    def limit_bytes(self) -> int:
        """Most bytes of pixels held."""
        return self._limit

    @property
    def used_bytes(self) -> int:
        """Bytes of pixels held now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._tiles)

    def set_limit(self, limit_bytes: int) -> None:
        """Change the limit; tiles beyond it are dropped at once."""
        if limit_bytes < 0:
            raise ValueError(f"The tile cache cannot hold {limit_bytes} bytes; expected 0 or more.")
        with self._lock:
            self._limit = int(limit_bytes)
            self._evict()

    def peek(self, key: Key) -> Pixels | None:
        """The tile, if it is here; never waits for one that is being decoded."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def get(self, key: Key, load: Callable[[], Pixels]) -> Pixels:
        """The tile, decoded by `load` when it is not here; several askers of one tile decode it once.

        The tile is read-only. What `load` raises is raised to everyone who waits for this tile, and nothing is kept.
        """
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
            loading = self._loading.get(key)
            mine = loading is None
            if loading is None:
                loading = self._loading[key] = _Loading()
        if not mine:
            loading.done.wait()
            if loading.error is not None:
                raise loading.error
            assert loading.tile is not None
            return loading.tile
        try:
            tile = load()
            tile.flags.writeable = False
            loading.tile = tile
        except BaseException as error:
            loading.error = error
            raise
        finally:
            with self._lock:
                self._loading.pop(key, None)
                if loading.tile is not None:
                    self._put(key, loading.tile)
            loading.done.set()
        return tile

    def drop(self, first: Hashable) -> None:
        """Forget every tile whose key begins with `first` (the token of a slide that was closed)."""
        with self._lock:
            for key in [key for key in self._tiles if key[0] == first]:
                self._bytes -= self._tiles.pop(key).nbytes

    def clear(self) -> None:
        """Forget every tile."""
        with self._lock:
            self._tiles.clear()
            self._bytes = 0

    def _put(self, key: Key, tile: Pixels) -> None:
        if tile.nbytes > self._limit:
            return
        old = self._tiles.pop(key, None)
        if old is not None:
            self._bytes -= old.nbytes
        self._tiles[key] = tile
        self._bytes += tile.nbytes
        self._evict()

    def _evict(self) -> None:
        while self._bytes > self._limit:
            _, tile = self._tiles.popitem(last=False)
            self._bytes -= tile.nbytes


_cache: TileCache | None = None
_cache_lock = threading.Lock()


def new_token() -> int:
    """A number that no other slide of this process has, to begin its keys with."""
    return next(_tokens)


def default_limit() -> int:
    """A quarter of the machine's memory, at most 2 GiB."""
    import psutil

    return min(int(psutil.virtual_memory().total) // 4, _LARGEST_DEFAULT)


def tile_cache() -> TileCache:
    """The process-wide cache that every slide shares."""
    global _cache
    with _cache_lock:
        if _cache is None:
            _cache = TileCache(default_limit())
        return _cache


def set_cache_limit(limit_bytes: int | None) -> None:
    """Limit the process-wide tile cache to so many bytes; None gives the default back."""
    tile_cache().set_limit(default_limit() if limit_bytes is None else limit_bytes)
