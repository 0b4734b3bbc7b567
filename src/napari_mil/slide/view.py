"""The chain for a window: a question is answered at once, exact pixels where they are at hand, else coarser ones.

What was not at hand is answered from the nearest coarser level that is, each pixel repeated, and read behind by a pool
of threads: what was asked last first, neighbours together, and nothing that has gone out of sight. When it has arrived
`on_tile` is called, the window asks again, and has the exact pixels. The coarsest level is loaded when the view is
made, so that there is always an answer. When nothing else is to be done, tiles are read that lie ahead in the direction
of the movement.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

from .cache import new_token
from .chain import TILE_PX
from .levels import Level
from .source import Pixels
from .tiles import Box, TileId, Tiles, runs

if TYPE_CHECKING:
    from .dask_levels import LevelArray

Index = npt.NDArray[np.intp]

log = logging.getLogger(__name__)

STALE_SECONDS = 0.3
"""A tile asked for so long before the latest question is no longer in sight, and is not read."""

THREADS = min(8, max(4, os.cpu_count() or 4))
"""Threads that read behind: four at least, for on a network share they mostly wait; more would starve the window."""

_MOST_WAITING = 1024
_MOST_TOGETHER = 8  # tiles that one thread reads together


class SlideView:
    """Never-waiting levels of a slide; made by `Slide.view`. A context manager.

    Parameters
    ----------
    tiles : Tiles
        The slide's pixels.
    title : str
        The slide's name, for messages.
    on_tile : callable, optional
        Called without arguments from a pool thread after a tile has arrived that was answered from a coarser level.
        What it raises is logged.
    threads : int
        Size of the pool.

    Attributes
    ----------
    array_likes : tuple of Level
        The levels, (h, w, 3) uint8: what the window is given.
    """

    def __init__(
        self, tiles: Tiles, title: str, on_tile: Callable[[], None] | None = None, *, threads: int = THREADS
    ) -> None:
        self._tiles = tiles
        self._on_tile = on_tile
        self._last = len(tiles.chain) - 1
        width, height = tiles.chain[-1].size
        self._floor = tiles.region(self._last, Box(0, height, 0, width))
        self._changed = threading.Condition()
        self._waiting: dict[TileId, float] = {}  # tile → when it was last asked for, oldest first
        self._ahead: list[TileId] = []  # to be read when nothing waits, nearest last
        self._reading: dict[TileId, bool] = {}  # tile → whether the window asked for it
        self._arrived: set[TileId] = set()  # tiles that the window last saw coarser than they are now
        self._latest = 0.0
        self._seen: tuple[int, Box] | None = None
        self._closed = False
        self._threads = threads
        self._token = new_token()
        self.array_likes: tuple[Level, ...] = tuple(
            Level(level.size, i, self._answer, title) for i, level in enumerate(tiles.chain)
        )
        self._pool: list[threading.Thread] = []  # grows as there is work
        self._idle = 0

    @property
    def levels(self) -> list[LevelArray]:
        """The same as dask arrays, for those who compute; the window's slicing is several times faster without."""
        from .dask_levels import dask_level

        return [dask_level(level, f"view-{self._token}-level-{i}") for i, level in enumerate(self.array_likes)]

    @property
    def pending(self) -> int:
        """Tiles that are waited for or being read."""
        with self._changed:
            return len(self._waiting) + len(self._reading)

    @property
    def settled(self) -> bool:
        """Whether nothing that the window asked for is on its way."""
        with self._changed:
            return not self._waiting and not any(self._reading.values())

    @property
    def outdated(self) -> bool:
        """Whether tiles have arrived since the window last asked for them."""
        with self._changed:
            return bool(self._arrived)

    def drawing(self) -> None:
        """Say that the window is about to ask for all that is in sight: what has arrived elsewhere is of no concern."""
        with self._changed:
            self._arrived.clear()

    def prefetch(self, level: int, top: int, bottom: int, left: int, right: int) -> None:
        """Have the tiles of a region (pixels of a level) read when nothing waits that the window asked for."""
        ids = self._inside(level, Box(top, bottom, left, right)).tiles(level)
        missing = [id for id in ids if not self._tiles.has(level, self._tiles.box(id))]
        with self._changed:
            if self._closed:
                return
            self._ahead = missing[::-1]
            self._changed.notify_all()
            another = self._another()
        if another is not None:
            another.start()

    def wait(self, timeout: float = 30.0) -> bool:
        """Wait until nothing is pending (for scripts and tests, never in the window's thread); False on timeout."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closed or not (self._waiting or self._reading or self._ahead), timeout
            )

    def close(self) -> None:
        """Stop the pool: nothing more is read, `on_tile` is not called again; does not wait for reads under way."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._ahead.clear()
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # in the window's thread

    def _answer(self, level: int, box: Box) -> Pixels:
        """A region at once; what is missing of it is answered from coarser levels, and read behind."""
        if level == self._last:
            return self._floor[box.top : box.bottom, box.left : box.right]
        out = np.empty(box.shape, np.uint8)
        missing = self._tiles.peek(level, box, out) if out.size else []
        for id, run in ((run[0], run) for run in runs(missing)):
            for coarse, ids in itertools.groupby(run, key=self._nearest):
                self._repeat(id.level, self._tiles.run_box(list(ids)), coarse, box, out)
        self._ask(level, box, missing)
        return out

    def _nearest(self, id: TileId) -> int:
        """The nearest coarser level in which the region of a tile is at hand."""
        own = self._tiles.box(id)
        return next((k for k in range(id.level + 1, self._last) if self._has(id.level, own, k)), self._last)

    def _has(self, level: int, box: Box, coarse: int) -> bool:
        rows, columns = self._under(level, box, coarse)
        return self._tiles.has(coarse, _span(rows, columns))

    def _repeat(self, level: int, tiles: Box, coarse: int, box: Box, out: Pixels) -> None:
        """Fill the part of a region that these tiles cover from a coarser level, pixels repeated."""
        part = box.part(tiles)
        inner = Box(*(box.top + i for i in _ends(part[0])), *(box.left + i for i in _ends(part[1])))
        rows, columns = self._under(level, inner, coarse)
        span = _span(rows, columns)
        pixels = self._floor[span.top : span.bottom, span.left : span.right]
        if coarse != self._last:
            pixels = np.empty(span.shape, np.uint8)
            if self._tiles.peek(coarse, span, pixels):  # gone this very moment
                return self._repeat(level, tiles, self._last, box, out)
        out[part] = repeated(pixels, rows - span.top, columns - span.left)

    def _under(self, level: int, box: Box, coarse: int) -> tuple[Index, Index]:
        """Row and column in a coarser level under the centre of each pixel of a region."""
        fine, other = self._tiles.chain[level].downsample, self._tiles.chain[coarse]
        y = (np.arange(box.top, box.bottom) + 0.5) * (fine[1] / other.downsample[1])
        x = (np.arange(box.left, box.right) + 0.5) * (fine[0] / other.downsample[0])
        return (
            np.minimum(y.astype(np.intp), other.size[1] - 1),
            np.minimum(x.astype(np.intp), other.size[0] - 1),
        )

    def _ask(self, level: int, box: Box, missing: list[TileId]) -> None:
        """Have tiles read behind, those in the middle of the region first; and then those ahead of the movement."""
        row, column = ((box.top + box.bottom) / 2 / TILE_PX, (box.left + box.right) / 2 / TILE_PX)
        outwards = sorted(missing, key=lambda id: -max(abs(id.row + 0.5 - row), abs(id.column + 0.5 - column)))
        now = time.monotonic()
        ahead = self._ahead_of(level, box)
        with self._changed:
            self._latest = now
            if self._arrived:
                self._arrived.difference_update(box.tiles(level))
            if self._closed:
                return
            for id in outwards:
                if id in self._reading:
                    self._reading[id] = True
                    continue
                self._waiting.pop(id, None)
                self._waiting[id] = now  # to the end: the latest is read first
            while len(self._waiting) > _MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
            if ahead is not None:
                self._ahead = ahead
            self._changed.notify_all()
            another = self._another()
        if another is not None:
            another.start()

    def _another(self) -> threading.Thread | None:
        """One more thread where there is work for it, to be started without the lock, which is held now.

        One at a time, the next by that one: starting a thread waits until it runs.
        """
        if self._idle >= len(self._waiting) + len(self._ahead) or len(self._pool) >= self._threads:
            return None
        name = f"slide-view-{self._token}-{len(self._pool)}"
        self._pool.append(threading.Thread(target=self._work, name=name, daemon=True))
        return self._pool[-1]

    def _ahead_of(self, level: int, box: Box) -> list[TileId] | None:
        """Tiles beside a region in the direction in which it moved since the last question; None if it did not."""
        before, self._seen = self._seen, (level, box)
        if before is None or before == self._seen:
            return None
        if before[0] != level:
            return []
        down, right = (
            box.top + box.bottom - before[1].top - before[1].bottom,
            box.left + box.right - before[1].left - before[1].right,
        )
        beside = [
            Box(box.bottom, box.bottom + TILE_PX, box.left, box.right) if down > 0 else None,
            Box(box.top - TILE_PX, box.top, box.left, box.right) if down < 0 else None,
            Box(box.top, box.bottom, box.right, box.right + TILE_PX) if right > 0 else None,
            Box(box.top, box.bottom, box.left - TILE_PX, box.left) if right < 0 else None,
        ]
        ids = [id for strip in beside if strip is not None for id in self._inside(level, strip).tiles(level)]
        return [id for id in ids if not self._tiles.has(level, self._tiles.box(id))]

    def _inside(self, level: int, box: Box) -> Box:
        width, height = self._tiles.chain[level].size
        return Box(max(0, box.top), min(box.bottom, height), max(0, box.left), min(box.right, width))

    # in the pool's threads

    def _work(self) -> None:
        """One thread of the pool."""
        while True:
            with self._changed:
                while not (ids := self._next()):
                    if self._closed:
                        return
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                another = self._another()
            if another is not None:
                another.start()
            arrived = self._read(ids)
            with self._changed:
                wanted = [id for id in ids if self._reading.pop(id)]
                tell = arrived and bool(wanted) and not self._closed
                if tell:
                    self._arrived.update(wanted)
                self._changed.notify_all()
            if tell and self._on_tile is not None:
                try:
                    self._on_tile()
                except Exception:
                    log.exception("the window could not be told of a tile that arrived")

    def _next(self) -> list[TileId]:
        """The tile asked for last and its neighbours, now being read; else one ahead. The lock is held."""
        oldest = self._latest - STALE_SECONDS
        while self._waiting:
            id, asked = self._waiting.popitem()
            if asked < oldest:
                continue
            together = sorted([id, *self._beside(id, 1 + len(self._waiting) // self._threads)])
            self._reading.update(dict.fromkeys(together, True))
            return together
        while self._ahead:
            id = self._ahead.pop()
            if id not in self._reading:
                self._reading[id] = False
                return [id]
        return []

    def _beside(self, id: TileId, share: int) -> list[TileId]:
        """Waiting tiles to the right and left of one, no more than a thread's share of the work."""
        found: list[TileId] = []
        for step in (1, -1):
            for distance in range(1, _MOST_TOGETHER):
                beside = TileId(id.level, id.row, id.column + step * distance)
                if len(found) + 1 >= min(share, _MOST_TOGETHER) or self._waiting.pop(beside, None) is None:
                    break
                found.append(beside)
        return found

    def _read(self, ids: list[TileId]) -> bool:
        """Read tiles; whether they came."""
        try:
            self._tiles.load(ids)
        except SlideError:  # the slide was closed meanwhile
            return False
        except Exception:
            log.exception("tiles could not be read")
            return False
        return True


def repeated(pixels: Pixels, rows: Index, columns: Index) -> Pixels:
    """(h, w, 3): the pixel of each row and column; the columns first, there are fewer of the coarser rows."""
    return pixels.take(columns, axis=1).take(rows, axis=0)


def _ends(part: slice) -> tuple[int, int]:
    return part.start, part.stop


def _span(rows: Index, columns: Index) -> Box:
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
