"""Work outside the window's thread, with the result handed back inside it.

napari's workers swallow every RuntimeError (torch's out-of-memory is one) and the generator kind is never closed by
`quit()`; so what runs here never raises: it returns an outcome.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from napari.qt.threading import create_worker
from qtpy.QtCore import QCoreApplication

from napari_mil.errors import MilError

T = TypeVar("T")
PATIENCE_S = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of a piece of work: its value, or the error."""

    value: T | None = None
    error: Exception | None = None


def sentence_of(error: Exception) -> str:
    """What a person should read of an error."""
    if isinstance(error, (MilError, OSError)):
        return str(error)
    return f"Something unexpected went wrong ({type(error).__name__}: {error}). Please report it with the log."


class Background:
    """Runs functions and follows iterators in napari's thread pool; forgets their results once closed."""

    def __init__(self) -> None:
        self._workers: set[Any] = set()
        self._open = True

    @property
    def busy(self) -> int:
        """Pieces of work under way."""
        return len(self._workers)

    def run(
        self,
        work: Callable[[], T],
        then: Callable[[T], object],
        failed: Callable[[Exception], object],
    ) -> None:
        """Call `work` in a thread, then `then(result)` or `failed(error)` in this one."""

        def guarded() -> Outcome[T]:
            try:
                return Outcome(value=work())
            except Exception as error:
                if not isinstance(error, (MilError, OSError)):
                    _log.exception("background work failed")
                return Outcome(error=error)

        def arrived(outcome: Outcome[T]) -> None:
            if not self._open:
                return
            if outcome.error is not None:
                failed(outcome.error)
            else:
                then(outcome.value)  # type: ignore[arg-type]

        self._start(guarded, {"returned": arrived})

    def follow(self, events: Callable[[], Iterator[T]], each: Callable[[T], object]) -> None:
        """Iterate `events()` in a thread and call `each(event)` in this one."""

        def guarded() -> Iterator[T]:
            try:
                yield from events()
            except Exception:
                _log.exception("the events of a job ended badly")

        def arrived(event: T) -> None:
            if self._open:
                each(event)

        self._start(guarded, {"yielded": arrived})

    def _start(self, function: Callable[[], Any], connect: dict[str, Callable[..., object]]) -> None:
        worker: Any = create_worker(function, _start_thread=False, _connect=connect, _progress=False)
        self._workers.add(worker)
        worker.finished.connect(lambda: self._workers.discard(worker))
        worker.start()

    def close(self) -> None:
        """Drop what is still to arrive, and give threads under way a moment to end."""
        self._open = False
        deadline = time.monotonic() + PATIENCE_S
        app = QCoreApplication.instance()
        while self._workers and app is not None and time.monotonic() < deadline:
            app.processEvents()
            time.sleep(0.005)
