"""DSMIL: the most suspicious patch of each class asks all others how like it they are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mil.mil.devices import exact

from .base import (
    BagOutput,
    SlideLoss,
    class_probabilities,
    full_precision,
    initialise,
    threshold_attention,
)
from .stem import OverStem


class _Streams(NamedTuple):
    instances: Tensor
    """c (N, C): logits of each patch."""
    attention: Tensor
    """A (N, C)."""
    values: Tensor
    """v(h) (N, D')."""
    embedding: Tensor
    """B (C, D')."""


class Dsmil(OverStem):
    """DSMIL (METHODS §1.5; Li et al. 2021, as in Tang et al. 2023): 872,708 parameters for D=1024, C=2.

    c = W h + b                                           instance logits (N, C); max stream: max_k c_kc
    q(h) = Tanh(Linear(ReLU(Linear(h))));  v(h) = ReLU(Linear(h))
    A_kc = softmax_k(q(h_k)·q(h_i)/√Q),  i = argmax_k c_kc   the critical patch of class c
    B = Aᵀ v(h)  (C, D');  bag stream: Conv1d(C, C, D')(B)

    Both streams are averaged: their probabilities, each with half of the loss (`fusion="probabilities"`), or their
    logits (`fusion="logits"`).

    Parameters
    ----------
    fusion : "probabilities" or "logits"
        With probabilities, `logits` is the logarithm of their mean, so that its softmax (sigmoid) is that mean.
    """

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        activation: str = "relu",
        stem_dim: int = 512,
        query_dim: int = 128,
        dropout: float = 0.25,
        value_dropout: float = 0.0,
        threshold: float | None = None,
        fusion: str = "probabilities",
        binary_head: str = "two",
        initialisation: str = "xavier",
    ) -> None:
        super().__init__(in_dim, n_classes, binary_head, activation, stem_dim, dropout, threshold)
        self.fusion = fusion
        self.value_dropout = value_dropout
        self.instance_classifier = nn.Linear(stem_dim, self.n_logits)
        self.query = nn.Sequential(
            nn.Linear(stem_dim, query_dim), nn.ReLU(), nn.Linear(query_dim, query_dim), nn.Tanh()
        )
        self.value = nn.Sequential(nn.Dropout(value_dropout), nn.Linear(stem_dim, stem_dim), nn.ReLU())
        self.bag_classifier = nn.Conv1d(self.n_logits, self.n_logits, stem_dim)
        initialise(self, initialisation)

    def pool(self, h: Tensor) -> BagOutput:
        c, attention, _, embedding = self._streams(h)
        bag = full_precision(self.bag_classifier(embedding[None])[0, :, 0])  # (C,)
        highest = c.amax(dim=0)  # (C,)
        logits = (bag + highest) / 2 if self.fusion == "logits" else mean_probability_logits(bag, highest)
        return BagOutput(logits, c, attention, embedding, extras={"bag": bag, "max": highest})

    def loss(self, output: BagOutput, slide_loss: SlideLoss, label: int | None) -> Tensor:
        if self.fusion == "logits":
            return slide_loss(output.logits)
        return (slide_loss(output.extras["bag"]) + slide_loss(output.extras["max"])) / 2

    def mining_scores(self, output: BagOutput) -> Tensor:
        return output.scores.amax(dim=1)

    def class_aware_logits(self, h: Tensor, output: BagOutput) -> Tensor:
        return output.scores

    def class_aware_score(self, h: Tensor, output: BagOutput) -> Tensor:
        """max_c c_kc, as in MHIM-MIL's second version too."""
        return exact(self.mining_scores(output))

    def contributions(self, x: Tensor, output: BagOutput) -> Tensor:
        """Terms of the mean of both streams' logits: Σ_c' A_kc' (w_cc'·v_k + b_c/C), and c_ic of the critical patch."""
        c, attention, values, _ = self._streams(self.embed(x))
        weight, bias = self.bag_classifier.weight, self.bag_classifier.bias  # (C, C', D'), (C,)
        assert bias is not None
        bag = attention.mean(dim=1, keepdim=True) * bias  # (N, C)
        for asked in range(self.n_logits):
            bag = bag + attention[:, asked, None] * F.linear(values, weight[:, asked])
        highest = torch.zeros_like(c).scatter(0, c.argmax(dim=0)[None], c.amax(dim=0)[None])
        return (bag + highest) / 2

    def instance_scores(self, x: Tensor) -> Tensor:
        return self.instance_logits(x)

    def instance_logits(self, x: Tensor) -> Tensor:
        return self.instance_classifier(self.embed(x))  # type: ignore[no-any-return]

    def instance_probabilities(self, x: Tensor) -> Tensor:
        return class_probabilities(self.instance_logits(x))

    def _streams(self, h: Tensor) -> _Streams:
        c = full_precision(self.instance_classifier(h))  # (N, C)
        if self.training and self.value_dropout:
            values, q = self.value(h), self.query(h)  # (N, D'), (N, Q)
        else:
            v, u = together(h, self.value[1], self.query[0])
            values, q = F.relu(v), self.query[1:](u)
        critical = c.argmax(dim=0)  # (C,)
        likeness = full_precision(q @ q[critical].T) / q.shape[1] ** 0.5  # (N, C)
        attention = threshold_attention(torch.softmax(likeness, dim=0), self.threshold)
        return _Streams(c, attention, values, attention.T @ values)


def together(h: Tensor, one: nn.Module, other: nn.Module) -> tuple[Tensor, Tensor]:
    """Two linear layers of the same h (N, D') by one product, forth and back."""
    assert isinstance(one, nn.Linear)
    assert isinstance(other, nn.Linear)
    both = F.linear(h, torch.cat([one.weight, other.weight]), torch.cat([one.bias, other.bias]))
    left, right = torch.split_with_sizes(both, [one.out_features, other.out_features], dim=1)
    return left, right


def mean_probability_logits(one: Tensor, other: Tensor) -> Tensor:
    """Logits (C,) whose softmax is the mean of two softmaxes; with a single logit, whose sigmoid is that of two."""
    if len(one) == 1:
        positive = torch.logaddexp(F.logsigmoid(one), F.logsigmoid(other))
        return positive - torch.logaddexp(F.logsigmoid(-one), F.logsigmoid(-other))
    halved = torch.logaddexp(torch.log_softmax(one, dim=0), torch.log_softmax(other, dim=0))
    return halved - math.log(2)
