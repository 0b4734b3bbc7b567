"""Plain runs that are there already: what MHIM's teacher, or hard negative bags, start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mil.errors import MilError
from napari_mil.mil.records import PLAIN

from .runs import run_facts
from .train import OF_OUTLINES, changes_since

if TYPE_CHECKING:
    from napari_mil.mil import Method, Run

    from .project import Project


def plain_run(project: Project, method: Method, seed: int, roles: Mapping[str, list[str]]) -> Run | None:
    """A finished run of a project that is `method` without its mining; None where none is needed or there.

    It has the same settings, seed, training and validation slides, and these slides' features and labels are still
    those of then; their outlines, too, where they teach.
    """
    folders = [place for folder in project.runs() for place in (folder, folder / PLAIN)]

    def fits(folder: Path, facts: Mapping[str, Any]) -> bool:
        split = (facts.get("provenance") or {}).get("split") or {}
        if any(split.get(role) != roles[role] for role in ("train", "validation")):
            return False
        changes = changes_since(project, folder, ("train", "validation"))
        return not any(method.needs_lesions or not change.endswith(OF_OUTLINES) for change in changes)

    return first_plain_run(folders, method, seed, fits)


def first_plain_run(
    folders: Iterable[Path],
    method: Method,
    seed: int,
    fits: Callable[[Path, Mapping[str, Any]], bool] = lambda folder, facts: True,
) -> Run | None:
    """The first of some folders that holds a finished run of `method` without its mining, with this seed."""
    from napari_mil.mil import Method, Run
    from napari_mil.mil.fit import needs_plain, plain_method

    if not needs_plain(method):
        return None
    wanted = plain_method(method).settings()
    for folder in folders:
        if not (folder / "run.json").is_file() or not (folder / "best.safetensors").is_file():
            continue
        try:
            facts = run_facts(folder)
            same = facts["finished"] and facts["seed"] == seed
            if same and Method.model_validate(facts["method"]).settings() == wanted and fits(folder, facts):
                return Run.load(folder)
        except (MilError, KeyError):  # damaged, or of a version with other settings: none to start from
            continue
    return None
