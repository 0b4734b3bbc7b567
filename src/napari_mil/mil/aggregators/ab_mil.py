"""Attention-based MIL in its three published forms, plain or gated."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import Aggregator, BagOutput, class_probabilities, full_precision, initialise, threshold_attention
from .chunked import OtherRows, Parts, Pooled, ReluRows, Rows, as_weights, pool_by_chunks
from .stem import linear_stem


class AttentionPooling(Aggregator):
    """What all AB-MIL forms share: softmax attention with temperature and threshold.

    a = threshold_T(softmax(s / temperature));  z = Σ a_k h_k;  logits = W z + b

    Large bags are pooled by chunks (see `chunked`); features may then come in any float type.
    """

    recompute_above: ClassVar[int] = 20_000

    def __init__(
        self, in_dim: int, n_classes: int, threshold: float | None, temperature: float, binary_head: str
    ) -> None:
        super().__init__(in_dim, n_classes, binary_head)
        self.threshold = threshold
        self.temperature = temperature
        self.classifier: nn.Linear

    def class_aware_logits(self, h: Tensor, output: BagOutput) -> Tensor:
        """W (a_k h_k): each patch's own term in the logits (Tang et al. 2025)."""
        return self.weigh(output.attention)[:, None] * F.linear(h, self.classifier.weight)

    def instance_probabilities(self, x: Tensor) -> Tensor | None:
        """The slide's classifier asked about each patch (Tang et al. 2023, Figure 4); no patch taught it."""
        logits = self.instance_logits(x)
        return None if logits is None else class_probabilities(logits)

    def attend(self, scores: Tensor) -> Tensor:
        """Raw scores (N,) → attention (N,)."""
        attention = torch.softmax(full_precision(scores) / self.temperature, dim=0)
        return threshold_attention(attention, self.threshold)

    def weigh(self, attention: Tensor) -> Tensor:
        """What patches are added up with, (N,): attention, unless a variant weighs it."""
        return attention

    def in_chunks(self, n: int) -> bool:
        return self.recompute == "always" or (self.recompute == "auto" and n > self.recompute_above)

    def pool_chunks(self, x: Tensor, rows: Rows, score: Callable[[Tensor], Tensor]) -> Pooled:
        """Pool a large bag x (N, D) of rows and their scores."""

        def weigh(scores: Tensor) -> tuple[Tensor, Tensor]:
            attention = self.attend(scores)
            return attention, self.weigh(attention)

        return pool_by_chunks(x, Parts(rows, score, weigh, self.classifier.weight), self.parameters())


