"""One cell of an experiment: a method trained on one split with one seed, and judged on the split's test slides."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mil.errors import MilError
from napari_mil.maps.compare import lesion_share
from napari_mil.mil import balanced_accuracy, c_index
from napari_mil.mil.records import PLAIN

from ._files import read_json, write_json, write_text
from .bags import project_bag
from .config import Role
from .evaluate import cases_of, median_risk, predict_bags, predictions_csv
from .metrics import accuracy, auprc, auroc, average_precision, confusion, macro_auroc, youden
from .plain_runs import first_plain_run
from .provenance import project_provenance
from .survival import log_rank
from .train import method_for, split_of

if TYPE_CHECKING:
    from napari_mil.mil import Bag, EpochReport, Prediction, Run

    from .project import Project

Pairs = Sequence[tuple["Bag", "Prediction"]]


@dataclass(frozen=True)
class Cell:
    """One training of an experiment, as plain data that another process can be handed."""

    project: str
    folder: str
    name: str
    method: dict[str, Any]
    split_number: int
    split: dict[str, Role]
    seed: int
    device: str
    teacher: str | None = None
    as_published: bool = False

    @property
    def result_path(self) -> Path:
        """Where the figures of the finished cell are."""
        return Path(self.folder) / "result.json"

    @property
    def head(self) -> dict[str, Any]:
        """What names the cell in the table."""
        return {"method": self.name, "split": self.split_number, "seed": self.seed}


class BagStore(dict[str, "Bag"]):
    """Bags of a project by slide, read once and shared by all cells of a process."""

    def __init__(self, project: Project) -> None:
        super().__init__()
        self._project = project

    def __missing__(self, slide_id: str) -> Bag:
        bag = self[slide_id] = project_bag(self._project, slide_id)
        return bag


def run_cell(
    cell: Cell, project: Project | None = None, bags: Mapping[str, Bag] | None = None
) -> Generator[EpochReport, None, dict[str, Any]]:
    """Train and judge one cell; returns its row and writes it to result.json, which is read when it is there.

    A cell that cannot be trained (one class in its split, say) gives a row with an `error` and is tried again next
    time.
    """
    from .project import Project

    if cell.result_path.is_file():
        return dict(read_json(cell.result_path))
    owner = project if project is not None else Project.open(cell.project)
    start = time.perf_counter()
    try:
        roles = split_of(owner, cell.split, survival=cell.method["task"]["kind"] == "survival")
        if cell.as_published:
            roles["validation"] = roles["test"]
        store = bags if bags is not None else BagStore(owner)
        run = yield from _train(cell, owner, store, roles)
        judged = ("validation", "test")
        found = {role: predict_bags(run, [store[i] for i in roles[role]], device=cell.device) for role in judged}
    except MilError as error:
        return cell.head | {"error": str(error)}
    row = cell.head | cell_metrics(found["test"], found["validation"])
    row |= {
        "youden_from": "test" if cell.as_published else "validation",
        "n_train": len(roles["train"]),
        "best_epoch": run.best_epoch,
        "epochs": len(run.history),
        "seconds": round(time.perf_counter() - start, 2),
        "error": "",
    }
    write_text(Path(cell.folder) / "predictions.csv", predictions_csv(found, run.classes))
    write_json(cell.result_path, row)
    for stage in ("", PLAIN):  # only an unfinished training needs it
        (Path(cell.folder) / stage / "last.safetensors").unlink(missing_ok=True)
    return row


def finish_cell(cell: Cell) -> dict[str, Any]:
    """`run_cell` to its end, for an executor."""
    running = run_cell(cell)
    while True:
        try:
            next(running)
        except StopIteration as stop:
            row: dict[str, Any] = stop.value
            return row


def cell_metrics(test: Pairs, validation: Pairs = ()) -> dict[str, Any]:
    """Figures of test slides: slide metrics (Youden's threshold from validation), and patch scores against outlines.

    Survival: C-index, and the log-rank test of the groups above and below the median risk of validation.
    """
    if any(prediction.risk is not None for _, prediction in [*test, *validation]):
        return _plain(_survival_metrics(test, validation) | patch_metrics(test))
    row: dict[str, Any] = {"n_test": len(test), "n_positive": sum((bag.label or 0) > 0 for bag, _ in test)}
    labels, probabilities = _arrays(test)
    if probabilities.shape[1] == 2 and len(test):
        s = probabilities[:, 1]
        row |= {
            "auroc": auroc(labels, s),
            "auprc": auprc(labels, s),
            "average_precision": average_precision(labels, s),
            "accuracy": accuracy(labels, s),
        }
    elif len(test):
        right = float((probabilities.argmax(axis=1) == labels).mean())
        row |= {"auroc": macro_auroc(labels, probabilities), "accuracy": right}
    if len(test):
        row["balanced_accuracy"] = balanced_accuracy(labels, probabilities)
    if len(validation):
        val_labels, val_probabilities = _arrays(validation)
        row["val_auroc"] = macro_auroc(val_labels, val_probabilities)
        if probabilities.shape[1] == 2 and len(test):
            threshold = youden(val_labels, val_probabilities[:, 1])
            at = confusion(labels, probabilities[:, 1], threshold)
            row |= {"accuracy_youden": at.accuracy, "f1_youden": at.f1}
    return _plain(row | patch_metrics(test))


def patch_metrics(pairs: Pairs) -> dict[str, Any]:
    """Patch scores against outlines on positive slides that have both lesion and other patches.

    `patch_auroc`: mean over these slides; `patch_auroc_pooled`: of all their patches together; `lesion_share`: mean
    share of lesion among as many top-scored patches as there are lesion patches; `n_outlined`: the slides.
    """
    areas, shares, all_labels, all_scores = [], [], [], []
    for bag, prediction in pairs:
        positive = bag.label != 0 if prediction.risk is not None else bag.label  # survival needs no labels
        if not positive or bag.patch_labels is None:
            continue
        known = np.asarray(bag.patch_labels) >= 0
        y, s = np.asarray(bag.patch_labels)[known], np.asarray(prediction.scores, dtype=np.float64)[known]
        if y.any() and not y.all():
            areas.append(auroc(y, s))
            shares.append(lesion_share(y, s))
            all_labels.append(y)
            all_scores.append(s)
    if not areas:
        return {"n_outlined": 0}
    return {
        "n_outlined": len(areas),
        "patch_auroc": float(np.mean(areas)),
        "patch_auroc_pooled": auroc(np.concatenate(all_labels), np.concatenate(all_scores)),
        "lesion_share": float(np.mean(shares)),
    }


def _survival_metrics(test: Pairs, validation: Pairs) -> dict[str, Any]:
    time, event, risk = cases_of(test)
    row: dict[str, Any] = {"n_test": len(test), "n_events": int(event.sum()), "c_index": c_index(time, event, risk)}
    threshold = median_risk(validation)
    if threshold is not None:
        row["val_c_index"] = c_index(*cases_of(validation))
        row["log_rank_p"] = log_rank(time, event, risk > threshold).p_value
    return row


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in row.items()}


def _train(
    cell: Cell, project: Project, bags: Mapping[str, Bag], roles: Mapping[str, list[str]]
) -> Generator[EpochReport, None, Run]:
    from napari_mil.mil import Run, fit

    provenance = project_provenance(project, [i for ids in roles.values() for i in ids]) | {"split": dict(roles)}
    folder = Path(cell.folder)
    method = method_for(project, cell.method)
    # what another method of the same split and seed has had to train first
    trained = (place / PLAIN for place in sorted(folder.parent.parent.glob(f"*/{folder.name}")))
    plain = Run.load(cell.teacher) if cell.teacher else first_plain_run(trained, method, cell.seed)
    return (
        yield from fit(
            method,
            [bags[i] for i in roles["train"]],
            [bags[i] for i in roles["validation"]],
            seed=cell.seed,
            device=cell.device,
            out=cell.folder,
            provenance=provenance,
            resume=(Path(cell.folder) / "run.json").is_file(),
            plain=plain,
        )
    )


def _arrays(pairs: Pairs) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    labels = np.array([bag.label for bag, _ in pairs], dtype=int)
    rows = [np.asarray(p.probabilities, dtype=np.float64) for _, p in pairs]
    return labels, np.stack(rows) if rows else np.zeros((0, 2))
