"""Figures of survival: C-index with its interval, and Kaplan–Meier curves of the groups of high and of low risk."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.whole import written_whole

from .metrics import FEW, Metric, Test, bootstrap_interval
from .words import counted

Floats = npt.NDArray[np.float64]
GROUPS = ("high", "low")
NO_EVENT_NOTE = f"Fewer than {FEW} events: figures and intervals are mostly chance."


def kaplan_meier(time: npt.ArrayLike, event: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Kaplan–Meier estimate: the times at which something happened, (k,), and the share that outlives each, (k,).

    Parameters
    ----------
    time : (n,) array of float
    event : (n,) array of bool
        Whether the event was seen; else the case was last seen without it.
    """
    t, seen = np.asarray(time, dtype=np.float64), np.asarray(event).astype(bool)
    times = np.unique(t)
    at_risk = (t[:, None] >= times).sum(axis=0)
    events = ((t[:, None] == times) & seen[:, None]).sum(axis=0)
    return times, np.cumprod(1 - events / at_risk)


def log_rank(time: npt.ArrayLike, event: npt.ArrayLike, high: npt.ArrayLike) -> Test:
    """Two-sided log-rank test that two groups have the same survival (Mantel 1966); NaN where it is not defined.

    Parameters
    ----------
    time, event : (n,) arrays
    high : (n,) array of bool
        Who is in the first group.
    """
    from scipy.stats import chi2

    t, seen, first = np.asarray(time, dtype=np.float64), np.asarray(event).astype(bool), np.asarray(high).astype(bool)
    times = np.unique(t[seen])
    at_risk = (t[:, None] >= times).sum(axis=0).astype(np.float64)
    of_first = (t[first][:, None] >= times).sum(axis=0)
    events = ((t[:, None] == times) & seen[:, None]).sum(axis=0)
    observed = (seen & first).sum()
    expected = (events * of_first / at_risk).sum()
    share = of_first / at_risk
    variance = (events * share * (1 - share) * (at_risk - events) / np.maximum(at_risk - 1, 1)).sum()
    if variance <= 0:
        return Test(float("nan"), float("nan"), "two-sided", "log-rank")
    statistic = float((observed - expected) ** 2 / variance)
    return Test(statistic, float(chi2.sf(statistic, 1)), "two-sided", "log-rank")


