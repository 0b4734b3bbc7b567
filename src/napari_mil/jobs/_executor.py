"""What any runner of jobs offers, so that a cluster can stand where the child process stands today."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from ._specs import JobSpec
from ._status import JobStatus, Keep


@runtime_checkable
class JobHandle(Protocol):
    """A submitted job."""

    @property
    def status(self) -> JobStatus: ...
    @property
    def reports(self) -> list[dict[str, Any]]: ...
    def events(self) -> Iterator[JobStatus]: ...
    def subscribe(self, callback: Callable[[JobStatus], None]) -> Callable[[], None]: ...
    def cancel(self, keep: Keep = "best") -> None: ...


@runtime_checkable
class Executor(Protocol):
    """Something that runs jobs: `JobRunner` here; ``dask.distributed`` can be fitted to the same shape."""

    def submit(self, spec: JobSpec) -> JobHandle: ...
    def close(self) -> None: ...
