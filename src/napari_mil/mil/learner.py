"""One slide at a time: the training loss, the optimiser step, and the evaluation of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor

from napari_mil.errors import TrainingError

from .aggregators import Aggregator, BagOutput
from .bag import Bag
from .configs import TrainingConfig
from .devices import memory_in_words, put_on
from .mining import Miner, consistency_loss
from .objective import Loss, Objective
from .shelf import Shelf


def build_optimizer(
    config: TrainingConfig, model: torch.nn.Module, miner: Miner | None = None
) -> torch.optim.Optimizer:
    """Optimiser of a method's settings over the model's parameters, and what a miner learns beside."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": torch.optim.SGD,
    }
    parameters = [*model.parameters(), *(miner.learned() if miner is not None else [])]
    return kinds[config.optimizer](parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


@dataclass(frozen=True)
class Pass:
    """One pass over slides: mean total loss, means of its parts, and (in evaluation) what the task is judged by."""

    loss: float
    parts: dict[str, float]
    metrics: dict[str, float | None] = field(default_factory=dict)


class Learner:
    """Model, objective, optimiser and, with mining, teacher.

    Parameters
    ----------
    model : Aggregator
    objective : Objective
    optimizer : torch.optim.Optimizer
    draws : torch.Generator
        Masks, sampled pairs.
    miner : Miner or None
    room : int or None
        Bytes of features to keep, see `Shelf`.
    """

    def __init__(
        self,
        model: Aggregator,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        draws: torch.Generator,
        miner: Miner | None = None,
        room: int | None = None,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.draws, self.miner = draws, miner
        self.bags_seen = 0
        """Bags shown so far: t of the miner's schedules."""
        self.dtype = next(model.parameters()).dtype
        self.device = next(model.parameters()).device
        self.half = objective.method.training.precision == "bf16"
        model.recompute = objective.method.training.recompute
        self.shelf = Shelf(self.device, room)

    def loss(self, bag: Bag, stored: Tensor | None = None) -> Loss:
        """Training loss of one bag; with mining, of the patches that the teacher leaves to the student.

        Parameters
        ----------
        stored : (N, D) tensor or None
            The bag's features where they are at hand already.
        """
        x = self.features(bag, stored)  # (N, D)
        if self.miner is None:
            return self.objective(self.model, self.see(x), bag, self.draws)
        labels = self.objective.spared(bag)
        with self.autocast():
            lesson = self.miner.teach(self.model, x, self.bags_seen, self.draws, labels)
        output = lesson.output.full_precision()
        loss = self.objective(self.model, output, bag, self.draws, kept=lesson.kept)
        alpha = self.miner.config.consistency_weight
        if alpha == 0:
            return loss
        consistency = consistency_loss(
            output.embedding, lesson.teacher_embedding.to(output.embedding), self.miner.config.consistency_temperature
        )
        return Loss(loss.total + alpha * consistency, {**loss.parts, "consistency": consistency.detach()})

    def features(self, bag: Bag, stored: Tensor | None = None) -> Tensor:
        """A bag's features (N, D) on the device, as the model takes them: a large bag is cast chunk by chunk."""
        x = put_on(bag.stored() if stored is None else stored, self.device)  # first there, then cast: less to copy
        if self.model.in_chunks(len(x)):
            return x
        return x.to(torch.bfloat16 if self.half else self.dtype)

    def see(self, x: Tensor) -> BagOutput:
        """The model's output for a whole bag x (N, D)."""
        with self.autocast():
            output: BagOutput = self.model(x)
        return output.full_precision()

    def autocast(self) -> torch.autocast:
        """bfloat16 where the method asks for it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half)

    def step(self) -> None:
        """Move the weights along the gathered gradients; the teacher follows."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.miner is not None:
            self.miner.follow(self.model, max(self.bags_seen - 1, 0))

    def train_pass(self, bags: Sequence[Bag], config: TrainingConfig, on_bag: Callable[[int], None]) -> Pass:
        """Every bag in this order, a step after each `config.accumulate` of them."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums = _Sums()
        n, group = len(bags), config.accumulate
        with closing(self.shelf.through(bags)) as shown:
            for index, (bag, stored) in enumerate(shown):
                tail = n - index // group * group < group and config.accumulation_tail == "own"
                with memory_in_words(bag, self.device):
                    loss = self.loss(bag, stored)
                    sums.add(loss, bag, "training")
                    (loss.total / (n % group if tail else group)).backward()  # type: ignore[no-untyped-call]
                    self.bags_seen += 1
                    if (index + 1) % group == 0 or index + 1 == n:
                        self.step()
                on_bag(index + 1)
        return Pass(*sums.means())

    @torch.no_grad()
    def evaluate(self, bags: Sequence[Bag], on_bag: Callable[[int], None]) -> Pass:
        """Loss and metrics in eval mode, of whole bags, without masks; twice the same."""
        self.model.eval()
        draws = torch.Generator().manual_seed(0)  # the same each time
        sums = _Sums()
        rows: list[Tensor] = []
        with closing(self.shelf.through(bags)) as shown:
            for index, (bag, stored) in enumerate(shown):
                with memory_in_words(bag, self.device):
                    output = self.see(self.features(bag, stored))
                    sums.add(self.objective(self.model, output, bag, draws), bag, "validation")
                    rows.append(output.logits.cpu())
                on_bag(index + 1)
        return Pass(*sums.means(), metrics=self.objective.metrics(bags, torch.stack(rows)))


class _Sums:
    """Running sums of losses."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self.parts: dict[str, float] = {}

    def add(self, loss: Loss, bag: Bag, role: str) -> None:
        value = loss.total.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"The {role} loss became {value} at slide {bag.slide_id}; lower training.learning_rate, or look at "
                "this slide's features (very large numbers?). The last good weights are kept."
            )
        self.total += value
        self.count += 1
        for name, part in loss.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + part.item()

    def means(self) -> tuple[float, dict[str, float]]:
        n = max(self.count, 1)
        return self.total / n, {name: value / n for name, value in self.parts.items()}
