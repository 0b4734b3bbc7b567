"""How long the window leaves an event waiting while a person jumps, pans and zooms on a slow slide.

Every read of the slide is delayed (20 ms by default, as on a network share; blocks side by side in a file are one
read). A timer beats every few ms in the window's thread; the gaps between beats are how long an event can wait. For
each phase: p50, p95 and the longest gap; how often napari sliced the slide's layer and what we took to answer ("ours");
the time in OpenGL's draw ("draw", with the picture's upload). "napari alone" pans over a picture in memory, which is
what the machine and its OpenGL cost without a slide. After each jump: how long until every pixel in sight is exact, and
until our part of it was done. The goals are printed as reached or not; `--delay-ms 0` for those of a local disk.

    python benchmarks/window_latency.py [--slide FILE] [--delay-ms 20] [--load 2] [--train] [--size 1920x1080]
                                        [--seconds 4] [--json] [--check]

Needs a display with OpenGL (without one: xvfb-run -a -s "-screen 0 1920x1200x24" python benchmarks/…).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from _slow_slide import Delayed, Made
from _timing import Report

BEAT_MS = 5
FRAME_MS = 16
A_HAIR_LESS = 1 - 1 / 512
"""At exactly one pixel of a level per canvas pixel napari takes the next finer level."""


class Beats:
    """Gaps between the beats of a timer in the window's thread, and what was done in them."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self._last = time.perf_counter()
        self._gaps: list[float] = []
        self.ours: list[float] = []
        self.draws: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def _beat(self) -> None:
        now = time.perf_counter()
        self._gaps.append((now - self._last) * 1000)
        self._last = now

    def take(self) -> dict[str, float]:
        """Figures in ms since the last time."""
        gaps = np.array(self._gaps or [0.0])
        ours, draws = np.array(self.ours or [0.0]), np.array(self.draws or [0.0])
        figures = {
            "p50": np.percentile(gaps, 50),
            "p95": np.percentile(gaps, 95),
            "max": gaps.max(),
            "slicings": len(self.ours),
            "ours mean": ours.mean(),
            "ours p95": np.percentile(ours, 95),
            "ours max": ours.max(),
            "draws": len(self.draws),
            "draw mean": draws.mean(),
        }
        self._gaps, self.ours, self.draws = [], [], []
        return {name: round(float(value), 1) for name, value in figures.items()}


def timed(function: Callable[..., Any], into: Callable[[], list[float]]) -> Callable[..., Any]:
    """A function that notes how many ms each call takes."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            into().append((time.perf_counter() - start) * 1000)

    return call


def wait(seconds: float) -> None:
    """Let the window live for a while."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(int(seconds * 1000), loop.quit)
    loop.exec()


def every_frame(seconds: float, act: Callable[[int], None]) -> None:
    """Call `act(i)` each frame for a while, the window living in between."""
    from qtpy.QtCore import QTimer

    count = 0

    def tick() -> None:
        nonlocal count
        act(count)
        count += 1

    timer = QTimer()
    timer.setInterval(FRAME_MS)
    timer.timeout.connect(tick)
    timer.start()
    wait(seconds)
    timer.stop()


def _burn(nice: int) -> None:
    if hasattr(os, "nice"):
        os.nice(nice)
    rng = np.random.default_rng(0)
    a = rng.random((512, 512), dtype=np.float32)
    while True:
        a = a @ a
        a /= np.abs(a).max() + 1e-9


