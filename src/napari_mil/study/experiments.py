"""Methods × splits × seeds: what each is worth on patients it has not seen, resumable cell by cell."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from typing import Protocol as Interface

from pydantic import BaseModel, ConfigDict, Field

from napari_mil.errors import ProjectError

from ._files import read_json, write_json, write_text
from .cells import BagStore, Cell, finish_cell, run_cell
from .provenance import project_provenance
from .splits import Split, Stratum, k_fold, monte_carlo
from .survival import draw_kaplan_meier, pooled_folds
from .train import method_for

if TYPE_CHECKING:
    import pandas as pd

    from napari_mil.mil import Method

    from .project import Project

Methods = Mapping[str, "Method | Mapping[str, Any] | str"] | Sequence[str]


class Protocol(BaseModel):
    """How the slides are dealt, and how often.

    "monte_carlo": `repeats` independent splits of `fractions`; with `keep_test` the table's test slides stay the test
    (Kim et al. 2025 on Camelyon16: a fixed test set, ten 80/20 splits of the rest). "k_fold": `folds` patient-grouped
    folds, each the test once. "as_is": the roles of the table. Every split is trained with `seeds` seeds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["monte_carlo", "k_fold", "as_is"] = "monte_carlo"
    repeats: int = Field(5, ge=1)
    folds: int = Field(5, ge=2)
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    keep_test: bool = False
    validation: float = Field(0.2, gt=0, lt=1, description="k_fold: share of the other patients that validate")
    seed: int = 0
    seeds: int = Field(1, ge=1)
    as_published: bool = Field(
        False, description="choose epoch and threshold on the test slides, as MHIM-MIL's figures were: optimistic"
    )

    def splits(self, project: Project, by: Stratum | None = None) -> list[Split]:
        """The splits of a project's slides, stratified by label or by event; see `propose_split`."""
        rows = project.slides
        if self.kind == "k_fold":
            found = k_fold(rows, self.folds, self.seed, validation=self.validation, by=by)
        elif self.kind == "monte_carlo":
            found = monte_carlo(rows, self.repeats, self.fractions, self.seed, keep_test=self.keep_test, by=by)
        else:
            found = [{row.slide_id: row.role for row in rows if row.role is not None}]
        if self.as_published:
            found = [{i: "test" if role == "test" else "train" for i, role in split.items()} for split in found]
        return found

    @property
    def sentence(self) -> str:
        """How the slides are dealt, for a report."""
        dealt = {
            "k_fold": f"{self.folds} patient-grouped, stratified folds, each the test once",
            "monte_carlo": f"{self.repeats} patient-grouped, stratified splits"
            + (", the test slides fixed" if self.keep_test else ""),
            "as_is": "the project's own split",
        }[self.kind]
        chosen = "test slides (as published: optimistic)" if self.as_published else "validation slides"
        return f"{dealt[0].upper()}{dealt[1:]}; {self.seeds} seeds; epoch and threshold chosen on {chosen}."


class Submits(Interface):
    """What runs cells elsewhere: executors of `concurrent.futures` and clients of `dask.distributed` both do."""

    def submit(self, function: Any, /, *args: Any) -> Any:
        """Start a call; the answer has `done()` and `result()`."""


