"""Slides: what is in the project, its labels, its roles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QItemSelectionModel, QSortFilterProxyModel, Qt, QTimer
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QTableView,
)

from napari_mil.viewer.words import count, have

from .parts import Action, Note, Page, Section, labelled, row
from .slides_model import (
    ANSWERS,
    EVENT,
    FEATURES,
    LABEL,
    OUTLINED,
    PATIENT,
    PICTURE,
    ROLE,
    ROLES,
    SLIDE,
    THUMBNAIL,
    TIME,
    ChoiceDelegate,
    SlidesModel,
)
from .table_dialog import choose_table_columns

if TYPE_CHECKING:
    from napari_mil.viewer.session import Session


class SlidesView(QTableView):
    """The table; digits label the selected slides, 0 clears, PageUp and PageDown change the slide."""

    def __init__(self, page: SlidesPage) -> None:
        super().__init__()
        self._page = page

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        assert event is not None
        text = event.text()
        if text.isdigit() and not event.modifiers():
            self._page.label_selected(int(text))
        elif event.key() in (Qt.Key.Key_PageDown, Qt.Key.Key_PageUp):
            self._page.session.slides.step(1 if event.key() == Qt.Key.Key_PageDown else -1)
        else:
            super().keyPressEvent(event)


class SlidesPage(Page):
    """Table of slides."""

    title = "Slides"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.model = SlidesModel(session)
        self.shown = QSortFilterProxyModel()
        self.shown.setSourceModel(self.model)
        self.shown.setFilterKeyColumn(-1)
        self.shown.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.add_button = Action("Add slides…", self._add, tip="Add a folder of slides to the project")
        self.table_button = Action("Read table…", self._read_table, tip="Labels, patients and roles from a CSV file")
        self.split_button = Action(
            "Propose split",
            self.session.slides.propose_split,
            tip="Train, validation and test (60/20/20): patients stay together, labels in proportion",
        )
        self.body.addWidget(row(self.add_button, self.table_button, self.split_button))
        self.search = QLineEdit(placeholderText="Find a slide, a patient, a label…", clearButtonEnabled=True)
        self.search.textChanged.connect(self.shown.setFilterFixedString)
        self.body.addWidget(self.search)
        self.table = self._make_table()
        self.body.addWidget(self.table, 1)
        self.summary = Note()
        self.body.addWidget(self.summary)
        self.negative = QComboBox()
        self.negative.setToolTip("Slides with this label count as free of lesions; models count their classes from it")
        self.negative.textActivated.connect(session.slides.set_negative_label)
        self.negative_row = labelled("Negative label", self.negative)
        self.body.addWidget(self.negative_row)
        self.srgb = QCheckBox("Colours in sRGB, by each file's ICC profile")
        self.srgb.setToolTip(
            "Slides of several scanners look more alike. For all slides of the project; features are made anew, "
            "those with colours as stored are kept beside them."
        )
        self.srgb.toggled.connect(lambda on: session.preparation.configure(color="srgb" if on else "as stored"))
        self.body.addWidget(self.srgb)
        self.color_note = Note()
        self.body.addWidget(self.color_note)
        self.scale = Section("This slide", foldable=True)
        self._scale_of: object = None
        self.mpp = QDoubleSpinBox(decimals=4, minimum=0.0, maximum=20.0, singleStep=0.05, suffix=" µm/px")
        self.mpp.setSpecialValueText("unknown")
        self.mpp.setKeyboardTracking(False)
        self.mpp_slide = Action("This slide", lambda: self.session.slides.set_mpp(self.mpp.value()))
        self.mpp_folder = Action(
            "Its folder",
            lambda: self.session.slides.set_mpp(self.mpp.value(), "folder"),
            tip="For every slide of the same folder whose file does not say it",
        )
        self.mpp_scanner = Action(
            "Its scanner",
            lambda: self.session.slides.set_mpp(self.mpp.value(), "scanner"),
            tip="For every slide of the same scanner or format whose file does not say it",
        )
        self.label_picture = QCheckBox("Label and macro picture (may carry names)")
        self.label_picture.toggled.connect(session.stage.show_label_picture)
        self.scale_note = Note()
        self.scale.add(self.scale_note)
        self.scale.add(row(self.mpp, self.mpp_slide, self.mpp_folder, self.mpp_scanner))
        self.scale.add(self.label_picture)
        self.body.addWidget(self.scale)
        self._open_soon = QTimer(singleShot=True, interval=180)
        self._open_soon.timeout.connect(self._open_current)
        session.project_changed.connect(self._project_changed)
        session.slides.changed.connect(self._slides_changed)
        session.stage.slide_changed.connect(self._slide_changed)
        session.obstacles.changed.connect(self._show_survival)
        session.slides.order = self._ids_in_view
        self.refresh()

    def _make_table(self) -> SlidesView:
        table = SlidesView(self)
        table.setModel(self.shown)
        table.setSortingEnabled(True)
        table.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        table.setIconSize(THUMBNAIL)
        table.setMinimumHeight(180)
        vertical, horizontal = table.verticalHeader(), table.horizontalHeader()
        assert vertical is not None
        assert horizontal is not None
        vertical.setDefaultSectionSize(THUMBNAIL.height() + 4)
        vertical.hide()
        widths = {PICTURE: 52, LABEL: 54, ROLE: 66, OUTLINED: 67, FEATURES: 62, PATIENT: 60, TIME: 52, EVENT: 52}
        for column, width in widths.items():
            table.setColumnWidth(column, width)
        horizontal.setSectionResizeMode(SLIDE, QHeaderView.ResizeMode.Interactive)
        table.setColumnWidth(SLIDE, 64)
        labels = ChoiceDelegate(table, lambda: ["", *self.session.slides.label_names], editable=True)
        table.setItemDelegateForColumn(LABEL, labels)
        table.setItemDelegateForColumn(ROLE, ChoiceDelegate(table, lambda: ROLES))
        for column in (OUTLINED, EVENT):
            table.setItemDelegateForColumn(column, ChoiceDelegate(table, lambda: ANSWERS))
        selection = table.selectionModel()
        assert selection is not None
        selection.currentRowChanged.connect(lambda *_: self._open_soon.start())
        table.setToolTip(
            "Click: open the slide. Digits 1–9: label the selected slides, 0: no label. PageUp/PageDown: next slide."
        )
        return table

    def _ids_in_view(self) -> list[str]:
        """Slides as the table is sorted and searched."""
        rows = range(self.shown.rowCount())
        return [self.model.slide_id(self.shown.mapToSource(self.shown.index(r, 0)).row()) for r in rows]

    # what the person does

    def selected(self) -> list[str]:
        """Slides of the selected rows."""
        selection = self.table.selectionModel()
        assert selection is not None
        return [self.model.slide_id(self.shown.mapToSource(index).row()) for index in selection.selectedRows()]

    def label_selected(self, key: int) -> None:
        """Give the selected slides the label of a digit key; 0 takes it away."""
        names = self.session.slides.label_names
        if key == 0:
            self.session.slides.update(self.selected(), label=None)
        elif key <= len(names):
            self.session.slides.update(self.selected(), label=names[key - 1])
        else:
            self.session.say(f"Key {key} has no label; the labels are {', '.join(names) or 'none yet'}.", "warning")

    def _open_current(self) -> None:
        index = self.table.currentIndex()
        if index.isValid():
            self.session.stage.show(self.model.slide_id(self.shown.mapToSource(index).row()))

    def _add(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Add a folder of slides")
        if folder:
            self.session.slides.add(Path(folder))

    def _read_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Read a slide table", "", "Tables (*.csv *.tsv *.txt)")
        if path:
            mapping = choose_table_columns(Path(path), self)
            if mapping is not None:
                self.session.slides.read_table(Path(path), mapping)

    # what the session says

    def _project_changed(self) -> None:
        self.model.reload()
        self.refresh()

    def _slides_changed(self, slide_ids: set[str] | None) -> None:
        self.model.update_rows(slide_ids)
        self.refresh()

    def _slide_changed(self) -> None:
        if self.session.stage.slide_id is not None:
            index = self.shown.mapFromSource(self.model.index(self.model.row_of(self.session.stage.slide_id), SLIDE))
            selection = self.table.selectionModel()
            if index.isValid() and selection is not None and index.row() != self.table.currentIndex().row():
                flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
                selection.setCurrentIndex(index, flags)
                self._open_soon.stop()  # it is open already
            self.table.scrollTo(index)
        self.refresh()

    def refresh(self) -> None:
        project = self.session.project
        rows = project.slides if project else []
        self.hint.setText(self._next_step())
        labels = {name: sum(r.label == name for r in rows) for name in self.session.slides.label_names}
        roles = {name: sum(r.role == name for r in rows) for name in ROLES[1:]}
        parts = [count(len(rows), "slide")]
        parts += [f"{n} {name}" for name, n in labels.items()]
        parts += [f"{name} {n}" for name, n in roles.items() if n]
        self.summary.setText(" · ".join(parts))
        self._show_survival()
        self.split_button.set_reason(self._why_no_split())
        self.table_button.set_reason("" if rows else "Add slides first.")
        self._show_negative()
        slide = self.session.stage.slide
        self._show_color()
        self.scale.setVisible(slide is not None)
        if slide is not self._scale_of:
            self._scale_of = slide
            self.scale.set_folded(slide is not None and slide.mpp_source == "file")
        if slide is not None:
            self.mpp.setValue(slide.mpp[0] if slide.mpp else 0.0)
            stage = self.session.stage
            self.label_picture.setEnabled(stage.has_label_picture)
            self.label_picture.setToolTip("" if stage.has_label_picture else "This file holds no such picture.")
            self.label_picture.blockSignals(True)
            self.label_picture.setChecked(stage.showing_label_picture)
            self.label_picture.blockSignals(False)
            where = {"file": "read from the file", "user": "given by a person"}.get(slide.mpp_source or "", "unknown")
            self.scale_note.setText(f"Micrometres per pixel at full resolution: {where}.")

    def _why_no_split(self) -> str:
        rows = self.session.project.slides if self.session.project else []
        survival = self.session.slides.survival
        lacking = sum(not r.known(survival) for r in rows)
        if not rows:
            return "Add slides first."
        if not lacking:
            return ""
        what = "time or event yet: read a table" if survival else f"label yet: label {_them(lacking)}"
        return f"{count(lacking, 'slide')} {have(lacking)} no {what} first."

    def _show_survival(self) -> None:
        """Times and events are shown where there are some, or survival is to be trained."""
        rows = self.session.project.slides if self.session.project else []
        used = self.session.obstacles.survival or any(r.time is not None or r.event is not None for r in rows)
        for column in (TIME, EVENT):
            self.table.setColumnHidden(column, not used)

    def _show_color(self) -> None:
        project, slide = self.session.project, self.session.stage.slide
        srgb = project is not None and project.config.color == "srgb"
        self.srgb.setVisible(project is not None and bool(project.slides))
        self.srgb.blockSignals(True)
        self.srgb.setChecked(srgb)
        self.srgb.blockSignals(False)
        self.color_note.setText(f"This slide: {slide.color}." if srgb and slide is not None else "")

    def _show_negative(self) -> None:
        names = self.session.slides.label_names
        self.negative_row.setVisible(len(names) > 1)
        if [self.negative.itemText(i) for i in range(self.negative.count())] != names:
            self.negative.clear()
            self.negative.addItems(names)
        self.negative.setCurrentIndex(0)

    def _next_step(self) -> str:
        project = self.session.project
        if project is None:
            return "Open a project first."
        if not project.slides:
            return "No slides yet: add a folder of slides."
        slide = self.session.stage.slide
        if slide is not None and slide.mpp is None:
            return "This file does not say how large a pixel is. Give its µm per pixel below, or once for its folder."
        rows = project.slides
        if self.session.slides.survival:
            n = sum(not r.known(survival=True) for r in rows)
            if n:
                return f"{count(n, 'slide')} {have(n)} no time or event. Give {_them(n)} below, or read a table."
            if any(r.role is None for r in rows):
                return "Every slide has its time and event. Now propose a split into train, validation and test."
        elif any(r.label is None for r in rows):
            n = sum(r.label is None for r in rows)
            how = "press 1–9" if self.session.slides.label_names else "double-click its label to write the first"
            return f"{count(n, 'slide')} {have(n)} no label. Select {_them(n)} and {how}, or read a table."
        if any(r.role is None for r in rows):
            return "Every slide has a label. Now propose a split into train, validation and test."
        return "Slides are ready. Go on to Lesions and outline what the model should look at."


def _them(n: int) -> str:
    return "it" if n == 1 else "them"