@contextmanager
def load(processes: int, nice: int) -> Iterator[None]:
    """Other processes that compute at full load and low priority, as a training job does."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_burn, args=(nice,), daemon=True) for _ in range(processes)]
    for worker in workers:
        worker.start()
    try:
        if workers:
            time.sleep(2.0)
        yield
    finally:
        for worker in workers:
            worker.terminate()


@contextmanager
def training(wanted: bool) -> Iterator[None]:
    """A real training at full load, in the child process that the window uses."""
    if not wanted:
        yield
        return
    import tempfile

    from napari_mil import Method, Project
    from napari_mil.jobs import JobRunner, TrainJob
    from napari_mil.sample import create_sample
    from napari_mil.study.prepare import prepare_all

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, JobRunner() as runner:
        project = Project.open(create_sample(Path(folder), n_slides=12, size=(2048, 1536)))
        for _ in prepare_all(project):
            pass
        method = Method.preset("rank_induction").with_settings({"training.epochs": 100_000, "training.patience": None})
        job = runner.submit(TrainJob(project=str(project.folder), method=method.model_dump(mode="json")))
        while not job.reports and not job.status.finished:
            time.sleep(0.1)
        yield
        print(f"epochs trained meanwhile: {len(job.reports)}")
        job.cancel(keep="discard")
        job.wait(5)


def floor(viewer: Any, beats: Beats, seconds: float) -> dict[str, float]:
    """The same pan over a picture that lies in memory: what napari and OpenGL cost on this machine by themselves."""
    picture = np.random.default_rng(0).integers(120, 250, (1600, 2400, 3), dtype=np.uint8)
    layer = viewer.add_image(picture, rgb=True)
    viewer.scene.camera.zoom = 1.0
    wait(1.0)
    beats.take()

    def glide(i: int) -> None:
        viewer.scene.camera.center = (0.0, 800 + 200 * np.sin(i / 20), 1200 + 200 * np.cos(i / 20))

    every_frame(seconds, glide)
    figures = beats.take()
    viewer.layers.remove(layer)
    return figures


def jumps(viewer: Any, shown: Any, beats: Beats) -> dict[str, dict[str, float]]:
    """To places not seen before, and how long until every pixel in sight is exact."""
    from napari_mil.viewer import go_to

    found: dict[str, dict[str, float]] = {}
    width, height = shown.slide.dimensions
    mpp = shown.slide.mpp or (1.0, 1.0)
    for zoom, y, x in ((0.26, 0.3, 0.3), (0.5, 0.45, 0.7), (1.0, 0.5, 0.5)):
        start = time.perf_counter()
        go_to(viewer, (height * mpp[1] * y, width * mpp[0] * x), 10 / mpp[0] * zoom * A_HAIR_LESS)
        while time.perf_counter() - start < 0.01 or not shown.settled:
            wait(0.002)
        detail = (time.perf_counter() - start) * 1000
        wait(1.0)
        found[f"jump to {zoom:g}"] = {**beats.take(), "full detail": round(detail, 1)}
    return found


def phases(viewer: Any, shown: Any, beats: Beats, seconds: float) -> dict[str, dict[str, float]]:
    """Jump to full resolution, pan by mouse, and zoom with the wheel; figures of each."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication, QWidget

    from napari_mil.viewer import fit

    window = next(w for w in QApplication.topLevelWidgets() if w.isVisible() and w.findChildren(QWidget))
    canvas = next(w for w in window.findChildren(QWidget) if type(w).__name__.startswith("CanvasBackend"))
    found: dict[str, dict[str, float]] = {}
    mpp = shown.slide.mpp or (1.0, 1.0)

    fit(viewer)
    wait(1.0)
    beats.take()
    wait(1.0)
    found["idle"] = beats.take()
    found |= jumps(viewer, shown, beats)

    middle = QPoint(canvas.width() // 2, canvas.height() // 2)
    reach = min(canvas.width(), canvas.height()) // 3

    def drag(i: int) -> None:
        steps = max(1, reach // 24)
        at = i % (2 * steps)
        if at == 0:
            QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=middle)
        offset = at * 24 if at <= steps else (2 * steps - at) * 24
        drift = (i // (2 * steps)) % 7 * 11
        QTest.mouseMove(canvas, middle + QPoint(offset + drift, offset // 2))
        if at == 2 * steps - 1:
            QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle)

    every_frame(seconds, drag)
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=middle)
    wait(0.3)
    found["pan by mouse"] = beats.take()

    def glide(i: int) -> None:
        _, y, x = viewer.scene.camera.center
        viewer.scene.camera.center = (0.0, y + 24 * mpp[1], x + 64 * mpp[0])

    every_frame(seconds, glide)
    found["pan over new ground"] = beats.take()

    start = viewer.scene.camera.zoom

    def zoom(i: int) -> None:
        viewer.scene.camera.zoom = start * 2 ** (-2.5 * (1 - np.cos(i / 40)))

    every_frame(seconds, zoom)
    found["zoom"] = beats.take()
    wait(1.0)
    beats.take()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, help="a slide file; a made one of 60,000 x 60,000 pixels otherwise")
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--load", type=int, default=0, help="processes that compute at full load meanwhile")
    parser.add_argument("--train", action="store_true", help="a real training in the background meanwhile")
    parser.add_argument("--size", default="1920x1080", help="of the window")
    parser.add_argument("--nice", type=int, default=10, help="their priority; a job's child has 10")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each phase")
    parser.add_argument("--outlines", type=int, default=0, help="lesions on the slide")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is not reached")
    options = parser.parse_args()
    report = measured(options)
    report.print(options.json)
    return 1 if options.check and not all(goal["reached"] for goal in report.goals) else 0


def measured(options: argparse.Namespace) -> Report:
    """All phases in a window of its own."""
    import napari
    import qtpy
    import vispy.app

    vispy.app.use_app(qtpy.API_NAME.lower())
    from vispy.app.backends import _qt

    from napari_mil.slide import Slide, open_slide
    from napari_mil.slide.levels import Level
    from napari_mil.viewer import LesionLayer, show_slide

    if options.slide is None:
        slide = Slide(Path("made.tif"), Delayed(Made(), options.delay_ms / 1000))
    else:
        plain = open_slide(options.slide)
        slide = Slide(plain.path, Delayed(plain.source, options.delay_ms / 1000), plain.mpp)
    clock: list[Beats] = []
    _qt.CanvasBackendDesktop.paintGL = timed(  # before the window is made
        _qt.CanvasBackendDesktop.paintGL, lambda: clock[0].draws if clock else []
    )
    Level.__getitem__ = timed(Level.__getitem__, lambda: clock[0].ours if clock else [])  # type: ignore[method-assign]
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*map(int, options.size.split("x")))
    clock.append(beats := Beats())
    alone = floor(viewer, beats, options.seconds)
    show_slide(viewer, slide).remove()  # what is imported for the first layer of all
    started = time.perf_counter()
    shown = show_slide(viewer, slide)
    opened = (time.perf_counter() - started) * 1000
    if options.outlines:
        lesions = LesionLayer(viewer, _outlines(slide, options.outlines), mpp=slide.mpp, slide_id=shown.slide_id)
        viewer.layers.selection.active = lesions.layer
    wait(0.5)
    with load(options.load, options.nice), training(options.train):
        found = {"napari alone": alone, **phases(viewer, shown, beats, options.seconds)}
    report = Report("window_latency")
    height, width = viewer.canvas.size
    report.note(
        f"Canvas {width} x {height}, {options.delay_ms:g} ms a read, {options.load} busy processes, "
        f"{options.outlines} outlines{', training meanwhile' if options.train else ''}. Shown in {opened:.0f} ms."
    )
    for phase, figures in found.items():
        report.row("ms", phase, **figures)
    goals(report, found, options.delay_ms)
    shown.close()
    viewer.close()
    slide.close()
    return report