@dataclass(frozen=True)
class ExperimentReport:
    """Where an experiment stands.

    `result` holds the figures of a cell that is over, `epoch` an `EpochReport.to_dict()` of one that runs.
    """

    done: int
    total: int
    method: str
    split: int
    seed: int
    message: str = ""
    seconds_left: float | None = None
    epoch: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def experiment(
    project: Project,
    methods: Methods,
    protocol: Protocol | None = None,
    *,
    executor: Submits | None = None,
    device: str = "cpu",
    out: Path | str | None = None,
    teachers: Mapping[str, str] | None = None,
) -> Generator[ExperimentReport, None, pd.DataFrame]:
    """Train every method on every split with every seed, and judge each on its test slides.

    Called again with the same project, methods and protocol it goes on where it stopped: finished cells are read from
    disk, an interrupted one is resumed.

    Parameters
    ----------
    project : Project
        Slides with labels (survival: times and events) and features; their roles matter to the protocols "as_is" and
        `keep_test` only.
    methods : {name: Method, dict or preset} or list of presets
    protocol : Protocol
    executor : object with `submit`, optional
        Runs the cells elsewhere; here, one after the other, where not given.
    device : str
    out : path, optional
        Folder of the experiment; `experiments/<protocol>-<hash>` in the project where not given.
    teachers : {method: method}, optional
        MHIM: the plain baseline, one of `methods`, whose run on the same split and seed a method's teacher starts from.
        Not given: the one with the same settings but no mining, where it is among them; else a plain run is trained
        first.

    Returns
    -------
    DataFrame
        One row per cell: `method`, `split`, `seed`, `auroc`, `auprc`, `average_precision`, `accuracy` (p > 0.5) of the
        test slides, `accuracy_youden` and `f1_youden` (threshold found on `youden_from`), `val_auroc`, `patch_auroc`
        (mean over positive test slides of the scores against the outlines),
        `patch_auroc_pooled`, `lesion_share`, numbers of slides, epochs, seconds, `error`. Survival: `c_index`,
        `val_c_index`, and `log_rank_p` of the test slides above against those below the median risk of validation. Also
        in results.csv. Survival by k_fold with one seed leaves kaplan_meier.png, too: all folds' test slides together.
    """
    import pandas as pd

    cells, folder = plan(project, methods, protocol or Protocol(), device=device, out=out, teachers=teachers)
    rows: dict[int, dict[str, Any]] = {}
    yield from (_here(project, cells, rows) if executor is None else _elsewhere(executor, cells, rows))
    table = pd.DataFrame([rows[k] for k in sorted(rows)])
    write_text(folder / "results.csv", table.to_csv(index=False, lineterminator="\n"))
    if protocol is not None and protocol.kind == "k_fold" and protocol.seeds == 1 and "c_index" in table:
        folds: dict[str, list[Path]] = {}
        for cell in cells:
            folds.setdefault(cell.name, []).append(cell.result_path.with_name("predictions.csv"))
        pooled = {name: pooled_folds([path for path in paths if path.is_file()]) for name, paths in folds.items()}
        draw_kaplan_meier(pooled, folder / "kaplan_meier.png")
    return table


def plan(
    project: Project,
    methods: Methods,
    protocol: Protocol,
    *,
    device: str = "cpu",
    out: Path | str | None = None,
    teachers: Mapping[str, str] | None = None,
) -> tuple[list[Cell], Path]:
    """The cells of an experiment in the order they run, baselines before those they teach, and its folder.

    Raises
    ------
    ProjectError
        When a teacher is no method of the experiment, or the folder holds one with other splits or features.
    """
    named: dict[str, Any] = dict(methods) if isinstance(methods, Mapping) else {name: name for name in methods}
    taught = dict(teachers or {})
    unknown = sorted((set(taught) | set(taught.values())) - set(named))
    if not named or unknown or set(taught) & set(taught.values()):
        what = ", ".join(unknown) or "A method that is both teacher and taught, or no method at all,"
        raise ProjectError(f"{what} cannot be part of the experiment; name the methods, plain ones as teachers.")
    chosen = {name: method_for(project, method) for name, method in named.items()}
    taught = _plain_among(chosen) | taught
    survival = all(method.task.kind == "survival" for method in chosen.values())
    splits = protocol.splits(project, "event" if survival else None)
    content = {
        "protocol": protocol.model_dump(mode="json"),
        "feature_set": project.feature_set,
        "splits": [dict(sorted(split.items())) for split in splits],
        "inputs": _inputs(project, {slide_id for split in splits for slide_id in split}),
    }
    key = _digest(content)
    folder = Path(out) if out is not None else project.folder / "experiments" / f"{protocol.kind}-{key}"
    there = folder / "protocol.json"
    if there.is_file() and read_json(there).get("key") != key:
        raise ProjectError(f"{folder}: holds an experiment with other splits or outlines; choose another folder.")
    dumped = {name: method.model_dump(mode="json") for name, method in chosen.items()}
    write_json(there, {"key": key, **content, "methods": dumped})
    # the teacher is part of what a cell is: with another one it is another cell
    places = {
        name: f"{_plain(name)}-{_digest([dumped[name], dumped.get(taught.get(name, ''))])[:6]}" for name in chosen
    }

    def cell(name: str, number: int, seed: int) -> Cell:
        leaf = f"split{number}-seed{seed}"
        return Cell(
            project=str(project.folder),
            folder=str(folder / places[name] / leaf),
            name=name,
            method=dumped[name],
            split_number=number,
            split=splits[number],
            seed=seed,
            device=device,
            as_published=protocol.as_published,
            teacher=str(folder / places[taught[name]] / leaf) if name in taught else None,
        )

    order = sorted(chosen, key=lambda name: name in taught)
    seeds = range(protocol.seed, protocol.seed + protocol.seeds)
    return [cell(name, number, seed) for number in range(len(splits)) for seed in seeds for name in order], folder


