"""Small pieces that every page is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

ACCENT = "#3a7ca5"  # one colour that reads on napari's light and dark themes
if TYPE_CHECKING:
    from napari_mil.viewer.session import Session

DOCK_WIDTH = 400  # leaves half of a laptop's screen to the slide
RESEARCH_USE = "For research use only. Not for diagnosis."


class Hint(QLabel):
    """The one sentence at the top of a page that says what to do next."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.setObjectName("hint")
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setStyleSheet(f"QLabel#hint {{ border-left: 3px solid {ACCENT}; padding: 4px 8px; }}")


class Note(QLabel):
    """A quiet line: a count, an explanation; takes no room while it has nothing to say."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setStyleSheet("QLabel { font-size: 11px; }")
        self.setVisible(bool(text))

    def setText(self, text: str | None) -> None:
        super().setText(text)
        self.setVisible(bool(text))


class Action(QPushButton):
    """A button that says why it is off: `set_reason("…")` switches it off, `set_reason("")` on."""

    def __init__(self, text: str, on_click: Callable[[], object], *, tip: str = "", primary: bool = False) -> None:
        super().__init__(text)
        self._tip = tip
        self.setToolTip(tip)
        self.clicked.connect(lambda _checked=False: on_click())
        if primary:
            self.setObjectName("primary")
            self.setStyleSheet(
                f"QPushButton#primary:enabled {{ background: {ACCENT}; color: white; font-weight: bold; }}"
            )

    @property
    def reason(self) -> str:
        """Why the button is off; empty while it is on."""
        return "" if self.isEnabled() else self.toolTip()

    def set_reason(self, reason: str) -> None:
        self.setEnabled(not reason)
        self.setToolTip(reason or self._tip)


class Section(QWidget):
    """A titled group; a foldable one opens and closes by its title.

    Signals
    -------
    unfolded()
        It was opened.
    """

    unfolded = Signal()

    def __init__(self, title: str, *, foldable: bool = False, folded: bool = False) -> None:
        super().__init__()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 4, 0, 0)
        outer.setSpacing(3)
        self.title = QToolButton()
        self.title.setText(title)
        self.title.setAutoRaise(True)
        self.title.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.title.setStyleSheet("QToolButton { font-weight: bold; border: none; background: transparent; }")
        self._head = QHBoxLayout()
        self._head.setSpacing(4)
        self._head.addWidget(self.title)
        self._head.addStretch(1)
        outer.addLayout(self._head)
        self._inner = QWidget()
        self.body = QVBoxLayout(self._inner)
        self.body.setContentsMargins(8, 0, 0, 0)
        self.body.setSpacing(4)
        outer.addWidget(self._inner)
        if foldable:
            self.title.clicked.connect(lambda: self.set_folded(not self.folded))
            self.set_folded(folded)

    @property
    def folded(self) -> bool:
        """Whether only the title is shown."""
        return self._inner.isHidden()

    def set_folded(self, folded: bool) -> None:
        """Show the title alone, or everything."""
        self._inner.setVisible(not folded)
        self.title.setArrowType(Qt.ArrowType.RightArrow if folded else Qt.ArrowType.DownArrow)
        if not folded:
            self.unfolded.emit()

    def beside_title(self, *widgets: QWidget, title_width: int) -> None:
        """Put widgets into the title's line; the title takes a width of its own."""
        self.title.setFixedWidth(title_width)
        self._head.takeAt(1)  # what kept the title at the left
        for widget in widgets:
            self._head.addWidget(widget)

    def add(self, widget: QWidget) -> QWidget:
        self.body.addWidget(widget)
        return widget


class Page(QScrollArea):
    """A page of the dock: scrolls when the window is small, its hint first; PageUp and PageDown change the slide."""

    title = ""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        inner = QWidget()
        self.body = QVBoxLayout(inner)
        self.body.setContentsMargins(8, 8, 8, 8)
        self.body.setSpacing(6)
        self.hint = Hint()
        self.body.addWidget(self.hint)
        self.setWidget(inner)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        step = {Qt.Key.Key_PageDown: 1, Qt.Key.Key_PageUp: -1}.get(event.key()) if event is not None else None
        if step is not None:
            self.session.slides.step(step)
        else:
            super().keyPressEvent(event)

    def sizeHint(self) -> QSize:
        """The dock's width does not follow the longest line of a page."""
        return QSize(DOCK_WIDTH, super().sizeHint().height())

    def refresh(self) -> None:
        """Show the session as it is now."""
        raise NotImplementedError  # every page has its own


class HelpLine(QLabel):
    """A line at the foot of a page, outside of what scrolls: what the setting does that the person points at."""

    LINES = 3

    def __init__(self, page: Page, text: str) -> None:
        super().__init__(text, page)
        self._page = page
        self._text = text
        self._warned = False
        self.setObjectName("help")
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.setStyleSheet(f"QLabel#help {{ font-size: 11px; border-top: 1px solid {ACCENT}; padding: 2px 8px; }}")
        self.hide()

    def set_shown(self, shown: bool) -> None:
        """Make room for it, or give the room back."""
        if shown == self.isHidden():
            self.setText(self._text)
            self.setVisible(shown)
            self._page.setViewportMargins(0, 0, 0, self._height() if shown else 0)
            self.place()

    def say(self, text: str) -> None:
        """Show a help text."""
        self.setText(text)

    def warn(self, obstacle: str) -> None:
        """Show why the settings make no sense, until something else is pointed at; nothing: they do."""
        if obstacle or self._warned:
            self.setText(obstacle or self._text)
        self._warned = bool(obstacle)

    def place(self) -> None:
        """Follow the page's size."""
        height = self._height()
        width = self._page.maximumViewportSize().width()
        self.setGeometry(0, self._page.height() - height, width, height)

    def _height(self) -> int:
        return self.LINES * self.fontMetrics().lineSpacing() + 8


def row(*widgets: QWidget, stretch_last: bool = False) -> QWidget:
    """Widgets side by side."""
    box = QWidget()
    layout = QHBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for i, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if stretch_last and i == len(widgets) - 1 else 0)
    if not stretch_last:
        layout.addStretch(1)
    return box


def labelled(text: str, widget: QWidget, *, width: int = 120) -> QWidget:
    """A widget with its name on the left."""
    label = QLabel(text)
    label.setFixedWidth(width)
    label.setBuddy(widget)
    widget.setMinimumWidth(80)  # long entries must not widen the dock
    widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return row(label, widget, stretch_last=True)


def duration(seconds: float | None) -> str:
    """'40 s', '3 min', '2 h 05 min'; an empty string when unknown."""
    if seconds is None or seconds != seconds or seconds < 0:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def bullet_list(sentences: Iterable[str]) -> str:
    """Sentences, one a line."""
    return "\n".join(f"• {s}" for s in sentences)
