"""The dock "MIL": pages for the five steps, where one is on the slide, and what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtGui import QMouseEvent, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QMenu,
    QStackedWidget,
    QTabBar,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_mil.viewer.session import Session
from napari_mil.viewer.settings import async_slicing, set_async_slicing

from .features_page import FeaturesPage
from .job_strip import JobStrip
from .lesions_page import LesionsPage
from .maps_page import MapsPage
from .navigator import Navigator
from .parts import ACCENT, DOCK_WIDTH, RESEARCH_USE, Note
from .slides_page import SlidesPage
from .start_page import StartPage
from .train_page import TrainPage

if TYPE_CHECKING:
    import napari

PAGES = (SlidesPage, LesionsPage, FeaturesPage, TrainPage, MapsPage)
GRAVITY_COLOURS = {"info": ACCENT, "warning": "#e69f00", "error": "#d55e00"}
SENTENCE_STAYS_MS = 12_000


class Sentence(Note):
    """What the session says, its gravity at the edge; a click puts it away, plain news goes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("Click to put away")
        self._hush = QTimer(self)
        self._hush.setSingleShot(True)
        self._hush.setInterval(SENTENCE_STAYS_MS)
        self._hush.timeout.connect(self.hide)
        self.hide()

    def say(self, sentence: str, gravity: str = "info") -> None:
        """Show a sentence."""
        self.setText(sentence)
        self.setStyleSheet(
            f"QLabel {{ font-size: 12px; margin: 2px 8px; padding: 3px 8px; "
            f"border-left: 3px solid {GRAVITY_COLOURS[gravity]}; }}"
        )
        self.show()
        self._hush.stop()
        if gravity == "info":
            self._hush.start()

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        self.hide()


class MilDock(QWidget):
    """The plugin's one dock widget; it shows a `Session` and holds no truth of its own.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        For tests; a new one otherwise.
    """

    def __init__(self, napari_viewer: napari.Viewer, session: Session | None = None) -> None:
        super().__init__()
        self.session = session or Session(napari_viewer)
        self.setObjectName("napari-mil dock")
        self.setMinimumWidth(DOCK_WIDTH)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(self._header())
        self.tabs = QTabBar()
        self.tabs.setExpanding(True)
        self.tabs.setDrawBase(False)
        self.pages = [page(self.session) for page in PAGES]
        self.stack = QStackedWidget()
        self.start = StartPage(self.session)
        self.stack.addWidget(self.start)
        for number, page in enumerate(self.pages, start=1):
            self.tabs.addTab(f"{number}  {page.title}")
            self.stack.addWidget(page)
        self.tabs.currentChanged.connect(self._tab_chosen)
        layout.addWidget(self.tabs)
        layout.addWidget(self.stack, 1)
        self.sentence = Sentence()
        layout.addWidget(self.sentence)
        self.jobs = JobStrip(self.session)
        layout.addWidget(self.jobs)
        self.navigator = Navigator(self.session)
        layout.addWidget(self.navigator)
        footer = Note(RESEARCH_USE)
        footer.setContentsMargins(8, 0, 8, 4)
        layout.addWidget(footer)
        self.session.said.connect(self.sentence.say)
        self.session.project_changed.connect(self._project_changed)
        self._window: QWidget | None = None
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.session.close)
        self._project_changed()

    def _header(self) -> QHBoxLayout:
        header = QHBoxLayout()
        header.setContentsMargins(8, 6, 8, 4)
        self.name = QLabel()
        self.name.setStyleSheet("QLabel { font-weight: bold; }")
        self.menu_button = QToolButton()
        self.menu_button.setText("Project ▾")
        self.menu_button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.menu_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.menu_button)
        menu.addAction("Rename project…", self._rename)
        menu.addAction("Close project", self.session.close_project)
        menu.addAction("Save now", self._save_now)
        asynchronous = menu.addAction("Draw slides in the background (napari's async slicing)")
        assert asynchronous is not None
        asynchronous.setCheckable(True)
        asynchronous.setChecked(async_slicing())
        asynchronous.toggled.connect(set_async_slicing)
        self.menu_button.setMenu(menu)
        header.addWidget(self.name, 1)
        header.addWidget(self.menu_button)
        return header

    def _rename(self) -> None:
        assert self.session.project is not None
        name, ok = QInputDialog.getText(self, "Rename project", "Name:", text=self.session.project.config.name)
        if ok:
            self.session.rename_project(name)

    def _save_now(self) -> None:
        self.session.save_view()
        if self.session.stage.outlines.flush():
            self.session.say("Everything is saved.")

    # pages

    def show_page(self, title: str) -> None:
        """Show a page by its title."""
        titles = [page.title for page in self.pages]
        self.tabs.setCurrentIndex(titles.index(title))

    @property
    def page(self) -> QWidget:
        """The page that is shown."""
        widget = self.stack.currentWidget()
        assert widget is not None
        return widget

    def _tab_chosen(self, index: int) -> None:
        if self.session.project is not None and index >= 0:
            if self.page is self.pages[1] and index != 1:
                self.session.stage.outlines.use_tool("pan")  # a click on another page's canvas must not draw
            self.stack.setCurrentIndex(index + 1)
            self.session.set_page(self.pages[index].title)

    def _project_changed(self) -> None:
        project = self.session.project
        self.name.setText(project.config.name if project else "napari-mil")
        self.name.setToolTip(str(project.folder) if project else "")
        self.tabs.setVisible(project is not None)
        self.menu_button.setVisible(project is not None)
        if project is None:
            self.stack.setCurrentIndex(0)
            return
        titles = [page.title for page in self.pages]
        page = self.session.page
        index = titles.index(page) if page in titles else 0
        self.tabs.setCurrentIndex(index)
        self.stack.setCurrentIndex(index + 1)

    # the window's end

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        if self._window is not self.window():  # the main window, once the dock has been put into it
            self._window = self.window()
            if self._window is not None:
                self._window.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is not None and watched is self._window:
            if event.type() == QEvent.Type.Close:  # the person may still think better of it: save, and go on
                self.session.stage.outlines.flush()
                self.session.save_view()
            elif event.type() == QEvent.Type.DeferredDelete:
                self.session.close()
        return False

    def event(self, event: QEvent | None) -> bool:
        if event is not None and event.type() == QEvent.Type.DeferredDelete:
            self.session.close()
        return super().event(event)
