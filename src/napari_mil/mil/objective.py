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
    SurvivalTask,
)
from .method import Method
from .metrics import balanced_accuracy, c_index, multiclass_auroc
from .supervision import (
    attention_induction_loss,
    attention_target,
    instance_bce_loss,
    rank_loss,
    shuffle_labels,
)
from .survival import bins_of, survival_bins, survival_nll, survival_risk
from .tasks import bag_loss, class_weights, probabilities


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
        Gives the class weights, for survival the bins of time, and for the patch loss the share of lesion patches.
    seed : int
        Of the "shuffled outlines" control.
    """

    def __init__(self, method: Method, train: Sequence[Bag], seed: int) -> None:
        self.method = method
        self.seed = seed
        self.weights = class_weights(method.task, [bag.label for bag in train if bag.label is not None])
        self.time_edges: tuple[float, ...] = ()
        """Edges of the bins of time (n_bins + 1), for survival."""
        if isinstance(method.task, SurvivalTask):
            times, events = [bag.time for bag in train], [bag.event for bag in train]
            self.time_edges = tuple(survival_bins(times, events, method.task.n_bins)[1].tolist())  # type: ignore[arg-type]
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
        label = None if self.time_edges else bag.label
        slide = model.loss(output, lambda logits: self.slide_loss(logits, bag), label)
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
        if self.time_edges:
            assert bag.time is not None
            return survival_nll(logits, int(bins_of(bag.time, self.time_edges)), bool(bag.event))
        assert bag.label is not None
        return bag_loss(logits, bag.label, self.weights)

    def metrics(self, bags: Sequence[Bag], logits: Tensor) -> dict[str, float | None]:
        """What the task is judged by, from the logits (n, C) of bags: the names of `records.METRICS`."""
        if self.time_edges:
            times, events = [bag.time for bag in bags], [bag.event for bag in bags]
            return {"c_index": c_index(times, events, survival_risk(logits.double()).numpy())}  # type: ignore[arg-type]
        labels = np.array([bag.label for bag in bags])
        p = probabilities(logits, self.method.task).double().numpy()  # (n, n_classes)
        return {"auroc": multiclass_auroc(labels, p), "balanced_accuracy": balanced_accuracy(labels, p)}

    def stratum(self, bag: Bag) -> int:
        """What balanced draws go by: the bag's class, or whether its event was seen."""
        return int(bool(bag.event)) if self.time_edges else bag.label or 0

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
        if self.time_edges:  # columns are bins of time, no classes of lesions
            return values.mean(dim=1)
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
        if self.time_edges:  # labels, if there are any, say nothing to the loss: outlines do
            return bag.patch_labels is not None and bool((bag.patch_labels == 1).any())
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
