"""Features: find tissue, cut patches, choose the encoder, prepare all slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFileDialog, QSpinBox

from .parts import Action, Note, Page, Section, duration, labelled, row

if TYPE_CHECKING:
    from napari_mil.study.prepare import ProjectEstimate
    from napari_mil.viewer.session import Session

METHODS = {"multi_otsu": "Automatic (3 classes)", "otsu": "Automatic (2 classes)", "manual": "By hand"}
OWN_FILE = "My own network (.pt2)…"


class FeaturesPage(Page):
    """Tissue, patches, encoder, and the button that prepares everything."""

    title = "Features"

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._showing = False
        self._add_tissue()
        self._add_patches()
        self._add_encoder()
        self._add_actions()
        self.body.addStretch(1)
        for signal in (
            session.project_changed,
            session.stage.slide_changed,
            session.stage.patches_changed,
            session.slides_changed,
            session.desk.changed,
        ):
            signal.connect(self.refresh)
        self.refresh()

    def _add_tissue(self) -> None:
        self.method = QComboBox()
        for name, text in METHODS.items():
            self.method.addItem(text, name)
        self.threshold = QSpinBox(minimum=0, maximum=255, value=200)
        self.min_area = QDoubleSpinBox(minimum=0, maximum=100, decimals=3, singleStep=0.01, suffix=" mm²")
        self.holes = QDoubleSpinBox(minimum=0, maximum=100, decimals=3, singleStep=0.01, suffix=" mm²")
        self.pen = QCheckBox("Leave out pen marks")
        self.show_tissue = QCheckBox("Show tissue")
        section = Section("Tissue")
        section.add(labelled("Threshold", self.method))
        self.threshold_row = section.add(labelled("Grey level", self.threshold))
        section.add(labelled("Smallest piece", self.min_area))
        section.add(labelled("Fill holes up to", self.holes))
        section.add(row(self.pen, self.show_tissue))
        self.body.addWidget(section)
        self.method.currentIndexChanged.connect(self._settings_changed)
        for box in (self.threshold, self.min_area, self.holes):
            box.valueChanged.connect(self._settings_changed)
        self.pen.toggled.connect(self._settings_changed)
        self.show_tissue.toggled.connect(lambda on: self.session.stage.preview_tissue(on))

    def _add_patches(self) -> None:
        self.target = QDoubleSpinBox(minimum=0.1, maximum=10, decimals=3, singleStep=0.25, suffix=" µm/px")
        self.target.setToolTip("0.5 µm/px is what a 20x objective shows, 0.25 a 40x")
        self.patch_size = QSpinBox(minimum=32, maximum=2048, singleStep=32, suffix=" px")
        self.stride = QSpinBox(minimum=0, maximum=2048, singleStep=16, suffix=" px")
        self.stride.setSpecialValueText("= size (no overlap)")
        self.jpeg = QCheckBox("Drop patches with little in them (JPEG of 10 kB or less)")
        self.show_patches = QCheckBox("Show patches")
        self.sample = QCheckBox("Preview: at most 500 patches a slide")
        self.sample.setToolTip("A quick look. Maps and models made from it are labelled as a preview.")
        section = Section("Patches")
        section.add(labelled("Scale", self.target))
        section.add(labelled("Size", self.patch_size))
        section.add(labelled("Step", self.stride))
        section.add(self.jpeg)
        section.add(self.sample)
        section.add(self.show_patches)
        self.patch_note = Note()
        section.add(self.patch_note)
        self.body.addWidget(section)
        for box in (self.target, self.patch_size, self.stride):
            box.valueChanged.connect(self._settings_changed)
        for check in (self.jpeg, self.sample):
            check.toggled.connect(self._settings_changed)
        self.show_patches.toggled.connect(lambda on: self.session.stage.preview_patches(on))

    def _add_encoder(self) -> None:
        self.encoder = QComboBox()
        self.encoder_note = Note()
        section = Section("Encoder")
        section.add(self.encoder)
        section.add(self.encoder_note)
        self.body.addWidget(section)
        self.encoder.activated.connect(self._encoder_chosen)

    def _add_actions(self) -> None:
        self.prepare_all = Action("Prepare all slides", lambda: self.session.prepare(), primary=True)
        self.prepare_one = Action("Only this slide", lambda: self.session.prepare([self.session.stage.slide_id or ""]))
        self.retry = Action("Try failed ones again", lambda: self.session.prepare(retry_failed=True))
        self.state = Note()
        self.estimate = Note()
        self.body.addWidget(self.estimate)
        self.body.addWidget(row(self.prepare_all, self.prepare_one))
        self.body.addWidget(row(self.retry))
        self.body.addWidget(self.state)

    # what the person does

    def _settings_changed(self, *_: object) -> None:
        if self._showing:
            return
        tissue: dict[str, Any] = {
            "method": self.method.currentData(),
            "threshold": self.threshold.value() if self.method.currentData() == "manual" else None,
            "min_area_um2": self.min_area.value() * 1e6,
            "fill_holes_um2": self.holes.value() * 1e6,
            "exclude_pen": self.pen.isChecked(),
        }
        tile: dict[str, Any] = {
            "target_mpp": self.target.value(),
            "patch_px": self.patch_size.value(),
            "stride_px": self.stride.value() or None,
            "jpeg_filter_kb": 10.0 if self.jpeg.isChecked() else None,
            "max_patches": 500 if self.sample.isChecked() else None,
        }
        self.session.configure(tissue=tissue, tile=tile)
        self.threshold_row.setVisible(self.method.currentData() == "manual")

    def _encoder_chosen(self, index: int) -> None:
        name = self.encoder.itemData(index)
        if name == OWN_FILE:
            path, _ = QFileDialog.getOpenFileName(self, "A frozen network with its JSON beside", "", "Networks (*.pt2)")
            name = str(Path(path)) if path else None
        if name:
            self.session.configure(encoder=name)
        self.refresh()

    # what the session says

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self.refresh()

    def refresh(self, *_: object) -> None:
        project = self.session.project
        self.setEnabled(project is not None)
        if project is None:
            self.hint.setText("Open a project first.")
            return
        self._showing = True
        try:
            self._show_settings(project.config.tissue, project.config.tile)
        finally:
            self._showing = False
        self._show_encoders(project.config.encoder)
        ready = sum(self.session.has_features(r.slide_id) for r in project.slides)
        failed = [r.slide_id for r in project.slides if self.session.failure_of(r.slide_id)]
        missing = len(project.slides) - ready
        self.patch_note.setText(self.session.stage.patches_note)
        if missing and self.isVisible():
            self.session.work_out_estimate()
        self.estimate.setText(_estimate_text(self.session.estimate(), missing))
        self.state.setText(
            f"{ready} of {len(project.slides)} slides are ready."
            + (f" {len(failed)} failed: {self.session.failure_of(failed[0])}" if failed else "")
        )
        busy = self.session.busy_text
        self.prepare_all.set_reason(busy or ("" if missing else "Every slide is ready with these settings."))
        self.prepare_one.set_reason(
            busy
            or (
                "Open a slide first."
                if self.session.stage.slide_id is None
                else "This slide is ready with these settings."
                if self.session.has_features(self.session.stage.slide_id)
                else ""
            )
        )
        self.retry.set_reason(busy or ("" if failed else "No slide failed."))
        self.retry.setVisible(bool(failed))
        self.hint.setText(self._next_step(ready, missing))

    def _show_settings(self, tissue: Any, tile: Any) -> None:
        self.method.setCurrentIndex(max(0, self.method.findData(tissue.method)))
        if tissue.threshold is not None:
            self.threshold.setValue(round(tissue.threshold))
        self.threshold_row.setVisible(tissue.method == "manual")
        self.min_area.setValue(tissue.min_area_um2 / 1e6)
        self.holes.setValue(tissue.fill_holes_um2 / 1e6)
        self.pen.setChecked(tissue.exclude_pen)
        self.target.setValue(tile.target_mpp)
        self.patch_size.setValue(tile.patch_px)
        self.stride.setValue(tile.stride_px or 0)
        self.jpeg.setChecked(tile.jpeg_filter_kb is not None)
        self.sample.setChecked(tile.max_patches is not None)
        self.show_tissue.setChecked(self.session.stage.showing_tissue)
        self.show_patches.setChecked(self.session.stage.showing_patches)

    def _show_encoders(self, chosen: str) -> None:
        infos = self.session.encoders
        wanted = [i.name for i in infos] + ([] if any(i.name == chosen for i in infos) else [chosen]) + [OWN_FILE]
        if [self.encoder.itemData(i) for i in range(self.encoder.count())] != wanted:
            self.encoder.clear()
            for name in wanted:
                self.encoder.addItem(Path(name).name if name.endswith(".pt2") else name, name)
        self.encoder.setCurrentIndex(wanted.index(chosen))
        note = next((i.note for i in infos if i.name == chosen), "A network of your own; its JSON says how to feed it.")
        self.encoder_note.setText(note)

    def _next_step(self, ready: int, missing: int) -> str:
        if self.session.stage.slide_id is None:
            return "Open a slide to see which patches would be cut, then prepare all slides."
        if self.session.stage.slide is not None and self.session.stage.slide.mpp is None:
            return "This slide's scale is unknown: give its µm per pixel on the page Slides."
        if missing and not ready:
            return "Look at the tissue and the patches of a slide or two, then press “Prepare all slides”."
        if missing:
            return f"{missing} slides still need features: press “Prepare all slides”; what is done is kept."
        return "All slides are ready. Go on to Train."


def _estimate_text(estimate: ProjectEstimate | None, missing: int) -> str:
    """Patches, time and room on disk before anything is begun."""
    if estimate is None or not missing or not estimate.patches:
        return ""
    size = estimate.gigabytes
    room = f"{size:.1f} GB" if size >= 0.1 else f"{max(1, round(size * 1000))} MB"
    measured = "" if estimate.measured else ", a guess: this encoder was not timed here yet"
    return (
        f"{missing} slides to do: about {estimate.patches:,} patches, {duration(estimate.minutes * 60)}, {room} on disk"
        f"{measured}."
    )
