"""Editors of single settings, one for each type; each shows any value and hands on only what a person changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QWidget,
)

from .scientific_spin import LARGEST, ScientificSpin

if TYPE_CHECKING:
    from napari_mil.mil.described import Setting

LARGEST_INT = 2**31 - 1


class Editor(QWidget):
    """Shows one setting's value.

    Signals
    -------
    edited(object)
        The person gave another value.
    """

    edited = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.line = QHBoxLayout(self)
        self.line.setContentsMargins(0, 0, 0, 0)
        self.line.setSpacing(4)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def value(self) -> Any:
        """What is shown."""
        raise NotImplementedError  # every editor has its own

    def show_value(self, value: Any) -> None:
        """Show a value; nothing is handed on."""
        raise NotImplementedError

    def _hand_on(self, *_: object) -> None:
        self.edited.emit(self.value())


class NumberEditor(Editor):
    """int or float."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.box: QSpinBox | QDoubleSpinBox
        if setting.type == "int":
            self.box = QSpinBox()
            self.box.setRange(int(setting.low or 0), LARGEST_INT if setting.high is None else int(setting.high))
        else:
            low, high = setting.low, setting.high
            self.box = ScientificSpin(-LARGEST if low is None else low, LARGEST if high is None else high)
        self.box.setKeyboardTracking(False)
        self.box.valueChanged.connect(self._hand_on)
        self.line.addWidget(self.box, 1)

    def value(self) -> Any:
        return self.box.value()

    def show_value(self, value: Any) -> None:
        with QSignalBlocker(self.box):
            self.box.setValue(value)


class SwitchEditor(Editor):
    """bool."""

    def __init__(self) -> None:
        super().__init__()
        self.box = QCheckBox()
        self.box.toggled.connect(self._hand_on)
        self.line.addWidget(self.box)
        self.line.addStretch(1)

    def value(self) -> bool:
        return self.box.isChecked()

    def show_value(self, value: Any) -> None:
        with QSignalBlocker(self.box):
            self.box.setChecked(bool(value))


