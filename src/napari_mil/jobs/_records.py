"""What a project remembers of its jobs: ``jobs/<id>.json``, so that an interrupted one can be taken up again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

from napari_mil.errors import JobError

from ._job import Job, resumed
from ._outbox import is_alive
from ._specs import JobSpec, from_portable, portable
from ._status import FINISHED, JobStatus

SCHEMA_VERSION = 1
_KEPT = 50
# a job on another computer is taken for alive as long as its record is younger than this
_FRESH_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class UnfinishedJob:
    """A job that a project remembers as neither done, failed of itself, nor cancelled.

    Attributes
    ----------
    job_id, kind, title, fraction, message
        As they were last written.
    updated
        Seconds since the epoch.
    alive
        Whether a living process still works on it: leave it alone then.
    host, pid
        Where that process runs, or ran.
    resume_spec
        Submit this to go on; None if the job cannot be taken up again.
    path
        Its record.
    """

    job_id: str
    kind: str
    title: str
    fraction: float
    message: str
    updated: float
    alive: bool
    host: str
    pid: int
    resume_spec: JobSpec | None
    path: Path

    def forget(self) -> None:
        """Remove the record, so that it is not offered again."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def record_path(spec: JobSpec, job_id: str) -> Path | None:
    """Where the record of a job of `spec` lies: in its project, or nowhere."""
    return None if spec.project is None else Path(spec.project) / "jobs" / f"{job_id}.json"


def log_path(spec: JobSpec, job_id: str) -> Path:
    """Where the log of a job of `spec` lies: in its project, else in the user's log folder."""
    if spec.project is not None and Path(spec.project).is_dir():
        return Path(spec.project) / "jobs" / f"{job_id}.log"
    from platformdirs import user_log_path

    return user_log_path("napari-mil", appauthor=False) / f"{job_id}.log"


def write_record(job: Job, status: JobStatus | None = None) -> None:
    """Write or renew the record of `job`; a project that cannot be written (read-only share) stays without."""
    path = record_path(job.spec, job.id)
    if path is None or job.spec.project is None or not Path(job.spec.project).is_dir():
        return
    folder = Path(job.spec.project)
    status = status or job.status
    owner = psutil.Process()
    record = {
        "schema_version": SCHEMA_VERSION,
        "job_id": job.id,
        "kind": job.spec.kind,
        "spec": portable(job.spec, folder),
        "phase": status.phase,
        "fraction": status.fraction,
        "message": status.message,
        "error": status.error,
        "result": status.result,
        "run": None if job.run_folder is None else os.path.relpath(job.run_folder, folder),
        "interrupted": job.interrupted,
        "updated": time.time(),
        "host": platform.node(),
        "owner": {"pid": owner.pid, "started": owner.create_time()},
    }
    from napari_mil.whole import written_whole

    with contextlib.suppress(OSError), written_whole(path) as part:
        part.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")


def unfinished_jobs(project: Path | str) -> list[UnfinishedJob]:
    """The jobs of a project folder that were interrupted, or are still at work elsewhere; oldest first.

    Unreadable records are passed over: they are a help, not data.
    """
    found = []
    for path in sorted((Path(project) / "jobs").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, JobError):
            job = _read(path, Path(project))
            if job is not None:
                found.append(job)
    return sorted(found, key=lambda job: job.updated)


def prune(project: Path) -> None:
    """Keep the newest records and logs of finished jobs only."""
    with contextlib.suppress(OSError):
        files = sorted((project / "jobs").glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in files[:-_KEPT]:
            if json.loads(path.read_text(encoding="utf-8")).get("phase") in FINISHED:
                path.unlink(missing_ok=True)
                path.with_suffix(".log").unlink(missing_ok=True)


def _read(path: Path, project: Path) -> UnfinishedJob | None:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    finished = record["phase"] in FINISHED
    if finished and not record.get("interrupted"):
        return None
    spec = from_portable(record["spec"], project.absolute())
    owner, here = record["owner"], record["host"] == platform.node()
    if here:
        alive = not finished and is_alive(int(owner["pid"]), float(owner["started"]))
    else:
        alive = not finished and time.time() - float(record["updated"]) < _FRESH_SECONDS
    run = None if record.get("run") is None else project.absolute() / record["run"]
    return UnfinishedJob(
        job_id=str(record["job_id"]),
        kind=spec.kind,
        title=spec.title,
        fraction=float(record["fraction"]),
        message=str(record["message"]),
        updated=float(record["updated"]),
        alive=alive,
        host=str(record["host"]),
        pid=int(owner["pid"]),
        resume_spec=resumed(spec, run) if spec.resumable and not alive else None,
        path=path,
    )
