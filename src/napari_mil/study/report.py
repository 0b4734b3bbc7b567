"""Results of an experiment for people: a table of mean ± sd, a figure, and Markdown that says how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mil.whole import written_whole

from ._files import write_text
from .metrics import mann_whitney

if TYPE_CHECKING:
    import pandas as pd

MEASURES = {
    "auroc": "slide AUROC",
    "auprc": "slide AUPRC",
    "average_precision": "slide AP",
    "accuracy": "accuracy at 0.5",
    "balanced_accuracy": "balanced accuracy",
    "c_index": "C-index",
    "patch_auroc": "patch AUROC",
    "lesion_share": "lesion share of top patches",
}


def results_table(results: pd.DataFrame, measures: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per method: "mean ± sd" of each measure over splits and seeds (sd with n − 1), and `runs`.

    Cells with an error, and those in which a measure is not defined, are left out of it; `runs` counts the cells
    without an error.
    """
    import pandas as pd

    names = [name for name in (measures or MEASURES) if name in results and results[name].notna().any()]
    rows = {}
    for method, cells in results.groupby("method", sort=False):
        numbers = {MEASURES.get(name, name): _mean_sd(cells[name].dropna().to_numpy(dtype=float)) for name in names}
        failed = cells["error"].fillna("").astype(bool) if "error" in cells else pd.Series(False, index=cells.index)
        rows[method] = numbers | {"runs": int((~failed).sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def compare_to(results: pd.DataFrame, reference: str, measure: str = "auroc") -> pd.DataFrame:
    """Each method against a reference: mean difference over the splits both have, and a two-sided Mann–Whitney test.

    The splits share slides, so they are not independent and the p-values are too small: read them as a hint.
    """
    import pandas as pd

    wide = results.pivot_table(index=["split", "seed"], columns="method", values=measure, aggfunc="first")
    rows = {}
    for method in results["method"].unique():
        if method == reference or method not in wide or reference not in wide:
            continue
        both = wide[[reference, method]].dropna()
        if len(both) == 0:
            continue
        difference = (both[method] - both[reference]).to_numpy(dtype=float)
        test = mann_whitney(both[method], both[reference])
        rows[method] = {
            "difference": _mean_sd(difference, sign=True),
            "better in": f"{int((difference > 0).sum())} of {len(difference)}",
            f"p ({test.method}, {test.alternative})": f"{test.p_value:.3f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def draw_results(
    results: pd.DataFrame, path: Path, measures: Sequence[str] = ("auroc", "c_index", "patch_auroc")
) -> Path:
    """A figure: every cell a dot, mean and sd beside it, one panel per measure; 0.5 is marked where it is chance."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in measures if name in results and results[name].notna().any()]
    methods = list(dict.fromkeys(results["method"]))
    size = (1.8 + 3.4 * max(len(names), 1), 1.2 + 0.38 * len(methods))
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(len(names), 1), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=False):
        for k, method in enumerate(methods):
            values = results.loc[results["method"] == method, name].dropna().to_numpy(dtype=float)
            if len(values) == 0:
                continue
            axes.plot(values, np.full(len(values), k - 0.12), "o", color="0.55", markersize=4, zorder=2)
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            axes.errorbar(values.mean(), k + 0.16, xerr=spread, fmt="D", color="C3", markersize=5, capsize=3, zorder=3)
        if name in ("auroc", "patch_auroc", "c_index"):
            axes.axvline(0.5, color="0.8", linewidth=1, zorder=1)
        axes.set_xlabel(MEASURES.get(name, name))
        axes.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    figure.suptitle("Dots: runs; diamonds: mean ± sd. Research use only", fontsize=8)
    with written_whole(path) as part:
        figure.savefig(part, format="png")
    return path


def write_report(
    results: pd.DataFrame, folder: Path | str, *, title: str = "Experiment", protocol: str = "", reference: str = ""
) -> Path:
    """Write results.csv, results.png and results.md (which is returned) into a folder.

    Parameters
    ----------
    protocol : str
        A sentence on how the slides were split.
    reference : str
        Method that the others are compared to; the first where not given.
    """
    folder = Path(folder)
    write_text(folder / "results.csv", results.to_csv(index=False, lineterminator="\n"))
    draw_results(results, folder / "results.png")
    curves = (folder / "kaplan_meier.png").is_file()  # of an experiment on survival, in its own folder
    against = reference or str(results["method"].iloc[0])
    parts = [
        f"# {title}",
        protocol,
        "Test slides, mean ± sd over splits and seeds.",
        to_markdown(results_table(results)),
    ]
    for measure in ("auroc", "c_index", "patch_auroc"):
        if measure in results and results[measure].notna().any():
            compared = compare_to(results, against, measure)
            if len(compared):
                parts += [f"## {MEASURES[measure]} against {against}", to_markdown(compared)]
    if "error" in results and results["error"].fillna("").astype(bool).any():
        failed = results[results["error"].fillna("").astype(bool)]
        parts += [
            "## Not trained",
            *(f"- {r.method}, split {r.split}, seed {r.seed}: {r.error}" for r in failed.itertuples()),
        ]
    parts += [
        "![Results](results.png)",
        "![Kaplan–Meier, test slides of all folds](kaplan_meier.png)" if curves else "",
        "The splits share slides: their figures are not independent, and the p-values are too small. "
        "Research use only.",
    ]
    path = folder / "results.md"
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def to_markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, its index the first column."""
    rows = zip(table.index, table.to_numpy(), strict=True)
    lines: list[list[str]] = [[str(table.index.name or ""), *map(str, table.columns)]]
    lines += [["---"] * len(lines[0]), *([str(name), *map(str, row)] for name, row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean_sd(values: np.ndarray[tuple[int], np.dtype[np.float64]], *, sign: bool = False) -> str:
    if len(values) == 0:
        return "–"
    mean = f"{values.mean():+.3f}" if sign else f"{values.mean():.3f}"
    return f"{mean} ± {values.std(ddof=1):.3f}" if len(values) > 1 else mean
