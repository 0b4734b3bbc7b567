"""Commands about projects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mil.errors import MilError

from ._app import Json, app
from ._encoders import info_of, own_tiling
from ._terminal import print_facts, say

if TYPE_CHECKING:
    from napari_mil.study import Project

project = typer.Typer(help="Projects: a folder with a slide table, outlines, features and runs.", rich_markup_mode=None)
app.add_typer(project, name="project")


@project.command("new")
def new(
    folder: Annotated[Path, typer.Argument(help="The project's folder, new or empty.")],
    slides: Annotated[Path | None, typer.Option(help="A folder of slides, or a CSV table.")] = None,
    name: Annotated[str | None, typer.Option(help="Its name; the folder's, if none is given.")] = None,
    encoder: Annotated[
        str, typer.Option(help="texture, resnet50, uni, … (see: napari-mil encoders), or a .pt2 file.")
    ] = "texture",
    lesions: Annotated[Path | None, typer.Option(help="A folder of outlines, matched to slides by name.")] = None,
    srgb: Annotated[bool, typer.Option("--srgb", help="Convert colours by each file's ICC profile to sRGB.")] = False,
    split: Annotated[bool, typer.Option(help="Give labelled slides their roles (by patient, stratified).")] = False,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a project from a folder of slides or a table."""
    from napari_mil.slide import TileConfig
    from napari_mil.study import Project

    encoder = checked_encoder(encoder)
    if lesions is not None and not lesions.is_dir():
        raise MilError(f"--lesions {lesions}: no such folder; expected one with annotation files")
    tile = TileConfig(**own_tiling(encoder))
    made = Project.create(folder, slides, name=name, encoder=encoder, tile=tile, color="srgb" if srgb else "as stored")
    facts: dict[str, Any] = {"project": made.folder, "slides": len(made.slide_ids)}
    if lesions is not None:
        from napari_mil.lesion import import_folder

        report = import_folder(lesions, made.slide_ids)
        for slide_id, outlines in report.lesions.items():
            made.save_lesions(slide_id, outlines)
        for problem in report.problems:
            say(f"Note: {problem}")
        facts["outlined"] = len(report.lesions)
    if split:
        made.set_roles(made.propose_split(seed=seed))
    made.save()
    facts |= _state(made)
    print_facts(facts, as_json=as_json)


@project.command("check")
def check(
    folder: Annotated[Path, typer.Argument(metavar="PROJECT", help="A project folder.")], as_json: Json = False
) -> None:
    """What stands between a project and its training."""
    print_facts(_state(open_project(folder)), as_json=as_json)


def _state(opened: Project) -> dict[str, Any]:
    findings = opened.check_trainable()
    roles = {role: sum(row.role == role for row in opened.slides) for role in ("train", "validation", "test")}
    return {
        "labels": {name: sum(row.label == name for row in opened.slides) for name in opened.label_names},
        "roles": roles,
        "with_features": sum(opened.has_features(slide_id) for slide_id in opened.slide_ids),
        "runs": len(opened.runs()),
        "trainable": not any(finding.blocking for finding in findings),
        "to_do": [str(finding) for finding in findings],
    }


def checked_encoder(name: str) -> str:
    """The encoder as a project keeps it, a .pt2 file by its whole path; refused before a project is changed for it.

    Raises
    ------
    MilError
        If there is none of this name, or no such .pt2 file.
    """
    if name.lower().endswith(".pt2"):
        if not Path(name).is_file():
            raise MilError(f"there is no encoder program {name}; check the path")
        return str(Path(name).absolute())
    info_of(name)
    return name


def open_project(folder: Path) -> Project:
    """The project in `folder`.

    Raises
    ------
    MilError
        If there is none.
    """
    from napari_mil.study import Project

    if not (folder / "project.json").is_file():
        raise MilError(f"{folder} is no project: project.json is missing; make one with: napari-mil project new")
    return Project.open(folder)
