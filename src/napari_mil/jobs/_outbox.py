"""The child's voice: JSON lines to the parent, progress coalesced, milestones kept."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any, BinaryIO

import psutil

from ._progress import MESSAGES_PER_SECOND

_HEARTBEAT_SECONDS = 1.0


class Outbox:
    """Sends frames (small dicts) as JSON lines.

    Progress is coalesced to at most 20 frames a second: the newest wins, but every milestone report travels
    along in the frame's ``reports``. A heartbeat each second keeps memory and time left up to date, and ends
    this process when its parent is gone.
    """

    def __init__(self, stream: BinaryIO, parent: tuple[int, float]) -> None:
        self._stream = stream
        self._parent = parent
        self._lock = threading.Lock()
        self._pending: dict[str, Any] | None = None
        self._milestones: list[dict[str, Any]] = []
        self._wake = threading.Event()
        self._process = psutil.Process()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def send(self, frame: dict[str, Any]) -> None:
        """Send `frame` at once, after whatever still waits."""
        with self._lock:
            self._flush()
            self._write(frame)

    def progress(self, frame: dict[str, Any], milestone: dict[str, Any] | None = None) -> None:
        """Send `frame` soon, unless a newer one comes first; `milestone` is never dropped."""
        with self._lock:
            self._pending = {**(self._pending or {}), **frame}
            if milestone is not None:
                self._milestones.append(milestone)
        self._wake.set()

    def memory_mb(self) -> float:
        """Resident memory of this process in MB."""
        return float(self._process.memory_info().rss) / 1e6

    def _flush(self) -> None:
        if self._pending is not None:
            frame = {**self._pending, "reports": self._milestones, "memory_mb": self.memory_mb()}
            self._pending, self._milestones = None, []
            self._write(frame)

    def _write(self, frame: dict[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(frame).encode() + b"\n")
            self._stream.flush()
        except OSError:  # nobody listens any more
            os._exit(0)

    def _beat(self) -> None:
        beat_at = time.monotonic()
        while True:
            self._wake.wait(_HEARTBEAT_SECONDS)
            self._wake.clear()
            with self._lock:
                self._flush()
                if time.monotonic() - beat_at >= _HEARTBEAT_SECONDS:
                    beat_at = time.monotonic()
                    self._write({"type": "beat", "memory_mb": self.memory_mb()})
            if not is_alive(*self._parent):
                os._exit(0)
            time.sleep(1 / MESSAGES_PER_SECOND)


def is_alive(pid: int, started: float) -> bool:
    """Whether process `pid` still runs and is the one that was created at `started` (seconds since the epoch)."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # it exists, and is not ours to ask
        return True
