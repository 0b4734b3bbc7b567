"""Masked hard instance mining: teacher, consistency, schedules (Tang et al. 2023; METHODS §3.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from napari_mil.errors import MethodError
from napari_mil.mil.aggregators.chunked import as_weights

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
    ours: list[Tensor] = list(teacher.parameters())
    theirs: list[Tensor] = list(student.parameters())
    if len(ours) != len(theirs):
        raise MethodError(f"A teacher of {len(ours)} parameters cannot follow a student of {len(theirs)}.")
    if momentum < 1:
        torch._foreach_lerp_(ours, theirs, 1 - momentum)
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
    """Teacher of one training, and what it hides from the student; base of both versions.

    Parameters
    ----------
    config : MhimMining or Mhim2Mining
    student : Aggregator
        With `student_init="stem"` and given weights, it takes its stem from them.
    steps : int
        Bags that the whole training will show: T of the schedules.
    weights : mapping of str to tensor or None
        Of a trained plain model with the same network; None: the teacher starts as the student's copy.
    """

    def __init__(
        self,
        config: MhimMining | Mhim2Mining,
        student: Aggregator,
        steps: int,
        weights: Mapping[str, Tensor] | None = None,
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

    def momentum(self, step: int) -> float:
        """m of the teacher after bag number `step`."""
        c = self.config
        if c.momentum_schedule == "constant":
            return c.momentum
        return cosine_schedule(c.momentum, 1.0, step, self.steps)

    def teach(
        self, student: Aggregator, x: Tensor, step: int, draws: torch.Generator, labels: Tensor | None = None
    ) -> Lesson:
        """Hide patches of the bag x (N, D), show the student the others.

        No paper joins mining with outlines. Here the teacher chooses as if there were none, and then patches of
        label 1 leave every mask; where all patches of label 0 are hidden, the easiest mask gives its highest-scored
        one back. The losses of outlines are those of the patches that are left: rank induction orders all pairs among
        them, and attention induction's target sums to one over them. So no pair is lost for want of a lesion patch,
        while most of the others, the rank loss's many partners, are hidden as in mining alone.

        Parameters
        ----------
        student : Aggregator
        x : (N, D) tensor
        step : int
            Number of the bag: t of the schedules.
        draws : torch.Generator
            CPU generator of the masks.
        labels : (N,) tensor or None
            Patch labels that a loss needs (`mining.spare_lesions`).
        """
        raise NotImplementedError

    def follow(self, student: Aggregator, step: int) -> None:
        """After an optimiser step at bag number `step`."""
        ema_update(self.teacher, student, self.momentum(step))


class MhimMiner(Miner):
    """MHIM-MIL (Tang et al. 2023): hides the highest, the lowest and random patches by the teacher's attention."""

    config: MhimMining

    def ratios(self, step: int) -> MaskRatios:
        """Masks of bag number `step`; only β_h decays: β_h(t) = β_h0/2 · (1 + cos(π t/T))."""
        c = self.config
        high = cosine_schedule(c.high, 0.0, step, self.steps) if c.high_decay == "cosine" else c.high
        return MaskRatios(high=high, low=c.low, random=c.random, high_random=c.high_random)

    @torch.no_grad()
    def mask(
        self, x: Tensor, step: int, draws: torch.Generator, labels: Tensor | None = None
    ) -> tuple[MaskedBag, Tensor]:
        """The teacher sees the whole bag x (N, D): patches to keep, and its bag embedding."""
        output = self.teacher(as_taken(self.teacher, x))
        ranked = self.teacher.mining_scores(output)
        masked = mask_instances(ranked, self.ratios(step), fusion=self.config.fusion, generator=draws, labels=labels)
        return masked, output.embedding

    def teach(
        self, student: Aggregator, x: Tensor, step: int, draws: torch.Generator, labels: Tensor | None = None
    ) -> Lesson:
        masked, embedding = self.mask(x, step, draws, labels)
        # kept rows are gathered before the stem: the same numbers for less work
        return Lesson(student(as_taken(student, x[masked.kept])), masked.kept, embedding)


def as_taken(network: Aggregator, x: Tensor) -> Tensor:
    """Features (N, D) as a network takes them: large bags come as stored, what masks leave of them may be small."""
    return x if network.in_chunks(len(x)) else as_weights(x, next(network.parameters()))


def _load_teacher(teacher: nn.Module, weights: Mapping[str, Tensor]) -> None:
    try:
        teacher.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise MethodError(
            "The teacher's run has another network than this method, so it cannot start from it; "
            "choose a plain run with the same aggregator and features."
        ) from error
