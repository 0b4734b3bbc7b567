"""The slide table as Qt wants it: rows of the project, thumbnails when they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPixmap
from qtpy.QtWidgets import QComboBox, QStyledItemDelegate, QStyleOptionViewItem, QWidget

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mil.viewer.session import Session

THUMBNAIL = QSize(52, 40)
COLUMNS = ("", "Slide", "Label", "Role", "Outlined?", "Features", "Patient", "Time", "Event")
TIPS = {
    "Outlined?": "Are all lesions outlined? Unanswered counts as no: what is not outlined is unknown.",
    "Features": "Whether the slide is ready to train with the present settings",
    "Time": "Survival: when the event was seen, or the patient last without it; in the unit of the table",
    "Event": "Survival: whether the event was seen (yes), or not up to that time (no)",
}
PICTURE, SLIDE, LABEL, ROLE, OUTLINED, FEATURES, PATIENT, TIME, EVENT = range(len(COLUMNS))
ROLES = ("", "train", "validation", "test")
ANSWERS = ("", "yes", "no")


def thumbnail_pixmap(picture: npt.NDArray[Any]) -> QPixmap:
    """(h, w, 3) uint8 → a pixmap of the table's size."""
    height, width = picture.shape[:2]
    image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(image).scaled(
        THUMBNAIL, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )


class SlidesModel(QAbstractTableModel):
    """Rows of the session's project; an edit goes straight to the project."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._pictures: dict[str, QPixmap | None] = {}
        self._ids: list[str] = []
        self._project: object = None
        self._color = ""
        self.reload()

    def reload(self) -> None:
        """Take the rows of the project afresh."""
        self.beginResetModel()
        project = self._session.project
        if project is not self._project:
            self._project = project
            self._color = project.config.color if project else ""
            self._pictures.clear()  # slides of another project may have the same names
        self._ids = [row.slide_id for row in project.slides] if project else []
        self._rows = {row.slide_id: row for row in project.slides} if project else {}
        self.endResetModel()

    def update_rows(self, slide_ids: set[str] | None) -> None:
        """Show changed rows; None means all of them."""
        project = self._session.project
        if project is None or [row.slide_id for row in project.slides] != self._ids:
            self.reload()
            return
        if project.config.color != self._color:
            self._color = project.config.color
            self._pictures.clear()
        self._rows = {row.slide_id: row for row in project.slides}
        changed = range(len(self._ids)) if slide_ids is None else [self.row_of(s) for s in slide_ids]
        for row in changed:
            if row >= 0:
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(COLUMNS) - 1))

    def row_of(self, slide_id: str) -> int:
        """Row of a slide, -1 when it is not there."""
        return self._ids.index(slide_id) if slide_id in self._rows else -1

    def slide_id(self, row: int) -> str:
        """Slide of a row."""
        return self._ids[row]

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's own signature
        return 0 if parent.isValid() else len(self._ids)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008 - Qt's own signature
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.ToolTipRole:
            return TIPS.get(COLUMNS[section])
        return None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = super().flags(index)
        if index.column() in (LABEL, ROLE, OUTLINED, PATIENT, TIME, EVENT):
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row = self._rows[self._ids[index.row()]]
        column = index.column()
        if role == Qt.ItemDataRole.DecorationRole and column == PICTURE:
            return self._picture(row.slide_id)
        if role == Qt.ItemDataRole.SizeHintRole and column == PICTURE:
            return THUMBNAIL
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return self._text(row, column, editing=role == Qt.ItemDataRole.EditRole)
        if role == Qt.ItemDataRole.ToolTipRole:
            failure = self._session.preparation.failures.get(row.slide_id)
            return failure or f"{row.slide_id}\n{row.path}"
        if (
            role == Qt.ItemDataRole.ForegroundRole
            and column == FEATURES
            and row.slide_id in self._session.preparation.failures
        ):
            return QColor("#d55e00")
        return None

    def _text(self, row: Any, column: int, *, editing: bool) -> str:
        if column == SLIDE:
            return str(row.slide_id)
        if column == PATIENT:
            return row.patient_id or ""
        if column == LABEL:
            return row.label or ""
        if column == ROLE:
            return row.role or ""
        if column == OUTLINED:
            return {True: "no", False: "yes", None: ""}[row.partial_annotation]
        if column == TIME:
            return "" if row.time is None else f"{row.time:g}"
        if column == EVENT:
            return {True: "yes", False: "no", None: ""}[row.event]
        if column == FEATURES and not editing:
            if row.slide_id in self._session.preparation.failures:
                return "failed"
            return "ready" if row.slide_id in self._session.preparation.ready else ""
        return ""

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.EditRole:
            return False
        text = str(value).strip()
        field: dict[str, Any] = {
            LABEL: {"label": text or None},
            ROLE: {"role": text or None},
            PATIENT: {"patient_id": text or None},
            TIME: {"time": text or None},
            EVENT: {"event": {"yes": True, "no": False}.get(text)},
            OUTLINED: {"partial_annotation": {"yes": False, "no": True}.get(text)},
        }[index.column()]
        return self._session.slides.update([self._ids[index.row()]], **field)

    def _picture(self, slide_id: str) -> QPixmap | None:
        if slide_id not in self._pictures:
            self._pictures[slide_id] = None  # asked for once; a bad slide keeps an empty picture
            self._session.slides.thumbnail(slide_id, lambda picture: self._arrived(slide_id, picture))
        return self._pictures[slide_id]

    def _arrived(self, slide_id: str, picture: npt.NDArray[Any]) -> None:
        self._pictures[slide_id] = thumbnail_pixmap(picture)
        row = self.row_of(slide_id)
        if row >= 0:
            self.dataChanged.emit(self.index(row, PICTURE), self.index(row, PICTURE))


class ChoiceDelegate(QStyledItemDelegate):
    """Edits a cell with a list of choices; an editable list takes new ones too."""

    def __init__(self, parent: QWidget, choices: Any, *, editable: bool = False) -> None:
        super().__init__(parent)
        self._choices = choices
        self._editable = editable

    def createEditor(self, parent: QWidget | None, option: QStyleOptionViewItem, index: QModelIndex) -> QWidget:
        box = QComboBox(parent)
        box.setEditable(self._editable)
        box.addItems(list(self._choices()))
        box.activated.connect(lambda _i: (self.commitData.emit(box), self.closeEditor.emit(box)))
        return box

    def setEditorData(self, editor: QWidget | None, index: QModelIndex) -> None:
        if isinstance(editor, QComboBox):
            editor.setCurrentText(str(index.data(Qt.ItemDataRole.EditRole)))
            if not self._editable:
                editor.showPopup()

    def setModelData(self, editor: QWidget | None, model: Any, index: QModelIndex) -> None:
        if isinstance(editor, QComboBox):
            model.setData(index, editor.currentText(), Qt.ItemDataRole.EditRole)
