"""What a window of 1920 × 1080 costs to fill from a slide: ours against napari-wsi, OpenSlide, tifffile with zarr.

    python benchmarks/viewing.py [--rounds 5] [--slide FILE] [--json]

No OpenGL: napari's own layer is told what the canvas sees and slices that, as it does before each frame; sending the
picture to the graphics card is the same for all. Every way opens the slide anew in each round; places differ within a
round, so that each is cold; warm is the same view sliced again. Milliseconds on the clock, median (least) of rounds.

"pyramid" waits for its pixels, as the peers do. "view" is what our window shows: it answers at once, from coarser
levels if need be, and "full detail" is when all has arrived. A pan goes 64 px a frame, 60 frames a second.

Goals against napari-wsi: open to first picture ≥ 5 ×; 1:1 cold ≥ 4 × and < 25 ms; the worst zoom ≥ 4 ×; pan ≥ 4 ×,
95 % of its steps < 16.7 ms.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from napari.components import ViewerModel

from _timing import Report, parser, seconds_of
from big_slide import big_slide
from napari_mil import open_slide

CANVAS = np.array([1080, 1920])  # rows, columns
ZOOMS = (1.0, 0.5, 0.26)  # screen pixels to a level-0 pixel; at 0.26 a 1/4 pyramid is read at full size
PAN_PX, PAN_STEPS, FRAME_S = 64, 60, 1 / 60
PLACES = {
    1.0: ((0.15, 0.2), (0.3, 0.2), (0.15, 0.35)),
    0.5: ((0.15, 0.58), (0.3, 0.58), (0.15, 0.8)),
    0.26: ((0.7, 0.2),),
}
"""Centres (y, x) in parts of the slide, one section of tissue for each zoom; the pan has the fourth."""
PAN_FROM = (0.75, 0.65)


class Napari:
    """A napari layer over levels, and what the canvas sees of it."""

    def __init__(self, viewer: ViewerModel, levels: Any, **options: Any) -> None:
        self.layer = viewer.add_image(levels, **options)
        self.size = np.array(self.layer.data[0].shape[:2])

    def look(self, zoom: float, center: np.ndarray) -> None:
        half = CANVAS / zoom / 2
        self.layer._update_draw(1 / zoom, np.stack([center - half, center + half]), CANVAS)

    def again(self, zoom: float, center: np.ndarray) -> None:
        self.layer.refresh(extent=False, thumbnail=False)

    def close(self) -> None:
        pass


class Pyramid(Napari):
    """Ours, waiting for pixels."""

    def __init__(self, viewer: ViewerModel, path: Path) -> None:
        self.slide = open_slide(path)
        super().__init__(viewer, self.slide.pyramid(), multiscale=True, rgb=True, cache=False)

    def close(self) -> None:
        self.slide.close()


class View(Napari):
    """Ours as the window shows it."""

    def __init__(self, viewer: ViewerModel, path: Path) -> None:
        self.slide = open_slide(path)
        self.view = self.slide.view()
        super().__init__(viewer, list(self.view.array_likes), multiscale=True, rgb=True, cache=False)

    def complete(self, zoom: float, center: np.ndarray) -> None:
        """Until the view shows full detail, from the first look on."""
        self.look(zoom, center)
        self.view.wait()
        self.again(zoom, center)

    def close(self) -> None:
        self.view.close()
        self.slide.close()


class NapariWsi(Napari):
    """The peer's reader, as napari calls it when a file is opened with it."""

    def __init__(self, viewer: ViewerModel, path: Path) -> None:
        from napari_wsi.reader import wsi_reader_openslide

        reader = wsi_reader_openslide(str(path))
        levels, options, _ = reader(str(path))[0]
        super().__init__(viewer, levels, **options)


class Zarr(Napari):
    """tifffile's zarr arrays, one a level."""

    def __init__(self, viewer: ViewerModel, path: Path) -> None:
        import tifffile
        import zarr

        with tifffile.TiffFile(path) as tif:
            count = len(tif.series[0].levels)
        self.stores = [tifffile.imread(path, aszarr=True, level=i) for i in range(count)]
        super().__init__(viewer, [zarr.open(store, mode="r") for store in self.stores], multiscale=True, rgb=True)

    def close(self) -> None:
        for store in self.stores:
            store.close()


class OpenSlide:
    """read_region of what the canvas sees, without napari."""

    def __init__(self, viewer: ViewerModel, path: Path) -> None:
        self.slide = openslide.OpenSlide(path)
        self.size = np.array(self.slide.dimensions[::-1])

    def look(self, zoom: float, center: np.ndarray) -> None:
        level = self.slide.get_best_level_for_downsample(1 / zoom)
        top, left = (max(0, int(v)) for v in center - CANVAS / zoom / 2)
        shape = np.minimum(CANVAS / zoom, self.size) / self.slide.level_downsamples[level]
        np.asarray(self.slide.read_region((left, top), level, (int(shape[1]), int(shape[0]))).convert("RGB"))

    again = look

    def close(self) -> None:
        self.slide.close()


