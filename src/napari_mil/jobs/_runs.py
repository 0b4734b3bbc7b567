"""What becomes of a training's folder when its person stops it. Plain files only: no torch here."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ._status import Keep


def settle_run(folder: Path | None, keep: Keep, created: bool) -> str:
    """Leave the run in `folder` as `keep` asks, and say so in one sentence.

    "best": ``run.json`` is marked as cancelled, its best weights stay those that are used. "last": the last
    epoch's weights are used from now on. "discard": the folder is removed, if the cancelled job made it
    (`created`). A run without any finished epoch has nothing to keep.
    """
    if folder is None or not folder.is_dir():
        return "Cancelled."
    has_weights = (folder / f"{'last' if keep == 'last' else 'best'}.safetensors").is_file()
    if keep == "discard" or not has_weights:
        if not created:
            return f"Cancelled; {folder.name} stays, since it was there before."
        shutil.rmtree(folder, ignore_errors=True)
        left = " Some files are still in use and were left." if folder.exists() else ""
        if keep == "discard":
            return f"Cancelled; the run was discarded.{left}"
        return f"Cancelled before the first epoch was finished; there was nothing to keep.{left}"
    _mark(folder / "run.json", {"status": "cancelled", "use": keep})
    return f"Cancelled; the {keep} epoch's weights are kept in {folder.name}."


def _mark(path: Path, fields: dict[str, Any]) -> None:
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({**data, **fields}, indent=2), encoding="utf-8")
    os.replace(part, path)