def goals(report: Report, found: dict[str, dict[str, float]], delay_ms: float) -> None:
    """What is to be reached: whatever a person does, and when all pixels are there."""
    moved = {phase: figures for phase, figures in found.items() if phase not in ("napari alone", "idle")}
    for phase, figures in moved.items():
        report.goal(f"{phase}: 95 % of events within ms", figures["p95"], most=50)
        report.goal(f"{phase}: every event within ms", figures["max"], most=100)
        if "full detail" in figures:
            report.goal(f"{phase}: full detail within ms", figures["full detail"], most=250 if delay_ms else 60)
    pans = [figures for phase, figures in moved.items() if phase.startswith("pan")]
    report.goal("slicing during a pan, mean ms", max(figures["ours mean"] for figures in pans), most=2)
    report.goal("slicing during a pan, p95 ms", max(figures["ours p95"] for figures in pans), most=16.7)
    report.note("What of a gap is beyond our own answers is napari's and OpenGL's drawing; compare with napari alone.")


def _outlines(slide: Any, count: int) -> Any:
    import shapely

    from napari_mil.lesion import Lesion, LesionSet

    rng = np.random.default_rng(1)
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    centers = rng.uniform(0, slide.dimensions, (count, 2))
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    return LesionSet(Lesion(shapely.Polygon(c + ring * rng.uniform(300, 900, (100, 1)))) for c in centers)


if __name__ == "__main__":
    sys.exit(main())
