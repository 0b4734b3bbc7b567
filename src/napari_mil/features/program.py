"""A person's own network: a ``torch.export`` program ``<name>.pt2`` with ``<name>.json`` beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_mil.errors import FeatureError

from .torch_encoder import TorchEncoder
from .torch_network import torch_device
from .weights import file_sha256

Triple = tuple[float, float, float]


class ProgramDescription(BaseModel):
    """The JSON beside a program.

    The program takes (B, 3, input_px, input_px) float32, ``(rgb/255 - mean)/std``, and gives (B, dim) float32.
    """

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1)
    dim: int = Field(ge=1)
    input_px: int = Field(default=224, ge=1)
    mean: Triple
    std: Triple
    sha256: str = Field(pattern="^[0-9a-fA-F]{64}$")
    weights: str = ""
    revision: str = ""
    target_mpp: float | None = Field(default=None, gt=0)
    licence: str = ""


def read_description(program: Path) -> ProgramDescription:
    """The checked description of a program.

    Raises
    ------
    FeatureError
        When the program or its JSON is absent, or the JSON lacks something.
    """
    beside = program.with_suffix(".json")
    if not program.is_file():
        raise FeatureError(f"There is no encoder program {program}. Check the path.")
    if not beside.is_file():
        raise FeatureError(
            f"{program.name} has no description {beside}. Write one with name, dim, input_px, mean, std, weights and "
            "sha256 of the program."
        )
    try:
        return ProgramDescription.model_validate(json.loads(beside.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FeatureError(f"{beside}: {where}: {first['msg']}. Correct the description.") from error
    except (OSError, ValueError) as error:
        raise FeatureError(f"{beside} cannot be read ({error}). Expected JSON.") from error


class ProgramEncoder(TorchEncoder):
    """An exported program as an encoder; its checksum is verified before it is loaded."""

    def __init__(self, path: Path, *, device: str = "cpu") -> None:
        about = read_description(path)
        found = file_sha256(path)
        if found != about.sha256.lower():
            raise FeatureError(
                f"{path} is not the file its description was written for: SHA-256 {found[:12]}…, expected "
                f"{about.sha256[:12].lower()}…. Fetch it again or export it anew with its JSON."
            )
        self.licence = about.licence
        super().__init__(
            _load(path, device),
            name=about.name,
            dim=about.dim,
            input_px=about.input_px,
            mean=about.mean,
            std=about.std,
            device=device,
            revision=about.revision or about.weights,
            weights_sha256=found,
            note=f"Your own network from {path.name}" + (f" ({about.weights} weights)." if about.weights else "."),
            target_mpp=about.target_mpp,
        )


def _load(path: Path, device: str) -> Any:
    import torch

    target = torch_device(device)
    try:
        program = torch.export.load(path)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, target)
        return program.module()
    except Exception as error:  # whatever an alien file makes of the loader, a person reads one sentence
        raise FeatureError(
            f"{path} cannot be loaded as a torch.export program ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}). Export it with this or an older "
            f"torch than {torch.__version__}."
        ) from error
