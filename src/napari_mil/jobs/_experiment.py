"""In the child: methods compared over the splits of a protocol."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._context import JobContext
from ._specs import ExperimentJob

if TYPE_CHECKING:
    import pandas as pd

    from napari_mil.study.experiments import ExperimentReport

_FIGURES = ("auroc", "auprc", "accuracy", "balanced_accuracy", "c_index", "patch_auroc", "lesion_share")


def experiment(spec: ExperimentJob, context: JobContext) -> Generator[ExperimentReport, None, dict[str, Any]]:
    """Every method on every split; finished cells of an earlier call are read, not trained again."""
    from pydantic import ValidationError

    from napari_mil.errors import JobError
    from napari_mil.mil.devices import find_device
    from napari_mil.study import Project
    from napari_mil.study.experiments import Protocol, experiment
    from napari_mil.study.words import counted

    device = str(find_device(spec.device))
    context.note(device=device)
    try:
        protocol = Protocol.model_validate(spec.protocol)
    except ValidationError as error:
        first = error.errors()[0]
        words = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise JobError(f"protocol.{'.'.join(map(str, first['loc']))} is {first['input']!r}: {words}.") from error
    project = Project.open(spec.project)
    out = None if spec.out is None else Path(spec.out)
    table = yield from experiment(project, spec.methods, protocol, device=device, out=out)
    summary = summarise(table)
    failed = [str(sentence) for sentence in table["error"] if sentence] if "error" in table else []
    sentence = f"{counted(len(table), 'training')} of {counted(len(spec.methods), 'method')}"
    return {
        "message": sentence + (f", {len(failed)} of them failed: {failed[0]}" if failed else "."),
        "methods": summary,
        "cells": table.to_dict(orient="records"),
    }


def summarise(table: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """{method: {figure: mean, sd, n}} over the cells that have the figure."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for method, rows in table.groupby("method", sort=False):
        figures = {}
        for name in _FIGURES:
            values = rows[name].dropna() if name in rows else rows.iloc[:0, 0]
            if len(values):
                figures[name] = {"mean": float(values.mean()), "sd": float(values.std()), "n": len(values)}
        summary[str(method)] = figures
    return summary
