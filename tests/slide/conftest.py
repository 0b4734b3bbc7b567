"""Small slides made for the tests: pixels that are known everywhere, in files of several kinds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from napari_mil.errors import SlideClosed, SlideError
from napari_mil.slide.cache import tile_cache
from napari_mil.slide.slide import Slide
from napari_mil.slide.source import BlocksOfRegions

Pixels = npt.NDArray[np.uint8]


def pattern(height: int, width: int, seed: int = 0) -> Pixels:
    """(height, width, 3) random pixels: every region differs from every other."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_pyramid(
    path: Path,
    levels: list[Pixels],
    *,
    mpp: tuple[float, float] | None = (0.5, 0.5),
    tile: int = 256,
    compression: str | None = "deflate",
    subifds: bool = False,
    ome: dict[str, Any] | None = None,
) -> Path:
    """A tiled TIFF; its levels one after the other (OpenSlide takes it) or in SubIFDs (OME-TIFF)."""
    options: dict[str, Any] = {"tile": (tile, tile), "photometric": "rgb", "compression": compression}
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp[0], 1e4 / mpp[1]), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, ome=ome is not None) as tif:
        first = options | ({"subifds": len(levels) - 1} if subifds else {}) | ({"metadata": ome} if ome else {})
        tif.write(levels[0], **first)
        for level in levels[1:]:
            tif.write(level, subfiletype=1, **options)
    return path


class FakeSource(BlocksOfRegions):
    """A slide in memory that takes its time, counts its reads, and fails where it is told to."""

    name = "fake"
    vendor = "fake"
    properties: dict[str, str] = {}  # noqa: RUF012 - the Protocol says Mapping
    objective_power = None
    associated_names: tuple[str, ...] = ()

    def __init__(self, levels: list[Pixels], *, seconds: float = 0.0, mpp: tuple[float, float] | None = None) -> None:
        self.levels = levels
        self.seconds = seconds
        self.mpp = mpp
        self.level_dimensions = tuple((level.shape[1], level.shape[0]) for level in levels)
        width, height = self.level_dimensions[0]
        self.level_downsamples = tuple((width / w + height / h) / 2 for w, h in self.level_dimensions)
        self.bounds = (0, 0, width, height)
        self.reads: list[tuple[int, int, int]] = []
        self.fails: Callable[[int, int, int], bool] = lambda level, x, y: False
        self.closed = False
        self._lock = threading.Lock()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        with self._lock:
            self.reads.append((level, x, y))
        if self.seconds:
            time.sleep(self.seconds)
        if self.closed:
            raise SlideClosed("closed")
        if self.fails(level, x, y):
            raise SlideError(f"cannot read {level} {x} {y}")
        return self.levels[level][y : y + height, x : x + width].copy()

    def read_associated(self, name: str) -> Pixels:
        raise SlideError(name)

    def close(self) -> None:
        self.closed = True


def in_threads(work: Callable[[int], object], count: int = 8) -> None:
    """Run `work` with the numbers from 0 on in as many threads at once, to the end of all."""
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fake_slide(levels: list[Pixels], **options: Any) -> tuple[Slide, FakeSource]:
    source = FakeSource(levels, **options)
    return Slide(Path("fake.svs"), source), source


def halved(pixels: Pixels) -> Pixels:
    """The mean of each 2 x 2 as the pyramid rounds it, for even sizes."""
    total = pixels.astype(int)
    total = total[0::2, 0::2] + total[0::2, 1::2] + total[1::2, 0::2] + total[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


@pytest.fixture(autouse=True)
def _cache_as_it_was() -> Iterator[None]:
    limit = tile_cache().limit_bytes
    yield
    tile_cache().set_limit(limit)


@pytest.fixture(scope="session")
def pyramid_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Pixels]]:
    """A TIFF that OpenSlide opens: levels with downsamples 1, 4.0005…, 16.02….; sizes no powers of 2."""
    levels = [pattern(1901, 2603, 1), pattern(475, 650, 2), pattern(118, 162, 3)]
    path = tmp_path_factory.mktemp("slides") / "pyramid.tiff"
    return write_pyramid(path, levels), levels
