"""Licences of published weights: which ones a person has accepted on this account.

Kept in the user's own cache, never in a project: who opens the project elsewhere is asked, too.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from napari_mil.errors import FeatureError

from .published import PublishedEncoder
from .weights import cache_folder


def is_accepted(about: PublishedEncoder) -> bool:
    """Whether this encoder's licence, as it is called today, was accepted."""
    kept = _read().get(about.name)
    return isinstance(kept, dict) and kept.get("licence") == about.licence.name


def accept(about: PublishedEncoder) -> None:
    """Remember that the person accepted the licence.

    Raises
    ------
    FeatureError
        When it cannot be written down.
    """
    path = _path()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    kept = _read()
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    kept[about.name] = {"licence": about.licence.name, "url": about.licence.url, "accepted": when}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(kept, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FeatureError(
            f"{path} cannot be written ({error}), so it cannot be kept that the licence of {about.title} was accepted. "
            "Make the folder writable, or name another one in the environment variable NAPARI_MIL_CACHE."
        ) from error


def _path() -> Path:
    return cache_folder() / "licences.json"


def _read() -> dict[str, Any]:
    try:
        kept = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}
