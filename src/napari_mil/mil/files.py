"""Files written whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mil.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` through a `.part` beside it.

    Another program that just reads the old file (a viewer, a virus scanner) makes Windows refuse the exchange for a
    moment; it is tried for two seconds.

    Raises
    ------
    TrainingError
        No space, no permission, or held open by another program.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _exchange(part, path)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror or error}. Free space on the disk or choose another folder; "
            "what was written before is kept and can be resumed."
        ) from error


def _exchange(part: Path, path: Path) -> None:
    for _ in range(20):
        try:
            os.replace(part, path)
        except PermissionError:
            time.sleep(0.1)
        else:
            return
    raise TrainingError(f"{path} is held open by another program; close it, then resume the training.")


def write_text(path: Path, text: str) -> None:
    """The same for text, UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Tensors and short texts as one safetensors file."""
    from safetensors.torch import save

    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_bytes(path, save(plain, dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file; the file is not held open.

    Raises
    ------
    TrainingError
        Missing or damaged.
    """
    import json

    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path} is missing: no epoch of this training was finished; train or resume it."
        ) from error
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise TrainingError(
            f"{path} is damaged ({error}); take the other checkpoint of this run, or train it again."
        ) from error
    return tensors, dict(header.get("__metadata__", {}))
