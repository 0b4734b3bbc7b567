"""Live curves of a training run.

Painted by hand because it is drawn while the person pans: one repaint costs under a millisecond, where a matplotlib
canvas of this size takes 20-50 ms of the window's thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFontMetrics, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QWidget

# colours of Okabe and Ito: told apart by colour-blind readers, on light and dark alike
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
LEFT, LINE = 40.0, 13  # px: where the plot begins, and a line of the legend


class Curves(QWidget):
    """One small plot with a few named curves over epochs.

    Parameters
    ----------
    title : str
        Named above the plot.
    bounds : (low, high), optional
        A fixed vertical range (AUROC: 0 to 1); otherwise the range of the data.
    """

    def __init__(self, title: str, *, bounds: tuple[float, float] | None = None) -> None:
        super().__init__()
        self._title = title
        self._bounds = bounds
        self._curves: dict[str, list[tuple[float, float]]] = {}
        self._mark: float | None = None
        self.setMinimumHeight(110)
        self.setToolTip(title)

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """The points that are shown, by name."""
        return {name: list(points) for name, points in self._curves.items()}

    @property
    def title(self) -> str:
        """What stands above the plot."""
        return self._title

    def set_curves(
        self, curves: Mapping[str, Sequence[tuple[float, float]]], mark: float | None = None, title: str = ""
    ) -> None:
        """Show these (x, y) points; `mark` draws a vertical line (the best epoch); a title replaces the one before."""
        if title and title != self._title:
            self._title = title
            self.setToolTip(title)
        finite = {k: [(x, y) for x, y in v if y == y and abs(y) != float("inf")] for k, v in curves.items()}
        self._curves = {k: v for k, v in finite.items() if v}
        self._mark = mark
        self.update()

    def _range(self) -> tuple[float, float, float, float]:
        points = [p for curve in self._curves.values() for p in curve]
        x_max = max((x for x, _ in points), default=1.0)
        x_min = min((x for x, _ in points), default=0.0)
        if self._bounds:
            low, high = self._bounds
        else:
            low, high = min((y for _, y in points), default=0.0), max((y for _, y in points), default=1.0)
        pad = (high - low) * 0.05 or 0.5
        if self._bounds:
            pad = 0.0
        floor = low - pad if low < 0 else max(0.0, low - pad)  # no loss is drawn as if it could be negative
        return x_min, max(x_max, x_min + 1), floor, high + pad

    def paintEvent(self, event: object) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().windowText().color()
        font = painter.font()
        font.setPixelSize(11)
        painter.setFont(font)
        painter.setPen(text)
        painter.drawText(QRectF(4, 0, self.width() - 8, 16), Qt.AlignmentFlag.AlignLeft, self._title)
        labels = {name: f"{name} {points[-1][1]:.3f}" for name, points in self._curves.items()}
        legend = self._legend(list(labels.values()), painter.fontMetrics())
        lines = 1 + max((line for _, line in legend), default=0)
        area = QRectF(LEFT, 20, self.width() - LEFT - 8, self.height() - 37 - LINE * lines)
        x0, x1, y0, y1 = self._range()

        def place(x: float, y: float) -> QPointF:
            return QPointF(
                area.left() + (x - x0) / (x1 - x0) * area.width(),
                area.bottom() - (y - y0) / (y1 - y0) * area.height(),
            )

        grid = QColor(text)
        grid.setAlpha(50)
        for value in (y0, (y0 + y1) / 2, y1):
            y = place(x0, value).y()
            painter.setPen(grid)
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(text)
            painter.drawText(QRectF(0, y - 7, 36, 14), Qt.AlignmentFlag.AlignRight, f"{value:.2f}")
        if self._mark is not None and self._curves:
            painter.setPen(QPen(text, 1, Qt.PenStyle.DashLine))
            x = place(self._mark, y0).x()
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
        for i, ((name, points), (left, line)) in enumerate(zip(self._curves.items(), legend, strict=True)):
            colour = QColor(COLOURS[i % len(COLOURS)])
            painter.setPen(QPen(colour, 1.8))
            places = [place(x, y) for x, y in points]
            if len(places) == 1:
                painter.drawEllipse(places[0], 2, 2)
            else:
                painter.drawPolyline(QPolygonF(places))
            y = self.height() - 13 - LINE * (lines - line)
            painter.drawText(QRectF(left, y, self.width(), 14), Qt.AlignmentFlag.AlignLeft, labels[name])
        painter.setPen(text)
        painter.drawText(
            QRectF(4, self.height() - 13, self.width() - 8, 13), Qt.AlignmentFlag.AlignRight, f"epoch {x1:.0f}"
        )
        painter.end()

    def _legend(self, labels: list[str], metrics: QFontMetrics) -> list[tuple[float, int]]:
        """Where each label begins, and on which line: none reaches beyond the plot."""
        places: list[tuple[float, int]] = []
        left, line = LEFT, 0
        for label in labels:
            width = metrics.horizontalAdvance(label)
            if left > LEFT and left + width > self.width() - 4:
                left, line = LEFT, line + 1
            places.append((left, line))
            left += width + 12
        return places
