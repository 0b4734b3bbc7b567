"""Start: the sample, a new project, a recent one, or a folder dropped on the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QFileDialog, QLabel, QListWidget, QListWidgetItem

from napari_mil.viewer.recent import recent_projects

from .parts import Action, Page, Section
from .table_dialog import choose_table_columns

if TYPE_CHECKING:
    from napari_mil.viewer.session import Session


class StartPage(Page):
    """What to do first."""

    title = "Start"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setAcceptDrops(True)
        self.hint.setText("Outline lesions on slides, train a model that learns from them, and see where it looks.")
        self.sample = Action(
            "Try the sample project",
            session.open_sample,
            tip="Twenty-odd small synthetic slides, made on this computer in a few seconds",
            primary=True,
        )
        self.from_folder = Action("New project from a folder of slides…", self._from_folder)
        self.from_table = Action(
            "New project from a table (CSV)…", self._from_table, tip="One row a slide: file, patient, label"
        )
        self.open = Action("Open a project…", self._open)
        for button in (self.sample, self.from_folder, self.from_table, self.open):
            button.setMinimumHeight(34)
            self.body.addWidget(button)
        drop = QLabel("… or drop a folder of slides or a project here")
        drop.setAlignment(Qt.AlignmentFlag.AlignCenter)
        drop.setMinimumHeight(70)
        drop.setStyleSheet("QLabel { border: 1px dashed gray; border-radius: 6px; }")
        self.body.addWidget(drop)
        self.section = Section("Recent projects")
        self.recent = QListWidget()
        self.recent.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.recent.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.recent.itemClicked.connect(self._open_recent)
        self.recent.itemActivated.connect(self._open_recent)  # the Return key
        self.section.add(self.recent)
        self.body.addWidget(self.section)
        self.body.addStretch(1)
        session.project_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        self.recent.clear()
        self.section.setVisible(bool(recent_projects()))
        for folder in recent_projects():
            item = QListWidgetItem(f"{folder.name}\n{folder.parent}")
            item.setData(Qt.ItemDataRole.UserRole, str(folder))
            item.setToolTip(str(folder))
            self.recent.addItem(item)

    def _open_recent(self, item: QListWidgetItem) -> None:
        folder = Path(item.data(Qt.ItemDataRole.UserRole))
        if self.session.project is None:  # a double click comes twice
            self.session.open_project(folder)
        if self.session.project is None:  # it is gone, and leaves the list
            self.refresh()

    def _from_folder(self) -> None:
        slides = QFileDialog.getExistingDirectory(self, "Folder of slides")
        if slides:
            self.session.new_project(Path(slides))

    def _from_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Table of slides", "", "Tables (*.csv *.tsv *.txt)")
        if path:
            mapping = choose_table_columns(Path(path), self)
            if mapping is not None:
                self.session.new_project(Path(path), mapping=mapping)

    def _open(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Project folder (it holds project.json)")
        if folder:
            self.session.open_project(Path(folder))

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        if event is not None and event.mimeData() is not None and event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        if event is None or event.mimeData() is None:
            return
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.session.open_or_create(paths[0])
