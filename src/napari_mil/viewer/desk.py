"""The desk where jobs are handed in and followed: what runs, what waits, how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from .background import Background

if TYPE_CHECKING:
    from napari_mil.jobs import Job, JobRunner, JobStatus, UnfinishedJob

Finished = Callable[["JobStatus"], object]


class JobDesk:
    """Hands job specs to the child process and shows one status at a time.

    Signals
    -------
    changed(JobStatus)
        Progress of the running job.
    report(dict)
        One report of the job that runs (an epoch, say); none is left out.
    finished(JobStatus)
        A job is done, cancelled or failed.
    """

    changed = Signal(object)
    report = Signal(object)
    finished = Signal(object)

    def __init__(self, background: Background) -> None:
        self._background = background
        self._runner: JobRunner | None = None
        self._jobs: list[Job] = []
        self._then: dict[str, Finished] = {}
        self._reported: dict[str, int] = {}  # reports of each job that were handed on
        self.status: JobStatus | None = None

    @property
    def runner(self) -> JobRunner:
        """The runner, made on first use (its child process costs a second or two)."""
        if self._runner is None:
            from napari_mil.jobs import JobRunner

            self._runner = JobRunner()
        return self._runner

    @property
    def running(self) -> Job | None:
        """The job under way, if any."""
        return self._jobs[0] if self._jobs else None

    @property
    def waiting(self) -> int:
        """How many jobs wait behind it."""
        return max(0, len(self._jobs) - 1)

    def submit(self, spec: Any, then: Finished | None = None) -> Job:
        """Hand in a job; `then(status)` is called in the window's thread once it is done."""
        return self._follow(self.runner.submit(spec), then)

    def resume(self, unfinished: UnfinishedJob) -> Job:
        """Go on with a job that was interrupted."""
        return self._follow(self.runner.resume(unfinished), None)

    def _follow(self, job: Job, then: Finished | None) -> Job:
        self._jobs.append(job)
        if then is not None:
            self._then[job.id] = then
        self._background.follow(job.events, lambda status: self._arrived(job, status))
        return job

    def _arrived(self, job: Job, status: JobStatus) -> None:
        for report in job.reports[self._reported.get(job.id, 0) :]:
            self._reported[job.id] = self._reported.get(job.id, 0) + 1
            self.report.emit(report)
        if job is self.running or status.finished:
            self.status = status
        if not status.finished:
            if job is self.running:
                self.changed.emit(status)
            return
        self._jobs = [j for j in self._jobs if j is not job]
        then = self._then.pop(job.id, None)
        self.changed.emit(status)
        if then is not None:
            then(status)
        self.finished.emit(status)

    def cancel(self, keep: str = "best") -> None:
        """Stop the running job; `keep` is what stays of a training run: best, last or discard."""
        if self.running is not None:
            self.running.cancel(keep=keep)

    def unfinished(self, folder: Path) -> list[UnfinishedJob]:
        """Jobs of this project that stopped without an end (window closed, power lost) and can go on."""
        from napari_mil.jobs import unfinished_jobs

        return [job for job in unfinished_jobs(folder) if job.resume_spec is not None]

    def warm_up(self) -> None:
        """Start the child now, so that the first job needn't wait for it."""
        self.runner.warm_up()

    def close(self) -> None:
        """End the child process; what it was doing can be resumed."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
