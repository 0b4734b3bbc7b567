"""How well one score orders two classes, and how alike two scores order the same things: NumPy and SciPy only.

The floor under `maps.compare` and `study.metrics`; nothing here knows what is scored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def midranks(values: npt.ArrayLike) -> Floats:
    """Ascending ranks (N,) of values (N,), 1 for the lowest; equal values share the mean of their ranks."""
    array = np.asarray(values, dtype=float)
    order = np.argsort(array, kind="stable")
    ordered = array[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, dtype=int)
    counts = np.diff(np.r_[starts, len(ordered)])
    ranks = np.empty(len(array))
    ranks[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return ranks


def binary(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Labels and scores (N,) of one length, labels as booleans (1 is positive).

    Raises
    ------
    ValueError
        When lengths differ, a label is neither 0 nor 1, or a score is NaN.
    """
    y, s = np.asarray(labels), np.asarray(scores, dtype=float)
    if y.shape != s.shape or y.ndim != 1:
        raise ValueError(f"labels have shape {y.shape} and scores {s.shape}; expected the same (N,).")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels hold {sorted(set(np.unique(y).tolist()) - {0, 1})[:5]}; expected 0 and 1 only.")
    if np.isnan(s).any():
        raise ValueError(f"{int(np.isnan(s).sum())} of {len(s)} scores are NaN; leave those out first.")
    return y.astype(bool), s


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve by mid-ranks, P(positive > negative) + ½ P(equal); NaN when one class is absent."""
    y, s = binary(labels, scores)
    n1, n0 = int(y.sum()), int((~y).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    return float((midranks(s)[y].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def precision_recall(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Precision and recall at each distinct score as threshold (score ≥ threshold), thresholds falling."""
    y, s = binary(labels, scores)
    order = np.argsort(-s, kind="stable")
    y, s = y[order], s[order]
    last = np.r_[np.flatnonzero(s[1:] != s[:-1]), len(s) - 1] if len(s) else np.zeros(0, dtype=int)
    true_positives = np.cumsum(y)[last].astype(float)
    precision = true_positives / (last + 1)
    recall = true_positives / max(int(y.sum()), 1)
    return precision, recall, s[last]


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision Σ (R_k − R_{k−1}) P_k, a step function; NaN when there is no positive."""
    precision, recall, _ = precision_recall(labels, scores)
    if not np.asarray(labels).any():
        return float("nan")
    return float(np.sum(np.diff(np.r_[0.0, recall]) * precision))


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Pearson's correlation; NaN with fewer than two values or when one side is constant."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(x) < 2:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else float("nan")


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rank correlation, ties by mid-ranks; NaN as in `pearson`."""
    return pearson(midranks(a), midranks(b))