class AbMilRank(AttentionPooling):
    """AB-MIL, rank-induction variant (METHODS §1.1; Kim et al. 2025, code); D=1024, A=256: 527,618 parameters.

    h = W₂ ReLU(W₁ x + b₁) + b₂      adaptor D→A→D, no residual
    s = w·h + b                      raw score, no tanh, no gate
    z = Σ a_k h_k;  logits = W z + c

    h is linear in u = ReLU(W₁ x + b₁), so s and z are taken through u (N × A) and h (N × D) is never formed: the same
    numbers for a third of the work and a fifth of the memory.
    """

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        hidden: int = 256,
        threshold: float | None = None,
        temperature: float = 1.0,
        binary_head: str = "single",
        initialisation: str = "torch",
    ) -> None:
        super().__init__(in_dim, n_classes, threshold, temperature, binary_head)
        self.adaptor_in = nn.Linear(in_dim, hidden)
        self.adaptor_out = nn.Linear(hidden, in_dim)
        self.score = nn.Linear(in_dim, 1)
        self.classifier = nn.Linear(in_dim, self.n_logits)
        initialise(self, initialisation)

    def forward(self, x: Tensor) -> BagOutput:
        if self.in_chunks(len(x)) and not x.requires_grad:
            rows = ReluRows(self.adaptor_in)
            s, a, pooled = self.pool_chunks(x, rows, lambda u: self._through_adaptor(u, self.score)[:, 0])
        else:
            u = F.relu(self.adaptor_in(x))  # (N, A)
            s = self._through_adaptor(u, self.score)[:, 0]  # (N,)
            a = self.attend(s)  # (N,)
            pooled = a @ u  # (A,)
        # Σ a_k h_k = W₂ Σ a_k u_k + b₂ Σ a_k
        z = self.adaptor_out.weight @ pooled + self.adaptor_out.bias * a.sum()  # (D,)
        return BagOutput(self.classifier(z), s, a, z)

    def instances(self, x: Tensor) -> Tensor:
        return self.adaptor_out(F.relu(self.adaptor_in(as_weights(x, self.adaptor_in.weight))))  # type: ignore[no-any-return]

    def pool(self, h: Tensor) -> BagOutput:
        s = self.score(h)[:, 0]  # (N,)
        a = self.attend(s)  # (N,)
        z = a @ h  # (D,)
        return BagOutput(self.classifier(z), s, a, z)

    def instance_scores(self, x: Tensor) -> Tensor:
        return self._through_adaptor(F.relu(self.adaptor_in(x)), self.score)[:, 0]

    def instance_logits(self, x: Tensor) -> Tensor:
        return self._through_adaptor(F.relu(self.adaptor_in(x)), self.classifier)

    def stem(self) -> nn.Module:
        return nn.ModuleList([self.adaptor_in, self.adaptor_out])

    def _through_adaptor(self, u: Tensor, head: nn.Linear) -> Tensor:
        """head(W₂ u + b₂) = (W W₂) u + (W b₂ + b), u (N, A) → (N, out)."""
        weight = head.weight @ self.adaptor_out.weight  # (out, A)
        bias = head.weight @ self.adaptor_out.bias + head.bias  # (out,)
        return F.linear(u, weight, bias)


class TanhAttention(nn.Module):
    """e_k = wᵀ tanh(V h_k), or gated wᵀ(tanh(V h_k) ⊙ σ(U h_k)) (Ilse et al. 2018, equations 8 and 9)."""

    def __init__(self, dim: int, hidden: int, gated: bool, bias: bool) -> None:
        super().__init__()
        self.v = nn.Linear(dim, hidden, bias=bias)
        self.u = nn.Linear(dim, hidden, bias=bias) if gated else None
        self.w = nn.Linear(hidden, 1, bias=bias)

    def forward(self, h: Tensor) -> Tensor:
        hidden = torch.tanh(self.v(h))  # (N, L)
        if self.u is not None:
            hidden = hidden * torch.sigmoid(self.u(h))
        return self.w(hidden)[:, 0]  # type: ignore[no-any-return]


