"""The pixels of patches, from the native level that fits best, brought to size by one fixed filter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError
from napari_mil.geometry import PatchGrid

from .source import Pixels

if TYPE_CHECKING:
    from .slide import Slide

RESAMPLING = "area"
"""How patches are brought to size: each output pixel is the mean of the area it covers, float32, rounded once. The
filter changes features more than half precision does, so it is fixed, and written into every features file."""

_NEARLY = 0.01  # a level up to 1 % coarser than wanted is the wanted one (its size was rounded)


def read_level(slide: Slide, grid: PatchGrid, out_px: int | Sequence[int]) -> int:
    """The coarsest native level that still has all the detail of patches of `out_px` pixels."""
    width, height = _pair(out_px)
    wanted = min(grid.patch_px_level0[0] / width, grid.patch_px_level0[1] / height) * (1 + _NEARLY)
    fits = [i for i, downsample in enumerate(slide.level_downsamples) if downsample <= wanted]
    return max(fits, key=lambda i: slide.level_downsamples[i], default=0)


def read_patch(slide: Slide, grid: PatchGrid, index: int, out_px: int | Sequence[int]) -> Pixels:
    """One patch, (h, w, 3) uint8; see `read_patches`."""
    patch: Pixels = read_patches(slide, grid, [index], out_px)[0]
    return patch


def read_patches(
    slide: Slide, grid: PatchGrid, indices: Sequence[int] | npt.NDArray[np.integer], out_px: int | Sequence[int]
) -> Pixels:
    """Pixels of patches. Thread-safe.

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
    width, height = _pair(out_px)
    level = read_level(slide, grid, out_px)
    downsample = slide.level_downsamples[level]
    read = [max(1, math.floor(px / downsample + 0.5)) for px in grid.patch_px_level0]
    out = np.empty((len(indices), height, width, 3), np.uint8)
    for place, index in enumerate(indices):
        x, y = grid.coords[index]
        pixels = slide.read(int(x), int(y), read[0], read[1], level)
        out[place] = resize_area(pixels, width, height)
    return out


def resize_area(pixels: Pixels, width: int, height: int) -> Pixels:
    """(h, w, 3) → (height, width, 3): each output pixel the mean of the area it covers (see `RESAMPLING`)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.shape[0] % height == 0 and pixels.shape[1] % width == 0:
        return _mean_of_blocks(pixels, pixels.shape[0] // height, pixels.shape[1] // width)
    rows = _weighted(pixels.astype(np.float32), *_taps(pixels.shape[0], height), axis=0)
    both = _weighted(rows, *_taps(pixels.shape[1], width), axis=1)
    resized: Pixels = np.clip(both + 0.5, 0, 255).astype(np.uint8)
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


def _weighted(
    values: npt.NDArray[np.float32], first: npt.NDArray[np.intp], weights: npt.NDArray[np.float32], axis: int
) -> npt.NDArray[np.float32]:
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    last = values.shape[axis] - 1
    out: npt.NDArray[np.float32] = values.take(first, axis=axis) * weights[0].reshape(shape)
    for tap in range(1, len(weights)):
        out += values.take(np.minimum(first + tap, last), axis=axis) * weights[tap].reshape(shape)
    return out


@lru_cache(maxsize=64)
def _taps(length: int, wanted: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Of each output pixel the first input pixel it covers, (wanted,), and the share of that and the next ones."""
    edges = np.arange(wanted + 1) * (length / wanted)
    first = np.floor(edges[:-1] + 1e-9).astype(np.intp)
    taps = int((np.ceil(edges[1:] - 1e-9).astype(np.intp) - first).max())
    pixels = first[None, :] + np.arange(taps)[:, None]
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    weights = np.clip(covered, 0, None)
    return first, (weights / weights.sum(axis=0)).astype(np.float32)


def _pair(px: int | Sequence[int]) -> tuple[int, int]:
    width, height = (int(v) for v in np.broadcast_to(np.asarray(px), (2,)))
    if width < 1 or height < 1:
        raise SlideError(f"Patches of {width} x {height} pixels cannot be read; expected at least 1.")
    return width, height
