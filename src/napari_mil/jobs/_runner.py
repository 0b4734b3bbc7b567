"""The queue: one heavy job at a time in a warm child process, everything decided in one thread."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_mil.errors import JobError

from ._failures import describe_death, describe_stillbirth
from ._job import Job
from ._process import ChildProcess, Frame, sensible_threads
from ._records import UnfinishedJob, log_path, prune, write_record
from ._runs import settle_run
from ._specs import JobSpec
from ._status import JobStatus, Keep

logger = logging.getLogger(__name__)

# a job that has not stopped by itself after this long is ended with its process; two seconds are the promise
GRACE_SECONDS = 1.5
_RECORD_SECONDS = 10.0


class JobRunner:
    """Runs jobs in a child process that stays warm between them.

    The process is started at the first job (or by `warm_up`), and anew after it died or had to be ended.
    Scripts need no ``if __name__ == "__main__":`` guard, on no system: the child never runs the main script.

    Parameters
    ----------
    threads
        Threads for the child's arithmetic; None leaves one core to the window.
    polite
        Whether the child takes a lower priority.

    Examples
    --------
    >>> with JobRunner() as runner:  # doctest: +SKIP
    ...     job = runner.submit(TrainJob(project="my-project", method=method.model_dump()))
    ...     for status in job.events():
    ...         print(f"{status.fraction:.0%} {status.message}")
    """

    def __init__(self, *, threads: int | None = None, polite: bool = True) -> None:
        self._threads = threads or sensible_threads()
        self._polite = polite
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        # only the runner's thread touches what follows
        self._child: ChildProcess | None = None
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._kill_at: float | None = None
        self._recorded_at = 0.0
        self._left_at = 0.0
        self._warm: list[str] = []
        self._jobs: dict[str, Job] = {}
        self._subscribers: dict[str, list[Callable[[JobStatus], None]]] = {}

    def __enter__(self) -> JobRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def jobs(self) -> list[Job]:
        """All jobs submitted so far, oldest first."""
        return list(self._jobs.values())

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return any(not job.status.finished for job in self.jobs)

    @property
    def child_pid(self) -> int | None:
        """The process that works, or None while there is none."""
        child = self._child
        return None if child is None else child.pid

    def submit(self, spec: JobSpec) -> Job:
        """Queue `spec`; returns at once.

        Raises
        ------
        JobError
            If the runner is closed.
        """
        job_id = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
        job = Job(job_id, spec, self, log_path(spec, job_id))
        self._jobs[job_id] = job
        self._do(functools.partial(self._enqueue, job))
        return job

    def resume(self, unfinished: UnfinishedJob) -> Job:
        """Take up a job that a project remembers; its old record is forgotten.

        Raises
        ------
        JobError
            If it is still at work elsewhere, or of a kind that cannot be taken up.
        """
        if unfinished.alive:
            raise JobError(f"{unfinished.title} is still running on {unfinished.host} (process {unfinished.pid}); wait")
        if unfinished.resume_spec is None:
            raise JobError(f"a job of kind {unfinished.kind!r} cannot be taken up again; start it anew")
        job = self.submit(unfinished.resume_spec)
        unfinished.forget()
        return job

    def warm_up(self, *modules: str) -> None:
        """Start the child and let it import `modules` while nobody waits for it.

        A public name is written ``package:name``. Without `modules` it is torch, and what a training needs.
        """
        self._do(
            functools.partial(self._warm_up, list(modules or ("torch", "napari_mil.mil:fit", "napari_mil.study.train")))
        )

    def close(self) -> None:
        """Stop everything. A job at work is interrupted; its project offers to take it up again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        atexit.unregister(self.close)
        if thread is not None:
            self._inbox.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout=5)

    # -- from any thread ---------------------------------------------------------------------------------

    def _do(self, action: Callable[[], None]) -> None:
        with self._lock:
            if self._closed:
                raise JobError("this job runner is closed; make a new one")
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="napari-mil jobs", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._inbox.put(action)

    def _cancel(self, job: Job, keep: Keep) -> None:
        with contextlib.suppress(JobError):  # a closed runner has stopped it already
            self._do(functools.partial(self._request_stop, job, keep))

    def _subscribe(self, job: Job, callback: Callable[[JobStatus], None]) -> Callable[[], None]:
        def begin() -> None:
            self._subscribers.setdefault(job.id, []).append(callback)
            _call(callback, job.status)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.get(job.id, []).remove(callback)

        try:
            self._do(begin)
        except JobError:
            _call(callback, job.status)
        return end

    # -- the runner's thread -----------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            try:
                action = self._inbox.get(timeout=self._patience())
            except queue.Empty:
                self._enforce()
                continue
            if action is None:
                break
            try:
                action()
            except Exception as error:  # a fault of ours must end the job, never the queue
                logger.exception("job queue")
                self._finish("failed", error=f"the job queue stumbled: {error}")
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._enforce()
        self._shut_down()

    def _patience(self) -> float | None:
        return None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())

    def _enqueue(self, job: Job) -> None:
        self._waiting.append(job)
        self._start_next()
        if job is not self._current:
            self._announce_queue()
            write_record(job)

    def _announce_queue(self) -> None:
        for place, job in enumerate(self._waiting, start=1):
            ahead = "one job" if place == 1 else f"{place} jobs"
            self._publish(job, message=f"Waiting for {ahead} to finish.")

    def _start_next(self) -> None:
        if self._current is not None or not self._waiting:
            return
        job = self._current = self._waiting.popleft()
        first = self._child is None
        self._publish(job, phase="starting", message="Starting the background process…" if first else "Starting…")
        write_record(job)
        try:
            child = self._get_child()
        except OSError as error:
            self._finish("failed", error=f"The background process could not be started: {error}.")
            return
        log = None if job.log is None else str(job.log)
        child.send({"do": "run", "job": job.id, "spec": job.spec.model_dump(mode="json"), "log": log})
        self._announce_queue()

    def _get_child(self) -> ChildProcess:
        if self._child is None:
            self._child = ChildProcess(
                lambda child, frame: self._inbox.put(functools.partial(self._on_frame, child, frame)),
                lambda child: self._inbox.put(functools.partial(self._on_gone, child)),
                threads=self._threads,
                polite=self._polite,
            )
            if self._warm:
                self._child.send({"do": "warm", "modules": self._warm})
        return self._child

    def _warm_up(self, modules: list[str]) -> None:
        new = [name for name in modules if name not in self._warm]
        self._warm += new
        if self._child is None:
            self._get_child()
        elif new:
            self._child.send({"do": "warm", "modules": new})

    def _on_frame(self, child: ChildProcess, frame: Frame) -> None:
        job = self._current
        if child is not self._child or job is None:
            return
        if frame["type"] == "beat" and job.status.phase == "running":
            self._publish(job, memory_mb=frame["memory_mb"], seconds_left=self._left(job))
            if time.monotonic() - self._recorded_at > _RECORD_SECONDS:
                self._record(job)
        elif frame.get("job") != job.id:
            return
        elif frame["type"] == "started":
            self._publish(job, phase="running", message="Getting ready…")
            self._record(job)
        elif frame["type"] == "note":
            self._on_note(job, frame)
        elif frame["type"] == "update":
            self._left_at = time.monotonic()
            names = ("fraction", "message", "seconds_left", "report", "memory_mb")
            self._publish(job, frame["reports"], **{name: frame[name] for name in names if name in frame})
        elif frame["type"] == "end":
            self._on_end(job, frame)

    def _left(self, job: Job) -> float | None:
        """The time left, counted down since it was last told."""
        left = job.status.seconds_left
        elapsed, self._left_at = time.monotonic() - self._left_at, time.monotonic()
        return None if left is None else max(0.0, left - elapsed)

    def _on_note(self, job: Job, frame: Frame) -> None:
        if frame.get("run") is not None:
            job.run_folder, job.run_created = Path(frame["run"]), bool(frame.get("created"))
        if frame.get("device") is not None:
            self._publish(job, device=frame["device"])
        self._record(job)

    def _on_end(self, job: Job, frame: Frame) -> None:
        if frame.get("recycle"):
            self._drop_child()
        wished = job.keep is not None and (frame["phase"] == "failed" or job.keep == "discard")
        if frame["phase"] == "cancelled" or wished:
            self._finish_cancelled(job)
        elif frame["phase"] == "failed":
            self._finish("failed", error=frame["error"])
        else:
            self._finish("done", result=frame["result"])

    def _on_gone(self, child: ChildProcess) -> None:
        if child is not self._child:
            return
        returncode, stderr = child.wait(), child.last_words()
        self._drop_child()
        job = self._current
        if job is None:
            return
        if job.keep is not None:
            self._finish_cancelled(job)
        elif child.ready:
            job._interrupted = True
            self._finish("failed", error=describe_death(returncode, job.spec.title, stderr))
        else:
            self._finish("failed", error=describe_stillbirth(returncode, stderr))

    def _request_stop(self, job: Job, keep: Keep) -> None:
        if job.status.finished:
            return
        job.keep = keep
        if job in self._waiting:
            self._waiting.remove(job)
            self._end(job, "cancelled", message="Cancelled before it started.")
            self._announce_queue()
        elif job is self._current and self._child is not None:
            if self._kill_at is None:
                self._kill_at = time.monotonic() + GRACE_SECONDS
            self._child.send({"do": "cancel", "job": job.id})
            self._publish(job, message="Stopping…")

    def _enforce(self) -> None:
        """The grace is over: end the process, whatever it is doing."""
        job = self._current
        self._kill_at = None
        self._drop_child()
        if job is not None:
            self._finish_cancelled(job)

    def _drop_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            child.close()

    def _finish_cancelled(self, job: Job) -> None:
        self._finish("cancelled", message=settle_run(job.run_folder, job.keep or "best", job.run_created))

    def _finish(self, phase: str, **fields: Any) -> None:
        job, self._current, self._kill_at = self._current, None, None
        if job is not None:
            self._end(job, phase, **fields)
        self._start_next()

    def _end(self, job: Job, phase: str, **fields: Any) -> None:
        if phase == "done":
            said = fields["result"].get("message")
            fields = {"fraction": 1.0, "message": str(said or "Done."), **fields}
        elif phase == "failed":
            fields.setdefault("message", fields["error"])
        with contextlib.suppress(OSError):
            if job.log is not None and job.log.is_file() and job.log.stat().st_size == 0:
                job.log.unlink()
        # the record first: whoever sees the job finished may rely on what is on disk
        final = job.status.replace(phase=phase, seconds_left=None, **fields)
        write_record(job, final)
        self._set(job, final)
        self._subscribers.pop(job.id, None)
        if job.spec.project is not None:
            prune(Path(job.spec.project))

    def _publish(self, job: Job, reports: list[dict[str, Any]] | None = None, **changes: Any) -> None:
        if job.keep is not None and not job.status.finished:
            changes["message"] = "Stopping…"
        self._set(job, job.status.replace(**changes), reports)

    def _set(self, job: Job, status: JobStatus, reports: list[dict[str, Any]] | None = None) -> None:
        job._publish(status, reports)
        for callback in tuple(self._subscribers.get(job.id, ())):
            _call(callback, status)

    def _record(self, job: Job) -> None:
        self._recorded_at = time.monotonic()
        write_record(job)

    def _shut_down(self) -> None:
        self._drop_child()
        for job in [self._current, *self._waiting]:
            if job is None:
                continue
            job._interrupted = job.keep is None
            if job.keep is not None and job is self._current:
                self._end(job, "cancelled", message=settle_run(job.run_folder, job.keep, job.run_created))
            else:
                self._end(job, "cancelled", message="Interrupted, since its window or program was closed.")
        self._current = None
        self._waiting.clear()


def _call(callback: Callable[[JobStatus], None], status: JobStatus) -> None:
    try:
        callback(status)
    except Exception:  # a subscriber's fault is its own: say so, go on
        logger.exception("a subscriber of job %s raised", status.job_id)
