"""Which column of a table means what: guessed, shown with its first rows, and corrected by eye."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

MEANINGS = {
    "slide_id": "Slide name",
    "path": "File",
    "patient_id": "Patient",
    "label": "Label",
    "split": "Role (train, validation, test)",
    "partial_annotation": "Only partly outlined?",
    "time": "Time (survival)",
    "event": "Event (survival)",
}


class TableDialog(QDialog):
    """Shows a table's first rows and asks for each meaning's column.

    Parameters
    ----------
    columns : list of str
        The table's columns.
    rows : list of list of str
        Its first rows, as text.
    guess : dict
        meaning → column, as guessed.
    """

    def __init__(
        self, columns: list[str], rows: list[list[str]], guess: dict[str, str], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Read a slide table")
        self.resize(720, 460)
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel("The table's first rows. Say below which column means what; leave out what it lacks."))
        table = QTableWidget(len(rows), len(columns))
        table.setHorizontalHeaderLabels(columns)
        for i, cells in enumerate(rows):
            for j, cell in enumerate(cells):
                table.setItem(i, j, QTableWidgetItem(cell))
        layout.addWidget(table, 1)
        grid = QGridLayout()
        self.choices: dict[str, QComboBox] = {}
        for i, (meaning, text) in enumerate(MEANINGS.items()):
            box = QComboBox()
            box.addItems(["", *columns])
            box.setCurrentText(guess.get(meaning, ""))
            self.choices[meaning] = box
            grid.addWidget(QLabel(text), i // 2, 2 * (i % 2))
            grid.addWidget(box, i // 2, 2 * (i % 2) + 1)
        layout.addLayout(grid)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)

    @property
    def mapping(self) -> dict[str, str]:
        """meaning → column, as chosen."""
        return {meaning: box.currentText() for meaning, box in self.choices.items() if box.currentText()}


def choose_table_columns(path: Path, parent: QWidget | None = None) -> dict[str, str] | None:
    """Ask which column means what; None when the person thinks better of it."""
    from napari_mil.study import preview_table

    columns, rows, guess = preview_table(path)
    dialog = TableDialog(columns, rows, guess, parent)
    return dialog.mapping if dialog.exec() else None
