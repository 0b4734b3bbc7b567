"""One page of a TIFF, read tile by tile past every library that opens the whole file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideClosed, SlideError

from .halving import halve
from .source import Pixels, Size
from .tile_codecs import Codec, tile_size
from .tile_file import TileFile

Tile = tuple[int, int]
Rescue = Callable[[int, int, Pixels], None]


class TiffLevel:
    """One page of a TIFF as tiles. Thread-safe; nothing is cached.

    Parameters
    ----------
    page : tifffile.TiffPage
        One that `can_read` accepts.
    file : TileFile
    codec : Codec
        Reads this page's tiles.
    title : str
        The slide's name, for messages.
    size : (int, int), optional
        Width and height of the level, where the page is larger (some scanners pad it to whole tiles).

    Attributes
    ----------
    rescue : callable or None
        Fills (x, y, out) by other means, or raises SlideError: for tiles that the file leaves out or that are broken.
        Without it tiles that are left out are white.
    """

    def __init__(self, page: Any, file: TileFile, codec: Codec, title: str, size: Size | None = None) -> None:
        self.rescue: Rescue | None = None
        self.size: Size = size or (page.imagewidth, page.imagelength)
        self.tile: Size = tile_size(page)
        self._columns = -(-page.imagewidth // self.tile[0])
        self._offsets = _table(page.dataoffsets)
        self._counts = _table(page.databytecounts)
        self._most_bytes = 2 * self.tile[0] * self.tile[1] * page.samplesperpixel + 1024**2  # of a tile that is sane
        self._file = file
        self._codec = codec
        self._title = title

    @property
    def can_halve(self) -> bool:
        """Whether `read_half` works."""
        return self._codec.halves

    def telling_tiles(self) -> npt.NDArray[np.int64]:
        """(n, 2) column and row of the tiles with the most bytes, half of those there are: not of empty glass."""
        counts = self._counts[self._counts > 0]
        found = np.flatnonzero(self._counts >= np.median(counts)) if counts.size else counts
        return np.stack([found % self._columns, found // self._columns], axis=1)

    def has_tiles(self, x: int, y: int, width: int, height: int) -> bool:
        """Whether the file has every tile of a region (a sparse file leaves some out)."""
        return all(self._span(*tile)[1] > 0 for row in _rows(x, y, width, height, self.tile) for tile in row)

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """(height, width, 3) pixels of a region inside the level. Raises SlideError when a tile cannot be read."""
        return _assembled(self._whole, self.tile, x, y, width, height)

    def read_blocks(self, blocks: Sequence[Tile], outs: Sequence[Pixels]) -> list[SlideError | None]:
        """See PixelSource."""
        raws = self._raws(blocks)
        return [self._filled(block, raw, out) for block, raw, out in zip(blocks, raws, outs, strict=True)]

    def read_half(self, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        return _assembled(self._halves, (self.tile[0] // 2, self.tile[1] // 2), x, y, width, height)

    def _whole(self, tiles: Sequence[Tile]) -> list[Pixels]:
        """Pixels of each tile, cut at the level's edge."""
        outs = [np.empty(self._shape(*tile), np.uint8) for tile in tiles]
        for error in self.read_blocks(tiles, outs):
            if error is not None:
                raise error
        return outs

    def _halves(self, tiles: Sequence[Tile]) -> list[Pixels]:
        """Pixels at half the size of each whole tile."""
        return [self._half(tile, raw) for tile, raw in zip(tiles, self._raws(tiles), strict=True)]

    def _span(self, column: int, row: int) -> tuple[int, int]:
        """Where a tile lies in the file: offset and bytes; 0 when it is left out, -1 behind the table's end."""
        index = row * self._columns + column
        if index >= len(self._offsets) or index >= len(self._counts):
            return 0, -1
        return int(self._offsets[index]), int(self._counts[index])

    def _shape(self, column: int, row: int) -> tuple[int, int, int]:
        """(h, w, 3) of a tile, cut at the level's edge."""
        left, top = column * self.tile[0], row * self.tile[1]
        return min(self.tile[1], self.size[1] - top), min(self.tile[0], self.size[0] - left), 3

    def _raws(self, tiles: Sequence[Tile]) -> list[memoryview | Exception]:
        """The bytes of each tile, or why they are not there."""
        spans = [self._span(*tile) for tile in tiles]
        sane = [(offset, count if 0 <= count <= self._most_bytes else 0) for offset, count in spans]
        try:
            raws = self._file.read(sane)
        except OSError as error:  # the drive has gone
            return [error] * len(spans)
        return [
            raw if len(raw) == count else ValueError(f"the file ends at {self._file.size:,} bytes")
            for raw, (_, count) in zip(raws, spans, strict=True)
        ]

    def _filled(self, tile: Tile, raw: memoryview | Exception, out: Pixels) -> SlideError | None:
        """Fill `out` with a tile; why not, if that cannot be done."""
        if isinstance(raw, Exception):
            return self._failure(tile, raw)  # nobody else finds bytes that are not there
        try:
            if len(raw):
                self._codec.decode(raw, tile[1] * self._columns + tile[0], out)
                return None
            reason = None
        except Exception as error:  # whatever the codec met
            reason = self._failure(tile, error)
        if self.rescue is None:
            if reason is None:
                out[...] = 255
            return reason
        try:
            self.rescue(tile[0] * self.tile[0], tile[1] * self.tile[1], out)
            return None
        except SlideClosed:
            raise
        except SlideError as error:
            return error

    def _failure(self, tile: Tile, reason: Exception) -> SlideError:
        failure = SlideError(
            f"{self._title}: the tile in row {tile[1]}, column {tile[0]} of its level of {self.size[0]} x "
            f"{self.size[1]} pixels cannot be read ({reason}); the file is probably damaged or cut short: copy it anew "
            f"from where it was scanned."
        )
        failure.__cause__ = reason.with_traceback(None)  # its frames hold what was read of the file
        return failure

    def _half(self, tile: Tile, raw: memoryview | Exception) -> Pixels:
        """Pixels of a tile at half the size, at least what of it lies inside the level."""
        if not isinstance(raw, Exception) and len(raw):
            with suppress(Exception):  # whatever the codec met: decoding it whole says why, or finds another way
                return self._codec.half(raw)
        whole = np.empty(self._shape(*tile), np.uint8)
        failed = self._filled(tile, raw, whole)
        if failed is not None:
            raise failed
        return halve(whole)