class ChoiceEditor(Editor):
    """One of a few words."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.box = QComboBox()
        add_words(self.box, setting.choices)
        self.box.setMinimumWidth(60)
        self.box.activated.connect(self._hand_on)
        self.line.addWidget(self.box, 1)

    def value(self) -> str:
        return str(self.box.currentData())

    def show_value(self, value: Any) -> None:
        self.box.setCurrentIndex(self.box.findData(value))


class TextEditor(Editor):
    """Text, a list with commas, or a table as JSON; what can't be read so is handed on as it stands, to be refused."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self._setting = setting
        self._shown: Any = None
        self.box = QLineEdit()
        self.box.setMinimumWidth(60)
        if setting.type == "table":
            self.box.setPlaceholderText('{"name": value, …}')
        self.box.editingFinished.connect(self._finished)
        self.line.addWidget(self.box, 1)

    def value(self) -> Any:
        text = self.box.text().strip()
        if self._setting.type == "list":
            parts = [part.strip() for part in text.split(",") if part.strip()]
            return tuple(parts if self._setting.items == "text" else map(_number, parts))
        if self._setting.type == "table":
            try:
                return json.loads(text or "{}")
            except json.JSONDecodeError:
                return text
        return text

    def show_value(self, value: Any) -> None:
        self._shown = value
        if self._setting.type == "list":
            self.box.setText(", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value or ()))
        elif self._setting.type == "table" and not isinstance(value, str):
            self.box.setText(json.dumps(value or {}, ensure_ascii=False) if value else "")
        else:
            self.box.setText(str(value or ""))

    def _finished(self) -> None:
        value = self.value()
        if value != self._shown:
            self._shown = value
            self.edited.emit(value)


class FolderEditor(Editor):
    """One of a few words, or a folder."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self._words = setting.choices
        self.box = QComboBox()
        self.box.setMinimumWidth(60)
        self.box.activated.connect(self._hand_on)
        self.browse = QToolButton()
        self.browse.setText("…")
        self.browse.setToolTip("Choose a folder")
        self.browse.clicked.connect(self._browse)
        self.line.addWidget(self.box, 1)
        self.line.addWidget(self.browse)
        self.show_value(setting.default)

    def value(self) -> str:
        return str(self.box.currentData())

    def show_value(self, value: Any) -> None:
        self.box.clear()
        add_words(self.box, self._words)
        if value not in self._words:
            self.box.addItem(str(value), value)
        self.box.setCurrentIndex(self.box.findData(value))

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a trained run")
        if folder:
            self.show_value(folder)
            self._hand_on()


class WordOrEditor(Editor):
    """A word, or a value of another type."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self._words = setting.choices
        self.words = QComboBox()
        add_words(self.words, setting.choices)
        self.words.addItem("numbers" if setting.type == "list" else "a number", None)
        self.words.setMinimumWidth(60)
        self.inner = _plain_editor(setting)
        self.words.activated.connect(self._chosen)
        self.inner.edited.connect(self._hand_on)
        self.line.addWidget(self.words, 1)
        self.line.addWidget(self.inner, 1)
        self._start: Any = () if setting.type == "list" else 1.0
        self.show_value(setting.default)

    def value(self) -> Any:
        word = self.words.currentData()
        return self.inner.value() if word is None else word

    def show_value(self, value: Any) -> None:
        word = value in self._words if isinstance(value, str) else False
        self.words.setCurrentIndex(self.words.findData(value) if word else self.words.count() - 1)
        self.inner.setVisible(not word)
        self.inner.show_value(self._start if word else value)

    def _chosen(self) -> None:
        self.inner.setVisible(self.words.currentData() is None)
        self._hand_on()


class OptionalEditor(Editor):
    """A value that may be left out; then it is said what that means."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.on = QCheckBox()
        self.on.setToolTip(f"Without a tick: {setting.none_means}")
        self.inner = _plain_editor(setting)
        self.without = QLabel(setting.none_means)
        self.without.setTextFormat(Qt.TextFormat.PlainText)
        self.without.setWordWrap(True)
        self.without.setEnabled(False)
        self._start = setting.start if setting.start is not None else setting.low or 1
        self.on.toggled.connect(self._toggled)
        self.inner.edited.connect(self._hand_on)
        self.line.addWidget(self.on)
        self.line.addWidget(self.inner, 1)
        self.line.addWidget(self.without, 1)
        self.show_value(setting.default)

    def value(self) -> Any:
        return self.inner.value() if self.on.isChecked() else None

    def show_value(self, value: Any) -> None:
        with QSignalBlocker(self.on):
            self.on.setChecked(value is not None)
        self.inner.setVisible(value is not None)
        self.without.setVisible(value is None)
        self.inner.show_value(self._start if value is None else value)

    def _toggled(self, on: bool) -> None:
        self.inner.setVisible(on)
        self.without.setVisible(not on)
        self._hand_on()


def add_words(box: QComboBox, words: Iterable[str]) -> None:
    """Offer words in a list, as a person reads them."""
    from napari_mil.mil.described import choice_title

    for word in words:
        box.addItem(choice_title(word), word)


def editor_of(setting: Setting) -> Editor:
    """The editor for a setting."""
    if setting.optional:
        return OptionalEditor(setting)
    if setting.type == "text" and setting.choices:
        return FolderEditor(setting)
    if setting.choices and setting.type != "choice":
        return WordOrEditor(setting)
    return _plain_editor(setting)


def _plain_editor(setting: Setting) -> Editor:
    if setting.type in ("int", "float"):
        return NumberEditor(setting)
    if setting.type == "bool":
        return SwitchEditor()
    return ChoiceEditor(setting) if setting.type == "choice" else TextEditor(setting)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
