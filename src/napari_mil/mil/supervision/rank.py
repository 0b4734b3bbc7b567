"""Rank induction: a lesion patch shall score higher than a patch without lesion (Kim et al. 2025; METHODS §2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_mil.errors import MethodError
from napari_mil.mil.devices import exact

from .pair_sums import softplus_pair_sum

PAIRS = ("lesion_vs_non", "symmetric", "all")


def rank_loss(
    scores: Tensor,
    labels: Tensor,
    *,
    sigma: float = 1.0,
    margin: float = 0.0,
    pairs: str = "lesion_vs_non",
    sample: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean of −log σ(σ_s (s_i − s_j − m)) over pairs of a lesion patch i and a non-lesion patch j.

    With sp = softplus, d = s_i − s_j, n1 lesion and n0 other patches, N = n1 + n0:

    - "lesion_vs_non" (paper): 1/(n1 n0) Σ sp(−σ_s (d − m))
    - "symmetric" (published code, equal pairs ignored): 1/(2 n1 n0) Σ [sp(−σ_s (d − m)) + sp(−σ_s (d + m))]
    - "all" (its default): 1/N² {Σ [sp(−σ_s (d − m)) + sp(−σ_s (d + m))]
      + Σ_same class ½[sp(σ_s (d − m)) + sp(−σ_s (d − m))]}

    All pairs are taken exactly, in float64 inside, with memory that grows with N, not with the number of pairs; on a
    CPU time grows with N, too (see `pair_sums`).

    Parameters
    ----------
    scores : (N,) tensor of float
        Raw, before the softmax.
    labels : (N,) tensor of any integer type (or float 0, 1)
        1 lesion, 0 not, −1 unknown: in no pair.
    sigma, margin : float
        σ_s and m.
    pairs : str
        Which pairs, see above.
    sample : int or None
        Draw at most so many lesion and so many other patches, and take all pairs among them.
    generator : torch.Generator or None
        For `sample`; a CPU generator.

    Returns
    -------
    scalar tensor
        0 with zero gradient where there is no lesion or no non-lesion patch; never NaN for finite scores.
    """
    if pairs not in PAIRS:
        raise MethodError(f"pairs is {pairs!r}; expected one of {', '.join(PAIRS)}.")
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise MethodError(
            f"Scores of shape {tuple(scores.shape)} and labels of shape {tuple(labels.shape)}; expected (N,) for both."
        )
    lesion, other = _draw(labels == 1, sample, generator), _draw(labels == 0, sample, generator)
    n1, n0 = len(lesion), len(other)
    if n1 == 0 or n0 == 0:
        return scores.sum() * 0
    s = exact(scores)
    s1, s0 = sigma * s[lesion], sigma * s[other]
    shift = sigma * margin
    # sp(−σ_s (d − m)) = softplus(σ_s s_j − σ_s s_i + σ_s m)
    total = softplus_pair_sum(s1, s0, shift)
    if pairs == "lesion_vs_non":
        return (total / (n1 * n0)).to(scores.dtype)
    # sp(−σ_s (d + m))
    total = total + softplus_pair_sum(s1, s0, -shift)
    if pairs == "symmetric":
        return (total / (2 * n1 * n0)).to(scores.dtype)
    for same in (s1, s0):
        # over ordered pairs (u, v) of one class, u = v included; v and u trade places in the second sum
        total = total + 0.5 * (softplus_pair_sum(same, same, -shift) + softplus_pair_sum(same, same, shift))
    return (total / (n1 + n0) ** 2).to(scores.dtype)


def _draw(mask: Tensor, sample: int | None, generator: torch.Generator | None) -> Tensor:
    """Indices of a mask, at most `sample` of them drawn without replacement."""
    index = mask.nonzero()[:, 0]
    if sample is None or len(index) <= sample:
        return index
    chosen = torch.randperm(len(index), generator=generator)[:sample]
    return index[chosen.to(index.device)]
