"""Discrete-time survival: hazards of bins of time, their loss, and the risk (Tang et al. 2025; METHODS §4.6).

h_k = σ(logit_k) is the chance of the event in bin k of those who reached it; S_k = Π_{j≤k} (1 − h_j) outlive it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mil.errors import TrainingError

EDGE = 1e-6
"""By how much the outer edges lie beyond the shortest and the longest time."""
LEAST = math.log(1e-7)
"""Logarithms of probabilities are cut here."""


def survival_bins(
    time: npt.ArrayLike, event: npt.ArrayLike, n_bins: int = 4
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Bins of time with equally many seen events: edges are quantiles of the times of those whose event was seen.

    The outer edges are the shortest and the longest time of all cases, widened by 1e-6. A bin is [a, b).

    Parameters
    ----------
    time : (n,) array of float
        Until the event, or until the case was last seen without it.
    event : (n,) array of bool
        Whether the event was seen.
    n_bins : int

    Returns
    -------
    bins : (n,) array of int
    edges : (n_bins + 1,) array of float

    Raises
    ------
    TrainingError
        No event, fewer distinct times of events than bins, or so many equal ones that a bin would be empty.
    """
    times, seen = np.asarray(time, dtype=np.float64), np.asarray(event).astype(bool)
    if times.shape != seen.shape or times.ndim != 1 or not np.isfinite(times).all():
        raise TrainingError(
            f"Survival needs a time and an event for each case; found times of shape {times.shape} (all numbers: "
            f"{np.isfinite(times).all()}) and events of shape {seen.shape}."
        )
    distinct = len(np.unique(times[seen]))
    if distinct < n_bins:
        found = "no event was seen" if not seen.any() else f"the events have only {distinct} different times"
        raise TrainingError(
            f"{n_bins} bins of time need events at {n_bins} different times or more, but {found} in training; "
            "add cases, or choose fewer bins (task.n_bins, at least 3)."
        )
    edges = np.quantile(times[seen], np.linspace(0, 1, n_bins + 1))
    if (np.diff(edges) <= 0).any():
        raise TrainingError(
            f"So many events in training have the same time that {n_bins} bins of equally many events cannot be told "
            "apart; choose fewer bins (task.n_bins, at least 3), or give finer times."
        )
    edges[0], edges[-1] = times.min() - EDGE, times.max() + EDGE
    return bins_of(times, edges), edges


def bins_of(time: npt.ArrayLike, edges: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Bin of each time for edges (n_bins + 1,); what lies outside them is in the first or the last."""
    found = np.digitize(np.asarray(time, dtype=np.float64), np.asarray(edges)[1:-1], right=False)
    return np.asarray(found, dtype=np.int64)


def survival_nll(logits: Tensor, bin: int, event: bool) -> Tensor:
    """Negative log-likelihood of one case, c = 1 where the event was not seen.

    L = −(1−c) [log S(Y−1) + log h(Y)] − c log S(Y), S(−1) = 1; logarithms at least log 1e-7.

    Parameters
    ----------
    logits : (n_bins,) tensor
    bin : int
        Y, the bin of the case's time.
    event : bool
        Whether the event was seen.
    """
    each = F.logsigmoid(-logits)
    log_s = torch.stack([each[: k + 1].sum() for k in range(len(each))])  # (n_bins,); a card's cumsum may not repeat
    if not event:
        return -log_s[bin].clamp(min=LEAST)
    reached = log_s[bin - 1].clamp(min=LEAST) if bin else log_s.new_zeros(())
    return -(reached + F.logsigmoid(logits[bin]).clamp(min=LEAST))


def survival_curve(logits: Tensor) -> Tensor:
    """S_k = Π_{j≤k} (1 − σ(logit_j)), (…, n_bins): the chance to outlive each bin."""
    return torch.sigmoid(-logits).cumprod(dim=-1)


def survival_risk(logits: Tensor) -> Tensor:
    """−Σ_k S_k of (…, n_bins) logits: the higher, the sooner the event is expected."""
    return -survival_curve(logits).sum(dim=-1)


def bin_probabilities(logits: Tensor) -> Tensor:
    """h_k S_{k−1}, (…, n_bins): the chance of the event in each bin; the last takes all that outlive the others."""
    reached = survival_curve(logits)[..., :-1]  # S_0 … S_{n−2}
    edges = torch.cat([torch.ones_like(reached[..., :1]), reached, torch.zeros_like(reached[..., :1])], dim=-1)
    return edges[..., :-1] - edges[..., 1:]


def risk_gradient(logits: Tensor) -> Tensor:
    """∂risk/∂logit_k = h_k Σ_{j≥k} S_j, (n_bins,): how much each logit moves the risk."""
    curve = survival_curve(logits)
    return torch.sigmoid(logits) * curve.flip(-1).cumsum(dim=-1).flip(-1)
