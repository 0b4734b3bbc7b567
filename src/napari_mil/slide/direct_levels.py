"""Levels of a slide that OpenSlide opens, read past it: JPEG tiles several times as fast, and all as they are stored.

OpenSlide is asked in level-0 pixels, and a level of 8228 rows under 32914 has a downsample of 4.00024: most of its
pixels then lie between whole level-0 pixels, and OpenSlide interpolates. Read from the file they are what was stored.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

from .source import Pixels, Size
from .tiff_level import TiffLevel
from .tile_codecs import TifffileCodec, can_read, jpeg_codecs, tile_size
from .tile_file import TileFile

log = logging.getLogger(__name__)

Reference = Callable[[int, int, int, int], Pixels]

_VENDORS = frozenset({"aperio", "generic-tiff", "philips"})  # others' tiles overlap, or are not placed on a grid
_QUICK = frozenset({1, 5, 7, 8, 32946})  # none, LZW, JPEG, deflate; at JPEG 2000 OpenSlide is the quickest
_WITHOUT_MIXING = 1 / 512  # of a pixel: nearer than this OpenSlide does not interpolate
_CHECKED_PX = 256
_CHECKED_TILES = 2
_TRIED_TILES = 8


class DirectLevels:
    """The levels of one file that are read directly; found and checked when first asked for. Thread-safe.

    Parameters
    ----------
    path : Path
    vendor : str
        As OpenSlide calls it.
    sizes, downsamples : sequence
        Width and height, and level-0 pixels per pixel, of each of OpenSlide's levels.
    reference : callable
        (level, x, y, width, height) → the pixels by OpenSlide: what a direct level must equal, and where it turns for
        tiles that the file leaves out or that cannot be read.
    """

    def __init__(
        self,
        path: Path,
        vendor: str,
        sizes: tuple[Size, ...],
        downsamples: tuple[float, ...],
        reference: Callable[[int, int, int, int, int], Pixels],
    ) -> None:
        self._path = path
        self._vendor = vendor
        self._sizes = sizes
        self._downsamples = downsamples
        self._reference = reference
        self._lock = threading.Lock()
        self._file: TileFile | None = None
        self._pages: list[Any] = []
        none: dict[int, TiffLevel | None] = dict.fromkeys(range(len(sizes)))
        self._levels = {} if vendor in _VENDORS else none

    def level(self, level: int) -> TiffLevel | None:
        """The level, if the file has it as one page that decodes to what OpenSlide gives; else None."""
        if level not in self._levels:
            with self._lock:
                if level not in self._levels:
                    self._levels[level] = self._find(level)
        return self._levels[level]

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._levels |= {i: None for i in range(len(self._sizes)) if i not in self._levels}
            if self._file is not None:
                self._file.close()

    def _find(self, level: int) -> TiffLevel | None:
        downsample, size = self._downsamples[level], self._sizes[level]
        placed = len(exact_pixels(downsample, max(size))) == max(size)
        try:
            if self._file is None:
                pages = _tiled_pages(self._path)
                self._file = TileFile(self._path)
                if not (self._vendor == "aperio" and any(0 in page.databytecounts for page in pages)):
                    self._pages = pages  # else OpenSlide leaves out what a finer level left out, stored or not
            for page in self._pages:
                if not _fits(page, size) or (placed and int(page.compression) not in _QUICK):
                    continue
                codecs = jpeg_codecs(page)
                if not codecs or not placed:
                    codecs.append(TifffileCodec(page))
                for codec in codecs:
                    found = TiffLevel(page, self._file, codec, self._path.name, size)
                    if agrees(found, partial(self._reference, level), (self._file.size, level), downsample):
                        found.rescue = partial(self._fill, level)
                        self._pages.remove(page)
                        return found
        except Exception:  # whatever tifffile met: OpenSlide reads the level then
            log.debug("level %d of %s is left to OpenSlide", level, self._path.name, exc_info=True)
        return None

    def _fill(self, level: int, x: int, y: int, out: Pixels) -> None:
        out[...] = self._reference(level, x, y, out.shape[1], out.shape[0])


def _tiled_pages(path: Path) -> list[Any]:
    """A file's pages whose tiles can be read one by one."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        pages = [page.aspage() for page in tif.pages]
        return [page for page in pages if page.is_tiled and can_read(page)]


def _fits(page: Any, size: Size) -> bool:
    """Whether a page is a level of this size, if need be padded to whole tiles."""
    tile = tile_size(page)
    return all(
        own == wanted or (own % side == 0 and 0 < own - wanted < side)
        for own, wanted, side in zip((page.imagewidth, page.imagelength), size, tile, strict=True)
    )


def exact_pixels(downsample: float, length: int) -> npt.NDArray[np.int64]:
    """Of the first `length` pixels of a level, those that begin at a whole level-0 pixel."""
    if float(downsample).is_integer():
        return np.arange(length)
    pixels = np.arange(length, dtype=np.float64)
    off = np.abs(np.round(pixels * downsample) / downsample - pixels)
    return np.flatnonzero(off < _WITHOUT_MIXING).astype(np.int64)


def agrees(level: TiffLevel, reference: Reference, seed: tuple[int, int], downsample: float = 1.0) -> bool:
    """Whether a level decodes to the reference's pixels in two random tiles of those that show something.

    Parameters
    ----------
    level : TiffLevel
    reference : callable
        (x, y, width, height) → pixels.
    seed : (int, int)
        Chooses the tiles.
    downsample : float
        Regions begin where this leads to whole level-0 pixels: elsewhere OpenSlide is not exact.
    """
    rng = np.random.default_rng(seed)
    exact = [exact_pixels(downsample, length) for length in level.size]
    tiles = level.telling_tiles()
    compared = 0
    for _ in range(_TRIED_TILES if len(tiles) else 0):
        corner = tiles[rng.integers(len(tiles))] * level.tile
        x, y = (int(e[np.searchsorted(e, at, "right") - 1]) for e, at in zip(exact, corner, strict=True))
        region = x, y, min(_CHECKED_PX, level.size[0] - x), min(_CHECKED_PX, level.size[1] - y)
        if not level.has_tiles(*region):
            continue
        try:
            pixels = level.read(*region)
            expected = reference(*region)
        except SlideError:  # a broken tile says nothing about the others
            continue
        if not np.array_equal(pixels, expected):
            return False
        compared += 1
        if compared == _CHECKED_TILES:
            break
    return compared > 0
