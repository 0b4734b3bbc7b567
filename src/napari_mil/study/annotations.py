"""A folder of outlines brought into a project: matched to slides by name, added to what is there, reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .words import counted

if TYPE_CHECKING:
    from .project import Project


@dataclass(frozen=True)
class AnnotationImport:
    """What came of it.

    Attributes
    ----------
    added : dict
        Slide → how many outlines came new.
    sentences : list of str
        The whole in one sentence, then whatever a person should look at.
    """

    added: dict[str, int]
    sentences: list[str]


def import_annotations(project: Project, folder: Path | str) -> AnnotationImport:
    """Read every annotation file of a folder, and save the outlines that are new with the slides they belong to.

    Raises
    ------
    LesionError
        When the folder cannot be read; a file that cannot is a sentence of the report.
    """
    from napari_mil.lesion import import_folder, merge

    report = import_folder(folder, project.slide_ids)
    added: dict[str, int] = {}
    for slide_id, lesions in report.lesions.items():
        merged, new = merge(project.lesions(slide_id), lesions)
        if new:
            project.save_lesions(slide_id, merged)
        added[slide_id] = len(new)
    known = sum(map(len, report.lesions.values())) - sum(added.values())
    sentences = [
        f"{counted(sum(added.values()), 'outline')} added to {counted(sum(n > 0 for n in added.values()), 'slide')}"
        + (f"; {counted(known, 'was', 'were')} there already." if known else ".")
    ]
    sentences += [f"{path.name}: no slide of this name." for path in report.unmatched_files]
    sentences += [f"{path.name}: could be {' or '.join(names)}; rename it." for path, names in report.ambiguous.items()]
    sentences += report.problems
    if report.slides_without:
        names = ", ".join(report.slides_without[:8]) + ("…" if len(report.slides_without) > 8 else "")
        sentences.append(f"{counted(len(report.slides_without), 'slide')} got none: {names}")
    return AnnotationImport(added, sentences)
