"""Regions and patches of a slide, one thread: ours against OpenSlide and against tifffile with zarr.

    python benchmarks/reading.py [--rounds 5] [--slide FILE] [--json]

Files lie in the system's cache; every slide is opened anew before each round, so that no reader has tiles at hand that
an earlier round left. Megapixels per second of the processor's time, medians and the best of the rounds. Goals: a
sequential grid of 224 px at ≥ 3 × OpenSlide's speed, 20x patches from a 40x level at ≥ 4 × that of OpenSlide with PIL.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openslide
import tifffile
import zarr
from PIL import Image

from _timing import Report, Seconds, interleaved, parser, small_slide
from big_slide import big_slide
from napari_mil import PatchGrid, open_slide
from napari_mil.slide import read_patches

Region = tuple[int, int, int]  # x, y, side


class Readers:
    """One slide in the hands of each reader; `open` gives it to them anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._close: Callable[[], None] = lambda: None

    def open(self) -> None:
        self._close()
        self.ours = open_slide(self.path)
        self.openslide = openslide.OpenSlide(self.path)
        store = tifffile.imread(self.path, aszarr=True, level=0)
        self.zarr = zarr.open(store, mode="r")

        def close() -> None:
            self.ours.close()
            self.openslide.close()
            store.close()

        self._close = close

    def read_ours(self, regions: list[Region]) -> Iterator[np.ndarray]:
        return (self.ours.read(x, y, side, side) for x, y, side in regions)

    def read_openslide(self, regions: list[Region]) -> Iterator[np.ndarray]:
        return (
            np.asarray(self.openslide.read_region((x, y), 0, (side, side)).convert("RGB")) for x, y, side in regions
        )

    def read_zarr(self, regions: list[Region]) -> Iterator[np.ndarray]:
        return (self.zarr[y : y + side, x : x + side] for x, y, side in regions)


def random_regions(size: tuple[int, int], side: int, count: int, *, aligned: int = 1) -> list[Region]:
    """Places all over the slide, the same ones for every reader and round."""
    rng = np.random.default_rng(side + aligned)
    x, y = (rng.integers(0, (length - side) // aligned, count) * aligned for length in size)
    return [(int(a), int(b), side) for a, b in zip(x, y, strict=True)]


def grid_regions(size: tuple[int, int], side: int, count: int) -> list[Region]:
    """Patch beside patch, row by row, twice as wide as high, around the middle of the slide's first quarter."""
    columns = min(int(np.sqrt(2 * count)), size[0] // side)
    rows = min(count // columns, size[1] // side)
    left, top = (
        max(0, min(length // 4 - n * side // 2, length - n * side))
        for length, n in zip(size, (columns, rows), strict=True)
    )
    return [(left + i * side, top + j * side, side) for j in range(rows) for i in range(columns)]


def exhaust(parts: Iterator[np.ndarray]) -> None:
    for _ in parts:
        pass


def regions_of(readers: Readers, report: Report, title: str, rounds: int, scale: float) -> None:
    """Regions at full size by the three readers; the figure is megapixels per second."""
    size = readers.ours.dimensions
    tile = 256 if readers.openslide.properties.get("openslide.level[0].tile-width", "256") == "256" else 240
    cases = {
        "random 224": random_regions(size, 224, int(400 * scale)),
        f"aligned {tile}": random_regions(size, tile, int(400 * scale), aligned=tile),
        "random 1024": random_regions(size, 1024, int(40 * scale)),
        "224 grid": grid_regions(size, 224, int(800 * scale)),
        "448 grid": grid_regions(size, 448, int(200 * scale)),
    }
    for case, regions in cases.items():
        ways = {
            "ours": lambda r=regions: exhaust(readers.read_ours(r)),
            "OpenSlide": lambda r=regions: exhaust(readers.read_openslide(r)),
            "tifffile + zarr": lambda r=regions: exhaust(readers.read_zarr(r)),
        }
        taken = interleaved(ways, rounds, dict.fromkeys(ways, readers.open))
        megapixels = len(regions) * regions[0][2] ** 2 / 1e6
        for name, seconds in taken.items():
            report.row(f"{title}, MPix/s: median (best)", name, **{case: speed(megapixels, seconds)})
        ratio = taken["OpenSlide"].least_cpu / taken["ours"].least_cpu
        report.row(f"{title}, MPix/s: median (best)", "ours / OpenSlide", **{case: f"{ratio:.1f}×"})
        if case == "224 grid":
            report.goal(f"{title}: sequential 224 grid against OpenSlide", ratio, least=3)
        check(readers, regions[:: max(1, len(regions) // 50)], report, f"{title}, {case}")


def check(readers: Readers, regions: list[Region], report: Report, what: str) -> None:
    """Speed without the right pixels is worth nothing."""
    pairs = zip(readers.read_ours(regions), readers.read_openslide(regions), strict=True)
    wrong = sum(not np.array_equal(a, b) for a, b in pairs)
    if wrong:
        report.note(f"{what}: {wrong} of {len(regions)} regions differ from OpenSlide's.")


def halved_patches(readers: Readers, report: Report, title: str, rounds: int, count: int) -> None:
    """Patches of 448 px brought to 224, as 20x is made from 40x; the figure is patches per second."""
    regions = grid_regions(readers.ours.dimensions, 448, count)
    coords = np.array([region[:2] for region in regions])
    grid = PatchGrid(coords, 448, 448, readers.ours.mpp)

    def ours() -> None:
        for start in range(0, len(grid), 32):
            read_patches(readers.ours, grid, np.arange(start, min(start + 32, len(grid))), 224)

    def usual() -> None:
        for x, y in coords:
            readers.openslide.read_region((int(x), int(y)), 0, (448, 448)).convert("RGB").resize((224, 224))

    def zarr_pil() -> None:
        for x, y in coords:
            Image.fromarray(readers.zarr[y : y + 448, x : x + 448]).resize((224, 224))

    ways = {"ours": ours, "OpenSlide + PIL": usual, "tifffile + zarr + PIL": zarr_pil}
    taken = interleaved(ways, rounds, dict.fromkeys(ways, readers.open))
    for name, seconds in taken.items():
        report.row("448 → 224 px grid, patches/s: median (best)", name, **{title: speed(len(grid), seconds)})
    ratio = taken["OpenSlide + PIL"].least_cpu / taken["ours"].least_cpu
    report.goal(f"{title}: 20x from 40x patches against OpenSlide + PIL", ratio, least=4)


def speed(amount: float, seconds: Seconds) -> str:
    return f"{amount / statistics.median(seconds.cpu):.0f} ({amount / seconds.least_cpu:.0f})"


def main() -> None:
    options = parser(__doc__, 5).parse_args()
    report = Report("reading")
    slides = {"large slide": options.slide or big_slide(), "CMU-1-Small-Region": small_slide()}
    for title, path in slides.items():
        if path is None:
            report.note(f"{title} is not at hand: File › Open Sample fetches it.")
            continue
        readers = Readers(path)
        readers.open()
        small = readers.ours.dimensions[0] < 10_000
        regions_of(readers, report, title, options.rounds, 0.25 if small else 1.0)
        halved_patches(readers, report, title, options.rounds, 20 if small else 200)
    report.print(options.json)


if __name__ == "__main__":
    main()
