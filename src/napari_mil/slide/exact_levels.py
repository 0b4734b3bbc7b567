"""Levels of a TIFF slide read past OpenSlide, where OpenSlide cannot place them on whole pixels.

OpenSlide is asked in level-0 pixels, and a level of 8228 rows under 32914 has a downsample of 4.00024: most of its
pixels then lie between whole level-0 pixels, and OpenSlide interpolates. Read from the file they are what was stored.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .tiff_level import TiffLevel, can_read

if TYPE_CHECKING:
    from .openslide_source import OpenSlideSource

log = logging.getLogger(__name__)

_VENDORS = frozenset({"aperio", "generic-tiff"})
_WITHOUT_MIXING = 1 / 512  # of a pixel: nearer than this OpenSlide does not interpolate
_CHECKED_PX = 256


class ExactLevels:
    """The levels of one file that are read directly; opened when first needed. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._tif: Any = None
        self._levels: dict[int, TiffLevel | None] = {}
        self._closed = False

    def level(self, level: int, slide: OpenSlideSource) -> TiffLevel | None:
        """The level, if the file has it as one page that decodes to what OpenSlide gives; else None."""
        with self._lock:
            if self._closed:
                return None
            if level not in self._levels:
                self._levels[level] = self._find(level, slide) if slide.vendor in _VENDORS else None
            return self._levels[level]

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._closed = True
            for level in self._levels.values():
                if level is not None:
                    level.close()
            if self._tif is not None:
                self._tif.close()

    def _find(self, level: int, slide: OpenSlideSource) -> TiffLevel | None:
        import tifffile

        size = slide.level_dimensions[level]
        try:
            if self._tif is None:
                self._tif = tifffile.TiffFile(self._path)
            for page in self._tif.pages:
                page = page.aspage()
                if (page.imagewidth, page.imagelength) == size and page.is_tiled and can_read(page):
                    found = TiffLevel(page, self._path.name)
                    if _same(found, level, slide):
                        return found
                    found.close()
        except Exception:  # whatever tifffile met: OpenSlide reads the level then
            log.debug("level %d of %s is left to OpenSlide", level, self._path.name, exc_info=True)
        return None


def exact_pixels(downsample: float, length: int) -> npt.NDArray[np.int64]:
    """Of the first `length` pixels of a level, those that begin at a whole level-0 pixel."""
    pixels = np.arange(length, dtype=np.float64)
    off = np.abs(np.round(pixels * downsample) / downsample - pixels)
    return np.flatnonzero(off < _WITHOUT_MIXING).astype(np.int64)


def _same(found: TiffLevel, level: int, slide: OpenSlideSource) -> bool:
    """Whether a level decodes to OpenSlide's pixels at its corner and as near its middle as OpenSlide is exact."""
    downsample, (width, height) = slide.level_downsamples[level], slide.level_dimensions[level]
    places = {(0, 0)}
    x, y = exact_pixels(downsample, width), exact_pixels(downsample, height)
    places.add((int(x[np.abs(x - width // 2).argmin()]), int(y[np.abs(y - height // 2).argmin()])))
    for left, top in places:
        w, h = min(_CHECKED_PX, width - left), min(_CHECKED_PX, height - top)
        if not np.array_equal(found.read(left, top, w, h), slide.read_region(level, left, top, w, h)):
            return False
    return True
