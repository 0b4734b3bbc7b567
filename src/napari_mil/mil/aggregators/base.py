"""The contract of every aggregator: one bag in, four tensors out."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class BagOutput(NamedTuple):
    """What an aggregator returns for one bag x (N, D); losses, mining and maps are built on it."""

    logits: Tensor
    """(C,): one with a single binary head, else one per class."""
    scores: Tensor
    """(N,) or (N, C): raw, before the softmax."""
    attention: Tensor
    """(N,) or (N, C): what was pooled with."""
    embedding: Tensor
    """(D',) or (C, D') of the bag."""
    head_scores: Tensor | None = None
    """(H, N): scores of each head, where there are several."""


class Aggregator(nn.Module):
    """Base of all aggregators.

    Parameters
    ----------
    in_dim : int
        Numbers per patch, D.
    n_classes : int
        Classes that a person sees.
    binary_head : "single" or "two"
        Two classes by one logit or by two; no meaning for more classes.
    """

    has_instance_classifier: ClassVar[bool] = False
    """`instance_logits` are probabilities of single patches (not only terms of the slide's logit)."""

    def __init__(self, in_dim: int, n_classes: int, binary_head: str = "two") -> None:
        super().__init__()
        self.in_dim = in_dim
        self.n_classes = n_classes
        self.n_logits = 1 if n_classes == 2 and binary_head == "single" else n_classes

    def forward(self, x: Tensor) -> BagOutput:
        """x (N, in_dim) → BagOutput."""
        raise NotImplementedError

    def instance_scores(self, x: Tensor) -> Tensor:
        """Raw scores (N,) of patches x (N, in_dim) where they do not depend on the rest of the bag."""
        return self(x).scores  # type: ignore[no-any-return]

    def instance_logits(self, x: Tensor) -> Tensor | None:
        """classifier(h_k) for each patch, (N, n_logits); None where the classifier takes no single patch."""
        return None

    def stem(self) -> nn.Module | None:
        """The part before attention, which MHIM's student takes from its teacher."""
        return None


def initialise(module: nn.Module, kind: str) -> None:
    """First weights: "torch" leaves PyTorch's own, "xavier" is that of MHIM runs (METHODS §1.7)."""
    if kind == "torch":
        return
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


REMOVED = 1e-6
"""Attention left over by the threshold below which it removed everything: rounding leaves about 1e-7."""


def threshold_attention(attention: Tensor, threshold: float | None) -> Tensor:
    """Attention threshold T of rank induction (METHODS §1.1).

    a ← max(a − T/K, 0);  a ← a / (Σ a + 1e-8), K the number of patches. Where nothing is left (one patch, identical
    patches) the attention is returned as it was: the published code ends with a ≡ 0 and a dead gradient.

    Parameters
    ----------
    attention : (K,) tensor
        Sums to 1.
    threshold : float or None
        T; None or 0 returns the attention as it is.

    Returns
    -------
    (K,) tensor
    """
    if not threshold:
        return attention
    left = (attention - threshold / len(attention)).clamp(min=0)
    total = left.sum()
    return torch.where(total > REMOVED, left / (total + 1e-8), attention)
