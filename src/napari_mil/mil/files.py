"""Files written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mil.errors import TrainingError
from napari_mil.whole import written_whole

if TYPE_CHECKING:
    from torch import Tensor


def write_bytes(path: Path, data: bytes) -> None:
    """Write `path` whole or not at all.

    Raises
    ------
    TrainingError
        No space, no permission, or held open by another program.
    """
    try:
        with written_whole(path) as part:
            part.write_bytes(data)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror or error}. Free space on the disk or choose another folder; "
            "what was written before is kept and can be resumed."
        ) from error


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
