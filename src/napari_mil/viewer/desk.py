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
        Progress of the running job, up to twenty times a second.
    busy_changed()
        A job was handed in, or another one or none runs now.
    report(Job, dict)
        One report of a job (an epoch, say); none is left out.
    finished(Job, JobStatus)
        A job is done, cancelled or failed.
    """

    changed = Signal(object)
    busy_changed = Signal()
    report = Signal(object, object)
    finished = Signal(object, object)

    def __init__(self, background: Background) -> None:
        self._background = background
        self._runner: JobRunner | None = None
        self._jobs: list[Job] = []
        self._then: dict[str, Finished] = {}
        self._reported: dict[str, int] = {}  # reports of each job that were handed on

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
    def status(self) -> JobStatus | None:
        """How far the running job is."""
        return self._jobs[0].status if self._jobs else None

    @property
    def waiting(self) -> int:
        """How many jobs wait behind it."""
        return max(0, len(self._jobs) - 1)

    def runs_for(self, folder: Path | None, kind: str) -> bool:
        """Whether the running job is of this kind, and for the project in this folder."""
        running = self.running
        return running is not None and running.spec.kind == kind and is_for(running, folder)

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
        self.busy_changed.emit()
        return job

    def _arrived(self, job: Job, status: JobStatus) -> None:
        reports = job.reports
        for report in reports[self._reported.get(job.id, 0) :]:
            self.report.emit(job, report)
        self._reported[job.id] = len(reports)
        if not status.finished:
            if job is self.running:
                self.changed.emit(status)
            return
        self._jobs = [j for j in self._jobs if j is not job]
        del self._reported[job.id]
        then = self._then.pop(job.id, None)
        self.changed.emit(status)
        if then is not None:
            then(status)
        self.finished.emit(job, status)
        self.busy_changed.emit()

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


def is_for(job: Job, folder: Path | None) -> bool:
    """Whether a job works for the project in this folder."""
    project = getattr(job.spec, "project", None)
    return folder is not None and project is not None and Path(project) == folder
