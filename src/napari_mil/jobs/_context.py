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
        fraction = fraction_of(data)
        if fraction is not None:
            self._advance(fraction)
        if isinstance(data.get("epoch"), int) and isinstance(data.get("epochs"), int):
            self._epochs = (data["epoch"], data["epochs"])
        left = data.get("seconds_left") if self._parts == 1 else None
        hint = float(left) if isinstance(left, int | float) else None
        self._hinted = hint is not None
        seconds = self._meter.update(self._fraction, hint)
        frame = self._frame(report=data, seconds_left=seconds, message=self._prefix + _sentence(data))
        self._outbox.progress(frame, data if is_milestone(data) else None)

    def expect_epochs(self, done: int, epochs: int) -> None:
        """How many epochs are over, and how many there will be at most; needed before the first report."""
        self._epochs = (done, epochs)

    def on_bag(self, done: int, bags: int) -> None:
        """For ``fit(on_bag=…)``, called after each slide: progress inside an epoch, and the moment to stop."""
        self.check_cancelled()
        epoch, epochs = self._epochs or (0, 1)
        self._advance((epoch + done / max(1, bags)) / max(1, epochs))
        if not self._hinted:
            self._meter.update(self._fraction)
        self.say(f"Epoch {min(epoch + 1, epochs)} of {epochs}: slide {done} of {bags}")

    def _advance(self, fraction: float) -> None:
        self._fraction = (self._index + min(1.0, max(0.0, fraction))) / self._parts

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
        auroc = report.get("val_auroc")
        return f"Epoch {epoch}{whole}" + (f": validation AUROC {auroc:.3f}" if auroc is not None else "")
    if "done" in report and "total" in report:
        return f"{report['done']} of {report['total']}"
    return ""
