"""A file read at many places by many threads at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from napari_mil.errors import SlideClosed

Span = tuple[int, int]

_GAP_BYTES = 64 * 1024  # reading over a gap of this size costs less than a second request
_READ_BYTES = 8 * 1024**2  # of one request that serves several spans


class TileFile:
    """An open file. Thread-safe.

    Raises
    ------
    OSError
        When the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._handle: _Handle | None = _Handle(path)
        self.size = os.fstat(self._handle.number).st_size

    def read(self, spans: Sequence[Span]) -> list[memoryview]:
        """The bytes of each (offset, count), fewer where the file ends; spans that lie close together at one go.

        Raises
        ------
        SlideClosed
            When the file was closed.
        OSError
            When the file cannot be read any more.
        """
        handle = self._handle  # kept until the end, so that a close meanwhile does no harm
        if handle is None:
            raise SlideClosed(f"{self._name} was closed; open it again to read from it.")
        parts: list[memoryview] = [memoryview(b"")] * len(spans)
        for run in _runs(spans):
            start = spans[run[0]][0]
            stop = min(self.size, max(spans[i][0] + spans[i][1] for i in run))
            if start >= stop:
                continue
            data = memoryview(handle.read(start, stop - start))
            for i in run:
                at = spans[i][0] - start
                parts[i] = data[at : at + spans[i][1]]
        return parts

    def close(self) -> None:
        """Give the file back, when the last read under way has ended."""
        self._handle = None


class _Handle:
    """A file descriptor that lives as long as somebody uses it."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)

    def read(self, offset: int, count: int) -> bytes:
        """Bytes at a place; fewer only at the file's end."""
        parts: list[bytes] = []
        while count:
            part = self._at(offset, count)
            if not part:
                break
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _at(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.number, count, offset)
        with self._lock:  # Windows has one place per file
            os.lseek(self.number, offset, os.SEEK_SET)
            return os.read(self.number, count)


def _runs(spans: Sequence[Span]) -> list[list[int]]:
    """Indices of the spans that are read at one go."""
    runs: list[list[int]] = []
    start = end = 0
    for i in sorted(range(len(spans)), key=lambda i: spans[i][0]):
        offset, count = spans[i]
        if not count:
            continue
        if runs and offset - end <= _GAP_BYTES and max(end, offset + count) - start <= _READ_BYTES:
            runs[-1].append(i)
            end = max(end, offset + count)
        else:
            runs.append([i])
            start, end = offset, offset + count
    return runs
