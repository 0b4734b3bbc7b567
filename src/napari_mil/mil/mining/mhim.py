"""Masked hard instance mining: teacher, consistency, schedules (Tang et al. 2023; METHODS §3.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from napari_mil.errors import MethodError

from .masks import MaskedBag, MaskRatios, mask_instances

if TYPE_CHECKING:
    from napari_mil.mil.aggregators import Aggregator, BagOutput
    from napari_mil.mil.configs import Mhim2Mining, MhimMining


def consistency_loss(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """L_con = −Σ_d softmax(F_t/τ)_d log_softmax(F_s)_d, teacher detached, mean over rows where F has several.

    Parameters
    ----------
    student, teacher : (D,) or (…, D) tensors
        Bag embeddings.
    temperature : float
        τ of the teacher.
    """
    target = torch.softmax(teacher.detach().reshape(-1, teacher.shape[-1]) / temperature, dim=-1)
    log_p = torch.log_softmax(student.reshape(-1, student.shape[-1]), dim=-1)
    return -(target * log_p).sum(dim=-1).mean()


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """t ← m t + (1 − m) s for every parameter; buffers are copied."""
    for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
        t.mul_(momentum).add_(s, alpha=1 - momentum)
    for kept, copied in zip(teacher.buffers(), student.buffers(), strict=True):
        kept.copy_(copied)


def cosine_schedule(start: float, end: float, step: int, steps: int) -> float:
    """end + (start − end)/2 · (1 + cos(π step/steps)): from start at step 0 to end at step `steps`."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * step / steps))


class Lesson(NamedTuple):
    """What the student made of what the teacher left it."""

    output: BagOutput
    """Of the student; one row for each kept patch."""
    kept: Tensor
    """(n,) indices of the patches that it was shown, ascending."""
    teacher_embedding: Tensor
    """The teacher's embedding of the whole bag."""


class Miner(nn.Module):
    """Teacher and masks of one training.

    Parameters
    ----------
    config : MhimMining
    student : Aggregator
        With `student_init="stem"` and given weights, it takes its stem from them.
    steps : int
        Bags that the whole training will show: T of the schedules.
    weights : mapping of str to tensor or None
        Of a trained plain model with the same network; None: the teacher starts as the student's copy.
    """

    def __init__(
        self, config: MhimMining, student: Aggregator, steps: int, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.steps = steps
        self.teacher = copy.deepcopy(student)
        if weights is not None:
            _load_teacher(self.teacher, weights)
            stem, own = self.teacher.stem(), student.stem()
            if config.student_init == "stem" and stem is not None and own is not None:
                own.load_state_dict(stem.state_dict())
        self.teacher.requires_grad_(False)
        self.teacher.train(config.teacher_mode == "train")

    def learned(self) -> list[nn.Parameter]:
        """Parameters that the optimiser moves beside the student's."""
        return []

    def ratios(self, step: int) -> MaskRatios:
        """Masks of bag number `step`; only β_h decays: β_h(t) = β_h0/2 · (1 + cos(π t/T))."""
        c = self.config
        high = cosine_schedule(c.high, 0.0, step, self.steps) if c.high_decay == "cosine" else c.high
        return MaskRatios(high=high, low=c.low, random=c.random, high_random=c.high_random)

    def momentum(self, step: int) -> float:
        """m of the teacher after bag number `step`."""
        c = self.config
        if c.momentum_schedule == "constant":
            return c.momentum
        return cosine_schedule(c.momentum, 1.0, step, self.steps)

    @torch.no_grad()
    def mask(
        self, x: Tensor, step: int, generator: torch.Generator, labels: Tensor | None = None
    ) -> tuple[MaskedBag, Tensor]:
        """The teacher sees the whole bag x (N, D): patches to keep, and its bag embedding."""
        output = self.teacher(x)
        ranked = self.teacher.mining_scores(output)
        masked = mask_instances(
            ranked, self.ratios(step), fusion=self.config.fusion, generator=generator, labels=labels
        )
        return masked, output.embedding

    def teach(
        self, student: Aggregator, x: Tensor, step: int, generator: torch.Generator, labels: Tensor | None = None
    ) -> Lesson:
        """Hide patches of the bag x (N, D), show the student the others.

        Parameters
        ----------
        labels : (N,) tensor or None
            Patch labels that a loss needs: patches of label 1 are never hidden, and one of label 0 is always left.
        """
        masked, embedding = self.mask(x, step, generator, labels)
        # kept rows are gathered before the stem: the same numbers for less work
        return Lesson(student(x[masked.kept]), masked.kept, embedding)

    def follow(self, student: Aggregator, step: int) -> None:
        """After an optimiser step at bag number `step`."""
        ema_update(self.teacher, student, self.momentum(step))


def build_miner(
    config: MhimMining | Mhim2Mining, student: Aggregator, steps: int, weights: Mapping[str, Tensor] | None = None
) -> Miner:
    """The miner of a method's settings; see `Miner`."""
    if config.kind == "mhim2":
        raise NotImplementedError
    return Miner(config, student, steps, weights)


def _load_teacher(teacher: nn.Module, weights: Mapping[str, Tensor]) -> None:
    try:
        teacher.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise MethodError(
            "The teacher's run has another network than this method, so it cannot start from it; "
            "choose a plain run with the same aggregator and features."
        ) from error
