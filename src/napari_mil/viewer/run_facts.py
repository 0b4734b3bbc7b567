"""What a window shows of a run: read from its folder, or as its reports arrive."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mil.mil.records import METRICS, PLAIN

from .words import count

Epoch = dict[str, Any]
"""An `EpochReport` as a dict."""


@dataclass(frozen=True)
class RunFacts:
    """What the window shows of a run, read once: run.json of a large project takes 10 ms and more."""

    epochs: list[Epoch] = field(default_factory=list)
    plain: list[Epoch] = field(default_factory=list)
    """Of the plain run in its folder, if there was one."""
    facts: dict[str, Any] = field(default_factory=dict)
    obstacle: str = "There is no run yet."
    """Why it can't go on, or nothing."""
    result: str = ""
    """Its metrics on the test slides, in a sentence."""

    @property
    def shown(self) -> list[Epoch]:
        """Its epochs; those of the plain run where it came no further."""
        return self.epochs or self.plain

    @property
    def stage(self) -> str:
        """How far it came: "plain" where that is no further than the run before it."""
        return PLAIN if self.plain and not self.epochs else ""

    @property
    def preview(self) -> bool:
        """Whether it was trained on a sample of the patches."""
        tile = (self.facts.get("provenance") or {}).get("tile") or {}
        return tile.get("max_patches") is not None

    @property
    def method(self) -> dict[str, Any]:
        """Its method."""
        return self.facts.get("method") or {}

    @property
    def classes(self) -> list[str]:
        """Its labels, the negative one first."""
        return [str(name) for name in self.facts.get("classes") or ()]

    @property
    def text(self) -> str:
        """What came of it, in a line or two."""
        lines = [f"Plain run before it: {sentence_of_epochs(self.plain)}"] if self.plain else []
        if self.epochs:
            lines.append(sentence_of_epochs(self.epochs))
        lines.append(self.result)
        if self.preview:
            lines.append("Preview: it learned from a sample of the patches.")
        lines += [str(note) for note in self.facts.get("notes") or () if "best epoch" in str(note)]
        return "\n".join(line for line in lines if line)


@dataclass
class LiveRun:
    """A run in training.

    Attributes
    ----------
    folder : Path
    method : dict
        As it was handed in.
    epochs, plain : list of dict
        Its epochs so far, and those of the plain run before it.
    """

    folder: Path
    method: dict[str, Any] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    plain: list[Epoch] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """What is under way: "plain" is the run before it, empty the run itself."""
        return PLAIN if self.plain and not self.epochs else ""

    @property
    def shown(self) -> list[Epoch]:
        """Epochs of the stage that is under way."""
        return self.plain if self.stage else self.epochs

    @property
    def stage_text(self) -> str:
        """What the stage under way is for and how far it is; empty in the training itself."""
        if not self.stage:
            return ""
        what = "First a plain run, whose mistakes are learned from"
        if (self.method.get("mining") or {}).get("kind") != "hard_negative":
            what = "First a plain run for the teacher"
        now = self.plain[-1]
        return f"{what}: epoch {now['epoch']} of {now['epochs']}."

    @property
    def text(self) -> str:
        """What is to be said of it meanwhile."""
        notes = [str(note) for epoch in [*self.plain, *self.epochs] for note in epoch.get("notes") or ()]
        if self.plain and self.epochs:
            notes.insert(0, f"Plain run before it: {sentence_of_epochs(self.plain)}")
        return "\n".join(dict.fromkeys(notes))

    def take(self, report: Epoch) -> None:
        """Another epoch; those that were over before its process was killed are read from disk."""
        plain = report.get("stage") == PLAIN
        epochs = self.plain if plain else self.epochs
        if report["epoch"] > 1 and (not epochs or epochs[-1]["epoch"] < report["epoch"] - 1):
            epochs = read_history(self.folder / PLAIN if plain else self.folder)
        epochs = [e for e in epochs if e["epoch"] < report["epoch"]] + [report]
        if plain:
            self.plain = epochs
        else:
            self.epochs = epochs


def read_run(run: Path) -> RunFacts:
    """Read a run's folder."""
    from napari_mil.study import metrics_sentence, resume_obstacle
    from napari_mil.study.runs import run_facts

    plain = read_history(run / PLAIN)
    if not (run / "run.json").exists():
        return RunFacts(plain=plain, obstacle=str(resume_obstacle(run)))
    metrics = run / "metrics.json"
    result = metrics_sentence(json.loads(metrics.read_text(encoding="utf-8"))) if metrics.exists() else ""
    return RunFacts(read_history(run), plain, run_facts(run), str(resume_obstacle(run)), result)


def read_history(run: Path) -> list[Epoch]:
    """Epochs of a run that are over; none where there is no run."""
    from napari_mil.study import read_epochs

    return list(read_epochs(run))


def sentence_of_epochs(epochs: list[Epoch]) -> str:
    """How many epochs, and what the best one reached."""
    best = epochs[-1]["best_epoch"]
    at_best = next((e for e in epochs if e["epoch"] == best), epochs[-1])
    figures = [f"{title} {value:.3f}" for title, value in figures_of(at_best).items() if value is not None]
    words = ", ".join([f"validation loss {at_best['val_loss']:.3f}", *figures])
    return f"{count(len(epochs), 'epoch')}, the best is {best}: {words}."


def part_weights(method: dict[str, Any]) -> dict[str, float]:
    """What each part of the loss is multiplied by before they are added up; 1 where nothing is said."""
    supervision, mining = method.get("supervision") or {}, method.get("mining") or {}
    lesions = supervision.get("weight", 1.0)
    return {
        "bag": supervision.get("bag_weight", 1.0),
        "rank": lesions,
        "attention": lesions,
        "instance": lesions,
        "consistency": mining.get("consistency_weight", 1.0),
    }


def figures_of(epoch: Epoch) -> dict[str, float | None]:
    """What the task is judged by on the validation slides, by title; runs of before know the AUROC alone."""
    found = epoch.get("val_metrics") or {"auroc": epoch.get("val_auroc")}
    return {METRICS.get(name, name): value for name, value in found.items()}
