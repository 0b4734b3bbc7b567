"""The metrics that training watches: AUROC from ranks, balanced accuracy, and the C-index of survival."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Probability that a positive outranks a negative, ties counting one half (Mann–Whitney U / n1 n0).

    Parameters
    ----------
    labels : (n,) array of 0 and 1, or bool
    scores : (n,) array of float

    Returns
    -------
    float or None
        None where only one class is there.
    """
    positive = np.asarray(labels).astype(bool)
    values = np.asarray(scores, dtype=np.float64)
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    if n1 == 0 or n0 == 0:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2  # 1-based; tied values share their mean rank
    u = mean_rank[inverse][positive].sum() - n1 * (n1 + 1) / 2
    return float(u / (n1 * n0))


def multiclass_auroc(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """AUROC of (n, n_classes) probabilities: of class 1 for two classes, else the mean of one class against the rest.

    Classes that do not occur are left out of the mean; None where nothing is left.
    """
    index = np.asarray(labels)
    columns = np.asarray(probabilities)
    classes = [1] if columns.shape[1] == 2 else range(columns.shape[1])
    values = [value for c in classes if (value := auroc(index == c, columns[:, c])) is not None]
    return float(np.mean(values)) if values else None


def balanced_accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """Mean over the classes that occur of the share of their slides whose most probable class is right.

    Parameters
    ----------
    labels : (n,) array of int
    probabilities : (n, n_classes) array of float

    Returns
    -------
    float or None
        None without slides.
    """
    index = np.asarray(labels)
    right = np.asarray(probabilities).argmax(axis=1) == index
    shares = [right[index == c].mean() for c in np.unique(index)]
    return float(np.mean(shares)) if shares else None


def c_index(time: npt.ArrayLike, event: npt.ArrayLike, risk: npt.ArrayLike) -> float | None:
    """Harrell's concordance index: the share of comparable pairs in which who had the event first has more risk.

    A pair is comparable where one had the event before the other's time; or at that time, while the other had none.
    Equal risks count one half.

    Parameters
    ----------
    time : (n,) array of float
    event : (n,) array of bool
        Whether the event was seen; else the case was last seen without it at `time`.
    risk : (n,) array of float

    Returns
    -------
    float or None
        None where no pair is comparable.
    """
    t, seen = np.asarray(time, dtype=np.float64), np.asarray(event).astype(bool)
    r = np.asarray(risk, dtype=np.float64)
    first = np.flatnonzero(seen)[:, None]  # (events, 1) against everybody
    comparable = (t[first] < t) | ((t[first] == t) & ~seen)
    pairs = int(comparable.sum())
    if pairs == 0:
        return None
    won = (comparable & (r[first] > r)).sum() + 0.5 * (comparable & (r[first] == r)).sum()
    return float(won / pairs)
