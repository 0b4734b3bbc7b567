"""Lesion against non-lesion, patch by patch, and the control that takes the outlines' meaning away (METHODS §6)."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F


def instance_bce_loss(scores: Tensor, labels: Tensor, pos_weight: float = 1.0) -> Tensor:
    """Mean over the known patches of BCE(σ(s_k), y_k), lesion patches weighted by `pos_weight`.

    Parameters
    ----------
    scores : (N,) tensor
        Logits of "lesion".
    labels : (N,) tensor
        1 lesion, 0 not, −1 unknown (left out).

    Returns
    -------
    scalar tensor
        0 where no patch is known.
    """
    known = labels >= 0
    if not bool(known.any()):
        return scores.sum() * 0
    s, y = scores[known], labels[known].to(scores.dtype)
    return F.binary_cross_entropy_with_logits(s, y, pos_weight=s.new_tensor(pos_weight))


def shuffle_labels(labels: npt.NDArray[np.int8], slide_id: str, seed: int) -> npt.NDArray[np.int8]:
    """Control "shuffled outlines": the known labels of one slide, permuted; the same seed gives the same order.

    Parameters
    ----------
    labels : (N,) array of int8
        Unknown patches (−1) stay where they are.
    """
    digest = hashlib.sha256(f"{seed}/{slide_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    shuffled = labels.copy()
    known = np.flatnonzero(labels >= 0)
    shuffled[known] = labels[rng.permutation(known)]
    return shuffled
