"""Which patches the student is not shown: the four masks of MHIM-MIL (Tang et al. 2023; METHODS §3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from napari_mil.errors import MethodError


@dataclass(frozen=True)
class MaskRatios:
    """Shares of all N patches to mask; the masks are united.

    Parameters
    ----------
    high : float
        β_h: the highest scores (HAM).
    low : float
        β_l: the lowest scores (L-HAM).
    random : float
        β_r: any (R-HAM; with low LR-HAM).
    high_random : float
        r in (0, 1]: the high mask is drawn from a candidate set 1/r times as large (randomly-HAM); 1: no draw.
    """

    high: float
    low: float = 0.0
    random: float = 0.0
    high_random: float = 1.0

    def __post_init__(self) -> None:
        for name in ("high", "low", "random"):
            if not 0 <= getattr(self, name) <= 1:
                raise MethodError(f"Mask ratio {name} is {getattr(self, name)}; expected a share from 0 to 1.")
        if not 0 < self.high_random <= 1:
            raise MethodError(f"Mask ratio high_random is {self.high_random}; expected a share above 0, at most 1.")

    def high_counts(self, n: int) -> tuple[int, int]:
        """Candidates for the high mask, and how many of them are masked.

        ⌈N β_h/r⌉ candidates, ⌈that · r⌉ masked; β_h/r > 1: all are candidates, with ratio β_h.
        """
        r, share = self.high_random, self.high / self.high_random
        if share > 1:
            r, share = self.high, 1.0
        candidates = math.ceil(n * share)
        return candidates, math.ceil(candidates * r) if r < 1 else candidates


class MaskedBag(NamedTuple):
    """Indices of patches, each ascending; the three masks may share patches."""

    kept: Tensor
    masked_high: Tensor
    masked_low: Tensor
    masked_random: Tensor


def mask_instances(
    scores: Tensor,
    ratios: MaskRatios,
    *,
    fusion: str = "vote",
    generator: torch.Generator | None = None,
    permutations: Sequence[Tensor] | None = None,
    labels: Tensor | None = None,
) -> MaskedBag:
    """Choose the patches to hide from their scores by the teacher.

    Parameters
    ----------
    scores : (N,) or (H, N) tensor
        Attention of each patch, or one row for each of H heads.
    ratios : MaskRatios
    fusion : "vote" or "mean"
        Several heads: each votes for its own top k and the k patches of most votes win (ties: the higher mean score);
        or the union of k // H per head.
    generator : torch.Generator or None
        CPU generator of the random draws.
    permutations : sequence of tensors or None
        Replays recorded draws instead: first that of the random mask (of all N in ascending order of score), then that
        of the high mask (of the candidates in descending order), each only where there is one.
    labels : (N,) tensor or None
        Patch labels (1 lesion, 0 none, −1 unknown) that a loss needs. The masks are those without labels, and then
        patches of label 1 leave them; where all patches of label 0 are masked, one of them is given back.

    Returns
    -------
    MaskedBag
        At least one patch is kept: where everything would be masked, one is given back. It is the highest-scored that
        is in the low or random mask only, without these the lowest-scored. A bag of one patch is never masked.
    """
    if scores.ndim not in (1, 2) or scores.shape[-1] == 0:
        raise MethodError(f"Scores of shape {tuple(scores.shape)}; expected (patches,) or (heads, patches).")
    if fusion not in ("vote", "mean"):
        raise MethodError(f"fusion is {fusion!r}; expected vote or mean.")
    scores = scores.detach()
    n, device = scores.shape[-1], scores.device
    if labels is not None and labels.shape != (n,):
        raise MethodError(f"Patch labels of shape {tuple(labels.shape)} for {n} scores; expected one per patch.")
    replay = iter(permutations) if permutations is not None else None

    def draw(count: int) -> Tensor:
        if replay is not None:
            return next(replay).to(device)
        return torch.randperm(count, generator=generator).to(device)

    nothing = torch.empty(0, dtype=torch.long, device=device)
    random, low, high = nothing, nothing, nothing
    if n > 1 and ratios.random > 0:
        base = ascending(scores) if replay is not None else torch.arange(n, device=device)
        random = base[draw(n)[: math.ceil(n * ratios.random)]]
    if n > 1 and ratios.low > 0:
        low = extreme(scores, math.ceil(n * ratios.low), fusion, largest=False)
    if n > 1 and ratios.high > 0:
        candidates, count = ratios.high_counts(n)
        high = extreme(scores, candidates, fusion, largest=True)
        if count < candidates or ratios.high_random < 1:
            high = high[draw(len(high))[:count]]
    masks = [high, low, random]
    if labels is not None:
        masks = spare(scores, masks, labels)
    masks = _keep_one(scores, masks, torch.ones(n, dtype=torch.bool, device=device))
    return MaskedBag(_is_in(masks, n).logical_not_().nonzero()[:, 0], *(mask.sort().values for mask in masks))


def ascending(scores: Tensor) -> Tensor:
    """Order of patches by (mean) score, ties in bag order."""
    flat = scores if scores.ndim == 1 else scores.mean(dim=0)
    return flat.argsort(stable=True)


def extreme(scores: Tensor, k: int, fusion: str, largest: bool) -> Tensor:
    """Indices of the k highest (lowest) patches, the most extreme first; see `mask_instances` for several heads."""
    if scores.ndim == 1:
        return scores.topk(k, largest=largest).indices
    if fusion == "mean":
        top = scores.topk(k // len(scores), dim=1, largest=largest).indices
        return torch.zeros_like(scores[0], dtype=torch.bool).index_fill(0, top.flatten(), True).nonzero()[:, 0]
    top = scores.topk(k, dim=1, largest=largest, sorted=False).indices  # (H, k)
    votes = torch.bincount(top.flatten(), minlength=scores.shape[1])  # (N,)
    by_mean = scores.mean(dim=0).argsort(descending=largest, stable=True)
    return by_mean[votes[by_mean].argsort(descending=True, stable=True)][:k]


def spare(scores: Tensor, masks: list[Tensor], labels: Tensor) -> list[Tensor]:
    """Masks, the high one first, less what labels (N,) need; see `mask_instances`."""
    known = labels.to(scores.device)
    return _keep_one(scores, [mask[known[mask] != 1] for mask in masks], known == 0)


def _is_in(masks: Sequence[Tensor], n: int) -> Tensor:
    """(n,) of bool: whether a patch is in any of the masks."""
    masked = torch.zeros(n, dtype=torch.bool, device=masks[0].device)
    for mask in masks:
        masked[mask] = True
    return masked


def _keep_one(scores: Tensor, masks: list[Tensor], wanted: Tensor) -> list[Tensor]:
    """The masks, the high one first, less one patch where they hide everything that is wanted (N,).

    It is the highest-scored of those that the high mask does not hide; else the lowest-scored.
    """
    if not bool(wanted.any()) or bool((wanted & ~_is_in(masks, len(wanted))).any()):
        return masks
    flat = scores if scores.ndim == 1 else scores.mean(dim=0)
    easy = (wanted & ~_is_in(masks[:1], len(wanted))).nonzero()[:, 0]
    hard = wanted.nonzero()[:, 0]
    given_back = easy[flat[easy].argmax()] if len(easy) else hard[flat[hard].argmin()]
    return [mask[mask != given_back] for mask in masks]
