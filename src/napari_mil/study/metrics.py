"""Metrics of slides, with intervals and tests; each says what it is and where a threshold was found.

Two areas under the precision–recall curve are kept apart: `auprc` joins the points by straight lines (as Kim et al.
2025 report it), `average_precision` is the step function, which is not too good by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_mil.maps.ranking import auroc, average_precision, binary, midranks, precision_recall

from .words import counted

__all__ = [
    "Confusion",
    "Interval",
    "Test",
    "accuracy",
    "auprc",
    "auroc",
    "auroc_words",
    "average_precision",
    "bootstrap_interval",
    "confusion",
    "delong_interval",
    "delong_test",
    "macro_auroc",
    "mann_whitney",
    "metrics_sentence",
    "slide_metrics",
    "youden",
]

Floats = npt.NDArray[np.float64]
Metric = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]
FEW = 10  # slides of a class
Alternative = Literal["two-sided", "less", "greater"]


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float
    level: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not a number becomes None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {k: v if np.isfinite(v) else None for k, v in numbers.items()} | {
            "level": self.level,
            "method": self.method,
        }


@dataclass(frozen=True)
class Test:
    """A test's statistic and p-value; `alternative` says whether it is two-sided or which side it looks at."""

    __test__ = False  # no test of pytest's

    statistic: float
    p_value: float
    alternative: str
    method: str


@dataclass(frozen=True)
class Confusion:
    """Counts at a threshold, and what follows from them."""

    threshold: float
    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        total = self.true_positive + self.false_positive + self.true_negative + self.false_negative
        return _share(self.true_positive + self.true_negative, total, empty=float("nan"))

    @property
    def sensitivity(self) -> float:
        """Share of the positives that are found (recall)."""
        return _share(self.true_positive, self.true_positive + self.false_negative, empty=float("nan"))

    @property
    def specificity(self) -> float:
        """Share of the negatives that are left in peace."""
        return _share(self.true_negative, self.true_negative + self.false_positive, empty=float("nan"))

    @property
    def precision(self) -> float:
        """Share of the found that are positive; 0 when nothing is found."""
        return _share(self.true_positive, self.true_positive + self.false_positive, empty=0.0)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and sensitivity; 0 when both are."""
        return _share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative, 0.0)


def auprc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the precision–recall curve by the trapezoid rule, from (recall 0, precision 1); NaN w/o positives."""
    if not np.asarray(labels).any():
        return float("nan")
    precision, recall, _ = precision_recall(labels, scores)
    return float(np.trapezoid(np.r_[1.0, precision], np.r_[0.0, recall]))


def confusion(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float = 0.5, *, strict: bool = False
) -> Confusion:
    """Counts with score ≥ threshold (`strict`: > threshold) as positive."""
    y, s = binary(labels, scores)
    found = s > threshold if strict else s >= threshold
    return Confusion(
        float(threshold),
        int((found & y).sum()),
        int((found & ~y).sum()),
        int((~found & ~y).sum()),
        int((~found & y).sum()),
    )


def accuracy(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float = 0.5) -> float:
    """Share of right answers with p > threshold as positive (Kim et al. 2025: 0.5)."""
    return confusion(labels, scores, threshold, strict=True).accuracy


