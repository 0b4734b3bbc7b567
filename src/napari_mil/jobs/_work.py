"""In the child: which generator does the work of which spec."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Generator
from typing import Any

from napari_mil.errors import JobError

from ._context import JobContext
from ._specs import CallJob, JobSpec


def work(spec: JobSpec, context: JobContext) -> Generator[Any, None, Any]:
    """The generator of reports that does what `spec` asks; what it returns is the job's result."""
    if isinstance(spec, CallJob):
        return _call(spec, context)
    raise JobError(f"jobs of kind {spec.kind!r} cannot run in this version")


def _call(spec: CallJob, context: JobContext) -> Generator[Any, None, Any]:
    module_name, _, name = spec.target.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise JobError(f"{spec.target}: {error}; expected an importable “package.module:function”") from error
    kwargs = dict(spec.kwargs)
    if "check_cancelled" in inspect.signature(function).parameters:
        kwargs["check_cancelled"] = context.check_cancelled
    outcome = function(**kwargs)
    if not inspect.isgenerator(outcome):
        return outcome
    return (yield from outcome)
