"""What a job's work may say and ask while it runs."""

from __future__ import annotations

import threading
from typing import Any

from napari_mil.errors import Cancelled

from ._outbox import Outbox
from ._progress import ProgressMeter, fraction_of, is_milestone
from ._status import plain


class JobContext:
    """The job's side of the conversation: progress out, the wish to stop in.

    Parameters
    ----------
    job_id
        The job.
    outbox
        Where the frames go.
    """

    def __init__(self, job_id: str, outbox: Outbox) -> None:
        self.job_id = job_id
        self.stop = threading.Event()
        self._outbox = outbox
        self._meter = ProgressMeter()
        self._index, self._parts = 0, 1
        self._fraction = 0.0
        self._epochs: tuple[int, int] | None = None
        self._stage, self._stages = "", 1
        self._prefix = ""
        self._hinted = False

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the person asked the job to stop."""
        if self.stop.is_set():
            raise Cancelled

    def part(self, index: int, parts: int, name: str = "") -> None:
        """What is reported from now on is part `index` (from 0) of `parts`, e.g. one slide of many."""
        self._index, self._parts = index, max(1, parts)
        self._prefix = f"{name} ({index + 1} of {parts}): " if name and parts > 1 else f"{name}: " if name else ""
        self.say(f"{name}" + (f" ({index + 1} of {parts})" if parts > 1 else ""), 0.0)

    def note(self, **facts: Any) -> None:
        """Tell facts that must be known whatever happens next: ``device=``, ``run=`` (folder), ``created=``."""
        self._outbox.send({"type": "note", "job": self.job_id, **plain(facts)})

    def say(self, message: str, fraction: float | None = None) -> None:
        """One sentence about what is being done now, with the fraction of the present part if it is known."""
        if fraction is not None:
            self._advance(fraction)
        self._outbox.progress(self._frame(message=message))

    def report(self, report: Any) -> None:
        """Pass on one report of the work's generator."""
        data = plain(report)
        if not isinstance(data, dict):
            data = {"value": data}
        if isinstance(data.get("epoch"), int) and isinstance(data.get("epochs"), int):
            self.expect_epochs(data["epoch"], data["epochs"], data.get("stage") or "")
        fraction = fraction_of(data)
        if fraction is not None:
            self._advance(fraction)
        hint = _seconds_left(data) if self._parts == 1 else None
        self._hinted = hint is not None
        seconds = self._meter.update(self._fraction, hint)
        frame = self._frame(report=data, seconds_left=seconds, message=self._prefix + _sentence(data))
        self._outbox.progress(frame, data if is_milestone(data) else None)

    def expect_epochs(self, done: int, epochs: int, stage: str = "") -> None:
        """How many epochs are over, and how many there will be at most; needed before the first report.

        A training that begins with a `stage` of its own (a plain run) has two halves, whatever time each of them takes.
        """
        if stage:
            self._stages = 2
        elif self._stage and self._epochs is not None and self._epochs[0] == 0:
            self._stages = 1  # expected, but it was there already
        self._epochs, self._stage = (done, epochs), stage

    def on_bag(self, done: int, bags: int) -> None:
        """For ``fit(on_bag=…)``, called after each slide: progress inside an epoch, and the moment to stop."""
        self.check_cancelled()
        epoch, epochs = self._epochs or (0, 1)
        self._advance((epoch + done / max(1, bags)) / max(1, epochs))
        if not self._hinted:
            self._meter.update(self._fraction)
        self.say(f"{_epoch_words(self._stage, min(epoch + 1, epochs))} of {epochs}: slide {done} of {bags}")

    def _advance(self, fraction: float) -> None:
        fraction = min(1.0, max(0.0, fraction))
        if self._stages > 1:
            fraction = (fraction + (not self._stage)) / self._stages
        self._fraction = (self._index + fraction) / self._parts

    def _frame(self, **fields: Any) -> dict[str, Any]:
        frame = {"type": "update", "job": self.job_id, "fraction": self._fraction, **fields}
        frame.setdefault("seconds_left", self._meter.seconds_left())
        return frame


def _sentence(report: dict[str, Any]) -> str:
    if isinstance(report.get("message"), str) and report["message"]:
        return str(report["message"])
    epoch = report.get("epoch")
    if isinstance(epoch, dict):  # a training inside an experiment
        return f"{report.get('method', 'Training')}, split {report.get('split', 0)}: {_sentence(epoch)}"
    if epoch is not None:
        whole = f" of {report['epochs']}" if report.get("epochs") else ""
        figures = {"auroc": report.get("val_auroc"), **(report.get("val_metrics") or {})}
        titles = (("auroc", "AUROC"), ("c_index", "C-index"))
        said = [f"{title} {figures[name]:.3f}" for name, title in titles if figures.get(name) is not None]
        return f"{_epoch_words(report.get('stage'), epoch)}{whole}" + (f": validation {said[0]}" if said else "")
    if "done" in report and "total" in report:
        return f"{report['done']} of {report['total']}"
    return ""


def _epoch_words(stage: Any, epoch: Any) -> str:
    return f"{str(stage).capitalize()} run first, epoch {epoch}" if stage else f"Epoch {epoch}"


def _seconds_left(report: dict[str, Any]) -> float | None:
    """What a report says itself; before a stage is over, the training itself is to come, and takes about as long."""
    left, each, epochs = (report.get(name) for name in ("seconds_left", "seconds", "epochs"))
    if not isinstance(left, int | float):
        return None
    if report.get("stage") and isinstance(each, int | float) and isinstance(epochs, int):
        return float(left + each * epochs)
    return float(left)
