"""In the child: which generator does the work of which spec."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Generator
from typing import Any

from napari_mil.errors import JobError

from . import _experiment, _extracting, _training
from ._context import JobContext
from ._specs import CallJob, ExtractJob, JobSpec

Work = Generator[Any, None, Any]


def work(spec: JobSpec, context: JobContext) -> Work:
    """The generator of reports that does what `spec` asks; what it returns is the job's result."""
    return _WORK[spec.kind](spec, context)


def call(spec: CallJob, context: JobContext) -> Work:
    """Any importable function."""
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


def extract(spec: ExtractJob, context: JobContext) -> Work:
    """Features of a project's slides, or of slide files."""
    return _extracting.of_files(spec, context) if spec.project is None else _extracting.of_project(spec, context)


_WORK: dict[str, Callable[[Any, JobContext], Work]] = {
    "call": call,
    "extract": extract,
    "train": _training.train,
    "predict": _training.predict,
    "apply": _training.apply,
    "experiment": _experiment.experiment,
}
