"""DTFD-MIL: the bag is split into pseudo-bags, and what they distil is pooled once more."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ab_mil import TanhAttention
from .base import (
    BagOutput,
    SlideLoss,
    class_probabilities,
    full_precision,
    initialise,
    threshold_attention,
)
from .stem import OverStem


class _First(NamedTuple):
    scores: Tensor
    """(N,) raw."""
    attention: Tensor
    """(N,), sums to 1 in each pseudo-bag."""
    parts: tuple[Tensor, ...]
    """Which patches each of the G pseudo-bags has."""
    member: Tensor
    """(N,) pseudo-bag of each patch."""
    pooled: Tensor
    """(G, D')."""


class _Second(NamedTuple):
    attention: Tensor
    """(N,) that of tier 1 × that of its pseudo-bag in tier 2; sums to 1."""
    pooled_with: Tensor
    """(N,) what the patches are in truth added up with: only the distilled ones, but for afs."""
    embedding: Tensor
    """(D',)."""


class Dtfd(OverStem):
    """DTFD-MIL (METHODS §1.6; Zhang et al. 2022): 789,766 parameters for D=1024, C=2.

    Tier 1, in each of G pseudo-bags: s_k = wᵀ(tanh(V h_k) ⊙ σ(U h_k));  a = threshold_T(softmax(s / temperature));
    z_g = Σ a_k h_k;  logits_g = W₁ z_g + b₁
    Class activation of a patch: p_k = softmax_c(W₁ (a_k h_k)), no bias
    Tier 2: gated attention b (softmax) over what the pseudo-bags distil, F = Σ b_m f_m;  logits = W₂ F + b₂
    loss = mean_g L(logits_g) + L(logits)

    Distilled: the patch h_k of highest positive probability (max); that and the lowest (max_min); of highest attention
    (mas); the pooled z_g (afs). With several classes positive is every class but the first.

    `attention` is a patch's in tier 1 × what its pseudo-bag has in tier 2, where a pseudo-bag that distils two patches
    has the sum of both; it sums to 1, and with afs it is exactly what the slide's embedding is pooled with.

    The split is drawn anew at each training step and is a fixed one for each N in eval mode, so validation repeats.
    It is in equal parts (±1), in fewer than G where there are fewer patches.

    The parameters: stem 524,800, two gated attentions of 131,457, two classifiers of 1,026 (the authors' stem has no
    bias: 789,254; Tang et al. 2023, Table 2, print 987K).
    """

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        activation: str = "relu",
        stem_dim: int = 512,
        attention_dim: int = 128,
        dropout: float = 0.25,
        threshold: float | None = None,
        temperature: float = 1.0,
        pseudo_bags: int = 4,
        distillation: str = "max_min",
        binary_head: str = "two",
        initialisation: str = "xavier",
    ) -> None:
        super().__init__(in_dim, n_classes, binary_head, activation, stem_dim, dropout, threshold)
        self.temperature = temperature
        self.pseudo_bags = pseudo_bags
        self.distillation = distillation
        self.attention = TanhAttention(stem_dim, attention_dim, gated=True, bias=True)
        self.classifier = nn.Linear(stem_dim, self.n_logits)
        self.second_attention = TanhAttention(stem_dim, attention_dim, gated=True, bias=True)
        self.second_classifier = nn.Linear(stem_dim, self.n_logits)
        initialise(self, initialisation)

    def pool(self, h: Tensor) -> BagOutput:
        first = self._first_tier(h)
        second = self._second_tier(h, first)
        return BagOutput(
            self.second_classifier(second.embedding),
            first.scores,
            second.attention,
            second.embedding,
            extras={"pseudo_bags": self.classifier(first.pooled)},  # (G, C)
        )

    def loss(self, output: BagOutput, slide_loss: SlideLoss, label: int | None) -> Tensor:
        first = torch.stack([slide_loss(logits) for logits in output.extras["pseudo_bags"]])
        return first.mean() + slide_loss(output.logits)

    def contributions(self, x: Tensor, output: BagOutput) -> Tensor:
        """b_m (W₂ f_m + b₂) of tier 2: 0 for patches that are not distilled; with afs a_k b_g (W₂ h_k + b₂)."""
        h = self.embed(x)
        second = self._second_tier(h, self._first_tier(h))
        return second.pooled_with[:, None] * self.second_classifier(h)  # type: ignore[no-any-return]

    def instance_scores(self, x: Tensor) -> Tensor:
        return self.attention(self.embed(x))  # type: ignore[no-any-return]

    def instance_logits(self, x: Tensor) -> Tensor:
        return self.second_classifier(self.embed(x))  # type: ignore[no-any-return]

    def instance_probabilities(self, x: Tensor) -> Tensor:
        """By class activation: softmax_c(W₁ (a_k h_k)); in large bags all of them are close to 1/C."""
        h = self.embed(x)
        return class_probabilities(self._activation(h, self._first_tier(h)))

    def _split(self, n: int, device: torch.device) -> Tensor:
        """Order (N,) of the patches in which consecutive ones form the pseudo-bags."""
        if self.training:
            return torch.randperm(n, device=device)
        return torch.randperm(n, generator=torch.Generator().manual_seed(n)).to(device)

    def _first_tier(self, h: Tensor) -> _First:
        s = full_precision(self.attention(h))  # (N,)
        order = self._split(len(h), h.device)
        parts = order.tensor_split(min(self.pseudo_bags, len(h)))
        a = [threshold_attention(torch.softmax(s[part] / self.temperature, dim=0), self.threshold) for part in parts]
        attention = torch.zeros_like(s).index_put((order,), torch.cat(a))
        member = torch.cat([torch.full_like(part, g) for g, part in enumerate(parts)])[order.argsort()]
        groups = torch.arange(len(parts), device=h.device)[:, None]
        pooled = torch.where(member == groups, attention, 0.0) @ h  # (G, N) (N, D')
        return _First(s, attention, parts, member, pooled)

    def _second_tier(self, h: Tensor, first: _First) -> _Second:
        if self.distillation == "afs":
            picks, owner, distilled = None, torch.arange(len(first.parts), device=h.device), first.pooled
        else:
            picks = self._distilled(h, first)
            owner, distilled = first.member[picks], h[picks]  # (M,), (M, D')
        b = torch.softmax(full_precision(self.second_attention(distilled)), dim=0)  # (M,)
        share = b.new_zeros(len(first.parts)).index_add(0, owner, b)  # (G,)
        attention = first.attention * share[first.member]
        pooled_with = attention if picks is None else torch.zeros_like(attention).index_add(0, picks, b)
        return _Second(attention, pooled_with, b @ distilled)

    @torch.no_grad()
    def _distilled(self, h: Tensor, first: _First) -> Tensor:
        """Indices (M,) of the patches that the pseudo-bags hand on."""
        rank = first.attention if self.distillation == "mas" else self._suspicion(h, first)
        picks = []
        for part in first.parts:
            of_part = rank[part]
            picks.append(part[of_part.argmax()])
            if self.distillation == "max_min" and len(part) > 1:
                picks.append(part[of_part.argmin()])
        return torch.stack(picks)

    def _activation(self, h: Tensor, first: _First) -> Tensor:
        """W₁ (a_k h_k), (N, C)."""
        return first.attention[:, None] * F.linear(h, self.classifier.weight)

    def _suspicion(self, h: Tensor, first: _First) -> Tensor:
        """Log-odds (N,) of any class but the first; near 0 as exact as elsewhere, where softmax rounds to 1/C."""
        activation = self._activation(h, first)
        if self.n_logits == 1:
            return activation[:, 0]
        others = activation[:, 1:]
        highest = others.amax(dim=1, keepdim=True)
        return highest[:, 0] + torch.log1p(torch.expm1(others - highest).mean(dim=1)) - activation[:, 0]
