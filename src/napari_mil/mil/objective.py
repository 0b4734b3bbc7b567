"""What a training step minimises: the slide's loss, the lesions' loss, and the miner's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .aggregators import Aggregator, BagOutput
from .bag import Bag
from .configs import (
    AttentionSupervision,
    BinaryTask,
    InstanceSupervision,
    Mhim2Mining,
    MhimMining,
    RankSupervision,
)
from .method import Method
from .supervision import (
    attention_induction_loss,
    attention_target,
    instance_bce_loss,
    rank_loss,
    shuffle_labels,
)
from .tasks import bag_loss, class_weights


@dataclass(frozen=True)
class Loss:
    """Total (with graph) and its unweighted parts."""

    total: Tensor
    parts: Mapping[str, Tensor]


class Objective:
    """Losses of one method for one set of training slides.

    Parameters
    ----------
    method : Method
    train : sequence of Bag
        Gives the class weights and, for the patch loss, the share of lesion patches.
    seed : int
        Of the "shuffled outlines" control.
    """

    def __init__(self, method: Method, train: Sequence[Bag], seed: int) -> None:
        self.method = method
        self.seed = seed
        self.weights = class_weights(method.task, [bag.label for bag in train if bag.label is not None])
        self.negatives = [bag for bag in train if bag.label == 0]
        self.patch_pos_weight = self._patch_pos_weight(train)

    def patch_labels(self, bag: Bag) -> npt.NDArray[np.int8] | None:
        """Patch labels (N,) that teach, or None where this bag's patches teach nothing."""
        supervision = self.method.supervision
        if supervision.kind == "none":
            return None
        labels = bag.patch_labels
        if supervision.kind == "instance_bce":
            if bag.label == 0 and labels is None:
                return np.zeros(len(bag), dtype=np.int8)
        elif not self._is_positive(bag):  # rank and attention induction look at positive slides only
            return None
        if labels is not None and supervision.shuffle_labels:
            return shuffle_labels(labels, bag.slide_id, self.seed)
        return labels

    def __call__(
        self,
        model: Aggregator,
        output: BagOutput,
        bag: Bag,
        draws: torch.Generator,
        kept: Tensor | None = None,
    ) -> Loss:
        """Loss of one bag.

        Parameters
        ----------
        output : BagOutput
            Of the patches that the model was shown.
        draws : torch.Generator
            Draws samples of pairs (not in eval mode, which takes all pairs) and patches of negative slides.
        kept : (n,) tensor of int or None
            Which ones these were; None: all.
        """
        supervision = self.method.supervision
        slide = model.loss(output, lambda logits: self.slide_loss(logits, bag), bag.label)
        if supervision.kind == "none":
            return Loss(slide, {"bag": slide.detach()})
        bag_weight = supervision.bag_weight if isinstance(supervision, InstanceSupervision) else 1.0
        name = {"rank": "rank", "attention": "attention", "instance_bce": "instance"}[supervision.kind]
        array = self.patch_labels(bag)
        if array is None:
            return Loss(bag_weight * slide, {"bag": slide.detach(), name: slide.detach() * 0})
        labels = torch.from_numpy(array).to(output.scores.device)
        if kept is not None:
            labels = labels[kept]
        if isinstance(supervision, RankSupervision):
            lesions = self._rank(model, output.scores, labels, supervision, draws, bag)
        elif isinstance(supervision, AttentionSupervision):
            lesions = self._attention(self._of_lesion(output.attention, bag), labels, bag, kept)
        else:
            lesions = instance_bce_loss(self._of_lesion(output.scores, bag), labels, self.patch_pos_weight)
        total = bag_weight * slide + supervision.weight * lesions
        return Loss(total, {"bag": slide.detach(), name: lesions.detach()})

    def slide_loss(self, logits: Tensor, bag: Bag) -> Tensor:
        """What the task asks of logits (C,) for this bag."""
        assert bag.label is not None
        return bag_loss(logits, bag.label, self.weights)

    def spared(self, bag: Bag) -> Tensor | None:
        """Patch labels (N,) that a miner has to leave something of, or None where outlines teach nothing."""
        mining = self.method.mining
        labels = (
            self.patch_labels(bag) if isinstance(mining, MhimMining | Mhim2Mining) and mining.spare_lesions else None
        )
        return None if labels is None else torch.from_numpy(labels)

    def _of_lesion(self, values: Tensor, bag: Bag) -> Tensor:
        """(N,) of the lesion's class, where a model has scores for each class (N, C).

        Lesions of a slide are of its class; on a slide without, the highest of the classes that have lesions.
        """
        if values.ndim == 1:
            return values
        if values.shape[1] == 1:
            return values[:, 0]
        return values[:, bag.label] if bag.label else values[:, 1:].amax(dim=1)

    def _rank(
        self,
        model: Aggregator,
        scores: Tensor,
        labels: Tensor,
        config: RankSupervision,
        draws: torch.Generator,
        bag: Bag,
    ) -> Tensor:
        scores = self._of_lesion(scores, bag)
        if config.cross_slide_negatives and self.negatives and bool((labels == 1).any()):
            extra = self._draw_negatives(config.cross_slide_negatives, scores, draws)
            scores = torch.cat([scores, self._of_lesion(model.instance_scores(extra), bag)])
            labels = torch.cat([labels, labels.new_zeros(len(extra))])
        return rank_loss(
            scores,
            labels,
            sigma=config.sigma,
            margin=config.margin,
            pairs=config.pairs,
            sample=config.sample if model.training else None,
            generator=draws,
        )

    def _attention(self, attention: Tensor, labels: Tensor, bag: Bag, kept: Tensor | None) -> Tensor:
        tissue = None
        if bag.tissue_pixels is not None:
            tissue = torch.from_numpy(bag.tissue_pixels).to(labels.device)
            tissue = tissue if kept is None else tissue[kept]
        return attention_induction_loss(attention, attention_target(labels, tissue), known=labels >= 0)

    def _draw_negatives(self, count: int, like: Tensor, generator: torch.Generator) -> Tensor:
        """`count` patches (count, D) of negative training slides: first a slide, then patches of it."""
        slides = torch.randint(len(self.negatives), (count,), generator=generator)
        rows = []
        for index, wanted in Counter(slides.tolist()).items():
            bag = self.negatives[index]
            rows.append(bag.rows(torch.randint(len(bag), (wanted,), generator=generator).numpy()))
        return torch.cat(rows).to(device=like.device, dtype=like.dtype)

    def _is_positive(self, bag: Bag) -> bool:
        return bag.label == 1 if isinstance(self.method.task, BinaryTask) else bool(bag.label)

    def _patch_pos_weight(self, train: Sequence[Bag]) -> float:
        """Non-lesion / lesion patches of the training slides."""
        supervision = self.method.supervision
        if not isinstance(supervision, InstanceSupervision) or not supervision.balanced:
            return 1.0
        known = [labels for bag in train if (labels := self.patch_labels(bag)) is not None]
        lesion = sum(int((labels == 1).sum()) for labels in known)
        other = sum(int((labels == 0).sum()) for labels in known)
        return other / lesion if lesion and other else 1.0