def survival_metrics(
    time: npt.ArrayLike,
    event: npt.ArrayLike,
    risk: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    threshold: float | None = None,
    threshold_from: str = "",
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that metrics.json says about a set of slides or patients, JSON-able.

    Parameters
    ----------
    time, event, risk : (n,) arrays
    groups : sequence of str, optional
        Patients, for the bootstrap.
    threshold, threshold_from
        Risk above which a case is of the group of high risk, and the set it was found on; None: no groups.
    """
    t, seen, r = np.asarray(time, dtype=float), np.asarray(event).astype(bool), np.asarray(risk, dtype=float)
    found: dict[str, Any] = {"n": len(t), "events": int(seen.sum())}
    if seen.sum() < FEW:
        found["note"] = NO_EVENT_NOTE
    metric, every = _c_index_of(t, seen, r), np.arange(len(t))
    found["c_index"] = bootstrap_interval(metric, every, every, groups=groups, repeats=repeats, seed=seed).to_dict()
    if threshold is not None:
        origin = {"threshold": threshold, "threshold_is": f"median risk of {threshold_from}"}
        found["risk_groups"] = origin | _risk_groups(t, seen, r > threshold)
    return found


def pooled_folds(tables: Sequence[Path]) -> dict[str, Any]:
    """The test patients of all folds together, each in the group that its own fold's validation put it.

    Risks of different folds are of different models, so there is no C-index of all.

    Parameters
    ----------
    tables : sequence of Path
        predictions.csv of each fold.
    """
    cases: list[tuple[float, bool, bool]] = []
    for table in tables:
        with table.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["role"] == "test" and row.get("group")]
        cases += [(float(row["time"]), row["event"] == "1", row["group"] == "high") for row in rows]
    if not cases:
        return {"n": 0, "events": 0}
    time, event, high = (np.array(column) for column in zip(*cases, strict=True))
    return {"n": len(time), "events": int(event.sum()), "risk_groups": _risk_groups(time, event, high)}


def survival_sentence(name: str, figures: Mapping[str, Any]) -> str:
    """One line about the C-index and the groups of a set of metrics.json."""
    if figures["c_index"]["value"] is None:
        return f"{name}: {c_index_words(figures)}."
    p = (figures.get("risk_groups") or {}).get("log_rank_p")
    told = f"; high against low risk: log-rank p = {p:.2g}" if p is not None else ""
    return f"{name}: C-index {c_index_words(figures)}{told}."


def c_index_words(figures: Mapping[str, Any]) -> str:
    """C-index of a set of metrics.json in words, with its interval where the events are enough for one."""
    found, few = figures["c_index"], figures["events"] < FEW
    cases = f"{counted(figures['n'], 'case')} with {counted(figures['events'], 'event')}"
    if found["value"] is None:
        return f"no C-index: no pair of the {cases} can be compared"
    low, high = found.get("low"), found.get("high")
    interval = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None and not few else ""
    return f"{found['value']:.3f}{interval}, {cases}" + (": far too few to tell" if few else "")


def draw_kaplan_meier(sets: Mapping[str, Mapping[str, Any]], path: Path) -> Path | None:
    """Curves of the groups of high and of low risk, a panel for each set of metrics.json; None without groups."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {name: figures for name, figures in sets.items() if figures.get("risk_groups")}
    if not shown:
        return None
    figure = Figure(figsize=(1 + 3.6 * len(shown), 3.6), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    for axes, (name, figures) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        groups = figures["risk_groups"]
        for group, color in zip(GROUPS, ("C3", "C0"), strict=True):
            curve = groups[group]
            label = f"{group} risk: {curve['events']} of {curve['n']} with event"
            axes.step([0, *curve["times"]], [1, *curve["survival"]], where="post", color=color, label=label)
            lost = list(zip(curve["times"], curve["survival"], curve["censored"], strict=True))
            axes.plot([t for t, _, c in lost if c], [s for _, s, c in lost if c], "|", color=color, markersize=6)
        p = groups["log_rank_p"]
        concordance = (figures.get("c_index") or {}).get("value")
        axes.set_title(name + (f": C-index {concordance:.3f}" if concordance is not None else ""), fontsize=8)
        axes.set_xlabel("time" + (f" (log-rank p = {p:.2g})" if p is not None else ""))
        axes.set_ylabel("share without event")
        axes.set_ylim(0, 1.03)
        axes.set_xlim(left=0)
        axes.legend(fontsize=7, frameon=False)
        axes.grid(alpha=0.25)
    figure.suptitle("Split at the median risk of validation. Research use only", fontsize=8)
    with written_whole(path) as part:
        figure.savefig(part, format="png")
    return path


def _risk_groups(time: Floats, event: npt.NDArray[np.bool_], high: npt.NDArray[np.bool_]) -> dict[str, Any]:
    test = log_rank(time, event, high)
    defined = np.isfinite(test.p_value)
    return {
        **{name: _group(time[of], event[of]) for name, of in zip(GROUPS, (high, ~high), strict=True)},
        "log_rank_p": test.p_value if defined else None,
        "log_rank_chi2": test.statistic if defined else None,
        "log_rank_is": test.alternative,
    }


def _group(time: Floats, event: npt.NDArray[np.bool_]) -> dict[str, Any]:
    times, survival = kaplan_meier(time, event)
    lost = [bool(((time == t) & ~event).any()) for t in times]
    return {
        "n": len(time),
        "events": int(event.sum()),
        "times": times.tolist(),
        "survival": survival.tolist(),
        "censored": lost,
    }


def _c_index_of(time: Floats, event: npt.NDArray[np.bool_], risk: Floats) -> Metric:
    """C-index of cases by their numbers, which may come several times; NaN where no pair is comparable.

    The pairs are compared once for all draws of a bootstrap: `mil.c_index` of each draw costs several times as much.
    """
    first = np.flatnonzero(event)
    comparable = (time[first, None] < time) | ((time[first, None] == time) & ~event)  # (events, n)
    won = comparable * ((risk[first, None] > risk) + 0.5 * (risk[first, None] == risk))
    counted_pairs = comparable.astype(np.float64)

    def metric(numbers: npt.NDArray[Any], _: npt.NDArray[Any]) -> float:
        weight = np.bincount(numbers, minlength=len(time)).astype(np.float64)
        pairs = weight[first] @ (counted_pairs @ weight)
        return float(weight[first] @ (won @ weight) / pairs) if pairs else float("nan")

    return metric
