"""Features: find tissue, cut patches, choose the encoder, prepare all slides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QSpinBox

from napari_mil.viewer.words import count

from .encoder_section import EncoderSection
from .parts import Action, Note, Page, Section, bullet_list, duration, labelled, row

if TYPE_CHECKING:
    from napari_mil.study.prepare import ProjectEstimate
    from napari_mil.viewer.session import Session

METHODS = {"multi_otsu": "Automatic (3 classes)", "otsu": "Automatic (2 classes)", "manual": "By hand"}
JPEG_KB = 10.0
PREVIEW_PATCHES = 500


class FeaturesPage(Page):
    """Tissue, patches, encoder, and the button that prepares everything."""

    title = "Features"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._showing = False
        self._add_tissue()
        self._add_patches()
        self._add_encoder()
        self._add_actions()
        self.body.addStretch(1)
        for signal in (
            session.project_changed,
            session.stage.slide_changed,
            session.stage.patches.changed,
            session.slides.changed,
            session.preparation.estimated,
            session.desk.busy_changed,
        ):
            signal.connect(self.refresh)
        self.refresh()

    def _add_tissue(self) -> None:
        self.method = QComboBox()
        for name, text in METHODS.items():
            self.method.addItem(text, name)
        self.threshold = QSpinBox(minimum=0, maximum=255, value=200)
        self.min_area = _area_box("Pieces smaller than this are not tissue")
        self.holes = _area_box("Holes up to this size count as tissue")
        self.pen = QCheckBox("Leave out pen marks")
        self.show_tissue = QCheckBox("Show tissue")
        section = Section("Tissue")
        section.add(labelled("Threshold", self.method))
        self.threshold_row = section.add(labelled("Grey level", self.threshold))
        section.add(labelled("Smallest piece", self.min_area))
        section.add(labelled("Fill holes up to", self.holes))
        section.add(row(self.pen, self.show_tissue))
        self.body.addWidget(section)
        self.method.activated.connect(self._method_chosen)
        self._sets("tissue", self.threshold, "threshold", float)
        self._sets("tissue", self.min_area, "min_area_um2", lambda mm2: mm2 * 1e6)
        self._sets("tissue", self.holes, "fill_holes_um2", lambda mm2: mm2 * 1e6)
        self._sets("tissue", self.pen, "exclude_pen", bool)
        self.show_tissue.toggled.connect(lambda on: self._showing or self.session.stage.patches.show_tissue(on))

    def _add_patches(self) -> None:
        self.target = QDoubleSpinBox(minimum=0.1, maximum=10, decimals=3, singleStep=0.25, suffix=" µm/px")
        self.target.setToolTip("0.5 µm/px is what a 20x objective shows, 0.25 a 40x")
        self.patch_size = QSpinBox(minimum=32, maximum=2048, singleStep=32, suffix=" px")
        self.stride = QSpinBox(minimum=0, maximum=2048, singleStep=16, suffix=" px")
        self.stride.setSpecialValueText("= size (no overlap)")
        self.jpeg = QCheckBox("Drop nearly empty patches")
        self.jpeg.setToolTip(f"Patches whose JPEG is {JPEG_KB:g} kB or less")
        self.show_patches = QCheckBox("Show patches")
        self.sample = QCheckBox(f"Preview: at most {PREVIEW_PATCHES} patches a slide")
        self.sample.setToolTip("A quick look. Maps and models made from it are labelled as a preview.")
        section = Section("Patches")
        section.add(labelled("Scale", self.target))
        section.add(labelled("Size", self.patch_size))
        section.add(labelled("Step", self.stride))
        section.add(row(self.jpeg, self.show_patches))
        section.add(self.sample)
        self.patch_note = Note()
        section.add(self.patch_note)
        self.body.addWidget(section)
        self._sets("tile", self.target, "target_mpp", float)
        self._sets("tile", self.patch_size, "patch_px", int)
        self._sets("tile", self.stride, "stride_px", lambda px: px or None)
        self._sets("tile", self.jpeg, "jpeg_filter_kb", lambda on: JPEG_KB if on else None)
        self._sets("tile", self.sample, "max_patches", lambda on: PREVIEW_PATCHES if on else None)
        self.show_patches.toggled.connect(lambda on: self._showing or self.session.stage.patches.show_patches(on))

    def _add_encoder(self) -> None:
        self.encoder = EncoderSection(self.session, self.refresh)
        self.body.addWidget(self.encoder)

    def _add_actions(self) -> None:
        preparation = self.session.preparation
        self.prepare_all = Action("Prepare all slides", lambda: preparation.prepare(), primary=True)
        self.prepare_one = Action("Only this slide", lambda: preparation.prepare([self.session.stage.slide_id or ""]))
        self.retry = Action("Try failed ones again", lambda: preparation.prepare(retry_failed=True))
        self.state = Note()
        self.estimate = Note()
        self.body.addWidget(self.estimate)
        self.body.addWidget(row(self.prepare_all, self.prepare_one))
        self.body.addWidget(row(self.retry))
        self.body.addWidget(self.state)

    def _sets(self, part: str, widget: Any, name: str, convert: Callable[[Any], Any]) -> None:
        """A change of this widget changes this one setting, and no other: what it shows of them may be rounded."""

        def changed(value: Any) -> None:
            if not self._showing:
                self.session.preparation.configure(**{part: {name: convert(value)}})

        if isinstance(widget, QCheckBox):
            widget.toggled.connect(changed)
        else:
            widget.setKeyboardTracking(False)  # half a number typed is no wish
            widget.valueChanged.connect(changed)

    # what the person does

    def _method_chosen(self, index: int) -> None:
        name = self.method.itemData(index)
        by_hand = float(self.threshold.value()) if name == "manual" else None
        self.session.preparation.configure(tissue={"method": name, "threshold": by_hand})
        self.refresh()

    # what the session says

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self.refresh()

    def refresh(self, *_: object) -> None:
        session = self.session
        project = session.project
        self.setEnabled(project is not None)
        if project is None:
            self.hint.setText("Open a project first.")
            return
        self._showing = True
        try:
            self._show_settings(project.config.tissue, project.config.tile)
        finally:
            self._showing = False
        self.encoder.show_encoder(project.config)
        ready, failures = len(session.preparation.ready), session.preparation.failures
        missing = len(project) - ready
        self.patch_note.setText(session.stage.patches.note)
        if missing and self.isVisible():
            session.preparation.work_out_estimate()
        self.estimate.setText(_estimate_text(session.preparation.estimate, missing))
        self.state.setText(_state_text(ready, len(project), failures))
        self._switch(missing, failures)
        self.hint.setText(self._next_step(ready, missing, len(failures)))

    def _switch(self, missing: int, failures: dict[str, str]) -> None:
        busy, slide_id = self.session.busy_text, self.session.stage.slide_id
        nothing = ""
        if not missing:
            nothing = "Every slide is ready with these settings."
        elif missing == len(failures):
            nothing = "The slides that are left failed: try them again."
        self.prepare_all.set_reason(busy or nothing or self.encoder.reason)
        one = ""
        if slide_id is None:
            one = "Open a slide first."
        elif slide_id in self.session.preparation.ready:
            one = "This slide is ready with these settings."
        self.prepare_one.set_reason(busy or one or self.encoder.reason)
        self.retry.set_reason(busy or self.encoder.reason)
        self.retry.setVisible(bool(failures))

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
        self.show_tissue.setChecked(self.session.stage.patches.showing_tissue)
        self.show_patches.setChecked(self.session.stage.patches.showing_patches)

    def _next_step(self, ready: int, missing: int, failed: int) -> str:
        if self.session.desk.running is not None and self.session.desk.running.spec.kind == "extract":
            return "Slides are being prepared. Outline lesions meanwhile; what is done is kept if you stop."
        if missing and missing == failed:
            return f"{count(failed, 'slide')} failed (see below). Try again, or go on to Train without."
        if not missing:
            return "All slides are ready. Go on to Train."
        if self.encoder.reason:
            return self.encoder.reason
        if self.session.stage.slide_id is None:
            return "Open a slide to see which patches would be cut, then prepare all slides."
        if self.session.stage.slide is not None and self.session.stage.slide.mpp is None:
            return "This slide's scale is unknown: give its µm per pixel on the page Slides."
        if not ready:
            return "Look at the tissue and the patches of a slide or two, then press “Prepare all slides”."
        needs = "needs" if missing == 1 else "need"
        return f"{count(missing, 'slide')} still {needs} features: press “Prepare all slides”; what is done is kept."


def _area_box(tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox(minimum=0, maximum=100, decimals=4, singleStep=0.01, suffix=" mm²")
    box.setSpecialValueText("any size" if "Pieces" in tip else "none")
    box.setToolTip(tip)
    return box


def _state_text(ready: int, slides: int, failures: dict[str, str]) -> str:
    text = f"{ready} of {count(slides, 'slide')} ready."
    if not failures:
        return text
    more = [f"… and {len(failures) - 4} more: see the tips in the table of slides."] if len(failures) > 4 else []
    return f"{text} {len(failures)} failed:\n{bullet_list([*list(failures.values())[:4], *more])}"


def _estimate_text(estimate: ProjectEstimate | None, missing: int) -> str:
    """Patches, time and room on disk before anything is begun."""
    if estimate is None or not missing or not estimate.patches:
        return ""
    size = estimate.gigabytes
    room = f"{size:.1f} GB" if size >= 0.1 else f"{max(1, round(size * 1000))} MB"
    measured = "" if estimate.measured else ", a guess: this encoder was not timed here yet"
    return (
        f"{count(missing, 'slide')} to do: about {count(estimate.patches, 'patch', 'patches')}, "
        f"{duration(estimate.minutes * 60)}, {room} on disk{measured}."
    )
