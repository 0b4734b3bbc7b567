"""What the terminal shows: facts on the standard output, progress and warnings on the standard error."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from napari_mil.errors import Cancelled, JobError

if TYPE_CHECKING:
    from napari_mil.jobs import Job, JobSpec, JobStatus, TrainJob

_LINE_SECONDS = 10.0
# every slide says these; the progress shows them, they leave no line behind
_ROUTINE = ("Finding tissue.", "Reading the first patches.")


def say(text: str) -> None:
    """A line for the person, on the standard error."""
    print(text, file=sys.stderr, flush=True)


def say_error(sentence: str) -> None:
    """One sentence about what went wrong."""
    say(f"napari-mil: {sentence}")


def print_facts(facts: Any, *, as_json: bool) -> None:
    """Print `facts`: as JSON, or one ``name  value`` line each."""
    if as_json:
        from napari_mil.jobs import plain

        print(json.dumps(plain(facts), indent=2, ensure_ascii=False, allow_nan=False))
        return
    for number, item in enumerate(facts if isinstance(facts, list) else [facts]):
        if number:
            print()
        rows = item if isinstance(item, Mapping) else {"": item}
        width = max((len(str(name)) for name in rows), default=0)
        for name, value in rows.items():
            print(f"{name:<{width}}  {readable(value)}".strip())


def finish(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a job's result; slides that failed make the command fail, after the others are done."""
    print_facts(result if as_json else summary(result), as_json=as_json)
    failed = result.get("failed") or {}
    for name, sentence in failed.items():
        say_error(str(sentence) if str(name) in str(sentence) else f"{name}: {sentence}")
    if failed:
        sys.exit(2)


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a job's result a person reads in a terminal: figures, slides, places, and the sentence."""
    rows: dict[str, Any] = {}
    for slide_id, found in (result.get("predictions") or {}).items():
        chances = found["probabilities"]
        named = chances.items() if isinstance(chances, dict) else (("", chance) for chance in chances)
        likely = ", ".join(f"{name} {chance:.3f}".strip() for name, chance in named)
        risk = "" if found.get("risk") is None else f"risk {found['risk']:.3f}"
        said = (found.get("predicted", ""), risk, likely, found["badge"])
        rows[slide_id] = "  ".join(str(part) for part in said if part)
    for role, figures in ((result.get("metrics") or {}).get("sets") or {}).items():
        if (figures.get("auroc") or {}).get("value") is not None:
            from napari_mil.study.metrics import auroc_words

            rows[f"{role} AUROC"] = auroc_words(figures)
        if "c_index" in figures:
            from napari_mil.study.survival import c_index_words

            rows[f"{role} C-index"] = c_index_words(figures)
        if figures.get("auroc_macro") is not None:
            rows[f"{role} macro AUROC"] = round(figures["auroc_macro"], 3)
            rows[f"{role} balanced accuracy"] = round(figures["balanced_accuracy"], 3)
    places = {name: result[name] for name in ("run", "folder", "maps", "out") if result.get(name)}
    return {**rows, **places, "result": result.get("message") or "Done."}