def youden(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Threshold (score ≥ threshold) with the largest sensitivity + specificity − 1.

    The highest of several; infinity when no threshold does better than calling nothing positive. It is optimistic
    where it was found: find it on validation slides and say so.
    """
    y, s = binary(labels, scores)
    if y.all() or not y.any():
        return float("nan")
    thresholds = np.unique(s)[::-1]
    order = np.argsort(-s, kind="stable")
    last = np.searchsorted(-s[order], -thresholds, side="right") - 1
    true_positive = np.cumsum(y[order])[last] / y.sum()
    false_positive = np.cumsum(~y[order])[last] / (~y).sum()
    # false − true positive rate, first minimum: rounding decides ties as in the published code
    best = int(np.argmin(np.r_[0.0, false_positive - true_positive]))
    return float(np.r_[np.inf, thresholds][best])


def macro_auroc(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean AUROC of one class against the rest, over the classes that occur; with two classes that of class 1."""
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if p.shape[1] == 2:
        return auroc(y == 1, p[:, 1])
    found = [auroc(y == k, p[:, k]) for k in range(p.shape[1]) if 0 < (y == k).sum() < len(y)]
    return float(np.mean(found)) if found else float("nan")


def bootstrap_interval(
    metric: Metric,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    repeats: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over slides, or over whole patients where `groups` names them.

    Parameters
    ----------
    metric : callable (labels, scores) → float
    groups : sequence of str, optional
        Patient of each slide; slides of one patient are drawn together.
    level, repeats, seed
        Draws in which the metric is not defined (one class only) are drawn again, at most ten times as many.
    """
    y, s = np.asarray(labels), np.asarray(scores)
    value = metric(y, s)
    names = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = [np.flatnonzero(names == k) for k in range(int(names.max(initial=-1)) + 1)]
    method = f"percentile bootstrap over {'slides' if groups is None else 'patients'}, {repeats} draws"
    generator = np.random.default_rng(seed)
    drawn: list[float] = []
    for _ in range(10 * repeats if members and np.isfinite(value) else 0):
        index = np.concatenate([members[k] for k in generator.integers(0, len(members), len(members))])
        found = metric(y[index], s[index])
        if np.isfinite(found):
            drawn.append(found)
            if len(drawn) == repeats:
                break
    if len(drawn) < 20:
        return Interval(value, float("nan"), float("nan"), level, method)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, method)


def delong_interval(labels: npt.ArrayLike, scores: npt.ArrayLike, level: float = 0.95) -> Interval:
    """AUROC with the interval of DeLong et al. (1988), normal approximation, cut to [0, 1]."""
    from scipy.stats import norm

    y, s = binary(labels, scores)
    value = auroc(y, s)
    if y.sum() < 2 or (~y).sum() < 2:
        return Interval(value, float("nan"), float("nan"), level, "DeLong")
    positive, negative = _placements(y, s)
    deviation = float(np.sqrt(positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)))
    reach = float(norm.ppf((1 + level) / 2)) * deviation
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach), level, "DeLong")


def delong_test(labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> Test:
    """Two-sided test that two scores of the *same* slides have the same AUROC (DeLong et al. 1988)."""
    from scipy.stats import norm

    y, a = binary(labels, first)
    _, b = binary(labels, second)
    placements = [_placements(y, s) for s in (a, b)]
    difference = auroc(y, a) - auroc(y, b)
    variance = sum((p - q).var(ddof=1) / len(p) for p, q in zip(*placements, strict=True))
    if variance == 0:
        return Test(0.0, 1.0 if difference == 0 else 0.0, "two-sided", "DeLong")
    z = difference / float(np.sqrt(variance))
    return Test(z, float(2 * norm.sf(abs(z))), "two-sided", "DeLong")


def mann_whitney(a: npt.ArrayLike, b: npt.ArrayLike, alternative: Alternative = "two-sided") -> Test:
    """Mann–Whitney U test of two sets of numbers, such as the AUROCs of two methods over splits.

    `alternative="less"` asks whether a tends to be lower than b; it halves the p-value, so say it. Splits of one data
    set are not independent: the p-value is too small, whatever the side.
    """
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(np.asarray(a, dtype=float), np.asarray(b, dtype=float), alternative=alternative)
    return Test(float(found.statistic), float(found.pvalue), alternative, "Mann–Whitney U")


def slide_metrics(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    threshold: float | None = None,
    threshold_from: str = "",
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that metrics.json says about a set of slides, JSON-able.

    Parameters
    ----------
    labels : (n,) int
        Class indices.
    probabilities : (n, n_classes)
    groups : sequence of str, optional
        Patients, for the bootstrap.
    threshold, threshold_from
        Youden's threshold and the set it was found on; without it there are no figures at that threshold.
    """
    y, p = np.asarray(labels, dtype=int), np.asarray(probabilities, dtype=float)
    classes, counts = np.unique(y, return_counts=True)
    found: dict[str, Any] = {"n": len(y), "counts": {str(c): int(n) for c, n in zip(classes, counts, strict=True)}}
    if counts.min(initial=len(y)) < FEW:
        found["note"] = f"Fewer than {FEW} slides of a class: figures and intervals are mostly chance."
    if p.shape[1] != 2:
        found["auroc_macro"] = _finite(macro_auroc(y, p))
        found["accuracy"] = _finite(float((p.argmax(axis=1) == y).mean()))
        found["balanced_accuracy"] = _finite(float(np.mean([(p.argmax(axis=1) == y)[y == c].mean() for c in classes])))
        return found
    s = p[:, 1]
    for name, metric in (("auroc", auroc), ("average_precision", average_precision), ("auprc", auprc)):
        found[name] = bootstrap_interval(metric, y, s, groups=groups, repeats=repeats, seed=seed).to_dict()
    found["auroc_delong"] = delong_interval(y, s).to_dict()
    found["accuracy_at_0.5"] = bootstrap_interval(accuracy, y, s, groups=groups, repeats=repeats, seed=seed).to_dict()
    at = [("0.5", confusion(y, s, 0.5, strict=True), "fixed")]
    if threshold is not None and np.isfinite(threshold):
        at.append(("youden", confusion(y, s, threshold), f"found on {threshold_from}"))
    for name, counts_at, origin in at:
        values = {
            k: _finite(getattr(counts_at, k)) for k in ("accuracy", "sensitivity", "specificity", "precision", "f1")
        }
        found[f"at_{name}"] = {"threshold": counts_at.threshold, "threshold_is": origin} | values
    return found


def metrics_sentence(metrics: Mapping[str, Any]) -> str:
    """One line about a run's metrics.json: the test slides if there are any, else validation."""
    from .survival import survival_sentence

    sets = metrics.get("sets", metrics)
    for name in ("test", "validation"):
        found = sets.get(name)
        if not found or not found.get("n"):
            continue
        if "c_index" in found:
            return survival_sentence(name.capitalize(), found)
        if "auroc" not in found:
            if found.get("auroc_macro") is None:
                return ""
            right = f"balanced accuracy {found['balanced_accuracy']:.3f}"
            return f"{name.capitalize()}: macro AUROC {found['auroc_macro']:.3f}, {right}, {_slides(found)}."
        if found["auroc"]["value"] is None:
            return f"{name.capitalize()}: {counted(found['n'], 'slide')} of one class only, so there is no AUROC."
        accurate = f", accuracy {found['at_0.5']['accuracy']:.3f} at 0.5"
        return f"{name.capitalize()}: AUROC {auroc_words(found, accurate)}."
    return ""


def auroc_words(figures: Mapping[str, Any], between: str = "") -> str:
    """AUROC of a set of metrics.json in words: with its interval, where the slides are enough for one.

    At 0 and at 1 the intervals shrink to a point, and of few slides they say too little: there is none then.

    Parameters
    ----------
    figures
        Of `slide_metrics`, with a defined AUROC.
    between
        Words that go before the number of slides.
    """
    area = figures["auroc"]
    value, low, high = area["value"], area.get("low"), area.get("high")
    told = low is not None and high is not None and 0 < value < 1 and not _too_few(figures)
    return f"{value:.3f}{f' ({low:.2f} to {high:.2f})' if told else ''}{between}, {_slides(figures)}"


def _slides(figures: Mapping[str, Any]) -> str:
    """How many slides a figure is of, and whether they are too few."""
    n = int(figures["n"])
    if _too_few(figures):
        only = "" if n < 2 * FEW else f", only {min(figures['counts'].values())} of one label"
        return f"{counted(n, 'slide')}{only}: far too few to tell"
    value = (figures.get("auroc") or {}).get("value")
    return counted(n, "slide") + (" (no interval can be given at 0 or 1)" if value in (0, 1) else "")


def _too_few(figures: Mapping[str, Any]) -> bool:
    counts = (figures.get("counts") or {}).values()
    return int(figures["n"]) < 2 * FEW or min(counts, default=FEW) < FEW


def _placements(y: npt.NDArray[np.bool_], s: Floats) -> tuple[Floats, Floats]:
    """Share of negatives below each positive (n1,), and of positives above each negative (n0,), ties ½."""
    n1, n0 = int(y.sum()), int((~y).sum())
    ranks = midranks(s)
    positive = (ranks[y] - midranks(s[y])) / n0
    negative = 1 - (ranks[~y] - midranks(s[~y])) / n1
    return positive, negative


def _share(part: float, whole: float, empty: float) -> float:
    return part / whole if whole else empty


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
