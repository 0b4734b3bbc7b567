"""Maps: where a trained model looks, on this slide or on a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QLabel, QSlider

from .parts import RESEARCH_USE, Action, Note, Page, Section, labelled, row

if TYPE_CHECKING:
    from napari_mil.viewer.session import Session

VALUE_TITLES = {
    "softmax": "Attention: sums to 1",
    "raw": "Raw score: before the softmax",
    "percentile": "Percentile: rank in this slide",
    "instance_probability": "Patch probability: each by itself",
    "contribution": "Contribution: for and against",
}
VALUE_TIPS = {
    "softmax": "What the model pooled with: how much each patch counts in the slide",
    "raw": "The number that attention is made of",
    "percentile": "The patches in order: 100 is the highest score of the slide",
    "instance_probability": "How probable the positive (or predicted) class is for a patch alone",
    "contribution": "What a patch adds to the slide's logit of the positive (or predicted) class, or takes from it",
}
COLORMAPS = ("inferno", "viridis", "turbo", "coolwarm", "gray")
BADGES = {
    "TRAIN": ("#b34700", "The model was trained on this slide or its patient: the map looks right by construction."),
    "VALIDATION": ("#7a6a00", "The epoch was chosen on this slide: the map flatters the model a little."),
    "TEST": ("#1b6e3c", "Held out from training: the map is a fair picture."),
    "NEW": ("#2b5f8a", "This slide was in no part of the training."),
}
EXPORTS = "Picture (*.png);;OME-TIFF (*.ome.tiff);;QuPath GeoJSON (*.geojson);;Table (*.csv);;NumPy (*.npz)"


class MapsPage(Page):
    """Choose a run, paint its map, read it, hand it on."""

    title = "Maps"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._add_choice()
        self._add_look()
        self._add_reading()
        self._add_elsewhere()
        self.body.addStretch(1)
        for signal in (
            session.project_changed,
            session.stage.slide_changed,
            session.models.runs_changed,
            session.maps.changed,
            session.slides.changed,
            session.desk.busy_changed,
        ):
            signal.connect(self.refresh)
        session.maps.hovered.connect(self._show_hover)
        self.refresh()

    def _add_choice(self) -> None:
        self.runs = QComboBox(minimumWidth=80)
        self.runs.activated.connect(lambda i: self.session.models.select_run(self.runs.itemData(i)))
        self.show_map = Action("Show where it looks", self.session.maps.show, primary=True)
        self.map_all = Action(
            "Map all test slides",
            lambda: self.session.maps.map_slides("test"),
            tip="Prediction and map of each test slide",
        )
        self.body.addWidget(labelled("Model", self.runs, width=60))
        self.body.addWidget(row(self.show_map, self.map_all))
        self.badge = QLabel()
        self.badge.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.badge_note = Note()
        self.badge_row = row(self.badge, self.badge_note, stretch_last=True)
        self.body.addWidget(self.badge_row)

    def _add_look(self) -> None:
        self.values = QComboBox()
        for name, text in VALUE_TITLES.items():
            self.values.addItem(text, name)
            self.values.setItemData(self.values.count() - 1, VALUE_TIPS[name], Qt.ItemDataRole.ToolTipRole)
        self.values.activated.connect(lambda i: self.session.maps.set_look(values=self.values.itemData(i)))
        self.values_note = Note()
        self.colormap = QComboBox()
        self.colormap.addItems(COLORMAPS)
        self.colormap.textActivated.connect(lambda name: self.session.maps.set_look(colormap=name))
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.valueChanged.connect(lambda v: self.session.maps.set_look(opacity=v / 100))
        self.visible = QCheckBox("Show the map (key C)")
        self.visible.toggled.connect(lambda on: self.session.maps.set_look(visible=on))
        section = Section("Look")
        section.add(labelled("Values", self.values))
        section.add(self.values_note)
        section.add(labelled("Colours", self.colormap))
        section.add(labelled("Opacity", self.opacity))
        section.add(self.visible)
        self.body.addWidget(section)

    def _add_reading(self) -> None:
        self.prediction = Note()
        self.hover = Note("Move the mouse over the map to read a patch.")
        self.agreement = Note()
        self.export = Action("Export map…", self._export, tip="Picture, OME-TIFF, QuPath GeoJSON, table or NumPy file")
        section = Section("Reading")
        section.add(self.prediction)
        section.add(self.hover)
        section.add(self.agreement)
        section.add(row(self.export))
        self.body.addWidget(section)

    def _add_elsewhere(self) -> None:
        self.run_this = Action(
            "Run on this slide…", lambda: self._run_on("shown"), tip="Runs a saved model on the slide that is shown"
        )
        self.save_model = Action(
            "Save model…", self._save_model, tip="Weights, method, encoder, scale and classes in one folder"
        )
        self.run_slide = Action("On a file…", lambda: self._run_on("file"), tip="Runs a saved model on a slide file")
        self.run_folder = Action(
            "On a folder…", lambda: self._run_on("folder"), tip="Runs a saved model on all slides of a folder"
        )
        section = Section("Hand on, and use elsewhere", foldable=True, folded=True)
        section.add(row(self.save_model))
        section.add(row(self.run_this, self.run_slide, self.run_folder))
        section.add(Note("A saved model runs on any slide: tissue, features, prediction and map in one go."))
        section.add(Note(RESEARCH_USE))
        self.body.addWidget(section)

    # what the person does

    def _export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export map", f"{self.session.stage.slide_id}-map.png", EXPORTS)
        if path:
            self.session.maps.export(Path(path))

    def _save_model(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder that will hold the model")
        if folder and self.session.models.run is not None:
            self.session.models.save_model(Path(folder) / f"{self.session.models.run.name}-model")

    def _run_on(self, what: str) -> None:
        bundle = QFileDialog.getExistingDirectory(self, "Folder of the saved model")
        if not bundle:
            return
        shown = self.session.stage.slide
        if what == "shown":
            target = str(shown.path) if shown is not None else ""
        elif what == "folder":
            target = QFileDialog.getExistingDirectory(self, "Folder of slides")
        else:
            target, _ = QFileDialog.getOpenFileName(self, "A slide")
        if target:
            self.session.models.apply(Path(bundle), Path(target))

    # what the session says

    def refresh(self, *_: object) -> None:
        session = self.session
        runs = session.models.runs
        if [self.runs.itemData(i) for i in range(self.runs.count())] != runs:
            self.runs.clear()
            for run in runs:
                self.runs.addItem(run.name, run)
        if session.models.run in runs:
            self.runs.setCurrentIndex(runs.index(session.models.run))
        self.show_map.set_reason(session.maps.obstacle)
        ready = session.maps.slides_of("test")
        none = "Train a model first." if not runs else "" if ready else "No slide with the role test is ready."
        self.map_all.set_reason(session.busy_text or none)
        shown = session.maps.shown is not None
        self.export.set_reason("" if shown else "Show a map first.")
        self.save_model.set_reason(session.models.save_obstacle)
        for button in (self.run_slide, self.run_folder):
            button.set_reason(session.busy_text)
        self.run_this.set_reason(session.busy_text or ("" if session.stage.slide else "Open a slide first."))
        self._show_badge()
        self._show_look()
        self.prediction.setText(session.maps.prediction_text)
        self.agreement.setText(session.maps.agreement_text)
        self.values_note.setText(session.maps.values_note)
        self.hint.setText(self._next_step())

    def _show_badge(self) -> None:
        badge = self.session.maps.badge
        self.badge_row.setVisible(bool(badge))
        self.badge_note.setText("")
        if badge:
            colour, sentence = BADGES[badge]
            self.badge.setText(badge)
            self.badge.setStyleSheet(
                f"QLabel {{ background: {colour}; color: white; font-weight: bold; border-radius: 3px; padding: 3px; }}"
            )
            self.badge_note.setText(sentence)

    def _show_look(self) -> None:
        look = self.session.maps.look
        for widget, show in (
            (self.values, lambda: self.values.setCurrentIndex(self.values.findData(look.values))),
            (self.colormap, lambda: self._show_colormap(look.colormap)),
            (self.opacity, lambda: self.opacity.setValue(round(look.opacity * 100))),
            (self.visible, lambda: self.visible.setChecked(look.visible)),
        ):
            widget.blockSignals(True)
            show()
            widget.blockSignals(False)
        nothing = "" if self.session.maps.shown is not None else "No map is shown yet."
        self.visible.setEnabled(not nothing)
        self.visible.setToolTip(nothing)

    def _show_colormap(self, name: str) -> None:
        if self.colormap.findText(name) < 0:  # one chosen in napari's own controls
            self.colormap.addItem(name)
        self.colormap.setCurrentText(name)

    def _show_hover(self, text: str) -> None:
        self.hover.setText(text or "Move the mouse over the map to read a patch.")

    def _next_step(self) -> str:
        session = self.session
        if session.project is None:
            return "Open a project first."
        if not session.models.runs:
            return "There is no model yet: train one on the page Train."
        if session.stage.slide_id is None:
            return "Open a slide; a test slide gives the fairest picture."
        if session.maps.shown is None:
            return session.maps.obstacle or "Press “Show where it looks”. A test slide gives the fairest picture."
        if not session.maps.look.visible:
            return "The map is hidden: C shows it again."
        if session.maps.shown.values.title == "Contribution":
            return "The middle of the colour bar is nothing: above it a patch speaks for the class, below against it."
        if session.maps.shown.values.title == "Patch probability":
            return "Bright is what the model takes for the class by itself, whether it counts in the slide or not."
        return "Bright is where the model looks. Compare with your outlines; C hides the map."
