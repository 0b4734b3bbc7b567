"""A project's slides divided over several devices: one process each, a few slides at a time to whoever is free."""

from __future__ import annotations

import math
import queue
from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from napari_mil.errors import JobError

from ._context import JobContext
from ._failures import describe_death
from ._process import ChildProcess, Frame, sensible_threads
from ._specs import ExtractJob

if TYPE_CHECKING:
    from napari_mil.features import ExtractReport
    from napari_mil.study import Project

_ALL = "cuda:all"
_SHARES = 4  # of each device: the encoder is loaded once for a share, and no device waits long for the others
_PATIENCE_S = 10.0  # for a process that was asked to stop; what it has not written then is lost
_LOOK_S = 0.5  # between two looks at whether the person wants to stop


def devices_of(text: str) -> list[str]:
    """Names of devices: "cuda:0,cuda:1" are two, "cuda:all" every CUDA device there is, "auto" itself."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise JobError("device: none is named; choose cpu, cuda, cuda:1, mps or auto")
    if _ALL not in names:
        return names
    import torch

    if not torch.cuda.is_available():
        raise JobError(f"device {_ALL}: no CUDA graphics card is usable here; choose cpu, mps or auto")
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def extract_on(
    devices: Sequence[str], project: Project, slide_ids: Sequence[str], spec: ExtractJob, context: JobContext
) -> Generator[ExtractReport, None, dict[str, Any]]:
    """Prepare slides of a project on several devices at once.

    A process that dies, or cannot begin, leaves its slides to the others; only the one it was at has failed. Closing
    the generator stops the processes; what they have done so far is kept.

    Returns
    -------
    dict
        done, there (made meanwhile by others), busy: lists of slides; failed: slide → why.

    Raises
    ------
    JobError
        When every process was lost before all slides were done.
    """
    from napari_mil.features import ExtractReport

    outcome: dict[str, Any] = {"done": [], "there": [], "busy": [], "failed": {}}
    inbox: queue.Queue[tuple[_Worker, Frame | None]] = queue.Queue()
    shares = _divided(slide_ids, _SHARES * len(devices))
    workers = [_Worker(device, inbox, max(1, sensible_threads() // len(devices))) for device in devices]
    reason = ""
    try:
        for worker in workers:
            worker.begin(shares, spec)
        while any(worker.slides for worker in workers):
            try:
                worker, frame = inbox.get(timeout=_LOOK_S)
            except queue.Empty:
                context.check_cancelled()
                continue
            if frame is not None and frame["type"] == "update":
                for report in frame.get("reports", []):
                    worker.at = report["slide_id"] if report["total"] else worker.at
                    finished = sum(map(len, outcome.values()))
                    context.part(min(finished, len(slide_ids) - 1), len(slide_ids), report["slide_id"])
                    yield ExtractReport(**report)
            elif worker.slides and frame is not None and frame["type"] == "end" and frame["phase"] == "done":
                _add(outcome, frame["result"])
                worker.begin(shares, spec)
            elif worker.slides and (frame is None or frame["type"] == "end"):
                reason = worker.death() if frame is None else str(frame.get("error", "It was stopped."))
                yield ExtractReport(worker.at or worker.slides[0], 0, 0, 0.0, None, f"{worker.device}: {reason}")
                worker.usable = frame is not None and bool(worker.at)
                if left := _settle(outcome, worker, reason, project):
                    shares.append(left)
                for free in workers:
                    if free.usable and not free.slides:
                        free.begin(shares, spec)
        if shares:
            raise JobError(reason)
    finally:
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.end()
    return outcome


class _Worker:
    """A process that computes on one device.

    Attributes
    ----------
    slides : list of str
        Those it was given and has not answered for.
    at : str
        The one whose patches it computes; empty before the first.
    usable : bool
        Whether it can be given more.
    """

    def __init__(self, device: str, inbox: queue.Queue[tuple[_Worker, Frame | None]], threads: int) -> None:
        self.device = device
        self.slides: list[str] = []
        self.at = ""
        self.usable = True
        self._child = ChildProcess(
            lambda _, frame: inbox.put((self, frame)), lambda _: inbox.put((self, None)), threads=threads, polite=False
        )

    def begin(self, shares: deque[list[str]], spec: ExtractJob) -> None:
        """Go on with the next share, if there is one."""
        self.slides, self.at = (shares.popleft() if shares else []), ""
        if self.slides:
            mine = spec.model_copy(update={"slide_ids": self.slides, "device": self.device})
            self._child.send({"do": "run", "job": self.device, "spec": mine.model_dump(mode="json")})

    def stop(self) -> None:
        """Ask it to stop what it does, and to go."""
        if self.slides:
            self._child.send({"do": "cancel", "job": self.device})
        self._child.send({"do": "exit"})

    def end(self) -> None:
        """Wait until it has gone; end it if that takes too long."""
        if self._child.wait(_PATIENCE_S) is None:
            self._child.kill()
            self._child.wait()
        self._child.close()

    def death(self) -> str:
        """Why it is gone."""
        return describe_death(self._child.wait(), f"Features on {self.device}", self._child.last_words())


def _divided(slide_ids: Sequence[str], parts: int) -> deque[list[str]]:
    size = max(1, math.ceil(len(slide_ids) / parts))
    return deque(list(slide_ids[start : start + size]) for start in range(0, len(slide_ids), size))


def _add(outcome: dict[str, Any], result: dict[str, Any]) -> None:
    """What became of a share that was worked off."""
    for name in ("done", "there", "busy"):
        outcome[name] += result[name]
    outcome["failed"] |= result["failed"]


def _settle(outcome: dict[str, Any], worker: _Worker, reason: str, project: Project) -> list[str]:
    """What became of a share that was broken off; takes the slides that are left from the worker, for others.

    The slide it was at may be what broke it, and is not given to another one.
    """
    from napari_mil.study.prepare import record_failure

    tried = worker.slides.index(worker.at) + 1 if worker.at in worker.slides else 0
    for slide_id in worker.slides[:tried]:
        if project.has_features(slide_id):
            outcome["done"].append(slide_id)
        elif slide_id == worker.at:
            outcome["failed"][slide_id] = reason
            record_failure(project, slide_id, reason)
        else:
            outcome["failed"][slide_id] = project.failures().get(slide_id, reason)
    left, worker.slides = worker.slides[tried:], []
    return left
