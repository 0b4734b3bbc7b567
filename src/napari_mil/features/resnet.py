"""ResNet-50 up to its third stage, ResNet-18 up to its last: torchvision's networks with ImageNet weights.

The cut of ResNet-50 and its pooling to 1024 numbers follow Lu et al. (CLAM, Nat Biomed Eng 5:555, 2021), which the
rank-induction paper uses, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .encoder import Progress
from .state_dicts import RANDOM, RANDOM_NOTE, check_fits, read_state, with_random_weights
from .torch_encoder import IMAGENET_MEAN, IMAGENET_STD, TorchEncoder
from .torch_network import fold_batch_norm, torch_device
from .weights import cached_weights, file_sha256, weights_of

_STAGES = {"resnet50": ("layer1", "layer2", "layer3"), "resnet18": ("layer1", "layer2", "layer3", "layer4")}
_DIMS = {"resnet50": 1024, "resnet18": 512}


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

    architecture = name
    if weights == RANDOM:
        network, sha256 = with_random_weights(lambda: _network(architecture))
        revision, note = RANDOM, RANDOM_NOTE
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


def _load(network: Any, path: Path, name: str) -> None:
    """Fill the network from a file of tensors; the stages that are cut off are left out."""
    state, wanted = read_state(path), network.state_dict()
    check_fits(state, wanted, path, name, f"torchvision's state dict of {name}")
    network.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)
