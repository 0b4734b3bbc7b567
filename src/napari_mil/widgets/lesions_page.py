"""Lesions: outline, classify, import, export; a live count of what the outlines teach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QFileDialog,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QRadioButton,
)

from napari_mil.viewer.words import count

from .parts import Action, Note, Page, Section, bullet_list, row

if TYPE_CHECKING:
    from napari_mil.viewer.session import Session

TOOLS = {
    "pan": ("Move", "Pan and zoom (napari's key 6, or hold the space bar)"),
    "select": ("Select", "Select and move outlines; Delete removes the selected ones"),
    "polygon": ("Polygon", "Click point by point, double-click to close"),
    "lasso": ("Lasso", "Draw with the mouse held down"),
    "rectangle": ("Rectangle", "Drag from corner to corner"),
    "ellipse": ("Ellipse", "Drag from corner to corner"),
}
FORMATS = "Outlines (*.geojson *.json *.gz *.xml);;All files (*)"


def colour_icon(rgb: tuple[int, int, int]) -> QIcon:
    """A small square of a colour."""
    pixmap = QPixmap(QSize(14, 14))
    pixmap.fill(QColor(*rgb))
    return QIcon(pixmap)


class LesionsPage(Page):
    """Draw and import outlines of the slide that is shown."""

    title = "Lesions"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._add_tools()
        self._add_classes()
        self._add_completeness()
        self._add_files()
        self.counts = Note()
        self.body.addWidget(self.counts)
        self.body.addStretch(1)
        for signal in (
            session.project_changed,
            session.stage.slide_changed,
            session.stage.outlines.changed,
            session.stage.patches.changed,
            session.slides.changed,
        ):
            signal.connect(self.refresh)
        self.refresh()

    def _add_tools(self) -> None:
        self.tools = QButtonGroup(self)
        self.buttons: dict[str, QPushButton] = {}
        for tool, (text, tip) in TOOLS.items():
            button = QPushButton(text)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.clicked.connect(lambda _checked=False, t=tool: self.session.stage.outlines.use_tool(t))
            self.tools.addButton(button)
            self.buttons[tool] = button
        self.undo = Action("Undo", lambda: self.session.stage.outlines.undo(), tip="Ctrl+Z")
        self.redo = Action("Redo", lambda: self.session.stage.outlines.redo(), tip="Ctrl+Shift+Z")
        section = Section("Draw")
        names = list(self.buttons)
        section.add(row(*(self.buttons[t] for t in names[:3])))
        section.add(row(*(self.buttons[t] for t in names[3:]), self.undo, self.redo))
        self.body.addWidget(section)

    def _add_classes(self) -> None:
        section = Section("Class of what you draw (keys 1–9)")
        self.classes = QListWidget()
        self.classes.setMaximumHeight(150)
        self.classes.itemClicked.connect(
            lambda item: self.session.stage.outlines.use_class(self._class_names[self.classes.row(item)])
        )
        self._class_names: list[str] = []
        section.add(self.classes)
        self.body.addWidget(section)

    def _add_completeness(self) -> None:
        section = Section("Are all lesions of this slide outlined?")
        self.complete = QRadioButton("Yes: what is not outlined is free of lesions")
        self.partial = QRadioButton("No, or not sure: the rest stays unknown")
        group = QButtonGroup(self)
        for button, partial in ((self.complete, False), (self.partial, True)):
            group.addButton(button)
            button.clicked.connect(lambda _c=False, p=partial: self.session.stage.set_partial(p))
            section.add(button)
        self.body.addWidget(section)

    def _add_files(self) -> None:
        section = Section("Files")
        self.import_button = Action("Import…", self._import, tip="QuPath GeoJSON, ASAP XML and others, for this slide")
        self.folder_button = Action(
            "Import folder…", self._import_folder, tip="One file a slide, matched by name; a report says what fitted"
        )
        self.export_button = Action("Export…", self._export, tip="GeoJSON (QuPath) or ASAP XML")
        section.add(row(self.import_button, self.folder_button, self.export_button))
        self.from_origin = QCheckBox()
        self.from_origin.setToolTip("QuPath counts from the scanned part of such slides, not from the file's corner")
        section.add(self.from_origin)
        self.show_patches = QCheckBox("Show patches: lesion, not lesion, unknown")
        self.show_patches.toggled.connect(lambda on: self.session.stage.patches.show_patches(on))
        section.add(self.show_patches)
        self.saved = Note()
        section.add(self.saved)
        self.body.addWidget(section)

    def _import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import outlines of this slide", "", FORMATS)
        if path:
            self.session.stage.outlines.import_file(
                Path(path), from_origin=self.from_origin.isVisibleTo(self) and self.from_origin.isChecked()
            )

    def _import_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Import a folder of outlines")
        if folder:
            self.session.stage.outlines.import_folder(Path(folder), then=self.show_report)

    def show_report(self, sentences: list[str]) -> None:
        """What an import of a folder did, to be read and closed."""
        box = QMessageBox(QMessageBox.Icon.Information, "Import of outlines", sentences[0], parent=self)
        box.setInformativeText(bullet_list(sentences[1:15]))
        if len(sentences) > 15:
            box.setDetailedText("\n".join(sentences[15:]))
        box.setModal(False)
        box.show()
        self._report = box

    def _export(self) -> None:
        name = f"{self.session.stage.slide_id}.geojson"
        path, _ = QFileDialog.getSaveFileName(self, "Export outlines", name, "GeoJSON (*.geojson);;ASAP XML (*.xml)")
        if path:
            self.session.stage.outlines.export(Path(path))

    def refresh(self, *_: object) -> None:
        session = self.session
        layer = session.stage.outlines.layer
        no_slide = "" if layer is not None else "Open a slide first (page Slides)."
        for button in self.buttons.values():
            button.setEnabled(layer is not None)
        for action in (self.import_button, self.export_button):
            action.set_reason(no_slide)
        self.folder_button.set_reason("" if session.project else "Open a project first.")
        self.undo.set_reason(no_slide or ("" if layer and layer.undo_label else "Nothing to undo."))
        self.redo.set_reason(no_slide or ("" if layer and layer.redo_label else "Nothing to redo."))
        if layer is not None:
            self.buttons.get(layer.tool, self.buttons["pan"]).setChecked(True)
        origin = session.stage.outlines.origin_px
        self.from_origin.setVisible(any(origin))
        self.from_origin.setText(f"Outlines are QuPath's: counted from x {origin[0]:,}, y {origin[1]:,} px")
        self.show_patches.blockSignals(True)
        self.show_patches.setChecked(session.stage.patches.showing_patches)
        self.show_patches.blockSignals(False)
        self._show_classes()
        row_ = session.stage.row
        for button, value in ((self.complete, False), (self.partial, True)):
            button.setEnabled(row_ is not None)
            button.setAutoExclusive(False)
            button.setChecked(row_ is not None and row_.partial_annotation is value)
            button.setAutoExclusive(True)
        self.counts.setText(self._count_text())
        self.saved.setText(session.stage.outlines.saved_text)
        self.hint.setText(self._next_step())

    def _show_classes(self) -> None:
        colours = self.session.class_colours
        if list(colours) != self._class_names:
            self.classes.clear()
            for i, (name, rgb) in enumerate(colours.items()):
                key = f"{i + 1}  " if i < 9 else "    "
                self.classes.addItem(QListWidgetItem(colour_icon(rgb), key + name))
            self._class_names = list(colours)
        layer = self.session.stage.outlines.layer
        current = layer.current_class if layer is not None else None
        if current in self._class_names:
            self.classes.setCurrentRow(self._class_names.index(current))

    def _count_text(self) -> str:
        session = self.session
        counts = session.stage.patches.counts
        if session.stage.outlines.layer is None:
            return ""
        outlines = len(session.stage.outlines.layer.lesions)
        text = count(outlines, "outline")
        if counts is None:
            return text + ". Patches are being counted…" if session.stage.patches.pending else text
        lesion, other, unknown = counts
        return (
            f"{text}. Patches: {lesion:,} lesion · {other:,} not lesion · {unknown:,} unknown · "
            f"{lesion * other:,} pairs to rank."
        )

    def _next_step(self) -> str:
        session = self.session
        if session.stage.outlines.layer is None:
            return "Open a slide (page Slides) to outline its lesions."
        if not len(session.stage.outlines.layer.lesions):
            return "Choose Polygon or Lasso and outline the lesions, or import outlines from a file."
        row_ = session.stage.row
        if row_ is not None and row_.partial_annotation is None:
            return "Are all lesions of this slide outlined? Until you answer, the rest counts as unknown."
        return "PageDown opens the next slide. When some slides are outlined, go on to Features."
