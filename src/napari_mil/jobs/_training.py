"""In the child: training on a project, and predictions of a run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mil.errors import MilError

from ._context import JobContext
from ._specs import ApplyJob, PredictJob, TrainJob

if TYPE_CHECKING:
    from napari_mil.features import ExtractReport
    from napari_mil.mil import EpochReport, Method, Run
    from napari_mil.study.bundle import Bundle
    from napari_mil.study.config import Role
    from napari_mil.study.predict import PredictReport


def train(spec: TrainJob, context: JobContext) -> Generator[EpochReport, None, dict[str, Any]]:
    """Train on a project; the run's folder is told to the parent before anything else happens."""
    from napari_mil.mil import Method
    from napari_mil.mil.devices import find_device
    from napari_mil.mil.fit import needs_plain
    from napari_mil.mil.records import PLAIN
    from napari_mil.study import Project
    from napari_mil.study.train import train_project
    from napari_mil.study.words import counted

    device = str(find_device(spec.device))
    method = Method.model_validate(spec.method)
    project = Project.open(spec.project)
    folder = Path(spec.out) if spec.out is not None else project.new_run_folder(method.name)
    facts = _facts(folder) if spec.resume else {}
    created = not spec.resume and (not folder.exists() or not any(folder.iterdir()))
    context.note(device=device, run=folder, created=created)
    done, epochs = len(facts.get("history") or ()), method.training.epochs
    if needs_plain(method):
        before = _facts(folder / PLAIN) if spec.resume else {}
        context.expect_epochs(len(before.get("history") or ()), epochs, PLAIN)
        if done or before.get("finished"):
            context.expect_epochs(done, epochs)
    else:
        context.expect_epochs(done, epochs)
    try:
        training = train_project(
            project,
            method,
            seed=spec.seed,
            device=device,
            out=folder,
            resume=spec.resume,
            on_bag=context.on_bag,
            split=spec.split if spec.split is not None else _recorded_split(facts),
        )
        run = yield from _told_apart(training, method, context)
    except MilError:
        with contextlib.suppress(OSError):  # nothing began: leave no empty folder behind
            folder.rmdir()
        raise
    there = "The run was finished already. " if spec.resume and len(run.history) == done else ""
    best = next((row for row in run.history if row["epoch"] == run.best_epoch), {})
    return {
        "run": folder,
        "epochs": len(run.history),
        "best_epoch": run.best_epoch,
        "best": {name: best.get(name) for name in ("train_loss", "val_loss", "val_auroc", "val_metrics")},
        "metrics": _json(folder / "metrics.json"),
        "message": f"{there}Trained {counted(len(run.history), 'epoch')}; the best was epoch {run.best_epoch}.",
    }


def _told_apart(
    training: Generator[EpochReport, None, Run], method: Method, context: JobContext
) -> Generator[EpochReport, None, Run]:
    """The same reports; once a plain run is over, progress is that of the training itself."""
    try:
        while True:
            report = next(training)
            yield report
            if report.stage and method.training.is_over(report.epoch, report.best_epoch):
                context.expect_epochs(0, method.training.epochs)
    except StopIteration as stop:
        run: Run = stop.value
        return run
    finally:
        training.close()


def predict(spec: PredictJob, context: JobContext) -> Generator[Any, None, dict[str, Any]]:
    """Predict slides of a project with one of its runs, and then slide files (from tissue on) with the same run."""
    from napari_mil.study.bundle import bundle_of_run

    result: dict[str, Any] = {"message": "", "predictions": {}, "failed": {}}
    if spec.slide_ids or not spec.paths:
        result = yield from _predict_project(spec, context)
    if spec.paths:
        out = Path(spec.out) if spec.out is not None else Path(spec.run) / "slides"
        applied = yield from _apply_to(bundle_of_run(spec.run), spec.paths, out, spec.device, context)
        for name in ("predictions", "failed"):
            result[name] = {**result[name], **applied[name]}
        result["out"], result["message"] = out, f"{result['message']} {applied['message']}".strip()
    return result


def _predict_project(spec: PredictJob, context: JobContext) -> Generator[PredictReport, None, dict[str, Any]]:
    from napari_mil.mil.devices import find_device
    from napari_mil.study import Project
    from napari_mil.study.pictures import picture_prediction
    from napari_mil.study.predict import predict_project

    device = str(find_device(spec.device))
    context.note(device=device)
    project = Project.open(spec.project or Path(spec.run).parent.parent)
    maps = (Path(spec.run) if spec.out is None else Path(spec.out)) / "maps"
    predictions: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for report in predict_project(project, spec.run, spec.slide_ids, device=device, out=maps):
        if report.error:
            failed[report.slide_id] = report.error
        elif spec.out is None:
            predictions[report.slide_id] = {
                "predicted": report.predicted,
                "probabilities": report.probabilities,
                "badge": report.badge,
                "risk": report.risk,
            }
        else:
            predictions[report.slide_id] = picture_prediction(project, report.slide_id, spec.out, Path(spec.run).name)
        yield report
    return {"message": _count(predictions, failed), "predictions": predictions, "failed": failed, "maps": maps}


def apply(spec: ApplyJob, context: JobContext) -> Generator[ExtractReport, None, dict[str, Any]]:
    """Run a bundle, or a run still in its project, on slide files."""
    from napari_mil.study.bundle import bundle_of_run, load_bundle

    folder = Path(spec.bundle)
    is_run = (folder / "run.json").is_file() and not (folder / "bundle.json").is_file()
    model = bundle_of_run(folder) if is_run else load_bundle(folder)
    result = yield from _apply_to(model, spec.slides, Path(spec.out), spec.device, context, spec.slide_mpp)
    return {**result, "out": spec.out}


def _apply_to(
    model: Bundle, slides: list[str], out: Path, device: str, context: JobContext, mpp: float | None = None
) -> Generator[ExtractReport, None, dict[str, Any]]:
    """One slide after the other, going on after a bad one; all bad is a failure."""
    from napari_mil.mil.devices import find_device
    from napari_mil.study.bundle import apply_bundle

    device = str(find_device(device))
    context.note(device=device)
    predictions: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for index, path in enumerate(slides):
        context.part(index, len(slides), Path(path).name)
        try:
            applied = yield from apply_bundle(model, path, out, device=device, mpp=mpp)
        except (MilError, OSError) as error:
            failed[path] = str(error)
        else:
            predictions[applied.slide_id] = applied
    return {"message": _count(predictions, failed), "predictions": predictions, "failed": failed}


def _count(predictions: dict[str, Any], failed: dict[str, str]) -> str:
    from napari_mil.study.words import counted

    if not predictions:
        raise MilError(next(iter(failed.values())))
    return counted(len(predictions), "slide") + " predicted" + (f", {len(failed)} failed." if failed else ".")


def _facts(folder: Path) -> dict[str, Any]:
    return _json(folder / "run.json") or {}


def _json(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else None
    return None


def _recorded_split(facts: dict[str, Any]) -> dict[str, Role] | None:
    """The roles that a resumed run began with, whatever the project says by now."""
    split = (facts.get("provenance") or {}).get("split") or {}
    return {slide_id: role for role, ids in split.items() for slide_id in ids} or None
