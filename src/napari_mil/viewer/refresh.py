"""Tiles arrive in other threads; the layer is refreshed in the window's, once all that it asked for are there.

The window's thread never waits for pixels: the slide's view answers a missing tile at once from a coarser level and
loads it behind. A redraw costs as much as a frame or two, so there is one when the last tile that is waited for has
come; while more are on their way, one when none came for 30 ms, and one every 150 ms at the latest. None is made for
tiles that the window has asked for again meanwhile, because it moved.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Qt, QTimer, Signal

if TYPE_CHECKING:
    from napari_mil.slide import SlideView

REST_MS = 30
LONGEST_MS = 150


class TileRefresher(QObject):
    """Calls `refresh` in the thread that made this object, soon after tiles arrived.

    Parameters
    ----------
    refresh : callable
        What redraws the layer.
    rest_ms : int
        How long it must have been quiet while more tiles are on their way.
    longest_ms : int
        How long the first of several arrivals waits at most.
    """

    _arrived = Signal(bool)

    def __init__(self, refresh: Callable[[], object], rest_ms: int = REST_MS, longest_ms: int = LONGEST_MS) -> None:
        super().__init__()
        self._refresh: Callable[[], object] | None = refresh
        self._rest_ms, self._longest_ms = rest_ms, longest_ms
        self._view: SlideView | None = None
        self._lock = threading.Lock()
        self._pending = False
        self._first = self._last = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._rested)
        self._arrived.connect(self._arm, Qt.ConnectionType.QueuedConnection)

    def watch(self, view: SlideView) -> None:
        """Ask this view whether all tiles are there, and whether they have been drawn."""
        self._view = view

    def arrived(self) -> None:
        """Say that a tile is there; from any thread."""
        settled = self._view is not None and self._view.settled
        with self._lock:
            self._last = time.monotonic()
            if self._refresh is None or (self._pending and not settled):
                return
            if not self._pending:
                self._pending, self._first = True, self._last
        self._arrived.emit(settled)

    def _arm(self, settled: bool) -> None:
        if settled:
            self.flush()
        elif self._refresh is not None:
            self._timer.start(self._rest_ms)

    def _rested(self) -> None:
        now = time.monotonic()
        with self._lock:
            rest = self._rest_ms - (now - self._last) * 1000
            left = self._longest_ms - (now - self._first) * 1000
        if rest > 1 and left > 1:
            self._timer.start(int(min(rest, left)) + 1)
        else:
            self.flush()

    def flush(self) -> None:
        """Redraw now if a tile arrived that the window has not seen."""
        self._timer.stop()
        with self._lock:
            pending, self._pending = self._pending, False
        if not pending or self._refresh is None:
            return
        if self._view is not None:
            if not self._view.outdated:
                return
            self._view.drawing()
        self._refresh()

    def close(self) -> None:
        """Never refresh again."""
        with self._lock:
            self._refresh = None
        self._timer.stop()
