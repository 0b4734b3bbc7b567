"""Slides through OpenSlide: every vendor format it knows."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mil.errors import SlideClosed, SlideError

from .direct_levels import DirectLevels
from .kinds import refuse_by_reason
from .source import BlocksOfRegions, Pixels, Size, mpp_from_resolution, on_background, plausible_mpp


class OpenSlideSource(BlocksOfRegions):
    """One slide behind an OpenSlide handle. Thread-safe.

    An OpenSlide handle that met one unreadable tile fails at everything afterwards. So a failed read gets a fresh
    handle, is tried once more there, and if it fails again only this region is given up.

    Raises
    ------
    SlideError
        When OpenSlide knows the format but cannot open the file.
    """

    name = "openslide"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        self._handle: Any = self._open()
        slide = self._handle
        self.vendor: str = slide.properties.get("openslide.vendor", "openslide")
        self.level_dimensions: tuple[Size, ...] = tuple((int(w), int(h)) for w, h in slide.level_dimensions)
        self.level_downsamples: tuple[float, ...] = tuple(float(d) for d in slide.level_downsamples)
        self.properties: Mapping[str, str] = dict(slide.properties)
        self.associated_names: tuple[str, ...] = tuple(slide.associated_images)
        self.mpp = self._mpp()
        self.objective_power = _number(self.properties.get("openslide.objective-power"))
        self.bounds = self._bounds()
        self._background = _color(self.properties.get("openslide.background-color"))
        self._direct = DirectLevels(path, self.vendor, self.level_dimensions, self.level_downsamples, self.read_region)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource.

        OpenSlide shifts the pixels of a level whose downsample is no whole number by part of a pixel and mixes them.
        Such a level is read directly where it can be (see `DirectLevels`), else shifted by at most half a level-0
        pixel.
        """
        direct = self._direct.level(level)
        if direct is not None:
            return direct.read(x, y, width, height)
        return self.read_region(level, x, y, width, height)

    def block_size(self, level: int) -> Size:
        """See PixelSource."""
        direct = self._direct.level(level)
        return super().block_size(level) if direct is None else direct.tile

    def read_blocks(
        self, level: int, blocks: Sequence[tuple[int, int]], outs: Sequence[Pixels]
    ) -> list[SlideError | None]:
        """See PixelSource."""
        direct = self._direct.level(level)
        if direct is not None:
            return direct.read_blocks(blocks, outs)
        return super().read_blocks(level, blocks, outs)

    def can_halve(self, level: int) -> bool:
        """See PixelSource."""
        direct = self._direct.level(level)
        return direct is not None and direct.can_halve

    def read_half(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        direct = self._direct.level(level)
        if direct is None:
            return super().read_half(level, x, y, width, height)
        return direct.read_half(x, y, width, height)

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """As `read`, by OpenSlide in any case."""
        downsample = self.level_downsamples[level]
        at = (round(x * downsample), round(y * downsample))
        what = f"the region at x={at[0]}, y={at[1]} of level {level}"
        return self._retrying(lambda slide: slide.read_region(at, level, (width, height)), what)

    def read_associated(self, name: str) -> Pixels:
        """See PixelSource."""
        return self._retrying(lambda slide: slide.associated_images[name], f"its {name} image")

    def close(self) -> None:
        """See PixelSource. The handle itself is freed when the last read that uses it has ended."""
        with self._lock:
            self._closed = True
            self._handle = None
        self._direct.close()

    def _open(self) -> Any:
        import openslide

        try:
            return openslide.OpenSlide(self._path)
        except openslide.OpenSlideError as error:
            refuse_by_reason(self._path.name, str(error))
            raise SlideError(
                f"{self._path.name} looks like a slide, but OpenSlide cannot open it ({self._reason(error)}); the file "
                f"is damaged, cut short or of a variant that is not supported: copy it anew or export it as pyramidal "
                f"TIFF."
            ) from error

    def _retrying(self, call: Any, what: str) -> Pixels:
        import openslide

        slide = self._handle
        if slide is None:
            raise SlideClosed(f"{self._path.name} was closed; open it again to read from it.")
        try:
            return on_background(np.asarray(call(slide)), self._background)
        except openslide.OpenSlideError:
            fresh = self._open()  # this thread's own, so that no other's failure can spoil it
        try:
            pixels = on_background(np.asarray(call(fresh)), self._background)
        except openslide.OpenSlideError as error:
            self._replace(slide, self._open())
            raise SlideError(
                f"{self._path.name}: {what} cannot be read ({self._reason(error)}); the file is probably damaged: copy "
                f"it anew from where it was scanned."
            ) from error
        self._replace(slide, fresh)
        return pixels

    def _reason(self, error: Exception) -> str:
        return str(error).replace(f"{self._path}: ", "")

    def _replace(self, failed: Any, fresh: Any) -> None:
        """Swap the handle that failed for a fresh one, unless another thread has done so."""
        with self._lock:
            if self._handle is failed and not self._closed:
                self._handle = fresh

    def _mpp(self) -> tuple[float, float] | None:
        p = self.properties
        return plausible_mpp(p.get("openslide.mpp-x"), p.get("openslide.mpp-y")) or mpp_from_resolution(
            p.get("tiff.XResolution"), p.get("tiff.YResolution"), p.get("tiff.ResolutionUnit")
        )

    def _bounds(self) -> tuple[int, int, int, int]:
        values = [_number(self.properties.get(f"openslide.bounds-{k}")) for k in ("x", "y", "width", "height")]
        width, height = self.level_dimensions[0]
        if any(v is None for v in values):
            return 0, 0, width, height
        x, y, w, h = (int(v) for v in values if v is not None)
        return x, y, w, h


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _color(text: str | None) -> tuple[int, int, int]:
    try:
        value = int(text.lstrip("#"), 16) if text else 0xFFFFFF
    except ValueError:
        value = 0xFFFFFF
    return value >> 16 & 255, value >> 8 & 255, value & 255
