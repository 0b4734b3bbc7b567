"""What is predicted: losses on the slide's logits, and probabilities from them (METHODS §0, §2.5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .aggregators.base import class_probabilities
from .configs import BinaryTask, MulticlassTask, SurvivalTask
from .survival import bin_probabilities

Task = BinaryTask | MulticlassTask | SurvivalTask


def class_weights(task: Task, labels: Sequence[int]) -> tuple[float, ...]:
    """Weight of each class (n_classes,) from the labels of the training slides.

    Binary, on the positive class: "balanced" N_neg/N_pos, "released" N/N_pos (as published), or a number.
    Multi-class: "balanced" N / (n_classes · N_c), or one number per class.
    """
    if isinstance(task, SurvivalTask):
        return (1.0,) * task.n_classes
    n, wish = len(labels), task.class_weight
    counts = [sum(label == c for label in labels) for c in range(task.n_classes)]
    if isinstance(task, BinaryTask):
        if wish == "balanced":
            return 1.0, counts[0] / max(counts[1], 1)
        if wish == "released":
            return 1.0, n / max(counts[1], 1)
        return 1.0, wish if isinstance(wish, float | int) else 1.0
    if wish == "balanced":
        return tuple(n / (task.n_classes * max(count, 1)) for count in counts)
    return tuple(wish) if isinstance(wish, tuple) else (1.0,) * task.n_classes


def bag_loss(logits: Tensor, label: int, weights: Sequence[float]) -> Tensor:
    """BCE of a single logit, or cross-entropy of (C,) logits, times the weight of the slide's class."""
    if len(logits) == 1:
        loss = F.binary_cross_entropy_with_logits(logits, logits.new_full((1,), float(label)))
    else:
        loss = F.cross_entropy(logits[None], torch.tensor([label], device=logits.device))
    return loss * weights[label]


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """Logits (…, C) → probabilities (…, n_classes): of the classes, or of the event in each bin of time."""
    return bin_probabilities(logits) if isinstance(task, SurvivalTask) else class_probabilities(logits)
