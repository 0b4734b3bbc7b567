"""The contract of every aggregator: one bag in, four tensors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from napari_mil.mil.devices import exact

SlideLoss = Callable[[Tensor], Tensor]
"""Logits (C,) of one bag → its loss: what the task asks for, weights included."""


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
    extras: Mapping[str, Tensor] = MappingProxyType({})
    """What this aggregator's own `loss` needs besides."""

    def full_precision(self) -> BagOutput:
        """The same in float32 at least: losses and softmaxes of large bags need it."""
        raised: dict[str, Any] = {
            name: full_precision(value) for name, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(**raised, extras={name: full_precision(value) for name, value in self.extras.items()})


def full_precision(values: Tensor) -> Tensor:
    """float32 at least: float32 and float64 stay what they are."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


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

    recompute_above: ClassVar[int] = 50_000
    """Bags of more patches are trained with less memory and a little more time, see `recomputes`."""

    def __init__(self, in_dim: int, n_classes: int, binary_head: str = "two") -> None:
        super().__init__()
        self.in_dim = in_dim
        self.n_classes = n_classes
        self.n_logits = 1 if n_classes == 2 and binary_head == "single" else n_classes
        self.recompute = "auto"
        """"auto", "always" or "never"; set by the training."""

    def forward(self, x: Tensor) -> BagOutput:
        """x (N, in_dim) → BagOutput."""
        return self.pool(self.instances(x))

    def instances(self, x: Tensor) -> Tensor:
        """x (N, in_dim) → h (N, D'): each patch by itself, before attention."""
        raise NotImplementedError

    def pool(self, h: Tensor) -> BagOutput:
        """h (N, D') → BagOutput."""
        raise NotImplementedError

    def pool_with(self, h: Tensor, rows: Tensor) -> BagOutput:
        """h (N, D') pooled together with a miner's rows (k, D') that are no patches → BagOutput of the N patches."""
        output, n = self.pool(torch.cat([h, rows])), len(h)
        heads = output.head_scores
        return output._replace(
            scores=output.scores[:n],
            attention=output.attention[:n],
            head_scores=None if heads is None else heads[:, :n],
        )

    def loss(self, output: BagOutput, slide_loss: SlideLoss, label: int | None) -> Tensor:
        """Loss of one bag from its logits and whatever else this aggregator learns from.

        Parameters
        ----------
        output : BagOutput
        slide_loss : callable
            Loss of logits (C,) for this bag.
        label : int or None
            The bag's class; None for survival.
        """
        return slide_loss(output.logits)

    def instance_scores(self, x: Tensor) -> Tensor:
        """Raw scores (N,) or (N, C) of patches x (N, in_dim) where they do not depend on the rest of the bag."""
        return self(x).scores  # type: ignore[no-any-return]

    def instance_logits(self, x: Tensor) -> Tensor | None:
        """classifier(h_k) for each patch, (N, n_logits); None where the classifier takes no single patch."""
        return None

    def instance_probabilities(self, x: Tensor) -> Tensor | None:
        """Probability of each class for each patch by itself, (N, n_classes); None where the model has none."""
        return None

    def contributions(self, x: Tensor, output: BagOutput) -> Tensor | None:
        """What each patch adds to each of the slide's logits, (N, n_logits); None where these are no such sum.

        a_k (W h_k + b), and a_kc (w_c·h_k + b_c) where attention is per class.
        """
        each = self.instance_logits(x)
        if each is None:
            return None
        return output.attention * each if output.attention.ndim == 2 else output.attention[:, None] * each

    def mining_scores(self, output: BagOutput) -> Tensor:
        """What MHIM ranks patches by, (N,) or (H, N): attention, or that of each head (METHODS §0, §3.1).

        With attention per class, a patch's highest.
        """
        if output.head_scores is not None:
            return output.head_scores
        return output.attention if output.attention.ndim == 1 else output.attention.amax(dim=1)

    def class_aware_logits(self, h: Tensor, output: BagOutput) -> Tensor:
        """What MHIM v2 ranks patches by, (N, C): logits of each patch's term in the bag (METHODS §4.1)."""
        raise NotImplementedError

    def class_aware_score(self, h: Tensor, output: BagOutput) -> Tensor:
        """max_c log softmax_c of `class_aware_logits`, (N,) of float64; a single logit l counts as (0, l)."""
        logits = exact(self.class_aware_logits(h, output))
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return torch.log_softmax(logits, dim=1).amax(dim=1)

    def stem(self) -> nn.Module | None:
        """The part before attention, which MHIM's student takes from its teacher."""
        return None

    def in_chunks(self, n: int) -> bool:
        """Whether `forward` takes a bag of n patches chunk by chunk; it may then be of any float type."""
        return False

    def recomputes(self, n: int) -> bool:
        """Whether a bag of n patches is to be trained with less memory."""
        if not (self.training and torch.is_grad_enabled()):
            return False
        return self.recompute == "always" or (self.recompute == "auto" and n > self.recompute_above)


def class_probabilities(logits: Tensor) -> Tensor:
    """Logits (…, C) → probabilities (…, n_classes); a single logit gives both classes."""
    if logits.shape[-1] == 1:
        p = torch.sigmoid(logits)
        return torch.cat([1 - p, p], dim=-1)
    return torch.softmax(logits, dim=-1)


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
    attention : (K,) or (K, C) tensor
        Sums to 1, for each class where there are several.
    threshold : float or None
        T; None or 0 returns the attention as it is.

    Returns
    -------
    (K,) or (K, C) tensor
    """
    if not threshold:
        return attention
    left = (attention - threshold / len(attention)).clamp(min=0)
    total = left.sum(dim=0)
    return torch.where(total > REMOVED, left / (total + 1e-8), attention)