WAYS: dict[str, Callable[[ViewerModel, Path], Any]] = {
    "ours, pyramid": Pyramid,
    "ours, view": View,
    "napari-wsi": NapariWsi,
    "OpenSlide": OpenSlide,
    "tifffile + zarr": Zarr,
}


def one_round(make: Callable[[ViewerModel, Path], Any], path: Path) -> dict[str, list[float]]:
    """Milliseconds of each thing that was done."""
    taken: dict[str, list[float]] = defaultdict(list)

    def ms(call: Callable[[], object]) -> float:
        return 1000 * seconds_of(call).wall[0]

    viewer, way = ViewerModel(), None  # a window is there before a slide is opened in it

    def first_picture() -> None:
        nonlocal way
        way = make(viewer, path)
        way.look(float((CANVAS / way.size).min()), way.size / 2)

    taken["first picture"].append(ms(first_picture))
    for zoom in ZOOMS:
        cold, warm, detail = [], [], []
        for place in PLACES[zoom]:
            center = way.size * place
            cold.append(ms(lambda z=zoom, c=center: way.look(z, c)))
            if isinstance(way, View):
                way.view.wait()
            warm.append(ms(lambda z=zoom, c=center: way.again(z, c)))
            if isinstance(way, View):
                beside = center + [0, 1.1 * CANVAS[1] / zoom]
                detail.append(ms(lambda z=zoom, c=beside: way.complete(z, c)))
        taken[f"{zoom:g} cold"].append(statistics.mean(cold))
        taken[f"{zoom:g} warm"].append(statistics.mean(warm))
        if detail:
            taken[f"{zoom:g} full detail"].append(statistics.mean(detail))
    center = way.size * PAN_FROM
    way.look(1.0, center)
    for step in range(1, PAN_STEPS + 1):
        begun = time.perf_counter()
        taken["pan"].append(ms(lambda c=center + [0, PAN_PX * step]: way.look(1.0, c)))
        time.sleep(max(0.0, FRAME_S - (time.perf_counter() - begun)))
    way.close()
    return taken


def goals(report: Report, taken: dict[str, dict[str, list[float]]], pan_means: dict[str, list[float]]) -> None:
    """Ratios between least times, milliseconds as medians; of the view what the window shows completely."""
    peer = taken["napari-wsi"]
    for name, cold in (("ours, view", "full detail"), ("ours, pyramid", "cold")):
        ours = taken[name]
        beside = ", against napari-wsi"
        ratio = min(peer["first picture"]) / min(ours["first picture"])
        report.goal(f"{name}: open to first picture{beside}", ratio, least=5)
        report.goal(f"{name}: 1:1 {cold}{beside}", min(peer["1 cold"]) / min(ours[f"1 {cold}"]), least=4)
        report.goal(f"{name}: 1:1 {cold}, ms", statistics.median(ours[f"1 {cold}"]), most=25)
        ratio = min(peer["0.26 cold"]) / min(ours[f"0.26 {cold}"])
        report.goal(f"{name}: worst zoom (0.26) {cold}{beside}", ratio, least=4)
        report.goal(f"{name}: pan, mean{beside}", min(pan_means["napari-wsi"]) / min(pan_means[name]), least=4)
        report.goal(f"{name}: pan, 95 % of steps within ms", float(np.percentile(ours["pan"], 95)), most=16.7)


def main() -> None:
    options = parser(__doc__, 5).parse_args()
    path = options.slide or big_slide()
    report = Report("viewing")
    taken: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in WAYS}
    pan_means: dict[str, list[float]] = defaultdict(list)
    for round_ in range(-1, options.rounds):  # the first one imports and warms up, and does not count
        for name, make in WAYS.items():
            found = one_round(make, path)
            if round_ < 0:
                continue
            pan_means[name].append(statistics.mean(found["pan"]))
            for what, values in found.items():
                taken[name][what].extend(values)
    for name, found in taken.items():
        figures = {what: f"{statistics.median(v):.1f} ({min(v):.1f})" for what, v in found.items() if what != "pan"}
        pan = f"{statistics.median(pan_means[name]):.1f} ({min(pan_means[name]):.1f})"
        p95 = f"{np.percentile(found['pan'], 95):.1f}"
        report.row("ms, median (least)", name, **figures, **{"pan, mean": pan, "pan, p95": p95})
    goals(report, taken, pan_means)
    report.print(options.json)


if __name__ == "__main__":
    main()
