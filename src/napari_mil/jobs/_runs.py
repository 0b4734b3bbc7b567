"""What becomes of a training's folder when its person stops it. Plain files only: no torch here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from napari_mil.mil.records import PLAIN

from ._status import Keep


def settle_run(folder: Path | None, keep: Keep, created: bool) -> str:
    """Leave the run in `folder` as `keep` asks, and say so in one sentence.

    "best": ``run.json`` is marked as cancelled, its best weights stay those that are used. "last": the last
    epoch's weights are used from now on. "discard": the folder is removed, if the cancelled job made it
    (`created`). A run without any finished epoch has nothing to keep, but for the plain run that it was to start from:
    that becomes a run of its own beside it.
    """
    if folder is None or not folder.is_dir():
        return "Cancelled."
    has_weights = _has_weights(folder)
    if keep == "discard" or not has_weights:
        if not created:
            return f"Cancelled; {folder.name} stays, since it was there before."
        if keep != "discard" and _has_weights(folder / PLAIN):
            return _keep_plain(folder, keep)
        shutil.rmtree(folder, ignore_errors=True)
        left = " Some files are still in use and were left." if folder.exists() else ""
        if keep == "discard":
            return f"Cancelled; the run was discarded.{left}"
        return f"Cancelled before the first epoch was finished; there was nothing to keep.{left}"
    if not _mark(folder / "run.json", {"status": "cancelled", "use": keep}):
        return f"Cancelled; the weights are in {folder.name}, but its run.json could not be marked."
    return f"Cancelled; the {keep} epoch's weights are kept in {folder.name}."


def _has_weights(folder: Path) -> bool:
    """Both checkpoints are there from the first finished epoch on; the last one alone says nothing."""
    return (folder / "best.safetensors").is_file() and (folder / "last.safetensors").is_file()


def _keep_plain(folder: Path, keep: Keep) -> str:
    """Make a run of its own of the plain run in a run's folder; the rest of the folder is removed."""
    target = folder.with_name(f"{folder.name}-{PLAIN}")
    try:
        (folder / PLAIN).rename(target)
        for path in folder.glob("*.npz"):  # what the outlines taught, so that it can go on
            path.rename(target / path.name)
    except OSError:
        return f"Cancelled during the plain run, which stays in {folder / PLAIN}."
    shutil.rmtree(folder, ignore_errors=True)
    _mark(target / "run.json", {"status": "cancelled", "use": keep})
    return f"Cancelled during the plain run; its {keep} epoch's weights are kept in {target.name}, a run of its own."


def _mark(path: Path, fields: dict[str, Any]) -> bool:
    """Add `fields` to run.json; False where it cannot be read or written."""
    from napari_mil.whole import written_whole

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        with written_whole(path) as part:
            part.write_text(json.dumps({**data, **fields}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, ValueError):
        return False
    return True
