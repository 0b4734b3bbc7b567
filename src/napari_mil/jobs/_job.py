"""One submitted job, as its owner sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mil.errors import Cancelled, JobError

from ._specs import JobSpec, TrainJob
from ._status import JobStatus, Keep

if TYPE_CHECKING:
    from ._runner import JobRunner

# on Windows an endless wait cannot be interrupted by Ctrl-C; one that ends can
_CTRL_C_SECONDS = 0.5


class Job:
    """A job in a runner's hands. All methods may be called from any thread.

    Attributes
    ----------
    id
        Short unique name; also that of its record and log.
    spec
        What was asked for.
    log
        File that holds what the job printed and its tracebacks, if it had any.
    """

    def __init__(self, job_id: str, spec: JobSpec, runner: JobRunner, log: Path | None) -> None:
        self.id = job_id
        self.spec = spec
        self.log = log
        self.run_folder: Path | None = None
        self.run_created = False
        self.keep: Keep | None = None
        self._runner = runner
        self._status = JobStatus(job_id, spec.kind, message="Waiting to start.")
        self._reports: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._version = 0
        self._interrupted = False

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.spec.kind} {self._status.phase} {self._status.fraction:.0%}>"

    @property
    def status(self) -> JobStatus:
        """The newest snapshot."""
        return self._status

    @property
    def reports(self) -> list[dict[str, Any]]:
        """Every epoch's report so far (and the last one of every slide), in order; none is ever dropped."""
        with self._changed:
            return list(self._reports)

    @property
    def interrupted(self) -> bool:
        """Whether it ended because its process was killed or its runner closed, not of itself or by a wish."""
        return self._interrupted

    def events(self) -> Iterator[JobStatus]:
        """Wait for changes and yield each new status; the last one yielded is ``finished``.

        A slow reader gets the newest status, not a backlog. It never raises for a job that failed: look at
        ``phase`` and ``error``, or call `result`.
        """
        seen = -1
        while True:
            with self._changed:
                while self._version == seen:
                    self._changed.wait(_CTRL_C_SECONDS)
                seen, status = self._version, self._status
            yield status
            if status.finished:
                return

    def subscribe(self, callback: Callable[[JobStatus], None]) -> Callable[[], None]:
        """Call `callback` with the present status and with each later one, at most 20 a second.

        It is called from the runner's thread, which everything waits for meanwhile: only hand over to the window's
        thread there (a Qt signal does).

        Returns
        -------
        A function that ends the subscription.
        """
        return self._runner._subscribe(self, callback)

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Block until the job is finished or `timeout` seconds have passed; the status then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._status.finished:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(_CTRL_C_SECONDS if left is None else min(left, _CTRL_C_SECONDS))
            return self._status

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Block until the job is done and return what it produced.

        Raises
        ------
        JobError
            If it failed (the message is the status's sentence), or is not finished after `timeout` seconds.
        Cancelled
            If it was cancelled.
        """
        status = self.wait(timeout)
        if status.phase == "failed":
            raise JobError(status.error or status.message)
        if status.phase == "cancelled":
            raise Cancelled(status.message)
        if not status.finished:
            raise JobError(f"{self.spec.title} is not finished after {timeout:g} s; wait longer, or cancel it")
        return status.result or {}

    def cancel(self, keep: Keep = "best") -> None:
        """Ask the job to stop; it has stopped within two seconds, if need be by ending its process.

        Parameters
        ----------
        keep
            For a training: "best" leaves the run as it is, with its best weights; "last" makes the last
            epoch's weights the ones that are used; "discard" removes the run's folder, if this job made it.
        """
        self._runner._cancel(self, keep)

    def resume_spec(self) -> JobSpec | None:
        """The spec that goes on where this job stopped, or None while it works and once it is done."""
        if self._status.phase not in ("cancelled", "failed") or self.keep == "discard":
            return None
        return resumed(self.spec, self.run_folder)

    # -- the runner's side -------------------------------------------------------------------------------

    def _publish(self, status: JobStatus, reports: list[dict[str, Any]] | None = None) -> None:
        with self._changed:
            self._status = status
            self._reports.extend(reports or ())
            self._version += 1
            self._changed.notify_all()


def resumed(spec: JobSpec, run_folder: Path | None) -> JobSpec:
    """`spec`, changed so that it goes on where it stopped: a training in its run folder, the rest as it was."""
    if not isinstance(spec, TrainJob) or run_folder is None:
        return spec
    has_state = any((run_folder / stage / "last.safetensors").is_file() for stage in ("", "plain"))
    return spec.model_copy(update={"out": str(run_folder) if has_state else spec.out, "resume": has_state})
