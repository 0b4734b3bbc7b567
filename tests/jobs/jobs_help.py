"""What several tests of jobs need."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from napari_mil.jobs import CallJob, Job


def call(name: str, project: Path | None = None, **kwargs: object) -> CallJob:
    """A job of `demo_work`."""
    return CallJob(target=f"demo_work:{name}", kwargs=kwargs, project=None if project is None else str(project))


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def working(job: Job) -> None:
    """Wait until the first report of `job` is there."""
    until(lambda: job.status.report is not None or job.status.finished)
    assert job.status.phase == "running"
