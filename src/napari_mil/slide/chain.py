"""The completed pyramid of a slide: native levels, and between and below them levels halved from the next finer one.

napari draws level k with the scale `shape of level 0 / shape of level k`, outer corners aligned. So that this is where
the pixels belong, the shape of a halved level is the *nearest* whole number to its true size: it is drawn at most half
a pixel of that level off, at the far edge. A native level is taken to span the whole of level 0, as OpenSlide does
(its downsample may be 3.9998); one whose file states another downsample (Philips pads its levels) is cut to that.
`downsample` is exact, for placing things in the world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .source import Size

TILE_PX = 512
"""Side of the tiles of every level of the chain."""

LAST_LEVEL_PX = 1024
"""The chain ends at the first level with no side longer than this."""

_SAME = 1.2  # a native level less than this factor coarser than the one before adds nothing


@dataclass(frozen=True, slots=True)
class ChainLevel:
    """One level of the chain.

    Parameters
    ----------
    size : (int, int)
        Width and height.
    downsample : (float, float)
        Level-0 pixels per pixel (x, y), exact.
    native : int or None
        The native level it is read from, None for one halved from the level before.
    """

    size: Size
    downsample: tuple[float, float]
    native: int | None


def plan_chain(dimensions: tuple[Size, ...], downsamples: tuple[float, ...]) -> tuple[ChainLevel, ...]:
    """The chain of a slide with these native levels (width, height) and downsamples, finest first.

    From each native level on, levels are halved until the next native one is reached, and after the last until none
    of the sides is longer than `LAST_LEVEL_PX`.
    """
    natives = _usable(dimensions, downsamples)
    chain: list[ChainLevel] = []
    for position, level in enumerate(natives):
        following = natives[position + 1].downsample if position + 1 < len(natives) else (math.inf, math.inf)
        halvings = 0
        while min(following[axis] / level.downsample[axis] for axis in (0, 1)) / 2**halvings >= _SAME:
            chain.append(_halved(level, halvings))
            if max(chain[-1].size) <= LAST_LEVEL_PX:
                return tuple(chain)
            halvings += 1
    return tuple(chain)


def _halved(level: ChainLevel, times: int) -> ChainLevel:
    if times == 0:
        return level
    factor = 2**times
    width, height = (max(1, math.floor(side / factor + 0.5)) for side in level.size)
    return ChainLevel((width, height), (level.downsample[0] * factor, level.downsample[1] * factor), None)


def _usable(dimensions: tuple[Size, ...], downsamples: tuple[float, ...]) -> list[ChainLevel]:
    """The native levels that show the same field, each clearly coarser than the one before."""
    width, height = dimensions[0]
    levels = [ChainLevel((width, height), (1.0, 1.0), 0)]
    for index in range(1, len(dimensions)):
        w, h = dimensions[index]
        x, y = width / w, height / h
        stated = downsamples[index]
        if abs(stated - (x + y) / 2) > 1e-6 * stated:  # the file knows better than its (padded) sizes
            x = y = stated
            w, h = (min(n, math.ceil(side / stated - 1e-6)) for n, side in ((w, width), (h, height)))
        before = levels[-1].downsample
        covers = w * x >= width - 2 * x and h * y >= height - 2 * y
        same_field = covers and abs(x - y) / max(x, y) * min(w, h) <= 2
        if same_field and min(x / before[0], y / before[1]) >= _SAME:
            levels.append(ChainLevel((w, h), (x, y), index))
    return levels
