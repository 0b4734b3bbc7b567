"""What is wrong with this installation, and what to do about it: ``napari-mil doctor``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import _computer, _graphics, _packages
from ._finding import Finding, Level

__all__ = ["Finding", "Level", "check_jobs", "examine"]

TIMEOUT_SECONDS = 60.0


def examine(folder: Path | str | None = None, *, timeout: float = TIMEOUT_SECONDS) -> Iterator[Finding]:
    """Look at everything, and yield each finding as soon as it is known.

    Parameters
    ----------
    folder
        Where projects are kept (for the room on its disk); the present folder if None.
    timeout
        Seconds that a probe in a process of its own may take (OpenGL, torch, napari's settings).
    """
    where = Path.cwd() if folder is None else Path(folder)
    checks: list[tuple[str, Callable[[], Finding | list[Finding] | None]]] = [
        ("Python", _computer.check_python),
        ("Packages", _packages.check_packages),
        ("OpenSlide", _packages.check_slide_reader),
        ("Qt", _packages.check_qt),
        ("OpenGL", lambda: _graphics.check_opengl(timeout)),
        ("Computing device", lambda: _graphics.check_torch(timeout)),
        ("Background jobs", lambda: check_jobs(timeout)),
        ("Triangulation", _packages.check_triangulation),
        ("napari settings", lambda: _graphics.check_napari_settings(timeout)),
        ("Encoder weights", _computer.check_weights),
        ("Caches", _computer.check_caches),
        ("Disk", lambda: _computer.check_disk(where)),
        ("Memory", _computer.check_memory),
        ("Long paths", _computer.check_long_paths),
    ]
    for name, check in checks:
        try:
            found = check()
        except Exception as error:  # a doctor that faints is of no use: report it, look at the rest
            found = Finding(name, "problem", f"could not be examined: {type(error).__name__}: {error}", "Report this.")
        if isinstance(found, Finding):
            yield found
        elif found is not None:
            yield from found


def check_jobs(timeout: float = TIMEOUT_SECONDS) -> Finding:
    """Whether the background process starts, answers and ends."""
    from napari_mil.errors import Cancelled, JobError
    from napari_mil.jobs import CallJob, JobRunner

    begun = time.perf_counter()
    with JobRunner() as runner:
        job = runner.submit(CallJob(target="napari_mil.doctor:hello"))
        try:
            answer = job.result(timeout)
        except (JobError, Cancelled) as error:
            todo = "Look whether a virus scanner or a policy keeps Python from starting processes."
            return Finding("Background jobs", "problem", str(error), todo)
    seconds = time.perf_counter() - begun
    return Finding("Background jobs", "ok", f"a process starts and answers in {seconds:.1f} s", details=answer)


def hello() -> dict[str, int]:
    """The job of `check_jobs`."""
    import os

    return {"pid": os.getpid(), "threads": int(os.environ.get("OMP_NUM_THREADS", "0"))}
