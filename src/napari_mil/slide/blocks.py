"""Native pixels through the cache: regions put together from blocks, each of which is decoded once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_mil.errors import SlideClosed, SlideError

from .cache import Block, Key, Shape, TileCache, new_token
from .halving import halve
from .source import Pixels, PixelSource, Size, block_shape

if TYPE_CHECKING:
    from .watch import FileWatch

log = logging.getLogger(__name__)

FAILED_GREY = 210
"""Colour of what cannot be read."""

BATCH_BYTES = 16 * 1024**2
"""Blocks of so much together are claimed and read at a time, less in a small cache: others can't use their places."""

Place = tuple[int, int]
"""Column and row of a block."""


class Blocks:
    """Blocks of one open slide's native levels. Thread-safe.

    Parameters
    ----------
    source : PixelSource
    cache : TileCache
    watch : FileWatch
        Says when the file is no longer the one that was opened; then nothing more is read of it.

    Attributes
    ----------
    token : int
        What the keys of this slide's blocks begin with.
    """

    def __init__(self, source: PixelSource, cache: TileCache, watch: FileWatch) -> None:
        self.token = new_token()
        self._source = source
        self._cache = cache
        self._watch = watch
        self._failed: dict[tuple[int, Place], SlideError] = {}
        self._sizes = tuple(source.block_size(level) for level in range(len(source.level_dimensions)))
        self._unproven: list[Key] = []  # read since the file was last seen to be the same
        self._lock = threading.Lock()
        self._closed = False

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """(height, width, 3) pixels of a region inside a native level; waits for them.

        Raises
        ------
        SlideError
            The reason of the first block that could not be read, now or before: none is tried twice.
        SlideClosed
            When the slide was closed.
        """
        out = np.empty((height, width, 3), np.uint8)
        failed = self.fill(level, x, y, out)
        if failed:  # a new one: each raising of an error leaves its frames in it, and `out` with them
            raise SlideError(str(failed[0]))
        return out

    def fill(self, level: int, x: int, y: int, out: Pixels) -> list[SlideError]:
        """As `region`, into `out`, which is grey where it could not be read; gives the reasons. Raises SlideClosed."""

        def put(place: Place, pixels: Pixels) -> None:
            self._copy(level, place, pixels, x, y, out)

        return self._each(level, self._places(level, x, y, out.shape[1], out.shape[0]), put)

    def fill_halved(self, level: int, x: int, y: int, out: Pixels, size: Size) -> list[SlideError]:
        """As `fill`, of the level halved; (x, y) in pixels of that. Reads its blocks straight into half the size.

        `size` is the level's width and height, without what pads it.
        """
        width, height = self._sizes[level]
        right, bottom = min(2 * (x + out.shape[1]), size[0]), min(2 * (y + out.shape[0]), size[1])
        if width % 2 or height % 2:
            whole = np.empty((bottom - 2 * y, right - 2 * x, 3), np.uint8)
            errors = self.fill(level, 2 * x, 2 * y, whole)
            halve(whole, out)
            return errors

        def put(place: Place, pixels: Pixels) -> None:
            top, left = place[1] * height // 2 - y, place[0] * width // 2 - x  # in `out`
            rows = slice(max(0, -2 * top), bottom - place[1] * height)
            inside = pixels[rows, max(0, -2 * left) : right - place[0] * width]
            halve(
                inside, out[max(0, top) :, max(0, left) :][: (inside.shape[0] + 1) // 2, : (inside.shape[1] + 1) // 2]
            )

        return self._each(level, self._places(level, 2 * x, 2 * y, right - 2 * x, bottom - 2 * y), put)

    def _each(self, level: int, places: Sequence[Place], put: Callable[[Place, Pixels], None]) -> list[SlideError]:
        """`put` the pixels of each block, a batch at a time; grey for one that cannot be read."""
        errors: list[SlideError] = []
        width, height = self._sizes[level]
        step = max(1, min(BATCH_BYTES, self._cache.limit_bytes // 16) // (width * height * 3))
        for start in range(0, len(places), step):
            errors += self._batch(level, places[start : start + step], put)
        return errors

    def _batch(self, level: int, places: Sequence[Place], put: Callable[[Place, Pixels], None]) -> list[SlideError]:
        known = {place: self._failed[level, place] for place in places if (level, place) in self._failed}
        sound = [place for place in places if place not in known]
        blocks, mine = self._cache.claim([(self._key(level, place), self._shape(level, place)) for place in sound])
        try:
            if mine:
                new = set(mine)
                self._read(level, [place for place, b in zip(sound, blocks, strict=True) if b in new], mine)
            for place, block in zip(sound, blocks, strict=True):
                self._cache.wait(block)
                if block.error is None:
                    put(place, block.pixels)
                elif isinstance(block.error, SlideClosed):
                    raise block.error
                else:
                    known[place] = block.error
        finally:
            for block in mine:  # nobody may wait for what will not come
                if not block.ready and block.error is None:
                    self._cache.finish(block, SlideError("The reading was interrupted."))
            self._cache.release(blocks)
        for place in known:
            put(place, np.broadcast_to(np.uint8(FAILED_GREY), self._shape(level, place)))
        return list(known.values())

    def peek(self, level: int, x: int, y: int, out: Pixels) -> list[tuple[slice, slice]]:
        """As much of a region as is at hand, into `out`; gives the parts that are not. Never reads, never waits."""
        places = self._places(level, x, y, out.shape[1], out.shape[0])
        blocks = self._cache.peek([self._key(level, place) for place in places])
        missing: list[tuple[slice, slice]] = []
        try:
            for place, block in zip(places, blocks, strict=True):
                if block is not None:
                    self._copy(level, place, block.pixels, x, y, out)
                    continue
                part = self._part(level, place, x, y, out)
                if (level, place) in self._failed:
                    out[part] = FAILED_GREY
                else:
                    missing.append(part)
        finally:
            self._cache.release(blocks)
        return missing

    def load(self, level: int, x: int, y: int, width: int, height: int) -> list[SlideError]:
        """Have the blocks of a region in the cache; gives the reasons of those that cannot be. Raises SlideClosed."""
        return self._each(level, self._places(level, x, y, width, height), lambda place, pixels: None)

    def has(self, level: int, x: int, y: int, width: int, height: int) -> bool:
        """Whether a region is at hand (what cannot be read is)."""
        places = self._places(level, x, y, width, height)
        return self._cache.has([self._key(level, p) for p in places if (level, p) not in self._failed])

    def derived(self, key: Key) -> None:
        """Say that a block of the cache was made from this slide's: it is forgotten with them."""
        with self._lock:
            self._unproven.append(key)

    def failed_boxes(self) -> list[tuple[int, int, int, int, int]]:
        """(level, x_min, y_min, x_max, y_max) in the level's pixels of the blocks that could not be read so far."""
        boxes = []
        for level, (column, row) in sorted(self._failed):
            width, height = self._sizes[level]
            h, w, _ = self._shape(level, (column, row))
            boxes.append((level, column * width, row * height, column * width + w, row * height + h))
        return boxes

    def close(self) -> None:
        """Forget this slide's blocks."""
        self._closed = True
        self._cache.drop(self.token)

    def _places(self, level: int, x: int, y: int, width: int, height: int) -> list[Place]:
        """Blocks that a region touches, row by row."""
        block_width, block_height = self._sizes[level]
        columns = range(x // block_width, -(-(x + width) // block_width))
        rows = range(y // block_height, -(-(y + height) // block_height))
        return [(column, row) for row in rows for column in columns]

    def _key(self, level: int, place: Place) -> Key:
        return (self.token, level, *place)

    def _shape(self, level: int, place: Place) -> Shape:
        return block_shape(self._source, level, *place)

    def _copy(self, level: int, place: Place, pixels: Pixels, x: int, y: int, out: Pixels) -> None:
        """The part of a block that lies in the region `out` with its corner at (x, y)."""
        rows, columns = self._part(level, place, x, y, out)
        width, height = self._sizes[level]
        top, left = place[1] * height - y, place[0] * width - x
        out[rows, columns] = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def _part(self, level: int, place: Place, x: int, y: int, out: Pixels) -> tuple[slice, slice]:
        """Rows and columns of the region `out` that a block covers."""
        width, height = self._sizes[level]
        top, left = place[1] * height - y, place[0] * width - x
        return (
            slice(max(top, 0), min(top + height, out.shape[0])),
            slice(max(left, 0), min(left + width, out.shape[1])),
        )

    def _read(self, level: int, places: Sequence[Place], blocks: Sequence[Block]) -> None:
        """Fill claimed blocks in one batch, and tell those who wait for them."""
        for place, block, error in zip(places, blocks, self._tried(level, places, blocks), strict=True):
            if error is not None and not isinstance(error, SlideClosed):
                self._failed[level, place] = SlideError(str(error))  # without the frames, their pixels and files
            self._cache.finish(block, error)
        if self._closed:  # meanwhile, and what was there then was dropped
            self._cache.drop(self.token)

    def _tried(self, level: int, places: Sequence[Place], blocks: Sequence[Block]) -> Sequence[SlideError | None]:
        """Fill blocks; for each, why it could not be."""
        if self._watch.sentence is not None:
            return [SlideError(self._watch.sentence)] * len(blocks)
        try:
            errors = self._source.read_blocks(level, places, [block.pixels for block in blocks])
        except SlideClosed as error:
            return [error] * len(blocks)
        except Exception as error:
            log.exception("blocks could not be read")
            errors = [SlideError(f"A part of the slide cannot be read ({error}).")] * len(blocks)
        return self._checked(errors, blocks)

    def _checked(self, errors: Sequence[SlideError | None], blocks: Sequence[Block]) -> Sequence[SlideError | None]:
        """The reasons; where the file is another one now, that is the reason for all.

        Blocks read since it was last seen to be the same may be of another file: they are forgotten.
        """
        seen = self._watch.look(now=any(errors))
        with self._lock:
            if self._watch.sentence is None:
                self._unproven = [] if seen else [*self._unproven, *(block.key for block in blocks)]
                return errors
            suspects, self._unproven = self._unproven, []
        self._cache.forget(suspects)
        return [SlideError(self._watch.sentence)] * len(blocks)
