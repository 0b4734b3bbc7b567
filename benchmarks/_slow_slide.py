"""Slides that take their time: any source with a delay, and a large one made of a repeated texture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.slide.source import BlocksOfRegions


class Delayed:
    """A source of pixels, each read of which takes longer; blocks side by side are one read, as in a file."""

    def __init__(self, source: Any, delay_s: float) -> None:
        self._source, self._delay_s = source, delay_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        time.sleep(self._delay_s)
        pixels: npt.NDArray[np.uint8] = self._source.read(level, x, y, width, height)
        return pixels

    def read_blocks(self, level: int, blocks: Sequence[tuple[int, int]], outs: Sequence[Any]) -> list[Any]:
        there = set(blocks)
        time.sleep(self._delay_s * sum((column - 1, row) not in there for column, row in blocks))
        found: list[Any] = self._source.read_blocks(level, blocks, outs)
        return found


class Made(BlocksOfRegions):
    """60,000 × 60,000 pixels of a repeated texture, with native levels 1, 4 and 16 as scanners write them."""

    name = vendor = "made"
    level_dimensions = ((60_000, 60_000), (15_000, 15_000), (3_750, 3_750))
    level_downsamples = (1.0, 4.0, 16.0)
    properties: dict[str, str] = {}  # noqa: RUF012
    mpp = (0.25, 0.25)
    objective_power = 40.0
    bounds = (0, 0, 60_000, 60_000)
    associated_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._texture = np.tile(rng.integers(120, 250, (1024, 1024, 3), dtype=np.uint8), (3, 3, 1))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        top, left = y % 1024, x % 1024
        if max(top + height, left + width) <= 3072:
            return self._texture[top : top + height, left : left + width].copy()
        return self._texture[np.arange(y, y + height) % 1024].take(np.arange(x, x + width) % 1024, axis=1)

    def read_associated(self, name: str) -> npt.NDArray[np.uint8]:
        raise KeyError(name)

    def close(self) -> None:
        pass
