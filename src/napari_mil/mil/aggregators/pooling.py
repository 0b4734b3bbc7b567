"""The two oldest aggregators, mean and max of the patches' logits (the baselines of Tang et al. 2023, Table 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import BagOutput, class_probabilities, initialise
from .stem import OverStem


class _Pooling(OverStem):
    """c_k = W h_k + b over h = Dropout(ReLU(Linear(x)))."""

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        stem_dim: int = 512,
        dropout: float = 0.25,
        binary_head: str = "two",
        initialisation: str = "xavier",
    ) -> None:
        super().__init__(in_dim, n_classes, binary_head, "relu", stem_dim, dropout)
        self.classifier = nn.Linear(stem_dim, self.n_logits)
        initialise(self, initialisation)

    def instance_logits(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))  # type: ignore[no-any-return]

    def instance_probabilities(self, x: Tensor) -> Tensor:
        return class_probabilities(self.instance_logits(x))


class MeanPooling(_Pooling):
    """logits = W (1/N Σ h_k) + b; attention is uniform, there are no scores (zeros)."""

    def pool(self, h: Tensor) -> BagOutput:
        z = h.mean(dim=0)  # (D',)
        scores = h.new_zeros(len(h))
        return BagOutput(self.classifier(z), scores, torch.full_like(scores, 1 / len(h)), z)


class MaxPooling(_Pooling):
    """logits_c = max_k c_kc; attention is one-hot at the patch that gave the highest of them."""

    def contributions(self, x: Tensor, output: BagOutput) -> Tensor:
        """c_kc of each class's own highest patch, 0 elsewhere."""
        c = self.instance_logits(x)  # (N, C)
        return torch.zeros_like(c).scatter(0, c.argmax(dim=0)[None], c.amax(dim=0)[None])

    def pool(self, h: Tensor) -> BagOutput:
        c = self.classifier(h)  # (N, C)
        logits, critical = c.max(dim=0)  # (C,), (C,)
        best = logits.argmax()
        k = critical[best]
        attention = torch.zeros_like(c[:, 0]).index_fill(0, k, 1.0)
        return BagOutput(logits, c[:, best], attention, h[k])
