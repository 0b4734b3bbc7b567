"""Features of other tools, one file or whole folders, into a folder or a project."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from napari_mil.errors import MilError

from ._slides import slide_files
from ._terminal import say


def import_all(
    paths: list[Path], out: Path | None, project: Path | None, slides: Path | None, options: dict[str, Any]
) -> tuple[list[Path], dict[str, str]]:
    """Import every feature file that `paths` name; the written files, and why others were refused.

    Parameters
    ----------
    paths
        Files, or folders that are looked through.
    out, project
        Where to: a folder, or the project's slides of the same names.
    slides
        A folder of slides to check the geometry against.
    options
        For `napari_mil.features.import_features`.
    """
    from napari_mil.features import find_importable
    from napari_mil.study import Project

    files: list[tuple[Path, Path | None]] = []
    for path in paths:
        if path.is_dir():
            files += [(item.path, item.patches) for item in find_importable(path)]
        else:
            files.append((path, None))
    if not files:
        raise MilError(f"{', '.join(map(str, paths))}: no features of CLAM or TRIDENT found there")
    opened = None if project is None else Project.open(project)
    by_stem = {path.stem: path for path in slide_files([slides])} if slides is not None else {}
    written: list[Path] = []
    refused: dict[str, str] = {}
    for path, patches in files:
        given = {**options, "patches": options["patches"] or patches}
        try:
            if opened is not None:
                made = _into_project(path, opened, given)
            else:
                assert out is not None
                if out / f"{path.stem}.h5" in written:
                    raise MilError(
                        f"{path.stem}: another file of this slide was imported just now (of another encoder?); "
                        "import each encoder's folder into a folder of its own"
                    )
                made = _into_folder(path, out, by_stem.get(path.stem), given)
            written.append(made)
        except (MilError, OSError) as error:
            refused[str(path)] = str(error)
    if opened is not None and written:
        sets = list(dict.fromkeys(path.parent.name for path in written))
        if len(sets) > 1:
            say(f"Note: features of several encoders; the project uses {sets[0]}, the others lie beside it.")
        opened.config.feature_set = sets[0]
        opened.save()
    return written, refused


def _into_folder(path: Path, out: Path, slide_path: Path | None, options: dict[str, Any]) -> Path:
    from napari_mil.features import import_features
    from napari_mil.slide import open_slide

    with contextlib.ExitStack() as stack:
        slide = None if slide_path is None else stack.enter_context(open_slide(slide_path))
        return import_features(path, out, slide=slide, **options)


def _into_project(path: Path, project: Any, options: dict[str, Any]) -> Path:
    """Into the folder of its encoder: features of two are never mixed."""
    from napari_mil.features import import_features
    from napari_mil.study.prepare import open_project_slide
    from napari_mil.study.provenance import feature_facts

    if path.stem not in project.slide_ids:
        raise MilError(f"{path.stem}: the project has no slide of this name")
    features: Path = project.folder / "features"
    with open_project_slide(project, path.stem) as slide:
        made = import_features(path, features / "importing" / f"{path.stem}.h5", slide=slide, **options)
    encoder = str((feature_facts(made) or {})["encoder"])  # who made them is known once they are read
    target = features / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', encoder)}-imported" / made.name
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(made, target)
    with contextlib.suppress(OSError):  # not empty: another import is under way
        made.parent.rmdir()
    return target
