"""What is known about a job at one moment, and which phases may follow which."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from napari_mil.errors import JobError

Phase = Literal["queued", "starting", "running", "done", "cancelled", "failed"]
Keep = Literal["best", "last", "discard"]

FINISHED: frozenset[Phase] = frozenset({"done", "cancelled", "failed"})

_NEXT: dict[Phase, frozenset[Phase]] = {
    "queued": frozenset({"starting", "cancelled", "failed"}),
    "starting": frozenset({"running", "cancelled", "failed"}),
    "running": frozenset({"done", "cancelled", "failed"}),
    "done": frozenset(),
    "cancelled": frozenset(),
    "failed": frozenset(),
}


@dataclasses.dataclass(frozen=True, slots=True)
class JobStatus:
    """One frozen snapshot of a job; every field is JSON-able.

    Attributes
    ----------
    job_id, kind
        Which job, and the ``kind`` of its spec ("extract", "train", …).
    phase
        "queued", "starting", "running", then one of "done", "cancelled", "failed".
    fraction
        Share of the work that is done, 0 to 1.
    message
        One sentence for people.
    seconds_left
        Smoothed estimate, or None while nothing is known.
    device
        "cpu", "cuda:0", …, or None before the job has chosen.
    memory_mb
        Resident memory of the job's process in MB.
    report
        The newest report of the job's generator as a plain dict (all of them: ``Job.reports``).
    error
        The sentence that says why it failed, or None.
    result
        What the job produced (paths as strings), once done.
    """

    job_id: str
    kind: str
    phase: Phase = "queued"
    fraction: float = 0.0
    message: str = ""
    seconds_left: float | None = None
    device: str | None = None
    memory_mb: float | None = None
    report: dict[str, Any] | None = None
    error: str | None = None
    result: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.phase in FINISHED

    def to_dict(self) -> dict[str, Any]:
        """The status as a plain dict."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> JobStatus:
        """A copy with `changes`, if its phase may follow this one's.

        Raises
        ------
        JobError
            If the new phase may not follow, e.g. "running" after "done".
        """
        phase: Phase = changes.get("phase", self.phase)
        if phase != self.phase and phase not in _NEXT[self.phase]:
            raise JobError(f"job {self.job_id}: found phase {phase!r} after {self.phase!r}, expected {_wording(self)}")
        return dataclasses.replace(self, **changes)


def _wording(status: JobStatus) -> str:
    following = sorted(_NEXT[status.phase])
    return "one of " + ", ".join(following) if following else "nothing more"


def plain(value: Any) -> Any:
    """`value` as plain JSON types: dataclasses to dicts, paths to strings, arrays to lists, NaN and inf to None."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    if callable(getattr(value, "to_dict", None)):
        return plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):
        return plain(value.model_dump(mode="json"))
    if callable(getattr(value, "tolist", None)):  # numpy scalars and arrays, torch tensors
        return plain(value.tolist())
    return str(value)
