"""Features of other tools, one file or whole folders, into a folder or a project."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from napari_mil.errors import MilError

from ._slides import slide_files


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
                written.append(_into_project(path, opened, given))
            else:
                assert out is not None
                written.append(_into_folder(path, out, by_stem.get(path.stem), given))
        except (MilError, OSError) as error:
            refused[str(path)] = str(error)
    if opened is not None and written:
        opened.config.feature_set = written[0].parent.name
        opened.save()
    return written, refused


def _into_folder(path: Path, out: Path, slide_path: Path | None, options: dict[str, Any]) -> Path:
    from napari_mil.features import import_features
    from napari_mil.slide import open_slide

    with contextlib.ExitStack() as stack:
        slide = None if slide_path is None else stack.enter_context(open_slide(slide_path))
        return import_features(path, out, slide=slide, **options)


def _into_project(path: Path, project: Any, options: dict[str, Any]) -> Path:
    from napari_mil.features import import_features
    from napari_mil.study.prepare import open_project_slide

    if path.stem not in project.slide_ids:
        raise MilError(f"{path.stem}: the project has no slide of this name")
    folder = project.folder / "features" / f"{options['encoder'] or 'imported'}-imported"
    folder.mkdir(parents=True, exist_ok=True)
    with open_project_slide(project, path.stem) as slide:
        return import_features(path, folder / f"{path.stem}.h5", slide=slide, **options)
