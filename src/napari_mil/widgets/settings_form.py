"""All settings of a method: a part each for aggregator, outlines, mining, task and training, a row for each setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QEnterEvent
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .editors import Editor, editor_of
from .parts import ACCENT, Note, Section

if TYPE_CHECKING:
    from napari_mil.mil.described import Kind, Part, Setting
    from napari_mil.viewer.method_form import MethodForm

LABEL_WIDTH = 128


RESET_WIDTH = 18


class ResetButton(QToolButton):
    """Puts back what was changed; keeps its place while there is nothing to put back."""

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setText("↺")
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setAutoRaise(True)
        self.setStyleSheet(f"QToolButton {{ color: {ACCENT}; font-weight: bold; border: none; padding: 0; }}")
        self.setFixedWidth(RESET_WIDTH)
        policy = self.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.setSizePolicy(policy)


class SettingRow(QWidget):
    """A setting: its name, its editor, and a way back when it was changed.

    Signals
    -------
    pointed(Setting)
        The person points at it or works in it.
    """

    pointed = Signal(object)

    def __init__(self, form: MethodForm, setting: Setting, title: str = "") -> None:
        super().__init__()
        self.setting = setting
        self._form = form
        self.editor: Editor = editor_of(setting)
        self.label = QLabel(title or setting.title)
        self.label.setFixedWidth(LABEL_WIDTH)
        self.label.setWordWrap(True)
        self.reset = ResetButton("Back to the preset's value")
        for widget in (self, self.editor):
            widget.setToolTip(setting.help)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        line.addWidget(self.label)
        line.addWidget(self.editor, 1)
        line.addWidget(self.reset)
        self.editor.edited.connect(lambda value: form.put(setting.key, value))
        self.reset.clicked.connect(lambda: form.reset(setting.key))
        for child in self.editor.findChildren(QWidget):
            child.installEventFilter(self)
            if isinstance(child, QComboBox | QAbstractSpinBox):
                child.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            if not child.toolTip():
                child.setToolTip(setting.help)

    def show_value(self, changed: bool) -> None:
        """Show the form's value, and whether it is the preset's."""
        self.editor.show_value(self._form.value(self.setting.key))
        mark_changed(self.label, changed)
        self.reset.setVisible(changed)

    def enterEvent(self, event: QEnterEvent | None) -> None:
        self.pointed.emit(self.setting)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is None or not isinstance(watched, QWidget):
            return False
        if event.type() == QEvent.Type.FocusIn:
            self.pointed.emit(self.setting)
        elif event.type() == QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()  # the page is being scrolled
            return True
        return False


class PartSection(QWidget):
    """One part: its kind in the title's line, its settings below when unfolded."""

    pointed = Signal(object)

    def __init__(self, form: MethodForm, part: Part, elsewhere: frozenset[str]) -> None:
        super().__init__()
        self.part = part
        self._form = form
        self._elsewhere = elsewhere
        self._kinds: dict[str, QWidget] = {}
        self.rows: dict[str, SettingRow] = {}
        self.section = Section(part.title, foldable=True, folded=True)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self.section)
        self.kind = QComboBox()
        self.kind.setMinimumWidth(80)
        self.kind.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.kind.setToolTip(part.help)
        self.kind.setAccessibleName(part.title)
        self.kind.installEventFilter(self)
        self.kind.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.reset = ResetButton("Back to the preset's")
        for kind in part.kinds if part.key else ():
            self.kind.addItem(kind.title, kind.name)
            self.kind.setItemData(self.kind.count() - 1, kind.help, Qt.ItemDataRole.ToolTipRole)
        self.help = Note()
        if part.key:
            self.section.beside_title(self.kind, self.reset, title_width=LABEL_WIDTH)
            self.kind.activated.connect(lambda: form.put(part.key, self.kind.currentData()))
            self.reset.clicked.connect(lambda: form.reset(part.key))
        self.section.add(self.help)
        self.section.unfolded.connect(self.refresh)

    def refresh(self) -> None:
        """Show the form as it is; rows are made when they are looked at for the first time."""
        changes = self._form.changes
        own = [key for key in changes if key.partition(".")[0] == self.part.name and key not in self._elsewhere]
        name = self._form.kind(self.part.name)
        kind = self.part.kind(name)
        if self.part.key:
            with QSignalBlocker(self.kind):
                self.kind.setCurrentIndex(self.kind.findData(name))
            self.reset.setVisible(self.part.key in changes)
        mark_changed(self.section.title, bool(own))
        if self.section.folded:
            return
        self.help.setText(kind.help)
        page = self._page_of(kind)
        for other in self._kinds.values():
            other.setVisible(other is page)
        self.rows = {row.setting.key: row for row in page.findChildren(SettingRow)}
        for key, row in self.rows.items():
            row.show_value(key in changes)

    def _page_of(self, kind: Kind) -> QWidget:
        if kind.name not in self._kinds:
            page = QWidget()
            lines = QVBoxLayout(page)
            lines.setContentsMargins(0, 0, 0, 0)
            lines.setSpacing(3)
            for setting in kind.settings:
                if setting.key not in self._elsewhere:
                    row = SettingRow(self._form, setting)
                    row.pointed.connect(self.pointed)
                    lines.addWidget(row)
            self._kinds[kind.name] = page
            self.section.add(page)
        return self._kinds[kind.name]

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is not None and event.type() == QEvent.Type.Wheel and not self.kind.hasFocus():
            event.ignore()
            return True
        return False


def mark_changed(label: QLabel | QToolButton, changed: bool) -> None:
    """A changed setting's name carries a dot in the accent's colour."""
    text = label.text().removesuffix(" •")
    label.setText(f"{text} •" if changed else text)
