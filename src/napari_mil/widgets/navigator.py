"""Where one is on the slide: minimap, magnification with jump buttons, position in µm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPen
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from .parts import row

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mil.viewer.session import Session

MAGNIFICATIONS = (1, 2.5, 5, 10, 20, 40)


class Minimap(QWidget):
    """The whole slide, and the part of it that the canvas shows; a click goes there."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.setFixedSize(QSize(120, 96))
        self.setToolTip("Click to go there")
        self._image: QImage | None = None
        self._view: tuple[float, float, float, float] | None = None

    def set_picture(self, picture: npt.NDArray[Any] | None) -> None:
        """(h, w, 3) uint8 thumbnail of the slide, or nothing."""
        self._image = None
        if picture is not None:
            data = np.ascontiguousarray(picture)
            height, width = data.shape[:2]
            self._image = QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
            self._image = self._image.copy()
        self.update()

    def set_view(self, view: tuple[float, float, float, float] | None) -> None:
        """Visible part as fractions of the slide: left, top, right, bottom."""
        if view != self._view:
            self._view = view
            self.update()

    def _area(self) -> QRectF:
        assert self._image is not None
        size = self._image.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        return QRectF((self.width() - size.width()) / 2, (self.height() - size.height()) / 2, *_wh(size))

    def paintEvent(self, event: object) -> None:
        painter = QPainter(self)
        if self._image is not None:
            area = self._area()
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
            painter.drawImage(area, self._image)
            if self._view is not None:
                left, top, right, bottom = self._view
                box = QRectF(
                    area.left() + left * area.width(),
                    area.top() + top * area.height(),
                    max(3.0, (right - left) * area.width()),
                    max(3.0, (bottom - top) * area.height()),
                )
                painter.setPen(QPen(QColor("#d62728"), 1.5))
                painter.drawRect(box.intersected(area.adjusted(-1, -1, 1, 1)))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        if event is None or self._image is None:
            return
        area = self._area()
        x = (event.position().x() - area.left()) / area.width()
        y = (event.position().y() - area.top()) / area.height()
        if 0 <= x <= 1 and 0 <= y <= 1:
            self.session.stage.go_to_fraction(x, y)


def _wh(size: QSize) -> tuple[int, int]:
    return size.width(), size.height()


class Navigator(QWidget):
    """Minimap on the left; magnification and position on the right."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 4, 8, 4)
        self.minimap = Minimap(session)
        layout.addWidget(self.minimap)
        side = QVBoxLayout()
        side.setSpacing(3)
        self.magnification = QLabel()
        self.magnification.setStyleSheet("QLabel { font-weight: bold; }")
        self.position = QLabel()
        self.buttons: dict[float, QPushButton] = {}
        for value in MAGNIFICATIONS:
            button = QPushButton(f"{value:g}x")
            button.setFixedWidth(42)
            button.setToolTip(f"Show the slide as a {value:g}x objective would ({10 / value:g} µm per screen pixel)")
            button.clicked.connect(lambda _c=False, v=value: session.stage.set_magnification(v))
            self.buttons[value] = button
        self.fit = QPushButton("Whole slide")
        self.fit.clicked.connect(lambda _c=False: session.stage.fit())
        side.addWidget(self.magnification)
        values = list(self.buttons.values())
        side.addWidget(row(*values[:3], self.fit))
        side.addWidget(row(*values[3:]))
        side.addWidget(self.position)
        side.addStretch(1)
        layout.addLayout(side, 1)
        session.stage.slide_changed.connect(self._slide_changed)
        session.stage.moved.connect(self.refresh)
        session.stage.pointed.connect(self._show_position)
        self._slide_changed()

    def _slide_changed(self) -> None:
        self.minimap.set_picture(self.session.stage.picture)
        self.refresh()

    def _show_position(self, text: str) -> None:
        self.position.setText(text)

    def refresh(self) -> None:
        """Show where the camera is."""
        self.setVisible(self.session.stage.slide is not None)
        view = self.session.stage.view_fractions
        self.minimap.set_view(view)
        power = self.session.stage.magnification
        self.magnification.setText(f"{power:.3g}x · {10 / power:.3g} µm per screen pixel" if power else "scale unknown")
        for button in self.buttons.values():
            button.setEnabled(power is not None)
