"""Attention induction: attention shall equal the share of tissue inside the lesions (METHODS §2.1, §2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_mil.errors import MethodError


def attention_target(labels: Tensor, tissue_pixels: Tensor | None = None) -> Tensor:
    """t_k = n_k / Σ n over lesion patches, 0 elsewhere; n_k the tissue pixels of patch k (1 where not given).

    Parameters
    ----------
    labels : (N,) tensor
        1 lesion, 0 not, −1 unknown.
    tissue_pixels : (N,) tensor or None

    Returns
    -------
    (N,) tensor of float64
        Sums to 1, or is all zero where no lesion patch has tissue.
    """
    if labels.device.type == "mps":  # has no float64
        labels = labels.cpu()
    lesion = (labels == 1).double()
    if tissue_pixels is not None:
        if tissue_pixels.shape != labels.shape:
            raise MethodError(
                f"{len(labels)} patch labels and tissue pixels of shape {tuple(tissue_pixels.shape)}; "
                "expected the same."
            )
        lesion = lesion * tissue_pixels.to(device=labels.device, dtype=torch.float64)
    total = lesion.sum()
    return torch.where(total > 0, lesion / total.clamp(min=torch.finfo(torch.float64).tiny), lesion)


def attention_induction_loss(attention: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """Σ_k (a_k − t_k)², 0 where there is no target at all.

    Parameters
    ----------
    attention : (N,) tensor
        After the threshold, if any.
    target : (N,) tensor
        Of `attention_target`.
    known : (N,) tensor of bool or None
        Patches that count; unknown ones (label −1) are neither pushed up nor down.
    """
    wanted = target.to(device=attention.device, dtype=attention.dtype)
    square = (attention - wanted) ** 2
    if known is not None:
        square = square * known.to(square.device)
    return square.sum() * (wanted.sum() > 0)
