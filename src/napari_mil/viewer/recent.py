"""The projects opened last, kept in the user's cache."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from napari_mil.features.weights import cache_folder

AT_MOST = 10


def recent_file() -> Path:
    """Where the list is kept."""
    return cache_folder() / "recent.json"


def recent_projects() -> list[Path]:
    """Folders of the projects opened last, the newest first; those that are gone are left out."""
    try:
        folders = [Path(p) for p in json.loads(recent_file().read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
    return [p for p in folders if (p / "project.json").exists()]


def remember(folder: Path) -> None:
    """Put a project first in the list; a list that cannot be written is a comfort lost, not a failure."""
    folders = [str(folder), *(str(p) for p in recent_projects() if p != folder)][:AT_MOST]
    path = recent_file()
    part = path.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(folders), encoding="utf-8")
        os.replace(part, path)
