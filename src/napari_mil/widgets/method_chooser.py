"""Choosing a method among many: grouped, each with its sentence, found by typing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QModelIndex, QObject, QPoint, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QPainter, QPalette
from qtpy.QtWidgets import (
    QFrame,
    QLineEdit,
    QPushButton,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from napari_mil.mil import PresetInfo

NAME = Qt.ItemDataRole.UserRole
SENTENCE = NAME + 1
HEIGHT = 420
STEPS = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1, Qt.Key.Key_PageDown: 6, Qt.Key.Key_PageUp: -6}


class _TwoLines(QStyledItemDelegate):
    """A method's title, and below it, smaller, what it does."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        lines = 1 if index.data(SENTENCE) is None else 2
        return QSize(120, 6 + lines * option.fontMetrics.height())

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        assert painter is not None
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        painter.save()
        if chosen:
            painter.fillRect(option.rect, option.palette.color(QPalette.ColorRole.Highlight))
        group = QPalette.ColorRole.HighlightedText if chosen else QPalette.ColorRole.Text
        colour = QColor(option.palette.color(group))
        heading = index.data(SENTENCE) is None
        font = option.font
        font.setBold(heading)
        painter.setFont(font)
        painter.setPen(colour)
        left = 4 if heading else 16
        line = QRect(option.rect).adjusted(left, 3, -4, 0)
        line.setHeight(option.fontMetrics.height())
        self._write(painter, line, str(index.data()))
        if not heading:
            font.setPointSizeF(font.pointSizeF() * 0.87)
            painter.setFont(font)
            colour.setAlphaF(0.7)
            painter.setPen(colour)
            self._write(painter, line.translated(0, option.fontMetrics.height()), str(index.data(SENTENCE)))
        painter.restore()

    @staticmethod
    def _write(painter: QPainter, line: QRect, text: str) -> None:
        shown = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, line.width())
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)


class MethodList(QFrame):
    """The list that opens: a field to type in, methods below by family.

    Signals
    -------
    chosen(str)
        Name of a method.
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        self.search = QLineEdit(placeholderText="Find a method, a paper, a table…", clearButtonEnabled=True)
        self.search.textChanged.connect(self._filter)
        self.search.installEventFilter(self)
        self.tree = QTreeWidget()
        self.tree.setHeaderHidden(True)
        self.tree.setRootIsDecorated(False)
        self.tree.setIndentation(0)
        self.tree.setUniformRowHeights(False)
        self.tree.setItemDelegate(_TwoLines(self.tree))
        self.tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.tree.itemClicked.connect(self._take)
        self.tree.itemActivated.connect(self._take)
        layout.addWidget(self.search)
        layout.addWidget(self.tree)
        self._words: dict[str, str] = {}

    def set_methods(self, infos: Mapping[str, PresetInfo]) -> None:
        """Show these methods, families in the order in which they first come."""
        self.tree.clear()
        families: dict[str, QTreeWidgetItem] = {}
        for name, info in infos.items():
            if info.family not in families:
                heading = families[info.family] = QTreeWidgetItem(self.tree, [info.family])
                heading.setFlags(Qt.ItemFlag.ItemIsEnabled)
                heading.setExpanded(True)
            item = QTreeWidgetItem(families[info.family], [title_of(info)])
            item.setData(0, NAME, name)
            item.setData(0, SENTENCE, info.sentence)
            item.setToolTip(0, f"{info.sentence}\n{info.source}")
            self._words[name] = f"{name} {info.title} {info.sentence} {info.source} {info.family}".casefold()

    @property
    def found(self) -> list[QTreeWidgetItem]:
        """Methods that what was typed leaves over."""
        tops = [self.tree.topLevelItem(i) for i in range(self.tree.topLevelItemCount())]
        items = [top.child(i) for top in tops if top is not None for i in range(top.childCount())]
        return [item for item in items if item is not None and not item.isHidden()]

    def open(self, name: str, below: QWidget, text: str = "") -> None:
        """Show the list below a widget, a method of it chosen."""
        self.search.setText(text)
        self._filter(text)
        self.resize(below.width(), HEIGHT)
        self.move(below.mapToGlobal(QPoint(0, below.height())))
        self.show()
        self.search.setFocus()
        at = next((item for item in self.found if item.data(0, NAME) == name), None)
        if at is not None and not text:
            self.tree.setCurrentItem(at)
            self.tree.scrollToItem(at, QTreeWidget.ScrollHint.PositionAtCenter)

    def _filter(self, text: str) -> None:
        wanted = text.casefold().split()
        for i in range(self.tree.topLevelItemCount()):
            heading = self.tree.topLevelItem(i)
            assert heading is not None
            shown = 0
            for k in range(heading.childCount()):
                item = heading.child(k)
                assert item is not None
                fits = all(word in self._words[item.data(0, NAME)] for word in wanted)
                item.setHidden(not fits)
                shown += fits
            heading.setHidden(not shown)
        self.tree.setCurrentItem(next(iter(self.found), None))

    def _take(self, item: QTreeWidgetItem | None) -> None:
        name: Any = item.data(0, NAME) if item is not None else None
        if name is not None:
            self.hide()
            self.chosen.emit(name)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if not isinstance(event, QKeyEvent) or event.type() != QEvent.Type.KeyPress:
            return False
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._take(self.tree.currentItem())
            return True
        if event.key() in STEPS and self.found:
            found = self.found
            current = self.tree.currentItem()
            here = found.index(current) if current in found else -1
            to = found[min(max(here + STEPS[Qt.Key(event.key())], 0), len(found) - 1)]
            self.tree.setCurrentItem(to)
            self.tree.scrollToItem(to)
            return True
        return False


class MethodChooser(QPushButton):
    """The method that is chosen; opens the list by a click, an arrow key, or by typing what is looked for.

    Signals
    -------
    chosen(str)
        The person chose a method: its name.
    """

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self._infos: dict[str, PresetInfo] = {}
        self.setStyleSheet("QPushButton { text-align: left; padding: 5px 8px; }")
        self.setToolTip("Choose a method; type to find one")
        self.list = MethodList(self)
        self.list.chosen.connect(self.choose)
        self.clicked.connect(lambda: self.open())

    def set_methods(self, infos: Mapping[str, PresetInfo]) -> None:
        """Offer these methods, by name."""
        self._infos = dict(infos)
        self.list.set_methods(infos)

    def show_method(self, name: str) -> None:
        """Show a method as the chosen one."""
        self.name = name
        self._elide()

    def choose(self, name: str) -> None:
        """Choose a method as the person does."""
        self.show_method(name)
        self.chosen.emit(name)

    def open(self, text: str = "") -> None:
        """Open the list."""
        self.list.open(self.name, self, text)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        assert event is not None
        text = event.text()
        if event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Up):
            self.open()
        elif text.strip() and text.isprintable() and not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.open(text)
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        self._elide()

    def minimumSizeHint(self) -> QSize:
        return QSize(80, super().minimumSizeHint().height())

    def _elide(self) -> None:
        title = title_of(self._infos[self.name]) if self.name in self._infos else "Choose a method"
        room = max(self.width() - 36, 40)
        self.setText(f"{self.fontMetrics().elidedText(title, Qt.TextElideMode.ElideRight, room)}  ▾")


def title_of(info: PresetInfo) -> str:
    """A method's title."""
    return f"{info.title} (recommended)" if info.recommended else info.title
