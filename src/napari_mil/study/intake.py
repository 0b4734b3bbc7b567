"""Slides on their way into a project: from a folder, a table or a list of files; never opened here."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from napari_mil.errors import ProjectError

from ._files import absolute, real_path, stored_path
from .config import SlideRow
from .table import patient_of, read_table, slide_id_of

TABLES = {".csv", ".tsv", ".txt"}
_UID = re.compile(r"\d+(\.\d+){3,}")  # what DICOM files are often called


def collect(
    slides: Path | str | Iterable[Path | str], folder: Path, mapping: Mapping[str, str] | None = None
) -> list[SlideRow]:
    """Rows for a project in `folder`, from a folder of slides, a table, one slide or a list of slides.

    Raises
    ------
    ProjectError
        When nothing is there, or a table has the same slide twice.
    """
    if not isinstance(slides, str | Path):
        return _rows([absolute(p) for p in slides], folder)
    source = absolute(slides)
    if source.is_dir():
        from napari_mil.slide import find_slides

        files = find_slides(source)
        if not files:
            raise ProjectError(f"{source}: holds no slides that can be read; choose the folder that holds them.")
        return _rows(files, folder)
    if source.suffix.lower() in TABLES:
        rows, _ = read_table(source, mapping)
        paths = [real_path(row.path, source.parent) for row in rows]
        return [row.model_copy(update={"path": stored_path(p, folder)}) for row, p in zip(rows, paths, strict=True)]
    if not source.exists():
        raise ProjectError(f"{source}: does not exist; choose a folder of slides, a CSV table, or slide files.")
    return _rows([source], folder)


def disambiguate(rows: Sequence[SlideRow], taken: Container[str] | Iterable[str] = ()) -> list[SlideRow]:
    """The rows with names that no other has: the folder's name is put before, then a number behind.

    Names that differ in case only count as the same, since lesions and features are files.
    """
    used = {str(name).lower() for name in taken} if isinstance(taken, Iterable) else set()
    count = Counter(row.slide_id.lower() for row in rows)
    named: list[SlideRow] = []
    for row in rows:
        name = row.slide_id
        if count[name.lower()] > 1 or name.lower() in used:
            name = f"{slide_id_of(Path(row.path).parent.name) or 'slide'}_{name}"
        stem, k = name, 2
        while name.lower() in used:
            name, k = f"{stem}-{k}", k + 1
        used.add(name.lower())
        if name != row.slide_id:
            patient = name if row.patient_id == row.slide_id else row.patient_id
            row = row.model_copy(update={"slide_id": name, "patient_id": patient})
        named.append(row)
    return named


def find_again(lost: Mapping[str, Path], before: Path | None, new_folder: Path) -> dict[str, Path]:
    """Files of lost slides in another folder: at the same place below it, else by file name, else by stem.

    A name that several files have is not guessed at.
    """
    if not new_folder.is_dir():
        raise ProjectError(f"{new_folder}: is no folder; choose the folder that holds the slides now.")
    from napari_mil.slide import is_slide_file, is_zarr

    found: dict[str, Path] = {}
    by_name: dict[str, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for root, folders, files in os.walk(new_folder):
        for name in [*files, *folders]:
            by_name.setdefault(name.lower(), []).append(Path(root, name))
        stores = [name for name in folders if is_zarr(Path(root, name))]
        folders[:] = [name for name in folders if name not in stores]  # thousands of chunks
        for name in [*files, *stores]:
            by_stem.setdefault(slide_id_of(name).lower(), []).append(Path(root, name))
    for slide_id, path in lost.items():
        if before is not None and before in path.parents and (new_folder / path.relative_to(before)).exists():
            found[slide_id] = new_folder / path.relative_to(before)
            continue
        same = by_name.get(path.name.lower(), [])
        alike = [p for p in by_stem.get(slide_id_of(path.name).lower(), []) if is_slide_file(p)]
        candidates = same or alike
        if len(candidates) == 1:
            found[slide_id] = candidates[0]
    return found


def _rows(files: Sequence[Path], folder: Path) -> list[SlideRow]:
    rows = []
    files = list(dict.fromkeys(files))
    beside = Counter(path.parent for path in files)
    for path in files:
        name = slide_id_of(path)
        if _UID.fullmatch(name) and beside[path.parent] == 1 and path.parent.name:
            name = slide_id_of(path.parent / f"{path.parent.name}.dcm")  # one DICOM slide: its folder has a name
        rows.append(SlideRow(slide_id=name, path=stored_path(path, folder), patient_id=patient_of(name)))
    return rows
