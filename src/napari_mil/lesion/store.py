"""A project's own outlines: one GeoJSON per slide, written whole or not at all, with the versions before it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from napari_mil.errors import LesionError

from . import geojson
from .files import json_bytes, read_lesions, write_atomic
from .model import LesionSet

KEPT = 20
"""Earlier versions kept of each slide."""


def lesions_path(folder: str | os.PathLike[str], slide_id: str) -> Path:
    """``<folder>/<slide_id>.geojson``."""
    if not slide_id or slide_id in (".", "..") or set(slide_id) & set('/\\:*?"<>|\0'):
        raise LesionError(
            f'{slide_id!r} cannot be the name of a file; expected a slide id without / \\ : * ? " < > |. '
            "Rename the slide in the slide table."
        )
    return Path(folder) / f"{slide_id}.geojson"


def save_lesions(folder: str | os.PathLike[str], slide_id: str, lesions: LesionSet) -> Path:
    """Write ``<folder>/<slide_id>.geojson``; what stood there before goes to ``history/<slide_id>/<time>.geojson``.

    Nothing is written when nothing changed. The last `KEPT` versions stay.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    LesionError
        When the id cannot be a file name or the folder cannot be written.
    """
    path = lesions_path(folder, slide_id)
    new = json_bytes(geojson.to_json(lesions))
    try:
        old = path.read_bytes()
    except FileNotFoundError:
        old = None
    except OSError as error:
        raise LesionError(f"{path}: cannot be read ({error.strerror}); check the folder's permissions.") from error
    if old == new:
        return path
    if old is not None:
        _keep(path, slide_id, old)
    write_atomic(path, new)
    return path


def _keep(path: Path, slide_id: str, old: bytes) -> None:
    folder = path.parent / "history" / slide_id
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    number = next(n for n in range(1000) if not (folder / f"{stamp}-{n:03d}.geojson").exists())  # coarse clocks
    write_atomic(folder / f"{stamp}-{number:03d}.geojson", old)
    for outdated in lesion_history(path.parent, slide_id)[KEPT:]:
        outdated.unlink(missing_ok=True)


def load_lesions(folder: str | os.PathLike[str], slide_id: str) -> LesionSet:
    """The slide's outlines; an empty set when none were ever saved.

    Raises
    ------
    LesionError
        When the file is broken; the message names the newest earlier version.
    """
    path = lesions_path(folder, slide_id)
    if not path.exists():
        return LesionSet()
    try:
        return read_lesions(path)
    except LesionError as error:
        history = lesion_history(folder, slide_id)
        advice = f" The version before it is {history[0]}." if history else ""
        raise LesionError(f"{error}{advice}") from error


def lesion_history(folder: str | os.PathLike[str], slide_id: str) -> list[Path]:
    """Earlier versions of a slide's outlines, newest first."""
    path = lesions_path(folder, slide_id)
    return sorted((path.parent / "history" / slide_id).glob("*.geojson"), reverse=True)
