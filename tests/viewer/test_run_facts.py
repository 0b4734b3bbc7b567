"""What is shown of a run in training, and of one on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_mil.mil import Method
from napari_mil.viewer.run_facts import LiveRun, figures_of, part_weights, read_run


def report(epoch: int, stage: str = "", **facts: Any) -> dict[str, Any]:
    base = {"epoch": epoch, "epochs": 3, "stage": stage, "train_loss": 1.0, "val_loss": 1 / epoch, "best_epoch": epoch}
    return {**base, "val_auroc": 0.5, **facts}


def write_run(folder: Path, *epochs: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    facts = {"history": list(epochs), "notes": [], "finished": False, "method": {}, "seed": 0}
    (folder / "run.json").write_text(json.dumps(facts))


def test_epochs_of_the_plain_run_give_way_to_those_of_the_training(tmp_path: Path) -> None:
    live = LiveRun(tmp_path / "run")
    for epoch in (1, 2):
        live.take(report(epoch, "plain", notes=["few slides"] if epoch == 1 else []))
    assert (live.stage, [e["epoch"] for e in live.shown]) == ("plain", [1, 2])
    assert live.text == "few slides"
    live.take(report(1))
    assert (live.stage, [e["epoch"] for e in live.shown]) == ("", [1])
    assert live.text.splitlines()[0].startswith("Plain run before it: 2 epochs, the best is 2: validation loss 0.500")


def test_epochs_that_were_missed_are_read_from_disk(tmp_path: Path) -> None:
    write_run(tmp_path / "run" / "plain", report(1, "plain"), report(2, "plain"))
    live = LiveRun(tmp_path / "run")
    live.take(report(3, "plain"))
    assert [e["epoch"] for e in live.plain] == [1, 2, 3]


def test_a_run_that_came_no_further_than_its_plain_run_shows_that(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_run(tmp_path / "run" / "plain", report(1, "plain"), report(2, "plain"))
    facts = read_run(tmp_path / "run")
    assert (facts.stage, [e["epoch"] for e in facts.shown]) == ("plain", [1, 2])
    assert facts.text.startswith("Plain run before it: 2 epochs")


def test_figures_go_by_the_task() -> None:
    assert figures_of(report(1)) == {"AUROC": 0.5}  # of a run written before there were others
    survival = report(1, val_auroc=None, val_metrics={"c_index": 0.625})
    assert figures_of(survival) == {"C-index": 0.625}
    classes = report(1, val_metrics={"auroc": 0.5, "balanced_accuracy": None})
    assert figures_of(classes) == {"AUROC": 0.5, "balanced accuracy": None}


def test_parts_of_a_loss_have_the_weights_of_the_method() -> None:
    weights = part_weights(Method.preset("rank_mhim").with_settings({"supervision.weight": 0.5}).model_dump())
    assert (weights["bag"], weights["rank"], weights["consistency"]) == (1.0, 0.5, 0.1)
    assert part_weights(Method.preset("patch_classifier").model_dump())["bag"] == 0.0


def test_what_a_plain_run_is_for() -> None:
    live = LiveRun(Path("run"), Method.preset("hard_negative_bags").model_dump())
    assert live.stage_text == ""
    live.take(report(1, "plain"))
    assert live.stage_text == "First a plain run, whose mistakes are learned from: epoch 1 of 3."
