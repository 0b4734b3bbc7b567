"""The first ten minutes with napari-mil, played with real mouse and keyboard events, timed, a screenshot per step.

`make demo` plays it where there is no display to sit at; it is an acceptance test as well: any step that does not come
true ends it with an error. Run by hand: ``python tests/acceptance/first_ten_minutes.py --out demo-output``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QCheckBox, QDialog, QDialogButtonBox, QFileDialog, QMenu, QMessageBox, QWidget

LEFT = Qt.MouseButton.LeftButton


class Player:
    """A person at the window: clicks, keys, looks, waits."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.steps: list[dict[str, Any]] = []
        self.viewer: Any = None
        self.dock: Any = None

    # the window

    def open_window(self, project: Path | None = None) -> None:
        """What `napari-mil` does."""
        from napari_mil.widgets.main import make_window

        self.viewer, self.dock = make_window(project)
        self.viewer.window.resize(1500, 920)
        QTest.qWaitForWindowExposed(self.dock.window())
        self.wait(0.3)

    def close_window(self) -> None:
        """Close it as a person does."""
        self.dock.window().close()
        self.wait(0.5)
        self.viewer = self.dock = None

    @property
    def session(self) -> Any:
        """The truth behind the window."""
        return self.dock.session

    @property
    def canvas(self) -> QWidget:
        """napari's canvas, found as a widget of the window."""
        for widget in self.dock.window().findChildren(QWidget):
            if "CanvasBackend" in type(widget).__name__:
                return widget
        raise LookupError("the window has no canvas")

    # hands

    def wait(self, seconds: float) -> None:
        """Let the window live."""
        QTest.qWait(round(seconds * 1000))

    def until(self, what: str, true: Callable[[], object], timeout: float = 120.0) -> None:
        """Wait until something is so; what it is stands in the error."""
        end = time.monotonic() + timeout
        while not true():
            if time.monotonic() > end:
                self.picture("failed")
                raise TimeoutError(f"waited {timeout:g} s in vain: {what}. The dock says: {self.dock.sentence.text()}")
            self.wait(0.05)

    def click(self, widget: QWidget) -> None:
        """Click a button with the mouse; one that is off is an error, and says why."""
        assert widget.isVisible(), f"{widget} is not to be seen"
        assert widget.isEnabled(), f"“{getattr(widget, 'text', lambda: '')()}” is off: {widget.toolTip()}"
        self.show_widget(widget)
        box = isinstance(widget, QCheckBox)  # only its box and words take a click, not the space behind them
        QTest.mouseClick(widget, LEFT, pos=QPoint(8, widget.height() // 2) if box else widget.rect().center())

    def show_widget(self, widget: QWidget) -> None:
        """Scroll a page so that the widget is seen."""
        page = self.dock.page
        if hasattr(page, "ensureWidgetVisible") and page.isAncestorOf(widget):
            page.ensureWidgetVisible(widget)
            self.wait(0.02)

    def click_when_on(self, widget: QWidget, timeout: float = 30.0) -> None:
        """Click a button as soon as it is on."""
        self.until(f"{widget.toolTip()!r} no longer holds", widget.isEnabled, timeout)
        self.click(widget)

    def page(self, title: str) -> Any:
        """Click a page's tab."""
        titles = [page.title for page in self.dock.pages]
        tabs = self.dock.tabs
        QTest.mouseClick(tabs, LEFT, pos=tabs.tabRect(titles.index(title)).center())
        assert self.dock.page.title == title
        return self.dock.page

    def mouse(self, kind: QEvent.Type, at: QPoint, *, held: bool = False) -> None:
        """One mouse event on the canvas."""
        button = Qt.MouseButton.NoButton if kind == QEvent.Type.MouseMove else LEFT
        down = kind == QEvent.Type.MouseButtonPress or kind == QEvent.Type.MouseButtonDblClick or held
        buttons = LEFT if down else Qt.MouseButton.NoButton
        where = QPointF(self.canvas.mapToGlobal(at))
        event = QMouseEvent(kind, QPointF(at), where, button, buttons, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(self.canvas, event)
        self.wait(0.02)

    def drag(self, start: QPoint, end: QPoint, steps: int = 12) -> None:
        """Drag on the canvas with the left button."""
        self.mouse(QEvent.Type.MouseMove, start)
        self.mouse(QEvent.Type.MouseButtonPress, start)
        for i in range(1, steps + 1):
            self.mouse(QEvent.Type.MouseMove, start + (end - start) * i / steps, held=True)
        self.mouse(QEvent.Type.MouseButtonRelease, end)

    def on_canvas(self, x: float, y: float) -> QPoint:
        """Canvas pixel of a level-0 point (x, y) of the slide."""
        from napari_mil.geometry import level0_to_world

        slide = self.session.stage.slide
        world = level0_to_world((x, y), slide.mpp)
        center = self.viewer.scene.camera.center[-2:]
        zoom = self.viewer.scene.camera.zoom
        size = self.canvas.size()
        return QPoint(
            round(size.width() / 2 + (world[1] - center[1]) * zoom),
            round(size.height() / 2 + (world[0] - center[0]) * zoom),
        )

    def draw_polygon(self, points: list[tuple[float, float]]) -> None:
        """Click a polygon point by point, and close it with a double click."""
        at = [self.on_canvas(*p) for p in points]
        for point in at[:-1]:
            self.mouse(QEvent.Type.MouseMove, point)
            self.mouse(QEvent.Type.MouseButtonPress, point)
            self.mouse(QEvent.Type.MouseButtonRelease, point)
            self.wait(0.3)  # slower than a double click
        self.mouse(QEvent.Type.MouseMove, at[-1])
        self.mouse(QEvent.Type.MouseButtonPress, at[-1])
        self.mouse(QEvent.Type.MouseButtonRelease, at[-1])
        self.mouse(QEvent.Type.MouseButtonDblClick, at[-1])
        self.mouse(QEvent.Type.MouseButtonRelease, at[-1])
        self.wait(0.1)

    def key(self, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key on the canvas."""
        self.canvas.setFocus()
        QTest.keyClick(self.canvas, key, modifier)
        self.wait(0.1)

    def choose(self, path: Path) -> contextlib.AbstractContextManager[None]:
        """Whatever file dialog opens, this path is chosen in it."""
        return _file_dialogs_answer(path)

    def accept_dialog(self) -> None:
        """Press OK in the dialog that is about to open."""

        def press() -> None:
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QDialog):
                QTimer.singleShot(50, press)
                return
            self.picture("table")
            box = dialog.findChild(QDialogButtonBox)
            QTest.mouseClick(box.button(QDialogButtonBox.StandardButton.Ok), LEFT)

        QTimer.singleShot(200, press)

    # eyes

    def picture(self, name: str) -> None:
        """Save what the person sees."""
        window = QApplication.activeModalWidget() or self.dock.window()
        self.wait(0.1)
        window.grab().save(str(self.out / f"{len(self.steps) + 1:02d}-{name}.png"))

    @contextlib.contextmanager
    def step(self, name: str, sentence: str) -> Iterator[None]:
        """A step: timed, a picture at its end."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        if self.dock is not None:
            self.picture(name)
        self.steps.append({"step": name, "sentence": sentence, "seconds": round(seconds, 2)})
        print(f"{len(self.steps):2d}. {seconds:6.1f} s  {sentence}", flush=True)


@contextlib.contextmanager
def _file_dialogs_answer(path: Path) -> Iterator[None]:
    kept = (QFileDialog.getExistingDirectory, QFileDialog.getOpenFileName, QFileDialog.getSaveFileName)
    QFileDialog.getExistingDirectory = staticmethod(lambda *_a, **_k: str(path))  # type: ignore[method-assign]
    QFileDialog.getOpenFileName = staticmethod(lambda *_a, **_k: (str(path), ""))  # type: ignore[method-assign]
    QFileDialog.getSaveFileName = staticmethod(lambda *_a, **_k: (str(path), ""))  # type: ignore[method-assign]
    try:
        yield
    finally:
        QFileDialog.getExistingDirectory, QFileDialog.getOpenFileName, QFileDialog.getSaveFileName = kept  # type: ignore[method-assign]


def play(out: Path, sample: Path, *, epochs: int = 150) -> dict[str, Any]:
    """Play all steps on a copy of the sample's slides; the figures of the run."""
    p = Player(out)
    figures: dict[str, Any] = {}
    work = Path(tempfile.mkdtemp(prefix="napari-mil-demo-"))
    slides = work / "slides"
    shutil.copytree(sample / "slides", slides)
    shutil.copy(sample / "slides.csv", work / "slides.csv")
    annotations = sample / "annotations"
    try:
        _start(p, slides)
        _label(p, work / "slides.csv")
        _prepare(p, figures)
        _outline(p, annotations)
        _train(p, figures, epochs)
        _look(p, figures)
        _reopen(p, slides.parent / "slides-mil")
        p.session.close()
        p.close_window()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {"steps": p.steps, "seconds": round(sum(s["seconds"] for s in p.steps), 1), **figures}


def _start(p: Player, slides: Path) -> None:
    with p.step("start", "napari-mil starts and says what to do first"):
        p.open_window()
        assert p.dock.page is p.dock.start
    with p.step("new-project", "A new project from a folder of slides"), p.choose(slides):
        p.click(p.dock.start.from_folder)
        p.until("the project is open", lambda: p.session.project is not None)
        table = p.dock.page.table
        p.until("all slides are listed", lambda: table.model().rowCount() == len(list(slides.glob("*.tif"))))


def _label(p: Player, table_file: Path) -> None:
    page = p.page("Slides")
    with p.step("label-by-key", "Two slides labelled with the keyboard"):
        page.session.project.set_label_names(["normal", "tumor"])
        page.table.selectRow(0)
        page.table.setFocus()
        QTest.keyClick(page.table, Qt.Key.Key_2)
        assert page.model.index(0, 2).data() == "tumor"
        QTest.keyClick(page.table, Qt.Key.Key_0)
        assert page.model.index(0, 2).data() == ""
    with p.step("labels", "Labels and patients from a table, its columns mapped by eye"), p.choose(table_file):
        p.accept_dialog()
        p.click(page.table_button)
        p.until("every slide has a label", lambda: all(r.label for r in p.session.project.slides))
    with p.step("split", "A patient-wise split proposed"):
        p.click(page.split_button)
        p.until("every slide has a role", lambda: all(r.role for r in p.session.project.slides))
    with p.step("slide", "A slide opened by a click on its row, then the next one by key"):
        index = page.shown.index(0, 1)
        QTest.mouseClick(page.table.viewport(), LEFT, pos=page.table.visualRect(index).center())
        p.until("a slide is shown", lambda: p.session.stage.slide is not None)
        first = p.session.stage.slide_id
        QTest.keyClick(page.table, Qt.Key.Key_PageDown)
        p.until("the next slide is shown", lambda: p.session.stage.slide_id not in (None, first))
        p.until("the slide's patches are counted", lambda: p.session.stage.patches.grid is not None)


def _prepare(p: Player, figures: dict[str, Any]) -> None:
    page = p.page("Features")
    with p.step("tissue", "Tissue and patches shown on the slide"):
        p.click(page.show_tissue)
        p.click(page.show_patches)
        p.until("patches are shown", lambda: any("Patches" in layer.name for layer in p.viewer.layers))
        p.wait(0.5)
    p.click(page.show_tissue)
    p.click(page.show_patches)
    with p.step("prepare", "All slides prepared in the background"):
        start = time.monotonic()
        p.click(page.prepare_all)
        p.until("the job runs", lambda: p.session.desk.running is not None, 30)
        ids = p.session.project.slide_ids
        p.until("all slides have features", lambda: p.session.preparation.ready.issuperset(ids), 600)
        p.until("the job is done", lambda: p.session.desk.running is None, 30)
        figures["prepare_seconds"] = round(time.monotonic() - start, 1)


def _outline(p: Player, annotations: Path) -> None:
    project = p.session.project
    positive = next(
        r.slide_id
        for r in project.slides
        if r.label == "tumor" and r.role == "train" and _outlines(annotations, r.slide_id)
    )
    p.page("Slides")
    p.session.stage.show(positive)
    p.until("a training slide with tumour is shown", lambda: p.session.stage.slide_id == positive)
    page = p.page("Lesions")
    layer = p.session.stage.outlines.layer
    with p.step("outline", "Two lesions outlined with the mouse, one taken back with Ctrl+Z"):
        p.session.stage.fit()
        p.wait(0.5)
        w, h = p.session.stage.slide.dimensions
        p.click(page.buttons["polygon"])
        p.draw_polygon([(x * w, y * h) for x, y in ((0.22, 0.23), (0.37, 0.21), (0.39, 0.39), (0.24, 0.41))])
        p.until("one outline", lambda: len(layer.lesions) == 1, 10)
        p.draw_polygon([(x * w, y * h) for x, y in ((0.54, 0.49), (0.68, 0.47), (0.71, 0.65), (0.56, 0.68))])
        p.until("two outlines", lambda: len(layer.lesions) == 2, 10)
        p.picture("two-outlines")
        p.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        p.until("one is taken back", lambda: len(layer.lesions) == 1, 10)
        p.until("the outline is on disk", lambda: project.lesion_path(positive).exists(), 10)
    p.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)  # the first was for practice: the true outlines come now
    p.until("none is left", lambda: len(layer.lesions) == 0, 10)
    with p.step("import", "The other outlines imported from a folder of GeoJSON and ASAP files"), p.choose(annotations):
        p.click(page.folder_button)
        p.until("outlines are there", lambda: len(layer.lesions) > 0)
        p.until("patches are counted", lambda: (p.session.stage.patches.counts or (0,))[0] > 0)
        report = next((w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox) and w.isVisible()), None)
        assert report is not None, "the report of the import is not shown"
        report.close()


def _outlines(annotations: Path, slide_id: str) -> bool:
    return any((annotations / f"{slide_id}{suffix}").exists() for suffix in (".geojson", ".xml"))


def _train(p: Player, figures: dict[str, Any], epochs: int) -> None:
    page = p.page("Train")
    with p.step("train", "Rank induction in training while the person pans"):
        assert "recommended" in page.preset.text()
        p.click(page.settings.title)
        page.rows["training.epochs"].editor.box.setValue(epochs)
        p.session.method.form.put("training.patience", 1000)  # so that there is something left to stop
        p.click_when_on(page.train)
        p.until("the curve has three points", lambda: len(p.session.models.epochs) >= 3, 180)
        before = p.viewer.scene.camera.center
        centre = p.canvas.rect().center()
        for i in range(2):
            p.drag(centre, centre + QPoint(40 * (-1) ** i, 25), steps=6)
        assert p.viewer.scene.camera.center != before, "the picture did not move"
    with p.step("cancel", "Training stopped, the best epoch kept"):
        start = time.monotonic()
        assert p.session.models.training, "the training was over before it could be stopped: give it more epochs"
        p.click(page.stop)
        keep_best = next(a for a in page.stop_menu.actions() if "best" in a.text())
        _choose_in_menu(page.stop_menu, keep_best)
        p.until("training has stopped", lambda: p.session.desk.running is None, 10)
        figures["cancel_seconds"] = round(time.monotonic() - start, 2)
        assert p.session.models.run is not None
        assert (p.session.models.run / "best.safetensors").exists()
    with p.step("resume", "Training resumed and finished"):
        p.click_when_on(page.resume)
        p.until("training goes on", lambda: p.session.models.training, 30)
        p.until("training is done", lambda: p.session.desk.running is None, 600)
        figures["epochs"] = len(p.session.models.epochs)
    metrics = json.loads((p.session.models.run / "metrics.json").read_text(encoding="utf-8"))
    figures["metrics"] = metrics


def _choose_in_menu(menu: QMenu, action: Any) -> None:
    QTest.mouseClick(menu, LEFT, pos=menu.actionGeometry(action).center())


def _look(p: Player, figures: dict[str, Any]) -> None:
    project = p.session.project
    held_out = next(r.slide_id for r in project.slides if r.label == "tumor" and r.role == "test")
    p.page("Slides")
    p.session.stage.show(held_out)
    p.until("a held-out slide is shown", lambda: p.session.stage.slide_id == held_out)
    page = p.page("Maps")
    with p.step("map", "Where the model looks on a held-out slide"):
        start = time.monotonic()
        p.click_when_on(page.show_map)
        p.until("the map is shown", lambda: p.session.maps.shown is not None, 60)
        figures["map_seconds"] = round(time.monotonic() - start, 2)
        p.until("the score is held against the outlines", lambda: p.session.maps.agreement_text, 20)
        assert p.session.maps.badge == "TEST"
        p.wait(0.5)
    figures["agreement"] = p.session.maps.agreement_text
    with p.step("hover", "The score of the patch under the mouse; C hides the map and shows it again"):
        shown = p.session.maps.shown
        best = int(shown.scores.argmax())
        at = p.on_canvas(*shown.grid.centers[best])
        p.mouse(QEvent.Type.MouseMove, at + QPoint(3, 3))
        p.mouse(QEvent.Type.MouseMove, at)
        p.until("the patch is named", lambda: "rank 1 of" in page.hover.text(), 10)
        p.key(Qt.Key.Key_C)
        p.until("the map is hidden", lambda: not p.session.maps.layer.visible, 5)
        p.key(Qt.Key.Key_C)
        p.until("the map is back", lambda: p.session.maps.layer.visible, 5)


def _reopen(p: Player, folder: Path) -> None:
    before = p.session.stage.slide_id, p.session.models.run, tuple(p.viewer.scene.camera.center), p.dock.page.title
    lesions = {r.slide_id: len(p.session.project.lesions(r.slide_id)) for r in p.session.project.slides}
    p.close_window()
    with p.step("reopen", "Closed and opened again: project, slide, place, outlines, run and map are back"):
        p.open_window(folder)
        p.until("the slide is back", lambda: p.session.stage.slide_id == before[0], 30)
        p.until("the map is back", lambda: p.session.maps.shown is not None, 30)
        assert p.session.models.run == before[1]
        assert p.dock.page.title == before[3]
        assert all(abs(a - b) < 1e-6 for a, b in zip(p.viewer.scene.camera.center, before[2], strict=True))
        assert lesions == {r.slide_id: len(p.session.project.lesions(r.slide_id)) for r in p.session.project.slides}


def main() -> int:
    """Play, print, and keep the figures beside the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--sample", type=Path, help="folder of a sample cohort that is there already")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from napari_mil.sample import create_sample, sample_folder

    start = time.monotonic()
    sample = args.sample or create_sample(sample_folder()).parent
    print(f"    {time.monotonic() - start:6.1f} s  The sample's slides are in {sample}", flush=True)
    figures = play(args.out.absolute(), sample, epochs=args.epochs)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")
    print(f"{figures['seconds']} s in all; pictures and figures.json are in {args.out}")
    for name, value in figures.items():
        if name not in {"steps", "metrics"}:
            print(f"  {name}: {value}")
    test = figures["metrics"]["sets"].get("test") or {}
    print(f"  test slides: {test.get('n')}, AUROC {(test.get('auroc') or {}).get('value')} ({test.get('note')})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
