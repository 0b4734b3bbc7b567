"""Whether a slide's file is still the one that was opened."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from .zarr_source import metadata_file

LOOK_SECONDS = 1.0
"""The file is looked at so often at most; on a network share a look takes a moment."""


class FileWatch:
    """Compares a file's size and date with those at its opening. Thread-safe.

    Parameters
    ----------
    path : Path
        Where there is no file, it never changes. Of an OME-Zarr the metadata are watched: its folder changes
        with anything that is put there.

    Attributes
    ----------
    sentence : str or None
        What happened to the file, once it was noticed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = metadata_file(path) or path
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self.sentence: str | None = None
        try:
            self._at_opening: tuple[int, ...] | None = self._stamp()
        except OSError:
            self._at_opening = None

    def look(self, *, now: bool = False) -> bool:
        """Look at the file if that was long ago, or `now`; True when it was looked at and is the same."""
        with self._lock:
            if self._at_opening is None or self.sentence is not None:
                return self.sentence is None
            if not now and time.monotonic() - self._looked < LOOK_SECONDS:
                return False
            self._looked = time.monotonic()
        try:
            same = self._stamp() == self._at_opening
            happened = "was changed or replaced"
        except FileNotFoundError:
            same, happened = False, "was moved or removed"
        except OSError:  # a share that does not answer says nothing of the file
            return False
        if not same:
            self.sentence = (
                f"{self._path.name} {happened} while it was open; what was seen of it so far is still shown, nothing "
                f"more is read. Open it again to see what is there now."
            )
        return same

    def _stamp(self) -> tuple[int, ...]:
        found = self._file.stat()
        return found.st_size, found.st_mtime_ns
