"""What is monitored picks the best epoch: the highest figure, of equal ones that of the lower loss."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from napari_mil.mil import Method, fit
from napari_mil.mil.learner import Learner, Pass

from .conftest import finish, make_bags, quick
from .test_survival import TRAIN, VALIDATION, survival

SCRIPT = [  # loss, figure of each epoch
    (0.9, 0.5),
    (0.5, 0.7),
    (0.2, 0.6),
    (0.4, 0.7),
    (0.6, 0.7),
]


def scripted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Validation says what the script says."""
    passes = iter(SCRIPT)

    def evaluate(self: Learner, bags: object, on_bag: object) -> Pass:
        loss, value = next(passes)
        return Pass(loss, {"bag": loss}, {name: value})

    monkeypatch.setattr(Learner, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("monitor", "best"), [("val_loss", 3), ("val_auroc", 4), ("val_balanced_accuracy", 4), ("val_c_index", 4)]
)
def test_the_epoch_it_should(monitor: str, best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, monitor.removeprefix("val_") if monitor != "val_loss" else "auroc")
    if monitor == "val_c_index":
        method, train, validation = survival(), TRAIN, VALIDATION
    else:
        method, train, validation = quick(), make_bags(8), make_bags(4, prefix="v")
    method = method.with_settings({"training.epochs": 5, "training.monitor": monitor})
    reports, run = finish(fit(method, train, validation))
    assert run.best_epoch == best
    assert [report.improved for report in reports] == [True, True, best == 3, best == 4, False]


@pytest.mark.parametrize("classes", [2, 3])
def test_figures_of_classes(classes: int, tmp_path: Path) -> None:
    """Reports hold AUROC and balanced accuracy, epochs.csv too, and they are those of the kept weights."""
    from napari_mil.mil import auroc, balanced_accuracy, predict

    train, validation = make_bags(12, seed=1, prefix="t"), make_bags(9, seed=2, prefix="v")
    method = quick("ab_mil_rank", training__monitor="val_balanced_accuracy")
    if classes == 3:
        task = {"kind": "multiclass", "classes": ["a", "b", "c"]}
        method = Method(aggregator=method.aggregator, task=task, training=method.training)
        for k, bag in enumerate([*train, *validation]):
            object.__setattr__(bag, "label", k % 3)
    reports, run = finish(fit(method, train, validation, out=tmp_path))
    best = reports[run.best_epoch - 1]
    rows = torch.tensor([predict(run, bag).probabilities.tolist() for bag in validation]).numpy()
    labels = [bag.label for bag in validation]
    assert best.val_metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy(labels, rows))
    assert best.val_metrics["auroc"] == best.val_auroc
    if classes == 2:
        assert best.val_auroc == pytest.approx(auroc(labels, rows[:, 1]))
    with (tmp_path / "epochs.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["val_balanced_accuracy"]) for row in table] == [
        report.val_metrics["balanced_accuracy"] for report in reports
    ]
