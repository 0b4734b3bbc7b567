"""Real mouse and keyboard on napari's canvas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget


class Hand:
    """A hand on the mouse over the canvas; positions are the world's (y, x)."""

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        window = next(w for w in QApplication.topLevelWidgets() if w.findChildren(QWidget) and w.isVisible())
        canvases = [w for w in window.findChildren(QWidget) if type(w).__name__.startswith("CanvasBackend")]
        self.canvas: QWidget = canvases[0]

    def settle(self, ms: int = 30) -> None:
        QTest.qWait(ms)

    def point(self, world: Sequence[float]) -> QPoint:
        camera = self.viewer.scene.camera
        y, x = (np.asarray(world) - np.asarray(camera.center[-2:])) * camera.zoom
        return QPoint(round(x + self.canvas.width() / 2), round(y + self.canvas.height() / 2))

    def move(self, world: Sequence[float]) -> None:
        # two moves, as a hand makes: napari drops some that follow too fast
        QTest.mouseMove(self.canvas, self.point(world) + QPoint(1, 1))
        self.settle(8)
        QTest.mouseMove(self.canvas, self.point(world))
        self.settle(8)

    def click(self, world: Sequence[float]) -> None:
        self.move(world)
        QTest.mouseClick(self.canvas, Qt.MouseButton.LeftButton, pos=self.point(world))
        self.settle(10)

    def double_click(self, world: Sequence[float]) -> None:
        self.move(world)
        QTest.mouseDClick(self.canvas, Qt.MouseButton.LeftButton, pos=self.point(world))
        self.settle(20)

    def drag(self, path: Sequence[Sequence[float]], steps: int = 6) -> None:
        points = [self.point(path[0])]  # on the screen: the picture may move meanwhile
        for start, stop in itertools.pairwise(np.asarray(path, dtype=float)):
            points += [self.point(start + t * (stop - start)) for t in np.linspace(0, 1, steps + 1)[1:]]
        self.move(path[0])
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, pos=points[0])
        self.settle(5)
        for point in points[1:]:
            QTest.mouseMove(self.canvas, point)
            self.settle(8)
        QTest.mouseMove(self.canvas, points[-1] + QPoint(1, 0))
        self.settle(8)
        QTest.mouseMove(self.canvas, points[-1])
        self.settle(8)
        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, pos=points[-1])
        self.settle(20)

    def key(self, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        QTest.keyClick(self.canvas, key, modifier)
        self.settle(10)

    def wheel(self, world: Sequence[float], notches: int) -> None:
        position = QPointF(self.point(world))
        everywhere = self.canvas.mapToGlobal(self.point(world))
        event = QWheelEvent(
            position,
            QPointF(everywhere),
            QPoint(0, 0),
            QPoint(0, 120 * notches),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(self.canvas, event)
        self.settle(20)


@pytest.fixture
def hand() -> Callable[[Any], Hand]:
    return Hand
