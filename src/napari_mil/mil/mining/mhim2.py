"""Masked hard instance mining, second version (Tang et al. 2025; METHODS §4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from .masks import MaskRatios, mask_instances, spare
from .mhim import Lesson, Miner, as_taken
from .recycle import RecycleNetwork

if TYPE_CHECKING:
    from napari_mil.mil.aggregators import Aggregator, BagOutput
    from napari_mil.mil.configs import Mhim2Mining


class RecycledBag(NamedTuple):
    """Indices of patches, each ascending; every patch is in one of the three."""

    kept: Tensor
    masked_high: Tensor
    recycled: Tensor


@torch.no_grad()
def class_aware_score(aggregator: Aggregator, x: Tensor) -> Tensor:
    """What MHIM-MIL's second version ranks patches by (METHODS §4.1).

    max_c log softmax_c of each patch's own term in the bag's logits, without bias; DSMIL: its highest instance logit.
    It is reckoned in float64: the probabilities themselves lie too close to 1/C to be told apart in float32.

    Parameters
    ----------
    aggregator : Aggregator
    x : (N, in_dim) tensor
        One bag.

    Returns
    -------
    (N,) tensor of float64
    """
    h = aggregator.instances(x)
    return aggregator.class_aware_score(h, aggregator.pool(h))


def recycle_instances(
    scores: Tensor,
    high: float,
    keep: float,
    *,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    labels: Tensor | None = None,
) -> RecycledBag:
    """The high mask first, then most of the rest at random (METHODS §4.2).

    Parameters
    ----------
    scores : (N,) or (H, N) tensor
        Of the teacher.
    high : float
        β_h: the ⌈N β_h⌉ highest are masked.
    keep : float
        Of the N′ others, ⌊N′ · keep⌋ are kept, at least one; the rest is recycled.
    generator : torch.Generator or None
        CPU generator of the draw.
    noise : (N′,) tensor or None
        Replays a recorded draw instead: those of the least noise are kept.
    labels : (N,) tensor or None
        Patches of label 1 are kept, and one of label 0 at least, as `mask_instances` does.
    """
    first = mask_instances(scores, MaskRatios(high=high))
    rest, hidden = first.kept, first.masked_high
    recycled = rest[:0]
    if keep < 1:
        drawn = torch.rand(len(rest), generator=generator) if noise is None else noise
        recycled = rest[drawn.argsort(stable=True).to(rest.device)[max(1, int(len(rest) * keep)) :]]
    if labels is not None:
        hidden, recycled = spare(scores, [hidden, recycled], labels)
    shown = torch.ones(scores.shape[-1], dtype=torch.bool, device=scores.device)
    shown[hidden] = False
    shown[recycled] = False
    return RecycledBag(shown.nonzero()[:, 0], hidden, recycled.sort().values)


class Mhim2Miner(Miner):
    """MHIM-MIL's second version: ranks by class, hides most patches at random, and recycles what these say.

    The student pools its kept patches together with the recycle network's rows z, [h_kept; z]; both come from the
    student's own stem. Inference knows neither masks nor z. The teacher sees whole bags, so it needs no recycle network
    of its own (the published one averages a copy that nothing reads).
    """

    config: Mhim2Mining

    def __init__(
        self,
        config: Mhim2Mining,
        student: Aggregator,
        steps: int,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(config, student, steps, weights)
        self.recycle: RecycleNetwork | None = None
        if config.queries and config.keep < 1:
            like = next(student.parameters())
            dim = _width(self.teacher)
            network = RecycleNetwork(dim, config.queries, config.query_momentum, config.recycle_dropout)
            self.recycle = network.to(like)

    def learned(self) -> list[nn.Parameter]:
        return [] if self.recycle is None else list(self.recycle.parameters())

    @torch.no_grad()
    def mask(
        self, x: Tensor, draws: torch.Generator, labels: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[RecycledBag, Tensor]:
        """The teacher sees the whole bag x (N, D): patches to keep and to recycle, and its bag embedding."""
        c = self.config
        h = self.teacher.instances(x)
        output = self.teacher.pool(h)
        by_class = c.score == "class_aware"
        ranked = self.teacher.class_aware_score(h, output) if by_class else self.teacher.mining_scores(output)
        bag = recycle_instances(ranked, c.high, c.keep, generator=draws, noise=noise, labels=labels)
        return bag, output.embedding

    def teach(
        self, student: Aggregator, x: Tensor, step: int, draws: torch.Generator, labels: Tensor | None = None
    ) -> Lesson:
        bag, embedding = self.mask(x, draws, labels)
        return Lesson(self.show(student, x, bag), bag.kept, embedding)

    def show(self, student: Aggregator, x: Tensor, bag: RecycledBag) -> BagOutput:
        """The student's output for what the masks leave of x (N, D), rows of kept patches only."""
        if self.recycle is None or not len(bag.recycled):
            output: BagOutput = student(as_taken(student, x[bag.kept]))
            return output
        h = student.instances(as_taken(student, x[torch.cat([bag.kept, bag.recycled])]))
        n = len(bag.kept)
        z = self.recycle(h[n:])
        self.recycle.remember(z)
        return student.pool_with(h[:n], z.to(h))


def _width(network: Aggregator) -> int:
    """D′ of a network's `instances`."""
    mode, like = network.training, next(network.parameters())
    with torch.no_grad():
        width = network.eval().instances(like.new_zeros(1, network.in_dim)).shape[1]
    network.train(mode)
    return width
