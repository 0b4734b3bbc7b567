"""One page of a TIFF, tile by tile."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from napari_mil.errors import SlideClosed, SlideError

from .cache import new_token, tile_cache
from .plain_source import to_rgb
from .source import Pixels, Size, on_background

_SEGMENT_LIMIT = 64 * 1024**2  # bytes of one decoded tile or strip


def can_read(page: Any) -> bool:
    """Whether a tifffile page is 8-bit grey or colour in tiles or strips of a size that can be read one by one."""
    photometric, compression = int(page.photometric), int(page.compression)
    segment = page.tilewidth * page.tilelength if page.is_tiled else page.imagewidth * page.rowsperstrip
    return bool(
        (photometric in (0, 1, 2) or (photometric == 6 and compression == 7))
        and int(page.planarconfig) == 1
        and page.samplesperpixel in (1, 3, 4)
        and page.bitspersample == 8
        and 0 < segment * page.samplesperpixel <= _SEGMENT_LIMIT
    )


class TiffLevel:
    """One page of a TIFF as tiles. Thread-safe: it reads through its own file handle.

    Parameters
    ----------
    page : tifffile.TiffPage
        One that `can_read` accepts.
    title : str
        The slide's name, for messages.
    """

    def __init__(self, page: Any, title: str) -> None:
        self._title = title
        self._token = new_token()
        self.size: Size = (page.imagewidth, page.imagelength)
        self.tile: Size = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
        self._page = page
        self._columns = -(-self.size[0] // self.tile[0])
        self._inverted = int(page.photometric) == 0
        self._path = Path(page.parent.filehandle.path)
        self._lock = threading.Lock()
        self._file: Any = None
        self._closed = False

    def read(self, x: int, y: int, width: int, height: int) -> Pixels:
        """(height, width, 3) pixels of a region inside the level; its tiles go through the process-wide cache.

        Raises
        ------
        SlideError
            When a tile cannot be read.
        """
        tile_width, tile_height = self.tile
        out = np.empty((height, width, 3), np.uint8)
        for row in range(y // tile_height, -(-(y + height) // tile_height)):
            for column in range(x // tile_width, -(-(x + width) // tile_width)):
                tile = tile_cache().get((self._token, row, column), lambda at=(row, column): self._load(*at))  # type: ignore[misc]
                top, left = row * tile_height, column * tile_width
                y0, y1 = max(y, top), min(y + height, top + tile.shape[0])
                x0, x1 = max(x, left), min(x + width, left + tile.shape[1])
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def has_tiles(self, x: int, y: int, width: int, height: int) -> bool:
        """Whether the file has every tile of a region (a sparse file leaves some out)."""
        rows = range(y // self.tile[1], -(-(y + height) // self.tile[1]))
        columns = range(x // self.tile[0], -(-(x + width) // self.tile[0]))
        counts = self._page.databytecounts
        return all(counts[row * self._columns + column] for row in rows for column in columns)

    def _load(self, row: int, column: int) -> Pixels:
        try:
            return self.decode(row, column)
        except SlideError:
            raise
        except Exception as error:  # whatever the file system and the codecs met
            raise SlideError(
                f"{self._title}: the tile in row {row}, column {column} of its level of {self.size[0]} x "
                f"{self.size[1]} pixels cannot be read ({error}); the file is probably damaged or cut short: copy it "
                f"anew from where it was scanned."
            ) from error

    def decode(self, row: int, column: int) -> Pixels:
        """(h, w, 3) pixels of a tile, cut at the image's edge; white where the file has none."""
        index = row * self._columns + column
        height = min(self.tile[1], self.size[1] - row * self.tile[1])
        width = min(self.tile[0], self.size[0] - column * self.tile[0])
        raw = self._bytes(self._page.dataoffsets[index], self._page.databytecounts[index])
        if raw is None:
            return np.full((height, width, 3), 255, np.uint8)
        pixels = self._page.decode(raw, index, jpegtables=self._page.jpegtables)[0][0, :height, :width]
        if pixels.shape[:2] != (height, width):
            raise ValueError(f"its tile has {pixels.shape[1]} x {pixels.shape[0]} pixels, expected {width} x {height}")
        if self._inverted:
            pixels = 255 - pixels
        return on_background(pixels) if pixels.shape[2] == 4 else to_rgb(self._path, pixels)

    def close(self) -> None:
        """Give the file handle back."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None
        tile_cache().drop(self._token)

    def _bytes(self, offset: int, count: int) -> bytes | None:
        if count == 0:
            return None
        with self._lock:
            if self._closed:
                raise SlideClosed(f"{self._title} was closed; open it again to read from it.")
            if self._file is None:
                self._file = self._path.open("rb")
            self._file.seek(offset)
            raw: bytes = self._file.read(count)
        if len(raw) < count:
            raise ValueError(f"the file ends {count - len(raw)} bytes too early")
        return raw
