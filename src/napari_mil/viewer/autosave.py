"""Saving soon after a change, at the latest five seconds later, and never losing it when saving fails."""

from __future__ import annotations

import logging
from collections.abc import Callable

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_mil.errors import MilError

_log = logging.getLogger(__name__)
LONGEST_DELAY_S = 5.0


class Autosave:
    """Calls `save` a moment after the last `touch`, at most `delay_s` after the first.

    Parameters
    ----------
    save : callable
        Writes everything there is to save. It may raise; then it is tried again, and `failed` says why.
    delay_s : float
        How long a change may wait, at most 5 s.
    quiet_s : float
        How long it has to be quiet before saving sooner.

    Signals
    -------
    saved()
        Everything is on disk.
    failed(str)
        Saving failed; the change is kept and tried again.
    """

    saved = Signal()
    failed = Signal(str)

    def __init__(self, save: Callable[[], object], delay_s: float = 3.0, quiet_s: float = 1.0) -> None:
        if not 0 <= delay_s <= LONGEST_DELAY_S:
            raise ValueError(f"delay_s is {delay_s}; a change may wait 5 s at most.")
        self._save = save
        self._dirty = False
        self._closed = False
        self.error: str | None = None
        self._latest = self._timer(delay_s)
        self._quiet = self._timer(min(quiet_s, delay_s))

    def _timer(self, seconds: float) -> QTimer:
        timer = QTimer()
        timer.setSingleShot(True)
        timer.setInterval(int(seconds * 1000))
        timer.timeout.connect(self.flush)
        return timer

    @property
    def dirty(self) -> bool:
        """Whether something is not on disk yet."""
        return self._dirty

    def touch(self, *_: object) -> None:
        """Something changed. Takes and ignores arguments, so that signals can be connected to it."""
        self._dirty = True
        if self._closed:
            self.flush()
            return
        self._quiet.start()
        if not self._latest.isActive():
            self._latest.start()

    def flush(self) -> bool:
        """Save now what is not saved; True when everything is on disk."""
        self._quiet.stop()
        self._latest.stop()
        if not self._dirty:
            return True
        try:
            self._save()
        except Exception as error:  # whatever it is, the change must not be lost
            if not isinstance(error, (MilError, OSError)):
                _log.exception("autosave failed")
            self.error = f"Not saved yet, trying again: {error}"
            if not self._closed:
                self._latest.start()
            self.failed.emit(self.error)
            return False
        self._dirty = False
        self.error = None
        self.saved.emit()
        return True

    def close(self) -> bool:
        """Save what is left and stop; False when it could not be saved."""
        self._closed = True
        return self.flush()