def readable(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "not defined"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {readable(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(readable(item) for item in value) or "none"
    return str(value)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show our own warnings as one line each."""
    shown: set[str] = set()
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if not category.__module__.startswith("napari_mil"):
            before(message, category, *rest, **more)
        elif str(message) not in shown:
            shown.add(str(message))
            say(f"Note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


def run_job(spec: JobSpec) -> dict[str, Any]:
    """Run one job, show its progress, and return its result.

    Ctrl-C cancels it cleanly, what was finished is kept.

    Raises
    ------
    JobError
        If it failed.
    Cancelled
        After Ctrl-C.
    """
    from napari_mil.jobs import JobRunner, TrainJob

    # nobody waits for a window here: all cores, ordinary priority
    with JobRunner(threads=_all_cores(), polite=False) as runner:
        job = runner.submit(spec)
        try:
            status = _follow(job)
        except KeyboardInterrupt:
            say("Stopping…")
            in_plain = bool(job.reports and job.reports[-1].get("stage"))
            if in_plain:
                runner.close()  # as when a window is closed: the plain run stays where it is, and goes on from there
            else:
                job.cancel("best")
            status = job.wait(10)
            message = "Stopped in the plain run; what was trained until then is kept." if in_plain else status.message
            following = job.resume_spec()
            again = ""
            if isinstance(following, TrainJob) and following.resume:
                again = f" To go on: {_resuming(following)}"
            raise Cancelled(f"{message}{again}") from None
    if status.phase == "failed":
        raise JobError(status.error or status.message)
    if status.phase == "cancelled":
        raise Cancelled(status.message)
    return status.result or {}


def _resuming(spec: TrainJob) -> str:
    """The command that goes on with a training: with this run and no other."""
    import shlex
    import subprocess

    words = ["napari-mil", "train", spec.project, "--resume", "--out", str(spec.out)]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def _all_cores() -> int:
    from napari_mil.jobs import sensible_threads

    return sensible_threads(leave=0)


def _follow(job: Job) -> JobStatus:
    return _follow_live(job) if sys.stderr.isatty() else _follow_in_lines(job)


def _follow_live(job: Job) -> JobStatus:
    """A progress bar with the time left; each epoch stays as a line above it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.text import Text

    console = Console(stderr=True)
    columns = (TaskProgressColumn(), BarColumn(bar_width=24), TextColumn("{task.fields[left]}", markup=False))
    told = 0
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console, transient=True) as bar:
        task = bar.add_task(job.spec.title, total=1.0, left="")
        for status in job.events():
            for report in job.reports[told:]:
                told += 1
                if report.get("message") not in _ROUTINE:
                    console.print(Text(report_line(report)))
            left = "" if status.seconds_left is None else f"{duration(status.seconds_left)} left"
            bar.update(task, completed=status.fraction, description=status.message, left=left)
    return job.status


def _follow_in_lines(job: Job) -> JobStatus:
    """Plain lines for a file or a pipe: every epoch, and otherwise one line in ten seconds."""
    told, said_at = 0, -_LINE_SECONDS
    for status in job.events():
        fresh = job.reports[told:]
        told += len(fresh)
        for report in fresh:
            if report.get("message") not in _ROUTINE:
                say(report_line(report))
        now = time.monotonic()
        if not fresh and not status.finished and status.phase == "running" and now - said_at >= _LINE_SECONDS:
            left = "" if status.seconds_left is None else f", {duration(status.seconds_left)} left"
            say(f"{status.fraction:.0%}{left}: {status.message}")
            said_at = now
    return job.status


@contextlib.contextmanager
def steps(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar (or lines, where nobody watches) for work that calls back with (done, total, sentence)."""
    if not sys.stderr.isatty():
        yield lambda done, total, sentence: say(sentence)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total, sentence: bar.update(task, completed=done, total=total, description=sentence)


def report_line(report: Mapping[str, Any]) -> str:
    """One report as a line: an epoch with its losses, or a slide that is done."""
    if isinstance(report.get("epoch"), int):
        stage = f"{report['stage']} run first, " if report.get("stage") else ""
        parts = [f"{stage}epoch {report['epoch']:>3}/{report.get('epochs', '?')}"]
        for name, title in (("train_loss", "loss"), ("val_loss", "val. loss"), ("val_auroc", "val. AUROC")):
            if report.get(name) is not None:
                parts.append(f"{title} {report[name]:.4f}")
        c_index = (report.get("val_metrics") or {}).get("c_index")
        if c_index is not None:
            parts.append(f"val. C-index {c_index:.4f}")
        line = "  ".join(parts) + ("  best so far" if report.get("improved") else "")
        return "\n".join([line, *(f"note  {note}" for note in report.get("notes") or ())])
    name = str(report.get("slide_id", ""))
    message = str(report.get("message") or f"{report.get('total', '')} patches")
    return message if not name or message.startswith(f"{name}:") else f"{name}: {message}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
