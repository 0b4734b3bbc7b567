"""Tiles arrive in other threads; the layer is refreshed in the window's, at most every 30 ms.

The window's thread never waits for pixels: the slide's view answers a missing tile at once from a coarser level and
loads it behind. Each arrival arms one single-shot timer here, unless it runs already, so that a burst of tiles costs
one redraw and a steady stream cannot keep pushing the redraw away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from qtpy.QtCore import QObject, Qt, QTimer, Signal

DELAY_MS = 30


class TileRefresher(QObject):
    """Calls `refresh` in the thread that made this object, soon after tiles arrived.

    Parameters
    ----------
    refresh : callable
        What redraws the layer.
    delay_ms : int
        How long further arrivals are waited for.
    """

    _arrived = Signal()

    def __init__(self, refresh: Callable[[], object], delay_ms: int = DELAY_MS) -> None:
        super().__init__()
        self._refresh: Callable[[], object] | None = refresh
        self._lock = threading.Lock()
        self._pending = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(delay_ms)
        self._timer.timeout.connect(self.flush)
        self._arrived.connect(self._arm, Qt.ConnectionType.QueuedConnection)

    def arrived(self) -> None:
        """Say that a tile is there; from any thread."""
        with self._lock:
            if self._pending or self._refresh is None:
                return
            self._pending = True
        self._arrived.emit()

    def _arm(self) -> None:
        if self._refresh is not None and not self._timer.isActive():
            self._timer.start()

    def flush(self) -> None:
        """Redraw now if a tile arrived since the last time."""
        with self._lock:
            pending, self._pending = self._pending, False
        if pending and self._refresh is not None:
            self._refresh()

    def close(self) -> None:
        """Never refresh again."""
        with self._lock:
            self._refresh = None
        self._timer.stop()
