"""The window, the sample project, and the doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._app import Json, app
from ._terminal import print_facts, steps


@app.callback(invoke_without_command=True)
def window(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Open napari with the MIL dock, or run a command."""
    if version:
        from napari_mil import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        _launch(None)


@app.command("open")
def open_project(
    project: Annotated[Path, typer.Argument(help="A project folder, or a folder of slides to make one of.")],
) -> None:
    """Open the window on a project."""
    _launch(project)


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Option(help="Where to put the sample slides (the user's cache).")] = None,
    slides: Annotated[int, typer.Option(help="How many slides.")] = 24,
    make_only: Annotated[bool, typer.Option(help="Make the sample project and open no window.")] = False,
    as_json: Json = False,
) -> None:
    """Open the window on the sample project: small synthetic slides with known tumour."""
    from napari_mil.sample import create_sample, sample_folder

    where = folder or sample_folder()
    with steps("Sample slides") as progress:
        project = create_sample(where, n_slides=slides, progress=progress)
    if make_only or as_json:
        print_facts({"project": project}, as_json=as_json)
    if not make_only:
        _launch(project)


@app.command()
def doctor(
    as_json: Json = False,
    folder: Annotated[Path | None, typer.Option(help="Where your projects are, for the room on its disk.")] = None,
) -> None:
    """Examine this installation, and say what to do about what is wrong."""
    from napari_mil.doctor import Finding, examine

    marks = {"ok": "  ok    ", "advice": "  advice", "problem": "PROBLEM "}
    findings: list[Finding] = []
    for finding in examine(folder):
        findings.append(finding)
        if not as_json:
            print(f"{marks[finding.status]}  {finding.name}: {finding.found}", flush=True)
            if finding.todo:
                print(f"            → {finding.todo}", flush=True)
    problems = [finding for finding in findings if finding.status == "problem"]
    if as_json:
        facts: dict[str, Any] = {"problems": len(problems), "findings": [finding.to_dict() for finding in findings]}
        print_facts(facts, as_json=True)
    else:
        print("No problem was found." if not problems else f"{len(problems)} to mend: see the arrows above.")
    if problems:
        raise typer.Exit(1)


def _launch(project: Path | None) -> None:
    from importlib.util import find_spec

    from napari_mil.errors import MilError

    if not any(find_spec(name) for name in ("PyQt6", "PySide6")):
        raise MilError('no Qt binding is installed, so there is no window: pip install "napari-mil[all]"')
    from napari_mil.widgets.main import launch

    launch(project)
