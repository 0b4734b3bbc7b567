"""Files written whole or not at all, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from napari_mil.errors import ProjectError
from napari_mil.whole import written_whole


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, so that a crash leaves the old one."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ProjectError
        When it is not there, not readable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProjectError(f"{path}: cannot be read ({error.strerror}); check that it exists.") from error
    except ValueError as error:
        raise ProjectError(
            f"{path}: is not valid JSON ({error}); restore it from a copy, or mend it with a text editor."
        ) from error


def sha256(path: Path) -> str | None:
    """Hexadecimal SHA-256 of a file's bytes; None when it is not there."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def absolute(path: Path | str) -> Path:
    """An absolute path, ~ expanded, links left as they are."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def stored_path(path: Path, folder: Path) -> str:
    """A path as it stands in a project file: POSIX, relative to `folder` unless it lies on another drive."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # two drives
        return path.as_posix()


def real_path(stored: str, folder: Path) -> Path:
    """The absolute path of what `stored_path` wrote (or a person, with either slash)."""
    path = Path(os.path.normpath(folder / os.path.expanduser(stored)))
    if os.name != "nt" and "\\" in stored and not path.exists():  # a table that was written on Windows
        return Path(os.path.normpath(folder / stored.replace("\\", "/")))
    return path
