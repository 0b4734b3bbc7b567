"""CLAM: attention MIL whose highest and lowest patches also teach classifiers of single patches."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import BagOutput, SlideLoss, full_precision, initialise, threshold_attention
from .stem import OverStem


class GatedBranches(nn.Module):
    """s_kb = w_b·(tanh(V h_k) ⊙ σ(U h_k)): one hidden layer, a score for each branch b; (N, D') → (N, branches)."""

    def __init__(self, dim: int, hidden: int, branches: int) -> None:
        super().__init__()
        self.v = nn.Linear(dim, hidden)
        self.u = nn.Linear(dim, hidden)
        self.w = nn.Linear(hidden, branches)

    def forward(self, h: Tensor) -> Tensor:
        return self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h)))  # type: ignore[no-any-return]


class _Clam(OverStem):
    """What both forms of CLAM share (METHODS §1.6; Lu et al. 2021).

    s = gated attention of h, hidden width 256;  a = threshold_T(softmax(s / temperature));  z_b = Σ a_kb h_k
    loss = (1 − w) L(logits) + w L_instance,  w = `instance_weight`

    L_instance: the B patches of highest attention are labelled "in", the B lowest "out", for the instance classifier of
    the slide's class. With `exclusive` classes the highest patches are labelled "out" for each other class, and the
    mean over classes is taken. A slide of fewer than 2B patches gives half of them to each side.

    Parameters
    ----------
    instance_weight : float
        w; at 0 there are no instance classifiers.
    """

    per_class: ClassVar[bool]

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        activation: str = "relu",
        stem_dim: int = 512,
        attention_dim: int = 256,
        dropout: float = 0.25,
        threshold: float | None = None,
        temperature: float = 1.0,
        instance_weight: float = 0.3,
        instance_patches: int = 8,
        instance_loss: str = "svm",
        exclusive: bool = False,
        binary_head: str = "two",
        initialisation: str = "xavier",
    ) -> None:
        super().__init__(in_dim, n_classes, binary_head, activation, stem_dim, dropout, threshold)
        self.temperature = temperature
        self.instance_weight = instance_weight
        self.instance_patches = instance_patches
        self.instance_loss = smooth_svm if instance_loss == "svm" else F.cross_entropy
        self.exclusive = exclusive
        self.branches = self.n_logits if self.per_class else 1
        self.attention = GatedBranches(stem_dim, attention_dim, self.branches)
        self.classifier = nn.Linear(stem_dim, self.n_logits)
        # of each class: out, in
        self.instance_classifiers = nn.Linear(stem_dim, 2 * n_classes) if instance_weight else None
        initialise(self, initialisation)

    def pool(self, h: Tensor) -> BagOutput:
        s = full_precision(self.attention(h))  # (N, branches)
        a = threshold_attention(torch.softmax(s / self.temperature, dim=0), self.threshold)
        z = a.T @ h  # (branches, D')
        extras = self._clusters(h, s)
        if self.per_class:
            logits = (self.classifier.weight * z).sum(dim=1) + self.classifier.bias  # w_c·z_c + b_c
            return BagOutput(logits, s, a, z, extras=extras)
        return BagOutput(self.classifier(z[0]), s[:, 0], a[:, 0], z[0], extras=extras)

    def pool_with(self, h: Tensor, rows: Tensor) -> BagOutput:
        output = super().pool_with(h, rows)
        return output._replace(extras=self._clusters(h, output.scores.view(len(h), -1)))  # of patches alone

    def loss(self, output: BagOutput, slide_loss: SlideLoss, label: int | None) -> Tensor:
        slide = slide_loss(output.logits)
        if not self.instance_weight or label is None:
            return slide
        bag = (1 - self.instance_weight) * slide
        clusters = output.extras.get("clusters")
        return bag if clusters is None else bag + self.instance_weight * self._instance_loss(clusters, label)

    def class_aware_logits(self, h: Tensor, output: BagOutput) -> Tensor:
        """W (a_k h_k), or w_c·(a_kc h_k): each patch's own term in the logits."""
        return output.attention.view(len(h), -1) * F.linear(h, self.classifier.weight)

    def instance_scores(self, x: Tensor) -> Tensor:
        s = self.attention(self.embed(x))  # (N, branches)
        return s if self.per_class else s[:, 0]  # type: ignore[no-any-return]

    def instance_logits(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))  # type: ignore[no-any-return]

    def instance_probabilities(self, x: Tensor) -> Tensor | None:
        """Probability of "in" by each class's instance classifier, (N, n_classes); a row need not sum to 1."""
        if self.instance_classifiers is None:
            return None
        return torch.softmax(self._in_or_out(self.embed(x)), dim=-1)[..., 1]

    def _clusters(self, h: Tensor, scores: Tensor) -> dict[str, Tensor]:
        """Instance logits (branches, 2B, n_classes, 2) of each branch's B highest and B lowest patches."""
        count = min(self.instance_patches, len(h) // 2)
        if self.instance_classifiers is None or count == 0:
            return {}
        highest = scores.topk(count, dim=0).indices
        lowest = scores.topk(count, dim=0, largest=False).indices  # (B, branches)
        return {"clusters": self._in_or_out(h[torch.cat([highest, lowest]).T])}

    def _in_or_out(self, h: Tensor) -> Tensor:
        """Instance logits (…, n_classes, 2) of h (…, D')."""
        assert self.instance_classifiers is not None
        return self.instance_classifiers(h).unflatten(-1, (self.n_classes, 2))  # type: ignore[no-any-return]

    def _instance_loss(self, clusters: Tensor, label: int) -> Tensor:
        count = clusters.shape[1] // 2
        places = torch.arange(2 * count, device=clusters.device)
        losses = []
        for c in range(self.n_classes) if self.exclusive else [label]:
            of_class = clusters[min(c, self.branches - 1), :, c]  # (2B, 2)
            if c == label:
                losses.append(self.instance_loss(of_class, (places < count).long()))
            else:
                losses.append(self.instance_loss(of_class[:count], torch.zeros_like(places[:count])))
        return torch.stack(losses).mean()


class ClamSb(_Clam):
    """CLAM with one attention branch (METHODS §1.6; Lu et al. 2021); D=1024, C=2: 790,791 parameters.

    logits = W z + b. Without instance classifiers (`instance_weight` 0) 788,739.
    """

    per_class = False


class ClamMb(_Clam):
    """CLAM with an attention branch for each class (METHODS §1.6; Lu et al. 2021); D=1024, C=2: 791,048 parameters.

    logit_c = w_c·z_c + b_c; scores and attention (N, C). Without instance classifiers (`instance_weight` 0) 788,996:
    stem 524,800, hidden layers 2 · 131,328, branches 2 · 257, classifiers 2 · 513.
    """

    per_class = True


def smooth_svm(scores: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Smooth top-1 SVM, mean over rows (Berrada et al. 2018, equation 8 with k = 1 and margin 1).

    L = τ log Σ_c exp((Δ(c, y) + s_c − s_y)/τ),  Δ(c, y) = 1 where c ≠ y, else 0

    Parameters
    ----------
    scores : (M, C) tensor
    target : (M,) tensor of int
        y.
    temperature : float
        τ; towards 0 it becomes the multi-class hinge loss.
    """
    own = scores.gather(1, target[:, None])  # (M, 1)
    raised = (scores + 1).scatter(1, target[:, None], own)
    return (temperature * torch.logsumexp((raised - own) / temperature, dim=1)).mean()
