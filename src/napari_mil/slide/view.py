"""The pyramid for a window: it never waits for pixels.

A tile that is not at hand is answered at once from the nearest coarser level that is, each pixel repeated, and handed
to a pool of threads, most recently asked first. When it has arrived `on_tile` is called, the window slices again, and
has the exact pixels. The coarsest level is loaded when the view is made, so that there is always an answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

from .cache import new_token
from .chain import TILE_PX
from .dask_levels import LevelArray, dask_level
from .levels import Level
from .source import Pixels
from .tiles import TileId, Tiles, tile_range

if TYPE_CHECKING:
    Index = npt.NDArray[np.intp]

log = logging.getLogger(__name__)

STALE_SECONDS = 0.5
"""A tile asked for so long before the latest question is no longer in sight, and is not read."""

_MOST_WAITING = 512


class SlideView:
    """Never-waiting levels of a slide; made by `Slide.view`. A context manager.

    Parameters
    ----------
    tiles : Tiles
        The slide's tiles.
    title : str
        The slide's name, for messages.
    on_tile : callable, optional
        Called without arguments from a pool thread after a tile has arrived. What it raises is logged.
    threads : int
        Size of the pool.
    """

    def __init__(
        self, tiles: Tiles, title: str, on_tile: Callable[[], None] | None = None, *, threads: int = 4
    ) -> None:
        self._tiles = tiles
        self._on_tile = on_tile
        self._floor = _whole_level(tiles, len(tiles.chain) - 1)
        self._changed = threading.Condition()
        self._waiting: dict[TileId, float] = {}  # tile → when it was last asked for, oldest first
        self._reading: set[TileId] = set()
        self._latest = 0.0
        self._closed = False
        token = new_token()
        array_likes = [Level(level.size, i, self._answer, title) for i, level in enumerate(tiles.chain)]
        self.levels: list[LevelArray] = [
            dask_level(level, f"view-{token}-level-{i}") for i, level in enumerate(array_likes)
        ]
        self.array_likes: tuple[Level, ...] = tuple(array_likes)
        self._pool = [
            threading.Thread(target=self._work, name=f"slide-view-{token}-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._pool:
            thread.start()

    @property
    def pending(self) -> int:
        """Tiles that are waited for or being read."""
        with self._changed:
            return len(self._waiting) + len(self._reading)

    def prefetch(self, level: int, top: int, bottom: int, left: int, right: int) -> None:
        """Have the tiles of a region (pixels of a level) read behind whatever is asked for by the window."""
        height, width, _ = self.array_likes[level].shape
        ids = [
            TileId(level, row, column)
            for row in tile_range(max(0, top), min(bottom, height))
            for column in tile_range(max(0, left), min(right, width))
        ]
        with self._changed:
            if self._closed:
                return
            wanted = {id: self._latest for id in ids if id not in self._waiting and self._tiles.peek(id) is None}
            self._waiting = {**wanted, **self._waiting}  # the pool takes from the end
            self._changed.notify_all()

    def wait(self, timeout: float = 30.0) -> bool:
        """Wait until nothing is pending (for scripts and tests, never in the window's thread); False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or not (self._waiting or self._reading), timeout)

    def close(self) -> None:
        """Stop the pool: nothing more is read, `on_tile` is not called again; does not wait for reads under way."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, id: TileId) -> Pixels:
        """The tile, or its like from a coarser level at once, and then it is read behind."""
        if id.level == len(self._tiles.chain) - 1:
            y, x = id.row * TILE_PX, id.column * TILE_PX
            return self._floor[y : y + TILE_PX, x : x + TILE_PX]
        tile = self._tiles.peek(id)
        now = time.monotonic()
        with self._changed:
            self._latest = now
            if tile is None and not self._closed and id not in self._reading:
                self._waiting.pop(id, None)
                self._waiting[id] = now  # to the end: the latest is read first
                if len(self._waiting) > _MOST_WAITING:
                    del self._waiting[next(iter(self._waiting))]
                self._changed.notify()
        return self._coarser(id) if tile is None else tile

    def _coarser(self, id: TileId) -> Pixels:
        """The region of a tile in the nearest coarser level that is at hand, pixels repeated."""
        height, width = self._tiles.shape(id)
        last = len(self._tiles.chain) - 1
        for level in range(id.level + 1, last + 1):
            rows, columns = self._rows_in(id, level, height, width)
            top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
            if level == last:
                block: Pixels | None = self._floor[top:bottom, left:right]
            else:
                block = self._peek_block(level, top, bottom, left, right)
            if block is not None:
                return block.take(rows - top, axis=0).take(columns - left, axis=1)
        raise AssertionError("unreachable: the last level is always at hand")

    def _rows_in(self, id: TileId, level: int, height: int, width: int) -> tuple[Index, Index]:
        """Row and column in a coarser level under the centre of each pixel of a tile."""
        fine, coarse = self._tiles.chain[id.level].downsample, self._tiles.chain[level].downsample
        coarse_width, coarse_height = self._tiles.chain[level].size
        y = (np.arange(height) + id.row * TILE_PX + 0.5) * (fine[1] / coarse[1])
        x = (np.arange(width) + id.column * TILE_PX + 0.5) * (fine[0] / coarse[0])
        return (
            np.minimum(y.astype(np.intp), coarse_height - 1),
            np.minimum(x.astype(np.intp), coarse_width - 1),
        )

    def _peek_block(self, level: int, top: int, bottom: int, left: int, right: int) -> Pixels | None:
        """A region of a level if all its tiles are at hand."""
        rows, columns = tile_range(top, bottom), tile_range(left, right)
        tiles: dict[TileId, Pixels] = {}
        for id in (TileId(level, row, column) for row in rows for column in columns):
            tile = self._tiles.peek(id)
            if tile is None:
                return None
            tiles[id] = tile
        return Level(self._tiles.chain[level].size, level, tiles.__getitem__, "").block(top, bottom, left, right)

    def _work(self) -> None:
        """One thread of the pool."""
        while True:
            with self._changed:
                id = self._next()
                while id is None:
                    if self._closed:
                        return
                    self._changed.wait()
                    id = self._next()
                self._reading.add(id)
            arrived = self._read(id)
            with self._changed:
                self._reading.discard(id)
                tell = arrived and not self._closed and self._on_tile is not None
                self._changed.notify_all()
            if tell and self._on_tile is not None:
                try:
                    self._on_tile()
                except Exception:
                    log.exception("the window could not be told of a tile that arrived")

    def _next(self) -> TileId | None:
        """The tile asked for last; those that have gone out of sight are dropped. The lock is held."""
        oldest = self._latest - STALE_SECONDS
        while self._waiting:
            id, asked = self._waiting.popitem()
            if asked >= oldest:
                return id
        return None

    def _read(self, id: TileId) -> bool:
        try:
            self._tiles.tile(id)
        except SlideError:  # the slide was closed meanwhile
            return False
        except Exception as error:
            log.exception("a tile could not be read")
            self._tiles.fail(id, f"A part of the slide cannot be read ({error}).")
        return True


def _whole_level(tiles: Tiles, level: int) -> Pixels:
    """All pixels of a level, (h, w, 3), read if need be."""
    width, height = tiles.chain[level].size
    out = np.empty((height, width, 3), np.uint8)
    for id in _ids(level, height, width):
        tile = tiles.tile(id)
        y, x = id.row * TILE_PX, id.column * TILE_PX
        out[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    out.flags.writeable = False
    return out


def _ids(level: int, height: int, width: int) -> Iterable[TileId]:
    return (TileId(level, row, column) for row in tile_range(0, height) for column in tile_range(0, width))
