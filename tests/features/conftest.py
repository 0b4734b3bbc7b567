"""A slide in memory, a grid on it, and a cache of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from napari_mil.errors import SlideError
from napari_mil.geometry import PatchGrid
from napari_mil.slide.source import BlocksOfRegions


class FakeSlide(BlocksOfRegions):
    """Pixels of a fixed random texture, its own source; `broken` is a level-0 point that cannot be read."""

    def __init__(self, size: tuple[int, int] = (1024, 768), seed: int = 0) -> None:
        coarse = np.random.default_rng(seed).integers(60, 240, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        noise = np.random.default_rng(seed + 1).integers(0, 16, (size[1], size[0], 3), dtype=np.uint8)
        self.pixels = np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1) + noise
        self.path = Path("fake.svs")
        self.dimensions = size
        self.mpp: tuple[float, float] | None = (0.5, 0.5)
        self.mpp_source: str | None = "file"
        self.color = "as stored"
        self.level_dimensions = (size,)
        self.level_downsamples = (1.0,)
        self.source = self
        self.fingerprint = f"fake-{seed}"
        self.objective_power: float | None = 20.0
        self.broken: tuple[int, int] | None = None
        self.reads = 0

    def block_size(self, level: int) -> tuple[int, int]:
        return 96, 112  # each patch of `grid` lies in one

    def read(self, level: int, x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        assert level == 0
        self.reads += 1
        if self.broken is not None and x <= self.broken[0] < x + width and y <= self.broken[1] < y + height:
            raise SlideError("the tile is damaged")
        return self.pixels[y : y + height, x : x + width]


@pytest.fixture
def slide() -> FakeSlide:
    return FakeSlide()


@pytest.fixture
def grid() -> PatchGrid:
    """48 patches of 64 px, no two alike in place, in an order that is not sorted."""
    coords = [(x * 96, y * 112) for y in range(6) for x in range(8)]
    order = np.random.default_rng(3).permutation(len(coords))
    return PatchGrid(np.array(coords)[order], 64, (96, 112), 0.5)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread: the machine is shared, and results are the same each time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
