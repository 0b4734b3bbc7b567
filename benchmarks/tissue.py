"""Tissue and grid of a slide, each opened anew: from the file to the patches that hold tissue.

    python benchmarks/tissue.py [--rounds 5] [--slide FILE] [--json]

The slides are the large one and the real ones at hand (CMU-1-Small-Region and what lies beside it). The large one is
tiled as usual, at a step that gives about 100,000 patches with tissue, and taken for a slide of 0.5 µm/px,
whose level of 4 µm/px is not in the file but made from one four times as large. Milliseconds on the clock, median
(least). Goal: < 0.5 s a slide, opening, tissue, grid, and the tissue in each patch together.
"""

from __future__ import annotations

import statistics
import time
import warnings
from itertools import pairwise
from pathlib import Path

from _timing import Report, parser, small_slide
from big_slide import big_slide
from napari_mil import open_slide, tile, tissue_mask
from napari_mil.errors import SlideError
from napari_mil.slide import SlideWarning, TileConfig, tissue_pixels

STEPS = ("open", "tissue", "grid", "tissue in each patch")
SMALL_STEP = TileConfig(stride_px=43)


def real_slides() -> dict[str, Path]:
    """The slides beside CMU-1-Small-Region; of a folder of DICOM files one, which opens them all."""
    first = small_slide()
    if first is None:
        return {}
    kinds = (".svs", ".tif", ".tiff", ".ndpi", ".jpeg", ".dcm")
    files = {path.name: path for path in sorted(first.parent.iterdir()) if path.suffix.lower() in kinds}
    return files | {path.parent.name: path for path in sorted(first.parent.glob("*/*.dcm"))}


def once(path: Path, mpp: float | None, config: TileConfig) -> tuple[list[float], str] | None:
    """Milliseconds of each step, and what was found; None for a file that is no slide."""
    times = [time.perf_counter()]
    try:
        slide = open_slide(path, mpp=mpp)
    except SlideError:
        return None
    with slide:
        times.append(time.perf_counter())
        if slide.mpp is None:
            slide.set_mpp(0.5)
        mask = tissue_mask(slide)
        times.append(time.perf_counter())
        grid = tile(slide, config, mask)
        times.append(time.perf_counter())
        tissue_pixels(mask, grid)
        times.append(time.perf_counter())
        found = f"{mask.array.shape[1]} × {mask.array.shape[0]}, {len(grid)}"
    return [1000 * (after - before) for before, after in pairwise(times)], found


def main() -> None:
    options = parser(__doc__, 5).parse_args()
    warnings.simplefilter("ignore", SlideWarning)
    big = options.slide or big_slide()
    slides = {
        "large slide": (big, None, TileConfig()),
        "large slide, small step": (big, None, SMALL_STEP),
        "large slide, taken for 0.5 µm/px": (big, 0.5, TileConfig()),
    }
    slides |= {name: (path, None, TileConfig()) for name, path in real_slides().items()}
    report = Report("tissue")
    rounds = [{name: once(*args) for name, args in slides.items()} for _ in range(options.rounds + 1)][1:]
    worst = 0.0
    for name in slides:
        taken = [found for round_ in rounds if (found := round_[name]) is not None]
        if not taken:
            continue
        wholes = [sum(steps) for steps, _ in taken]
        figures = {
            step: f"{statistics.median(times):.1f} ({min(times):.1f})"
            for step, times in zip(STEPS, zip(*(steps for steps, _ in taken), strict=True), strict=True)
        }
        whole = f"{statistics.median(wholes):.0f} ({min(wholes):.0f})"
        report.row("ms, median (least)", name, **figures, together=whole, **{"mask, patches": taken[0][1]})
        worst = max(worst, statistics.median(wholes))
    report.goal("slowest slide, ms", worst, most=500)
    report.print(options.json)


if __name__ == "__main__":
    main()