class ReluAttention(nn.Module):
    """e_k = w₂·ReLU(W₁ h_k), no biases (Tang et al. 2023, code)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.v = nn.Linear(dim, hidden, bias=False)
        self.w = nn.Linear(hidden, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.w(F.relu(self.v(h)))[:, 0]  # type: ignore[no-any-return]


class StemAttention(AttentionPooling):
    """AB-MIL over a stem: h = stem(x); s = attention(h); z = Σ a_k h_k; logits = W z + b."""

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        stem: nn.Module,
        stem_dim: int,
        attention: nn.Module,
        threshold: float | None,
        temperature: float,
        binary_head: str,
    ) -> None:
        super().__init__(in_dim, n_classes, threshold, temperature, binary_head)
        self.embed = stem
        self.attention = attention
        self.classifier = nn.Linear(stem_dim, self.n_logits)

    def forward(self, x: Tensor) -> BagOutput:
        if not self.in_chunks(len(x)) or x.requires_grad:
            return super().forward(x)
        s, a, z = self.pool_chunks(x, stem_rows(self.embed), self.attention)
        return BagOutput(self.classifier(z), s, a, z)

    def instances(self, x: Tensor) -> Tensor:
        return self.embed(as_weights(x, self.classifier.weight))  # type: ignore[no-any-return]

    def pool(self, h: Tensor) -> BagOutput:
        s = self.attention(h)  # (N,)
        a = self.attend(s)  # (N,)
        z = self.weigh(a) @ h  # (D',)
        return BagOutput(self.classifier(z), s, a, z)

    def contributions(self, x: Tensor, output: BagOutput) -> Tensor:
        return self.weigh(output.attention)[:, None] * self.instance_logits(x)

    def instance_scores(self, x: Tensor) -> Tensor:
        return self.attention(self.embed(x))  # type: ignore[no-any-return]

    def instance_logits(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))  # type: ignore[no-any-return]

    def stem(self) -> nn.Module:
        return self.embed


class AbMilMhim(StemAttention):
    """AB-MIL, MHIM variant (METHODS §1.2; Tang et al. 2023): 591,490 parameters for D=1024, C=2; gated 657,026.

    h = Dropout(act(Linear(D→512)(x)));  e = w₂·ReLU(W₁ h), or gated wᵀ(tanh(V h) ⊙ σ(U h)), without biases.
    """

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        gated: bool = False,
        activation: str = "relu",
        stem_dim: int = 512,
        attention_dim: int = 128,
        dropout: float = 0.25,
        threshold: float | None = None,
        temperature: float = 1.0,
        binary_head: str = "two",
        initialisation: str = "xavier",
    ) -> None:
        attention: nn.Module
        if gated:
            attention = TanhAttention(stem_dim, attention_dim, gated=True, bias=False)
        else:
            attention = ReluAttention(stem_dim, attention_dim)
        stem = linear_stem(in_dim, stem_dim, dropout, activation)
        super().__init__(in_dim, n_classes, stem, stem_dim, attention, threshold, temperature, binary_head)
        initialise(self, initialisation)


class AbMil(StemAttention):
    """AB-MIL (METHODS §1.3; Ilse et al. 2018), tanh or gated, with biases, over one of three stems.

    Parameters
    ----------
    stem : "linear", "tabular" or "none"
        Linear(D→512), ReLU, dropout 0.25; or Ilse's network for tabular sets, D→256→128→64 with ReLU and dropout 0.5;
        or the features as they are.
    attention_dim, dropout : int, float or None
        None: 128 and 0.25; with the tabular stem 64 and 0.5.
    adaptive_weight : float or None
        λ of adaptive weighting (Li et al. 2019; METHODS §5.2): z = Σ_{a>ā} a h + λ Σ_{a≤ā} a h, ā the bag's mean.
    """

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        gated: bool = False,
        stem: str = "linear",
        attention_dim: int | None = None,
        dropout: float | None = None,
        adaptive_weight: float | None = None,
        threshold: float | None = None,
        temperature: float = 1.0,
        binary_head: str = "single",
        initialisation: str = "torch",
    ) -> None:
        tabular = stem == "tabular"
        rate = dropout if dropout is not None else (0.5 if tabular else 0.25)
        hidden = attention_dim if attention_dim is not None else (64 if tabular else 128)
        if stem == "linear":
            network, dim = linear_stem(in_dim, 512, rate), 512
        elif tabular:
            sizes = [in_dim, 256, 128, 64]
            layers = [linear_stem(a, b, rate) for a, b in pairwise(sizes)]
            network, dim = nn.Sequential(*layers), 64
        else:
            network, dim = nn.Sequential(), in_dim
        attention = TanhAttention(dim, hidden, gated=gated, bias=True)
        super().__init__(in_dim, n_classes, network, dim, attention, threshold, temperature, binary_head)
        self.adaptive_weight = adaptive_weight
        initialise(self, initialisation)

    def weigh(self, attention: Tensor) -> Tensor:
        if self.adaptive_weight is None:
            return attention
        return torch.where(attention > attention.mean(), attention, self.adaptive_weight * attention)


def stem_rows(stem: nn.Module) -> Rows:
    """A stem for `pool_by_chunks`."""
    layers = list(stem.children())
    if len(layers) == 3 and isinstance(layers[1], nn.ReLU):
        linear, _, dropout = layers
        assert isinstance(linear, nn.Linear)
        assert isinstance(dropout, nn.Dropout)
        return ReluRows(linear, dropout.p if dropout.training else 0.0)
    return OtherRows(stem)
