"""ResNet-50 up to its third stage, ResNet-18 up to its last: torchvision's networks with ImageNet weights.

The cut of ResNet-50 and its pooling to 1024 numbers follow Lu et al. (CLAM, Nat Biomed Eng 5:555, 2021), which the
rank-induction paper uses, too.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

from napari_mil.errors import FeatureError

from .encoder import Progress
from .torch_encoder import IMAGENET_MEAN, IMAGENET_STD, TorchEncoder
from .torch_network import fold_batch_norm, torch_device
from .weights import cached_weights, file_sha256, weights_of

RANDOM = "random"
_STAGES = {"resnet50": ("layer1", "layer2", "layer3"), "resnet18": ("layer1", "layer2", "layer3", "layer4")}
_DIMS = {"resnet50": 1024, "resnet18": 512}
_RANDOM_NOTE = "RANDOM WEIGHTS: this network has learnt nothing. For tests only, never for results."


def resnet_encoder(
    name: str, *, weights: Path | str | None = None, device: str = "cpu", progress: Progress | None = None
) -> TorchEncoder:
    """A ResNet as an encoder.

    Parameters
    ----------
    name : "resnet50" or "resnet18"
    weights : Path, "random" or None
        A state dict of torchvision's network (``.pth`` or ``.safetensors``), no weights at all, or the published ones.

    Raises
    ------
    FeatureError
        Weights that cannot be downloaded, read, or belong to another network.
    """
    import torch

    if weights == RANDOM:
        network, revision, sha256, note = _random(name)
        name = f"{name}-{RANDOM}"
    else:
        published = weights_of(name)
        if weights is None and published is not None:
            path, revision = cached_weights(published, progress=progress), "IMAGENET1K_V1"
        else:
            path, revision = Path(str(weights)), "local"
        network, note = _network(name), f"{name} with weights of {path.name}"
        _load(network, path, name)
        sha256 = file_sha256(path)
        if published is not None and sha256.startswith(published.sha256_prefix):
            revision = "IMAGENET1K_V1"  # the same file, wherever it lies, makes the same features
    architecture = name.removesuffix(f"-{RANDOM}")
    return TorchEncoder(
        fold_batch_norm(network.eval()).to(torch_device(device), memory_format=torch.channels_last),
        name=name,
        dim=_DIMS[architecture],
        input_px=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        device=device,
        revision=revision,
        weights_sha256=sha256,
        note=note,
        any_size=True,
        transform_note=f"mean over {_STAGES[architecture][-1]}",
    )


def _network(name: str) -> Any:
    """The layers that are used, with torchvision's names, so that its state dicts load."""
    import torch
    import torchvision

    whole = getattr(torchvision.models, name)(weights=None)
    layers = torch.nn.Sequential()
    for part in ("conv1", "bn1", "relu", "maxpool", *_STAGES[name]):
        layers.add_module(part, getattr(whole, part))
    layers.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    layers.add_module("flatten", torch.nn.Flatten())
    return layers.requires_grad_(False)


def _random(name: str) -> tuple[Any, str, str, str]:
    """Weights drawn from seed 0, the same every time; the caller's generator is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network(name)
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return network, RANDOM, digest.hexdigest(), _RANDOM_NOTE


def _load(network: Any, path: Path, name: str) -> None:
    """Fill the network from a file of tensors; never unpickles anything else."""
    state = _read_state(path)
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise FeatureError(
            f"{path} does not fit {name}: {len(missing)} of {len(wanted)} tensors are missing, first {missing[0]!r} "
            f"(found {', '.join(list(state)[:3])}, …). Expected torchvision's state dict of {name}."
        )
    for key, value in wanted.items():
        if key in state and tuple(state[key].shape) != tuple(value.shape):
            raise FeatureError(
                f"{path} does not fit {name}: {key} has shape {tuple(state[key].shape)}, expected "
                f"{tuple(value.shape)}. Choose the file of {name}."
            )
    network.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def _read_state(path: Path) -> dict[str, Any]:
    import torch

    if not path.is_file():
        raise FeatureError(f"There is no weights file {path}. Check the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        sentence = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise FeatureError(
            f"{path} cannot be read as weights ({sentence}). Expected a .pth or .safetensors file."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise FeatureError(f"{path} is not a state dict of tensors. Save the network's state_dict() and use that file.")
    return state
