"""In which order an epoch shows the training slides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch


def epoch_order(sampler: str, labels: Sequence[int], generator: torch.Generator) -> list[int]:
    """Indices of the slides of one epoch, as many as there are slides.

    Parameters
    ----------
    sampler : "shuffled", "balanced" or "in_order"
        Every slide once in a random order; drawn with replacement so that each class comes equally often; or as given.
    labels : sequence of int
        Class of each slide; for survival, whether its event was seen.
    generator : torch.Generator
    """
    n = len(labels)
    if sampler == "in_order":
        return list(range(n))
    if sampler == "shuffled":
        return [int(i) for i in torch.randperm(n, generator=generator)]
    counts = Counter(labels)
    chances = torch.tensor([1 / counts[label] for label in labels], dtype=torch.float64)
    return [int(i) for i in torch.multinomial(chances, n, replacement=True, generator=generator)]