def _table(values: Sequence[int]) -> npt.NDArray[np.int64]:
    """A page's offsets or counts; what no file can have is only made small enough to be a number here."""
    return np.minimum(np.asarray(values, np.uint64), np.uint64(2**62)).astype(np.int64)


def _rows(x: int, y: int, width: int, height: int, tile: Size) -> Iterator[list[Tile]]:
    """Column and row of the tiles that a region touches, row by row."""
    for row in range(y // tile[1], -(-(y + height) // tile[1])):
        yield [(column, row) for column in range(x // tile[0], -(-(x + width) // tile[0]))]


def _assembled(
    read: Callable[[Sequence[Tile]], list[Pixels]], tile: Size, x: int, y: int, width: int, height: int
) -> Pixels:
    """(height, width, 3) pixels of a region from its tiles, a row of them at a time."""
    out = np.empty((height, width, 3), np.uint8)
    for tiles in _rows(x, y, width, height, tile):
        for (column, row), part in zip(tiles, read(tiles), strict=True):
            left, top = column * tile[0], row * tile[1]
            y0, y1 = max(y, top), min(y + height, top + part.shape[0])
            x0, x1 = max(x, left), min(x + width, left + part.shape[1])
            out[y0 - y : y1 - y, x0 - x : x1 - x] = part[y0 - top : y1 - top, x0 - left : x1 - left]
    return out
