"""The pixels of a slide's chain: native levels from its blocks, the others halved and kept in tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

from .blocks import Blocks
from .cache import Key, Shape, TileCache
from .chain import TILE_PX, ChainLevel
from .halving import halve
from .source import Pixels

_MOST_PROBLEMS = 20
_HALVED = "halved"


@dataclass(frozen=True, slots=True, order=True)
class TileId:
    """A tile of the chain: level, and row and column in tiles of `TILE_PX`."""

    level: int
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Box:
    """A region of a level of the chain, in its pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> Shape:
        """(h, w, 3); never negative."""
        return max(0, self.bottom - self.top), max(0, self.right - self.left), 3

    def tiles(self, level: int) -> list[TileId]:
        """Tiles that the region touches, row by row."""
        if 0 in self.shape:
            return []
        columns = range(self.left // TILE_PX, -(-self.right // TILE_PX))
        rows = range(self.top // TILE_PX, -(-self.bottom // TILE_PX))
        return [TileId(level, row, column) for row in rows for column in columns]

    def part(self, inner: Box) -> tuple[slice, slice]:
        """Rows and columns of this region that another one covers."""
        return (
            slice(max(inner.top, self.top) - self.top, min(inner.bottom, self.bottom) - self.top),
            slice(max(inner.left, self.left) - self.left, min(inner.right, self.right) - self.left),
        )


class Tiles:
    """The chain of one open slide. Thread-safe; `region` waits for pixels, `peek` never does.

    Parameters
    ----------
    blocks : Blocks
        The slide's native pixels.
    chain : tuple of ChainLevel
    cache : TileCache
        Where halved tiles are kept.
    """

    def __init__(self, blocks: Blocks, chain: tuple[ChainLevel, ...], cache: TileCache) -> None:
        self.chain = chain
        self.problems: list[str] = []
        self.closed = False
        self._blocks = blocks
        self._cache = cache
        self._lock = threading.Lock()

    def box(self, id: TileId) -> Box:
        """The region of a tile; smaller than others at the right and lower edge."""
        width, height = self.chain[id.level].size
        top, left = id.row * TILE_PX, id.column * TILE_PX
        return Box(top, min(top + TILE_PX, height), left, min(left + TILE_PX, width))

    def region(self, level: int, box: Box) -> Pixels:
        """(h, w, 3) pixels of a region; grey, with a sentence in `problems`, where they cannot be read.

        Raises
        ------
        SlideClosed
            When the slide was closed.
        """
        out = np.empty(box.shape, np.uint8)
        if out.size == 0:
            return out
        native = self.chain[level].native
        if native is not None:
            for error in self._blocks.fill(native, box.left, box.top, out):
                self.note(str(error))
        else:

            def put(id: TileId, pixels: Pixels) -> None:
                self._copy(id, pixels, box, out)

            for run in runs(box.tiles(level)):
                self._fill_halved(run, put)
        return out

    def run_box(self, ids: Sequence[TileId]) -> Box:
        """The region of tiles that lie side by side."""
        boxes = [self.box(id) for id in ids]
        return Box(boxes[0].top, boxes[0].bottom, min(b.left for b in boxes), max(b.right for b in boxes))

    def load(self, ids: Sequence[TileId]) -> None:
        """Have tiles that lie side by side in the cache. Raises SlideClosed."""
        native = self.chain[ids[0].level].native
        if native is None:
            self._fill_halved(ids, lambda id, pixels: None)
            return
        box = self.run_box(ids)
        for error in self._blocks.load(native, box.left, box.top, *box.shape[1::-1]):
            self.note(str(error))

    def peek(self, level: int, box: Box, out: Pixels) -> list[TileId]:
        """As much of a region as is at hand, into `out`; gives the tiles that are not. Never reads or waits."""
        native = self.chain[level].native
        if native is not None:
            return sorted(
                {
                    id
                    for rows, columns in self._blocks.peek(native, box.left, box.top, out)
                    for id in Box(
                        box.top + rows.start, box.top + rows.stop, box.left + columns.start, box.left + columns.stop
                    ).tiles(level)
                }
            )
        ids = box.tiles(level)
        blocks = self._cache.peek([self._key(id) for id in ids])
        try:
            for id, block in zip(ids, blocks, strict=True):
                if block is not None:
                    self._copy(id, block.pixels, box, out)
        finally:
            self._cache.release(blocks)
        return [id for id, block in zip(ids, blocks, strict=True) if block is None]

    def has(self, level: int, box: Box) -> bool:
        """Whether a region is at hand."""
        native = self.chain[level].native
        if native is not None:
            return self._blocks.has(native, box.left, box.top, *box.shape[1::-1])
        return self._cache.has([self._key(id) for id in box.tiles(level)])

    def failed_boxes(self) -> npt.NDArray[np.int64]:
        """(N, 4) x_min, y_min, x_max, y_max in level-0 pixels of what could not be read."""
        downsample = {level.native: level.downsample for level in self.chain if level.native is not None}
        boxes = [
            (int(x0 * dx), int(y0 * dy), round(x1 * dx), round(y1 * dy))
            for level, x0, y0, x1, y1 in self._blocks.failed_boxes()
            for dx, dy in [downsample.get(level, (1.0, 1.0))]
            if level in downsample
        ]
        return np.asarray(boxes, dtype=np.int64).reshape(-1, 4)

    def note(self, sentence: str) -> None:
        """Add to `problems`."""
        with self._lock:
            if sentence not in self.problems and len(self.problems) < _MOST_PROBLEMS:
                self.problems.append(sentence)

    def close(self) -> None:
        """Forget this slide's pixels."""
        self.closed = True
        self._blocks.close()

    def _key(self, id: TileId) -> Key:
        return (self._blocks.token, _HALVED, id.level, id.row, id.column)

    def _copy(self, id: TileId, pixels: Pixels, box: Box, out: Pixels) -> None:
        own = self.box(id)
        out[box.part(own)] = pixels[own.part(box)]

    def _fill_halved(self, ids: Sequence[TileId], put: Callable[[TileId, Pixels], None]) -> None:
        """`put` the pixels of halved tiles; those that are not there are made."""
        blocks, mine = self._cache.claim([(self._key(id), self.box(id).shape) for id in ids])
        new = set(mine)
        failure: SlideError = SlideError("The reading was interrupted.")
        try:
            self._read_under([id for id, block in zip(ids, blocks, strict=True) if block in new])
            for id, block in zip(ids, blocks, strict=True):
                if block in new:
                    self._halve(id, block.pixels)
                    self._blocks.derived(block.key)
                    self._cache.finish(block)
            for id, block in zip(ids, blocks, strict=True):
                self._cache.wait(block)
                if block.error is not None:
                    raise block.error
                put(id, block.pixels)
        except SlideError as error:
            failure = error
            raise
        finally:
            for block in mine:
                if not block.ready:
                    self._cache.finish(block, failure)
            self._cache.release(blocks)
            if self.closed:  # meanwhile, and what was there then was dropped
                self._blocks.close()

    def _read_under(self, ids: Sequence[TileId]) -> None:
        """Read the native blocks under halved tiles of one row in few batches; one by one they would be more."""
        if len(ids) < 2 or (native := self.chain[ids[0].level - 1].native) is None:
            return
        for run in runs(ids):
            box = self.run_box(run)
            width, height = self.chain[ids[0].level - 1].size
            right, bottom = min(2 * box.right, width), min(2 * box.bottom, height)
            finer = (right - 2 * box.left) * (bottom - 2 * box.top) * 3
            if finer <= self._cache.limit_bytes // 16:  # else they would be gone before they are halved
                self._blocks.load(native, 2 * box.left, 2 * box.top, right - 2 * box.left, bottom - 2 * box.top)

    def _halve(self, id: TileId, out: Pixels) -> None:
        """Pixels of a tile from the next finer level."""
        own = self.box(id)
        native = self.chain[id.level - 1].native
        width, height = self.chain[id.level - 1].size
        if native is not None:
            for error in self._blocks.fill_halved(native, own.left, own.top, out, (width, height)):
                self.note(str(error))
            return
        finer = Box(2 * own.top, min(2 * own.bottom, height), 2 * own.left, min(2 * own.right, width))

        def put(part: TileId, pixels: Pixels) -> None:
            top, left = part.row * TILE_PX // 2 - own.top, part.column * TILE_PX // 2 - own.left
            halve(pixels, out[top : top + TILE_PX // 2, left : left + TILE_PX // 2])

        self._fill_halved(finer.tiles(id.level - 1), put)


def runs(ids: Iterable[TileId]) -> list[list[TileId]]:
    """Tiles that lie side by side together; given row by row."""
    found: list[list[TileId]] = []
    for id in ids:
        if found and (id.row, id.column) == (found[-1][-1].row, found[-1][-1].column + 1):
            found[-1].append(id)
        else:
            found.append([id])
    return found
