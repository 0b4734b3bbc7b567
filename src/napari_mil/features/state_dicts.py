"""Files of weights: read without unpickling anything but tensors, and compared with the network they are for."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from napari_mil.errors import FeatureError

RANDOM = "random"
RANDOM_NOTE = "RANDOM WEIGHTS: this network has learnt nothing. For tests only, never for results."

_DAMAGED = (pickle.UnpicklingError, zipfile.BadZipFile)


def read_state(path: Path) -> dict[str, Any]:
    """The tensors of a ``.safetensors``, ``.pth`` or ``.bin`` file by their names; large files are mapped, not copied.

    Raises
    ------
    FeatureError
        When there is no such file, it cannot be read, or it holds anything else than tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FeatureError(f"There is no weights file {path}. Check the path.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # files of torch before 1.6 are no zip archives and cannot be mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, RuntimeError, ValueError, EOFError, *_DAMAGED, SafetensorError) as error:
        sentence = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise FeatureError(
            f"{path} cannot be read as weights ({sentence}). Expected a whole .safetensors, .pth or .bin file."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FeatureError(f"{path} is not a state dict of tensors. Save the network's state_dict() and use that file.")
    return state


def check_fits(state: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, name: str, expected: str) -> None:
    """Refuse a state dict that lacks a tensor of the network, or has one of another shape.

    Parameters
    ----------
    wanted : mapping
        The network's own state dict.
    expected : str
        What the file should have been, for the message.

    Raises
    ------
    FeatureError
    """
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise FeatureError(
            f"{path} does not fit {name}: {len(missing)} of {len(wanted)} tensors are missing, first {missing[0]!r} "
            f"(found {', '.join(list(state)[:3])}, …). Expected {expected}."
        )
    for key, value in wanted.items():
        if key in state and tuple(state[key].shape) != tuple(value.shape):
            raise FeatureError(
                f"{path} does not fit {name}: {key} has shape {tuple(state[key].shape)}, expected "
                f"{tuple(value.shape)}. Choose the file of {name}."
            )


def with_random_weights(make: Callable[[], Any]) -> tuple[Any, str]:
    """The module that `make` builds, its weights drawn from seed 0, and their checksum.

    They are the same every time; the caller's generator is left as it was.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make()
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return network, digest.hexdigest()
