"""The tiles of a slide's levels: read, halved, kept in the cache; one that fails is grey and not retried."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

from .cache import Key, TileCache, new_token
from .chain import TILE_PX, ChainLevel
from .source import Pixels, PixelSource

FAILED_GREY = 210
"""Colour of a tile that cannot be read."""

_MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True, order=True)
class TileId:
    """A tile of the chain: level, and row and column in tiles of `TILE_PX`."""

    level: int
    row: int
    column: int


class Tiles:
    """Tiles of one open slide. Thread-safe; `tile` waits for pixels, `peek` never does.

    Parameters
    ----------
    source : PixelSource
    chain : tuple of ChainLevel
    cache : TileCache
    """

    def __init__(self, source: PixelSource, chain: tuple[ChainLevel, ...], cache: TileCache) -> None:
        self.chain = chain
        self.token = new_token()
        self.problems: list[str] = []
        self._source = source
        self._cache = cache
        self._failed: set[TileId] = set()
        self._lock = threading.Lock()
        self.closed = False

    def shape(self, id: TileId) -> tuple[int, int]:
        """(height, width) of a tile; smaller at the right and lower edge."""
        width, height = self.chain[id.level].size
        return min(TILE_PX, height - id.row * TILE_PX), min(TILE_PX, width - id.column * TILE_PX)

    def tile(self, id: TileId) -> Pixels:
        """(h, w, 3) read-only pixels of a tile; grey, with a sentence in `problems`, when it cannot be read.

        Raises
        ------
        SlideError
            When the slide was closed.
        """
        if id in self._failed:
            return self._grey(id)
        try:
            return self._cache.get(self._key(id), lambda: self._load(id))
        except SlideError as error:
            if self.closed:
                raise
            self.fail(id, str(error))
            return self._grey(id)

    def peek(self, id: TileId) -> Pixels | None:
        """The tile if it is at hand (a failed one is), else None; never reads, never waits."""
        if id in self._failed:
            return self._grey(id)
        return self._cache.peek(self._key(id))

    def failed_boxes(self) -> npt.NDArray[np.int64]:
        """(N, 4) x_min, y_min, x_max, y_max in level-0 pixels of the tiles that could not be read."""
        with self._lock:
            failed = sorted(self._failed)
        boxes = [self._level0_box(id) for id in failed]
        return np.asarray(boxes, dtype=np.int64).reshape(-1, 4)

    def close(self) -> None:
        """Forget this slide's tiles."""
        self.closed = True
        self._cache.drop(self.token)

    def _key(self, id: TileId) -> Key:
        return (self.token, id.level, id.row, id.column)

    def _load(self, id: TileId) -> Pixels:
        height, width = self.shape(id)
        native = self.chain[id.level].native
        if native is not None:
            return self._source.read(native, id.column * TILE_PX, id.row * TILE_PX, width, height)
        finer = np.empty((2 * height, 2 * width, 3), np.uint8)
        filled_y = filled_x = 0
        finer_width, finer_height = self.chain[id.level - 1].size
        for row in (2 * id.row, 2 * id.row + 1):
            for column in (2 * id.column, 2 * id.column + 1):
                if row * TILE_PX >= finer_height or column * TILE_PX >= finer_width:
                    continue
                y, x = (row - 2 * id.row) * TILE_PX, (column - 2 * id.column) * TILE_PX
                if y >= 2 * height or x >= 2 * width:
                    continue
                part = self.tile(TileId(id.level - 1, row, column))[: 2 * height - y, : 2 * width - x]
                finer[y : y + part.shape[0], x : x + part.shape[1]] = part
                filled_y, filled_x = max(filled_y, y + part.shape[0]), max(filled_x, x + part.shape[1])
        finer[filled_y:] = finer[filled_y - 1]  # an odd last row or column counts twice
        finer[:, filled_x:] = finer[:, filled_x - 1 : filled_x]
        return halve(finer)

    def fail(self, id: TileId, sentence: str) -> None:
        """Note that a tile cannot be read; it is grey from now on and not tried again."""
        with self._lock:
            self._failed.add(id)
        self.note(sentence)

    def note(self, sentence: str) -> None:
        """Add to `problems`."""
        with self._lock:
            if sentence not in self.problems and len(self.problems) < _MOST_PROBLEMS:
                self.problems.append(sentence)

    def _grey(self, id: TileId) -> Pixels:
        grey = np.broadcast_to(np.uint8(FAILED_GREY), (*self.shape(id), 3))
        return grey

    def _level0_box(self, id: TileId) -> tuple[int, int, int, int]:
        height, width = self.shape(id)
        x, y = id.column * TILE_PX, id.row * TILE_PX
        dx, dy = self.chain[id.level].downsample
        return int(x * dx), int(y * dy), round((x + width) * dx), round((y + height) * dy)


def halve(pixels: Pixels) -> Pixels:
    """(2h, 2w, 3) → (h, w, 3): the mean of each 2 x 2, rounded half up."""
    total = pixels[0::2, 0::2].astype(np.uint16)
    total += pixels[0::2, 1::2]
    total += pixels[1::2, 0::2]
    total += pixels[1::2, 1::2]
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def tile_range(start: int, stop: int) -> range:
    """Tiles that pixels start … stop − 1 of an axis touch."""
    return range(start // TILE_PX, -(-stop // TILE_PX))
