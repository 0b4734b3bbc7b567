"""A slide that is a synthetic picture in memory, with a view that loads tiles behind, as slowly as a test wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TILE = 512


def picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Pink and violet blotches that differ everywhere."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    a = np.sin(x / 37) * np.cos(y / 53) + np.sin((x + y) / 211)
    rgb = np.stack([225 + 12 * a, 160 + 35 * np.sin(a * 3 + x / 90), 205 + 15 * np.cos(a + y / 70)], axis=-1)
    return np.clip(rgb, 0, 255).astype(np.uint8)


class FakeLevel:
    """One level: a missing tile is answered from the coarsest level and loaded behind."""

    def __init__(self, view: FakeView, index: int) -> None:
        self._view, self._index = view, index
        self._data = view.chain[index]
        self.shape, self.dtype, self.ndim = self._data.shape, self._data.dtype, 3
        self.size = self._data.size
        self.chunks = (TILE, TILE, 3)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[np.uint8]:
        return self[:, :]

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        rows, cols = key[0], key[1]
        y0, y1, _ = rows.indices(self.shape[0])
        x0, x1, _ = cols.indices(self.shape[1])
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for y in range(y0 - y0 % TILE, y1, TILE):
            for x in range(x0 - x0 % TILE, x1, TILE):
                top, bottom, left, right = max(y, y0), min(y + TILE, y1), max(x, x0), min(x + TILE, x1)
                out[top - y0 : bottom - y0, left - x0 : right - x0] = self._part(top, bottom, left, right)
        return out[(slice(None), slice(None), *key[2:])]

    def _part(self, y0: int, y1: int, x0: int, x1: int) -> npt.NDArray[np.uint8]:
        tile = (y0 // TILE, x0 // TILE)
        if self._view.have(self._index, tile):
            return self._data[y0:y1, x0:x1]
        last = self._view.chain[-1]
        factor = 2 ** (len(self._view.chain) - 1 - self._index)
        y = np.minimum(np.arange(y0, y1) // factor, last.shape[0] - 1)
        x = np.minimum(np.arange(x0, x1) // factor, last.shape[1] - 1)
        return last[y][:, x]


class FakeView:
    """What `Slide.view` gives."""

    def __init__(self, slide: FakeSlide, on_tile: Callable[[], None], delay_s: float) -> None:
        self.chain = slide.chain
        self._on_tile, self._delay_s = on_tile, delay_s
        self._there: set[tuple[int, tuple[int, int]]] = set()
        self._asked: set[tuple[int, tuple[int, int]]] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(4)
        self.closed = False
        self.array_likes = tuple(FakeLevel(self, i) for i in range(len(self.chain)))
        self.outdated = True

    def have(self, level: int, tile: tuple[int, int]) -> bool:
        if level == len(self.chain) - 1:
            return True
        key = (level, tile)
        with self._lock:
            if key in self._there:
                return True
            if key not in self._asked and not self.closed:
                self._asked.add(key)
                self._pool.submit(self._load, key)
        return False

    def _load(self, key: tuple[int, tuple[int, int]]) -> None:
        time.sleep(self._delay_s)
        with self._lock:
            self._there.add(key)
        self._on_tile()

    def drawing(self) -> None:
        pass

    @property
    def settled(self) -> bool:
        with self._lock:
            return self._asked == self._there

    @property
    def loaded(self) -> int:
        with self._lock:
            return len(self._there)

    def close(self) -> None:
        self.closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


class FakeSlide:
    """Enough of a Slide for the window."""

    def __init__(
        self,
        width: int = 2000,
        height: int = 1600,
        mpp: tuple[float, float] | None = (0.5, 0.5),
        name: str = "fake.svs",
        delay_s: float = 0.0,
        associated: dict[str, npt.NDArray[np.uint8]] | None = None,
    ) -> None:
        self.path = Path(name)
        self.dimensions = (width, height)
        self.mpp = mpp
        self.associated = associated or {}
        self.problems: list[str] = []
        self.chain = [picture(width, height)]
        while max(self.chain[-1].shape[:2]) > 512:
            self.chain.append(self.chain[-1][::2, ::2])
        self.views: list[FakeView] = []
        self._delay_s = delay_s
        self.closed = False

    def set_mpp(self, mpp: tuple[float, float]) -> None:
        self.mpp = mpp

    def thumbnail(self, max_px: int) -> npt.NDArray[np.uint8]:
        step = max(1, int(np.ceil(max(self.dimensions) / max_px)))
        return self.chain[0][::step, ::step]

    def view(self, on_tile: Callable[[], None]) -> FakeView:
        self.views.append(FakeView(self, on_tile, self._delay_s))
        return self.views[-1]

    def close(self) -> None:
        self.closed = True
