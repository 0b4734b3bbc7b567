"""Work outside the window's thread, with the result handed back inside it.

Threads of our own: napari's workers share Qt's global pool, which has one thread a core, so that following a long job
would leave none to open a slide with; they swallow every RuntimeError (torch's out-of-memory is one), too. What runs
here never raises: it becomes an outcome.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_mil.errors import MilError

T = TypeVar("T")
THREADS = 4
PATIENT_THREADS = 2
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


class _Post(QObject):
    """Carries calls into the thread that made it."""

    call = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.call.connect(self._called)

    def _called(self, function: Callable[[], object]) -> None:
        function()


class Background:
    """Runs functions and follows iterators in threads; forgets their results once closed."""

    def __init__(self) -> None:
        self._post = _Post()
        self._prompt = ThreadPoolExecutor(THREADS, "napari-mil")
        self._patient = ThreadPoolExecutor(PATIENT_THREADS, "napari-mil patient")
        self._futures: set[Future[None]] = set()
        self._busy = 0
        self._open = True

    @property
    def busy(self) -> int:
        """Pieces of work under way."""
        return self._busy

    def run(
        self,
        work: Callable[[], T],
        then: Callable[[T], object],
        failed: Callable[[Exception], object],
        *,
        patient: bool = False,
    ) -> None:
        """Call `work` in a thread, then `then(result)` or `failed(error)` in this one.

        `patient` work (thumbnails of a long table) keeps out of the way of what the person waits for.
        """
        if not self._open:
            return

        def guarded() -> Outcome[T]:
            try:
                return Outcome(value=work())
            except Exception as error:
                if not isinstance(error, (MilError, OSError)):
                    _log.exception("background work failed")
                return Outcome(error=error)

        def arrived(outcome: Outcome[T]) -> None:
            self._busy -= 1
            if not self._open:
                return
            if outcome.error is not None:
                failed(outcome.error)
            else:
                then(outcome.value)  # type: ignore[arg-type]

        def both() -> None:
            outcome = guarded()
            self._send(functools.partial(arrived, outcome))

        self._busy += 1
        future = (self._patient if patient else self._prompt).submit(both)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)

    def follow(self, events: Callable[[], Iterator[T]], each: Callable[[T], object]) -> None:
        """Iterate `events()` in a thread of its own and call `each(event)` in this one."""
        if not self._open:
            return

        def arrived(event: T) -> None:
            if self._open:
                each(event)

        def ended() -> None:
            self._busy -= 1

        def iterate() -> None:
            try:
                for event in events():
                    self._send(functools.partial(arrived, event))
            except Exception:
                _log.exception("the events of a job ended badly")
            self._send(ended)

        self._busy += 1
        threading.Thread(target=iterate, name="napari-mil follows a job", daemon=True).start()

    def _send(self, function: Callable[[], Any]) -> None:
        try:
            self._post.call.emit(function)
        except RuntimeError:  # the window is gone, and Qt with it
            _log.debug("a result came after the end")

    def close(self) -> None:
        """Drop what is still to arrive, and give threads under way a moment to end."""
        if not self._open:
            return
        self._open = False
        for pool in (self._prompt, self._patient):
            pool.shutdown(wait=False, cancel_futures=True)
        app = QCoreApplication.instance()
        deadline = time.monotonic() + PATIENCE_S
        while self._futures and app is not None and time.monotonic() < deadline:
            app.processEvents()
            time.sleep(0.005)
