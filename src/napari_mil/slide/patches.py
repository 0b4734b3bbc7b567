"""The pixels of patches, from the native level that fits best, brought to size by one fixed filter.

Neighbours in a row are read as one region, and regions are put together from blocks that are decoded once: a patch
of its own would have most of the tiles it touches decoded for its neighbours again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError
from napari_mil.geometry import PatchGrid

from .halving import halve
from .source import HALF_FILTER, BlocksOfRegions, Pixels, PixelSource, Size

if TYPE_CHECKING:
    from .slide import Slide

RESAMPLING = "area"
"""How patches are brought to size: each output pixel is the mean of the area it covers, float32, rounded once. The
filter changes features more than half precision does, so it is fixed, and written into every features file."""

CACHE_BYTES = 256 * 1024**2
"""Decoded blocks that a `PatchReader` of its own keeps: those under two rows of patches of a wide slide."""

_NEARLY = 0.01  # a level up to 1 % coarser than wanted is the wanted one (its size was rounded)
_NEARLY_HALF = 0.02  # a level decoded at half its size: 0.2528 µm/px is sold as 0.25, and 0.5 is wanted
_STRIP_PX = 2 * 1024**2  # pixels of a strip of neighbours at most, so that it stays in the processor's cache
_HALF_BLOCK_PX = 128  # side of blocks decoded at half size: one tile of 256 px, so that a bad one spoils no other

Region = Callable[[int, int, int, int], Pixels]  # x, y, width, height inside a level → its pixels


@dataclass(frozen=True)
class ReadPlan:
    """Where the pixels of patches come from.

    Attributes
    ----------
    level : int
        Native level.
    half : bool
        Whether it is decoded at half its size.
    downsample : float
        Level-0 pixels per pixel that is read.
    size : (width, height)
        Pixels that are read of a patch.
    """

    level: int
    half: bool
    downsample: float
    size: Size

    @property
    def resampling(self) -> str:
        """The filters that the pixels go through, in words that stand in the features file."""
        return f"{HALF_FILTER}, {RESAMPLING}" if self.half else RESAMPLING


def read_plan(slide: Slide, grid: PatchGrid, out_px: int | Sequence[int]) -> ReadPlan:
    """The coarsest pixels that still have all the detail of patches of `out_px` pixels.

    A native level where there is one; else, where the level before is of JPEGs that can be decoded at half their
    size, that: it costs half as much as decoding all of it, and lies as near to the mean of the area as the JPEG does.
    """
    width, height = _pair(out_px)
    wanted = min(grid.patch_px_level0[0] / width, grid.patch_px_level0[1] / height)
    downsamples = slide.level_downsamples
    fits = [i for i, downsample in enumerate(downsamples) if downsample <= wanted * (1 + _NEARLY)]
    level = max(fits, key=lambda i: downsamples[i], default=0)
    half = 2 * downsamples[level] <= wanted * (1 + _NEARLY_HALF) and slide.source.can_halve(level)
    downsample = downsamples[level] * (2 if half else 1)
    read = [max(1, math.floor(px / downsample + 0.5)) for px in grid.patch_px_level0]
    return ReadPlan(level, half, downsample, (read[0], read[1]))


def read_level(slide: Slide, grid: PatchGrid, out_px: int | Sequence[int]) -> int:
    """The native level that patches of `out_px` pixels are read from; see `read_plan`."""
    return read_plan(slide, grid, out_px).level


def read_patch(slide: Slide, grid: PatchGrid, index: int, out_px: int | Sequence[int]) -> Pixels:
    """One patch, (h, w, 3) uint8; see `read_patches`."""
    patch: Pixels = read_patches(slide, grid, [index], out_px)[0]
    return patch


def read_patches(
    slide: Slide, grid: PatchGrid, indices: Sequence[int] | npt.NDArray[np.integer], out_px: int | Sequence[int]
) -> Pixels:
    """Pixels of some patches, through the cache that the window uses (at half size past it). Thread-safe.

    Who reads all patches of a slide takes a `PatchReader`.

    Parameters
    ----------
    slide : Slide
    grid : PatchGrid
        Of this slide.
    indices : (B,) int
        Which patches.
    out_px : int or (int, int)
        Width and height of the pixels handed out.

    Returns
    -------
    (B, h, w, 3) array of uint8
        White where a patch leaves the slide.

    Raises
    ------
    SlideError
        When a patch cannot be read: no pixels are made up for it.
    """
    plan = read_plan(slide, grid, out_px)
    if plan.half:
        return _read(_HalfLevel(slide.source, plan.level).region, slide, grid, indices, plan, _pair(out_px))

    def region(x: int, y: int, width: int, height: int) -> Pixels:
        return slide.read_native(plan.level, x, y, width, height)

    return _read(region, slide, grid, indices, plan, _pair(out_px))


class PatchReader:
    """Reads all patches of a slide with a cache of its own, so that the window's keeps what is shown. Thread-safe.

    Parameters
    ----------
    slide : Slide
    grid : PatchGrid
        Of this slide.
    out_px : int or (int, int)
        Width and height of the pixels handed out.
    cache_bytes : int
        Most memory for decoded blocks.

    Attributes
    ----------
    plan : ReadPlan
    """

    def __init__(
        self, slide: Slide, grid: PatchGrid, out_px: int | Sequence[int], *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        from .blocks import Blocks
        from .cache import TileCache
        from .watch import FileWatch

        self.plan = read_plan(slide, grid, out_px)
        self._slide, self._grid, self._out_px = slide, grid, _pair(out_px)
        source: Any = _HalfLevel(slide.source, self.plan.level) if self.plan.half else slide.source
        self._level = 0 if self.plan.half else self.plan.level
        self._blocks = Blocks(source, TileCache(cache_bytes), FileWatch(slide.path))

    def read(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Pixels:
        """(B, h, w, 3) uint8 pixels of patches; see `read_patches`."""
        return _read(self._region, self._slide, self._grid, indices, self.plan, self._out_px)

    def _region(self, x: int, y: int, width: int, height: int) -> Pixels:
        return self._blocks.region(self._level, x, y, width, height)


class _HalfLevel(BlocksOfRegions):
    """A level of a source decoded at half its size, as a source of this one level."""

    def __init__(self, source: PixelSource, level: int) -> None:
        self._source, self._level = source, level
        self.level_dimensions = (_halved(source.level_dimensions[level]),)
        # whole tiles of the file, so that none is decoded for two blocks
        self._block = tuple(px // 2 * max(1, _HALF_BLOCK_PX // (px // 2)) for px in source.block_size(level))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        return self._source.read_half(self._level, x, y, width, height)

    def region(self, x: int, y: int, width: int, height: int) -> Pixels:
        return self._source.read_half(self._level, x, y, width, height)

    def block_size(self, level: int) -> Size:
        return self._block[0], self._block[1]


def _halved(size: Size) -> Size:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _read(
    region: Region,
    slide: Slide,
    grid: PatchGrid,
    indices: Sequence[int] | npt.NDArray[np.integer],
    plan: ReadPlan,
    out_px: Size,
) -> Pixels:
    """Patches by strips of neighbours, each cut from its strip and brought to size."""
    level_size = slide.level_dimensions[plan.level]
    limits = _halved(level_size) if plan.half else level_size
    width, height = plan.size
    corners = np.floor(grid.coords[np.asarray(indices, dtype=np.intp)] / plan.downsample + 0.5).astype(np.int64)
    out = np.empty((len(corners), out_px[1], out_px[0], 3), np.uint8)
    for strip in _strips(corners, width, height):
        left, top = (int(v) for v in corners[strip[0]])
        strip_width = int(corners[strip[-1], 0]) - left + width
        pixels = _on_white(region, limits, left, top, strip_width, height)
        for place in strip:
            start = int(corners[place, 0]) - left
            out[place] = resize_area(pixels[:, start : start + width], *out_px)
    return out


def _strips(corners: npt.NDArray[np.int64], width: int, height: int) -> Iterator[list[int]]:
    """Places of the patches of each strip, from left to right: on one line, with no gap as wide as a patch."""
    longest = max(width, _STRIP_PX // height)
    strip: list[int] = []
    for place in np.lexsort(corners.T).tolist():
        if strip:
            (x, y), (first, line), (last, _) = corners[place], corners[strip[0]], corners[strip[-1]]
            if y != line or x - last >= 2 * width or x + width - first > longest:
                yield strip
                strip = []
        strip.append(place)
    if strip:
        yield strip


def _on_white(region: Region, limits: Size, x: int, y: int, width: int, height: int) -> Pixels:
    """(height, width, 3) of a region that may leave the level of this size."""
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, limits[0]), min(y + height, limits[1])
    if (x0, y0, x1, y1) == (x, y, x + width, y + height):
        return region(x, y, width, height)
    out = np.full((height, width, 3), 255, np.uint8)
    if x1 > x0 and y1 > y0:
        out[y0 - y : y1 - y, x0 - x : x1 - x] = region(x0, y0, x1 - x0, y1 - y0)
    return out


def resize_area(pixels: Pixels, width: int, height: int) -> Pixels:
    """(h, w, 3) → (height, width, 3): each output pixel the mean of the area it covers (see `RESAMPLING`)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.shape[:2] == (2 * height, 2 * width):
        return halve(pixels)
    if pixels.shape[0] % height == 0 and pixels.shape[1] % width == 0:
        return _mean_of_blocks(pixels, pixels.shape[0] // height, pixels.shape[1] // width)
    rows = _weights(pixels.shape[0], height) @ pixels.reshape(pixels.shape[0], -1).astype(np.float32)
    columns = rows.reshape(height, -1, 3).transpose(1, 0, 2).reshape(pixels.shape[1], -1)
    both = _weights(pixels.shape[1], width) @ columns
    both += 0.5
    resized: Pixels = np.minimum(both, 255).astype(np.uint8).reshape(width, height, 3).transpose(1, 0, 2)
    return resized


def _mean_of_blocks(pixels: Pixels, tall: int, wide: int) -> Pixels:
    """Mean of whole blocks, rounded half up."""
    kind = np.uint16 if tall * wide <= 256 else np.uint32  # 256 · 255 + 128 fits 16 bits
    total = np.zeros((pixels.shape[0] // tall, pixels.shape[1] // wide, 3), kind)
    for i in range(tall):
        for j in range(wide):
            total += pixels[i::tall, j::wide]
    total += kind(tall * wide // 2)
    total //= kind(tall * wide)
    mean: Pixels = total.astype(np.uint8)
    return mean


@lru_cache(maxsize=64)
def _weights(length: int, wanted: int) -> Any:
    """(wanted, length) sparse: the share of each input pixel in the area of each output pixel."""
    from scipy.sparse import csr_array

    edges = np.arange(wanted + 1) * (length / wanted)
    first = np.floor(edges[:-1] + 1e-9).astype(np.intp)
    taps = int((np.ceil(edges[1:] - 1e-9).astype(np.intp) - first).max())
    pixels = first[:, None] + np.arange(taps)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(wanted), taps)
    columns = np.minimum(pixels, length - 1).ravel()
    return csr_array((weights.astype(np.float32).ravel(), (rows, columns)), shape=(wanted, length))


def _pair(px: int | Sequence[int]) -> tuple[int, int]:
    width, height = (int(v) for v in np.broadcast_to(np.asarray(px), (2,)))
    if width < 1 or height < 1:
        raise SlideError(f"Patches of {width} x {height} pixels cannot be read; expected at least 1.")
    return width, height