def _plain_among(methods: Mapping[str, Method]) -> dict[str, str]:
    """{method that starts from a plain run: that plain method}, where both are among some methods."""
    from napari_mil.mil.fit import needs_plain, plain_method

    plain = {json.dumps(method.settings(), sort_keys=True): name for name, method in methods.items()}
    wanted = {
        name: json.dumps(plain_method(method).settings(), sort_keys=True)
        for name, method in methods.items()
        if needs_plain(method)
    }
    return {name: plain[settings] for name, settings in wanted.items() if settings in plain}


def _here(
    project: Project, cells: Sequence[Cell], rows: dict[int, dict[str, Any]]
) -> Generator[ExperimentReport, None, None]:
    """One cell after the other, their bags shared."""
    bags, start, trained = BagStore(project), time.perf_counter(), 0
    for k, cell in enumerate(cells):
        running = run_cell(cell, project, bags)
        was_there = cell.result_path.is_file()
        while k not in rows:
            try:
                epoch = next(running)
            except StopIteration as stop:
                rows[k] = stop.value
            else:
                yield ExperimentReport(k, len(cells), **cell.head, epoch=epoch.to_dict())
        trained += not was_there
        left = (time.perf_counter() - start) / trained * (len(cells) - k - 1) if trained else None
        yield _finished(cell, k + 1, len(cells), rows[k], left)


def _elsewhere(
    executor: Submits, cells: Sequence[Cell], rows: dict[int, dict[str, Any]]
) -> Generator[ExperimentReport, None, None]:
    """Cells handed to an executor, those with a teacher when the others are over."""
    for taught in (False, True):
        waiting = {k: executor.submit(finish_cell, c) for k, c in enumerate(cells) if (c.teacher is not None) is taught}
        try:
            while waiting:
                ready = [k for k, future in waiting.items() if future.done()]
                for k in ready:
                    rows[k] = waiting.pop(k).result()
                    yield _finished(cells[k], len(rows), len(cells), rows[k], None)
                if not ready:
                    time.sleep(0.05)
        finally:
            for future in waiting.values():
                future.cancel()


def _finished(cell: Cell, done: int, total: int, row: dict[str, Any], left: float | None) -> ExperimentReport:
    title, value = ("C-index", row["c_index"]) if "c_index" in row else ("AUROC", row.get("auroc"))
    missing = "no C-index: nobody to compare" if title == "C-index" else "no AUROC: one class in its test slides"
    what = row.get("error") or (f"{title} {value:.3f}" if value is not None else missing)
    message = f"{cell.name}, split {cell.split_number}, seed {cell.seed}: {what}"
    return ExperimentReport(done, total, **cell.head, message=message, seconds_left=left, result=row)


def _inputs(project: Project, slide_ids: set[str]) -> str:
    """Digest of features, outlines and labels: with others it is another experiment."""
    slides = project_provenance(project, sorted(slide_ids))["slides"]
    return _digest({i: [v for k, v in entry.items() if k != "role"] for i, entry in slides.items()})


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "method"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
