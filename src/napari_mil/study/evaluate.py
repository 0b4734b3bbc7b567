"""A run judged on its held-out slides: predictions.csv, metrics.json and, for survival, kaplan_meier.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._files import write_json, write_text
from .bags import ProjectBags
from .metrics import slide_metrics, youden
from .runs import load_run
from .survival import draw_kaplan_meier, survival_metrics

if TYPE_CHECKING:
    from napari_mil.mil import Bag, Prediction, Run

    from .project import Project

    Pairs = Sequence[tuple[Bag, Prediction]]

_CHOSEN = "Validation slides chose the epoch and the threshold: their figures are optimistic. Research use only."


def evaluate_run(
    project: Project, run: Run | Path | str, *, device: str = "cpu", repeats: int = 1000
) -> dict[str, Any]:
    """Predict a run's validation and test slides; write and return what metrics.json holds.

    Youden's threshold (survival: the median risk) is found on validation and used on test.
    """
    loaded = load_run(run)
    split = loaded.provenance.get("split") or {}
    model = loaded.build()
    found: dict[str, list[tuple[Bag, Prediction]]] = {}
    for role in ("validation", "test"):
        known = [i for i in split.get(role, []) if i in project.slide_ids and project.has_features(i)]
        found[role] = predict_bags(loaded, ProjectBags(project, known), device=device, model=model)
    metrics = metrics_of(found, repeats=repeats)
    if loaded.folder is not None:
        write_text(loaded.folder / "predictions.csv", predictions_csv(found, loaded.classes))
        write_json(loaded.folder / "metrics.json", metrics)
        draw_kaplan_meier(metrics["sets"], loaded.folder / "kaplan_meier.png")
    return metrics


def predict_bags(
    run: Run, bags: Sequence[Bag], *, device: str = "cpu", model: Any = None
) -> list[tuple[Bag, Prediction]]:
    """Predictions of slides' bags, each with its bag; one for each patient where the run's task says so."""
    from napari_mil.mil import predict
    from napari_mil.mil.patients import task_bags

    network = model if model is not None else run.build()
    return [(bag, predict(run, bag, device=device, model=network)) for bag in task_bags(bags, run.method.task)]


def metrics_of(found: Mapping[str, Pairs], *, repeats: int = 1000) -> dict[str, Any]:
    """metrics.json for predictions by role: `sets` {role: figures}, the threshold and where it was found."""
    if any(prediction.risk is not None for pairs in found.values() for _, prediction in pairs):
        return _survival_of(found, repeats)
    arrays: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[str]]] = {}
    for role, pairs in found.items():
        if pairs:
            labels = np.array([bag.label for bag, _ in pairs])
            probabilities = np.stack([np.asarray(p.probabilities, dtype=np.float64) for _, p in pairs])
            arrays[role] = labels, probabilities, _patients(pairs)
    threshold: float | None = None
    if "validation" in arrays and arrays["validation"][1].shape[1] == 2:
        value = youden(arrays["validation"][0], arrays["validation"][1][:, 1])
        threshold = value if np.isfinite(value) else None
    sets = {
        role: slide_metrics(y, p, groups=who, threshold=threshold, threshold_from="validation", repeats=repeats)
        for role, (y, p, who) in arrays.items()
    }
    return {"sets": sets, "youden_threshold": threshold, "threshold_from": "validation", "note": _CHOSEN}


def median_risk(pairs: Pairs) -> float | None:
    """What divides high from low risk; None without predictions."""
    risks = [prediction.risk for _, prediction in pairs if prediction.risk is not None]
    return float(np.median(risks)) if risks else None


def cases_of(pairs: Pairs) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Times (n,), events (n,) and risks (n,) of predictions of survival."""
    rows = [(bag.time, bool(bag.event), prediction.risk) for bag, prediction in pairs]
    time, event, risk = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return time, event.astype(bool), risk


def predictions_csv(found: Mapping[str, Pairs], classes: Sequence[str]) -> str:
    """Text of predictions.csv: slide_id, patient_id, role, label, predicted, p_<class> …

    Survival has time, event, risk and group in place of label and predicted. A patient's bag is one row, its slides in
    the column `slides`.
    """
    every = [pair for pairs in found.values() for pair in pairs]
    survival = any(prediction.risk is not None for _, prediction in every)
    threshold = median_risk(found.get("validation", []))
    patients = any(bag.slides for bag, _ in every)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    what = ("time", "event", "risk", "group") if survival else ("label", "predicted")
    last = ("slides",) if patients else ()
    writer.writerow(["slide_id", "patient_id", "role", *what, *(f"p_{name}" for name in classes), *last])
    for role, pairs in found.items():
        for bag, prediction in pairs:
            if survival:
                group = "" if threshold is None else "high" if (prediction.risk or 0.0) > threshold else "low"
                said = [f"{bag.time:.6g}", str(int(bool(bag.event))), f"{prediction.risk:.6g}", group]
            else:
                said = ["" if bag.label is None else classes[bag.label], classes[prediction.predicted]]
            values = [f"{p:.6g}" for p in prediction.probabilities]
            slides = [";".join(bag.slide_ids)] if patients else []
            writer.writerow([bag.slide_id, bag.patient_id or "", role, *said, *values, *slides])
    return text.getvalue()


def _survival_of(found: Mapping[str, Pairs], repeats: int) -> dict[str, Any]:
    threshold = median_risk(found.get("validation", []))
    sets = {
        role: survival_metrics(
            *cases_of(pairs),
            groups=_patients(pairs),
            threshold=threshold,
            threshold_from="validation",
            repeats=repeats,
        )
        for role, pairs in found.items()
        if pairs
    }
    return {"sets": sets, "risk_threshold": threshold, "threshold_from": "validation", "note": _CHOSEN}


def _patients(pairs: Pairs) -> list[str]:
    return [bag.patient_id or bag.slide_id for bag, _ in pairs]
