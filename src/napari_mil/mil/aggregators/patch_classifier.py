"""A classifier of single patches, the control that every attention method should beat (METHODS §6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mil.errors import MethodError

from .base import Aggregator, BagOutput, class_probabilities, initialise


class PatchClassifier(Aggregator):
    """s_k = logistic regression or MLP of x_k; the slide's logit is the mean of the k highest s.

    Scores are logits of "lesion" for each patch, attention is 1/k on the patches that decided.
    """

    def __init__(
        self, in_dim: int, n_classes: int, hidden: int = 0, top_k: int = 1, initialisation: str = "torch"
    ) -> None:
        if n_classes != 2:
            raise MethodError(f"The patch classifier tells two classes apart; {n_classes} were asked for.")
        super().__init__(in_dim, n_classes, binary_head="single")
        self.top_k = top_k
        if hidden:
            self.classifier = nn.Sequential(nn.Linear(in_dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        else:
            self.classifier = nn.Sequential(nn.Linear(in_dim, 1))
        initialise(self, initialisation)

    def forward(self, x: Tensor) -> BagOutput:
        s = self.instance_scores(x)  # (N,)
        k = min(self.top_k, len(s))
        highest, index = s.topk(k)
        attention = torch.zeros_like(s).index_fill(0, index, 1 / k)
        return BagOutput(highest.mean()[None], s, attention, x[index].mean(dim=0))

    def instance_scores(self, x: Tensor) -> Tensor:
        return self.classifier(x)[:, 0]  # type: ignore[no-any-return]

    def instance_logits(self, x: Tensor) -> Tensor:
        return self.classifier(x)  # type: ignore[no-any-return]

    def instance_probabilities(self, x: Tensor) -> Tensor:
        return class_probabilities(self.classifier(x))
