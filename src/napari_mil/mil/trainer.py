"""One training, between epochs the same as its last checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_mil.errors import TrainingError

from .bag import Bag
from .checkpoint import BEST, LAST, MODEL, RUN_JSON, Run, plain, versions
from .configs import Mhim2Mining, MhimMining
from .devices import deterministic, memory_mb, reset_peak
from .files import read_tensors, write_tensors
from .learner import Learner, Pass, build_optimizer
from .method import Method
from .mining import Miner, build_miner, cosine_schedule
from .objective import Objective
from .randomness import Randomness
from .records import EpochReport
from .sampler import epoch_order

OnBag = Callable[[int, int], None]

BEST_IS_LAST = "The best epoch was the last one: more epochs may help (training.epochs)."


class Trainer:
    """Model, optimiser, generators and run of one training; see `fit` for what it is given."""

    def __init__(
        self,
        method: Method,
        train: Sequence[Bag],
        validation: Sequence[Bag],
        seed: int,
        device: torch.device,
        out: Path | None,
        provenance: Mapping[str, Any] | None,
        notes: list[str],
        initial: Mapping[str, Tensor] | None,
        plain_run: Run | None,
        room: int | None = None,
    ) -> None:
        self.method, self.train, self.validation, self.device = method, train, validation, device
        self.random = Randomness(seed, device)
        with self.random.installed():
            model = method.build(train[0].dim)
        if initial is not None:
            model.load_state_dict(dict(initial))
        with self.random.installed():
            miner, miner_notes = _build_miner(method, model, len(train), plain_run)
        model.to(device)
        if miner is not None:
            miner.to(device)
        optimizer = build_optimizer(method.training, model, miner)
        self.learner = Learner(model, Objective(method, train, seed), optimizer, self.random.draws, miner, room)
        self.run = new_run(method, train, seed, device, out, provenance, [*notes, *miner_notes])
        self.run.time_edges = self.learner.objective.time_edges
        self.unread_notes = tuple(self.run.notes)
        self.done = 0
        """Epochs that are over."""
        self.seconds: list[float] = []

    # ------------------------------------------------------------------------------------------------- epochs
    @property
    def finished(self) -> bool:
        return self.method.training.is_over(self.done, self.run.best_epoch)

    def epoch(self, on_bag: OnBag) -> EpochReport:
        """One pass over training and validation slides, then the checkpoints."""
        start = time.perf_counter()
        reset_peak(self.device)
        training = self.method.training
        rate = self._learning_rate()
        n, total = len(self.train), len(self.train) + len(self.validation)
        strata = [self.learner.objective.stratum(bag) for bag in self.train]
        order = epoch_order(training.sampler, strata, self.random.order)
        with self.random.installed(), deterministic(training.deterministic, self.device):
            fitted = self.learner.train_pass([self.train[i] for i in order], training, lambda i: on_bag(i, total))
            checked = self.learner.evaluate(self.validation, lambda i: on_bag(n + i, total))
        self.done += 1
        improved = self._is_better(checked)
        self.seconds.append(time.perf_counter() - start)
        if improved and self.done == training.epochs:
            self.run.notes.append(BEST_IS_LAST)
            self.unread_notes += (BEST_IS_LAST,)
        report = EpochReport(
            epoch=self.done,
            epochs=training.epochs,
            train_loss=fitted.loss,
            parts={**fitted.parts, **{f"val_{name}": value for name, value in checked.parts.items()}},
            val_loss=checked.loss,
            val_auroc=checked.metrics.get("auroc"),
            val_metrics=checked.metrics,
            learning_rate=rate,
            seconds=self.seconds[-1],
            seconds_left=sum(self.seconds) / len(self.seconds) * (training.epochs - self.done),
            best_epoch=self.done if improved else self.run.best_epoch,
            improved=improved,
            memory_mb=memory_mb(self.device),
            notes=self.unread_notes,
        )
        self.unread_notes = ()
        self._record(report)
        return report

    def _learning_rate(self) -> float:
        training = self.method.training
        rate = training.learning_rate
        if training.schedule == "cosine":
            rate = cosine_schedule(rate, training.min_learning_rate, self.done, training.epochs)
        for group in self.learner.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _is_better(self, checked: Pass) -> bool:
        """Whether this epoch beats the best so far; ties of what is monitored go to the lower loss."""
        if self.run.best_epoch == 0:
            return True
        best = self.run.history[self.run.best_epoch - 1]
        name = self.method.training.monitor.removeprefix("val_")
        value, before = checked.metrics.get(name), best.get("val_metrics", {}).get(name)
        if value is not None and before is not None:
            return (value, -checked.loss) > (before, -best["val_loss"])
        return bool(checked.loss < best["val_loss"])

    # -------------------------------------------------------------------------------------------- checkpoints
    def _record(self, report: EpochReport) -> None:
        """Best weights first, then the whole state: whenever it is cut, the files agree with one another."""
        run = self.run
        run.best_epoch = report.best_epoch
        run.history.append(report.to_dict())
        if report.improved:
            run.state = {key: value.detach().cpu().clone() for key, value in self.learner.model.state_dict().items()}
            if run.folder is not None:
                write_tensors(run.folder / BEST, run.state, run.metadata())
        run.finished = self.finished
        self._save()

    def _save(self) -> None:
        folder = self.run.folder
        if folder is None:
            return
        facts = {
            "done": self.done,
            "bags_seen": self.learner.bags_seen,
            "slides": self._slides(),
            **self.run.to_dict(),
        }
        write_tensors(folder / LAST, self._tensors(), {"training": json.dumps(facts)})
        self.run.save_facts()

    def _slides(self) -> list[list[str]]:
        return [[" + ".join(bag.slide_ids) for bag in bags] for bags in (self.train, self.validation)]

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"{MODEL}{key}": value for key, value in self.learner.model.state_dict().items()}
        if self.learner.miner is not None:
            tensors |= {f"miner.{key}": value for key, value in self.learner.miner.state_dict().items()}
        for index, state in self.learner.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        return tensors | {f"random.{key}": value for key, value in self.random.state_dict().items()}

    def prepare(self, resume: bool) -> None:
        """Read the last checkpoint, or make the folder and write the first one.

        Raises
        ------
        TrainingError
            The folder holds a run of other settings or slides.
        """
        folder = self.run.folder
        if folder is None:
            return
        if resume and (folder / LAST).exists():
            self._restore(folder)
        else:
            self._save()

    def _restore(self, folder: Path) -> None:
        tensors, texts = read_tensors(folder / LAST)
        try:
            facts = json.loads(texts["training"])
        except (KeyError, ValueError) as error:
            raise TrainingError(f"{folder / LAST} is not a checkpoint of a training; train anew elsewhere.") from error
        self._check_same(facts, folder)
        learner = self.learner
        learner.model.load_state_dict(_under(tensors, MODEL))
        if learner.miner is not None:
            learner.miner.load_state_dict(_under(tensors, "miner."))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, "optimizer.").items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        groups = learner.optimizer.state_dict()["param_groups"]
        learner.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.random.load_state_dict(_under(tensors, "random."))
        learner.bags_seen, self.done = int(facts["bags_seen"]), int(facts["done"])
        self.run.history = facts["history"]
        self.run.best_epoch = int(facts["best_epoch"])
        self.run.notes = list(facts["notes"])
        self.unread_notes = tuple(self.run.notes)  # how its teacher began, not how a new one would
        self.run.finished = self.finished
        if self.run.best_epoch:
            self.run.state = read_tensors(folder / BEST)[0]

    def _check_same(self, facts: Mapping[str, Any], folder: Path) -> None:
        _refuse_another(facts, self.run, folder)
        if facts["slides"] != self._slides():
            raise TrainingError(
                f"The run in {folder} was started with other training or validation slides, or in another order; "
                "give the slides their roles of then, or train anew in another folder."
            )

    def result(self) -> Run:
        """The run with its best weights."""
        return replace(self.run, which="best")


def new_run(
    method: Method,
    train: Sequence[Bag],
    seed: int,
    device: torch.device,
    folder: Path | None,
    provenance: Mapping[str, Any] | None,
    notes: list[str],
) -> Run:
    """A run before its first epoch."""
    return Run(
        method=method,
        in_dim=train[0].dim,
        n_classes=method.n_classes,
        classes=tuple(method.task.classes),
        seed=seed,
        device=str(device),
        provenance=plain(provenance),
        notes=notes,
        versions=versions(),
        folder=folder,
    )


def begin(folder: Path, run: Run) -> None:
    """run.json while the plain run is trained, so that the folder is known for an unfinished run and can go on."""
    if (folder / RUN_JSON).exists():
        _refuse_another(Run.load(folder).to_dict(), run, folder)
    else:
        run.save_facts()


def _refuse_another(facts: Mapping[str, Any], run: Run, folder: Path) -> None:
    """A run goes on with the settings, the seed and the features that it was started with."""
    before, after = Method.model_validate(facts["method"]).settings(), run.method.settings()
    differs = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if differs:
        raise TrainingError(
            f"The run in {folder} was started with other settings ({', '.join(differs)}); resume it with its own, "
            "or train anew in another folder."
        )
    for name, mine in (("seed", run.seed), ("in_dim", run.in_dim)):
        if facts[name] != mine:
            raise TrainingError(f"The run in {folder} has {name} {facts[name]}, not {mine}; it cannot be resumed so.")


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _build_miner(method: Method, model: Any, n_train: int, plain_run: Run | None) -> tuple[Miner | None, list[str]]:
    """The miner and what to tell a person about its teacher."""
    config = method.mining
    if not isinstance(config, MhimMining | Mhim2Mining):
        return None, []
    steps = method.training.epochs * n_train
    if plain_run is None:
        note = "The teacher starts as a copy of the untrained student (mining.teacher)."
        return build_miner(config, model, steps), [note]
    where = "/".join(plain_run.folder.parts[-2:]) if plain_run.folder is not None else "a plain run"
    note = f"The teacher starts from {where} (best epoch {plain_run.best_epoch})."
    return build_miner(config, model, steps, plain_run.weights), [note]
