"""A published encoder by its name: its licence first, then its weights, then the encoder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from napari_mil.errors import FeatureError

from . import hub
from .encoder import Progress
from .licences import is_accepted
from .published import PublishedEncoder
from .state_dicts import RANDOM, RANDOM_NOTE, with_random_weights
from .torch_encoder import TorchEncoder
from .torch_network import torch_device
from .weights import file_sha256

_PACKAGES = ("timm", "huggingface_hub")


def missing_packages() -> list[str]:
    """Packages of the extra `encoders` that are not installed; nothing is imported to find out."""
    return [name for name in _PACKAGES if find_spec(name) is None]


def published_encoder(
    about: PublishedEncoder,
    *,
    weights: Path | str | None = None,
    device: str = "cpu",
    revision: str | None = None,
    progress: Progress | None = None,
) -> TorchEncoder:
    """Make a published encoder, in float32.

    Parameters
    ----------
    weights : Path, "random" or None
        A local copy of its file (``.safetensors``, ``.bin``, ``.pth``), no weights at all, or those of the hub.
    revision : str, optional
        A commit of its repository instead of the one that is known to fit.

    Raises
    ------
    FeatureError
        Without the extra `encoders`; when the weights would have to be downloaded and the licence was not accepted;
        when they cannot be downloaded or read, or are of another network.
    """
    where = torch_device(device)
    missing = missing_packages()
    if missing:
        raise FeatureError(
            f"The encoder {about.name!r} needs {' and '.join(missing)}. Install the extra: "
            'pip install "napari-mil[encoders]"'
        )
    from .published_network import PublishedNetwork, load_network

    name, note, commit = about.name, about.note, "local"
    if weights == RANDOM:
        name, note, commit = f"{name}-{RANDOM}", RANDOM_NOTE, RANDOM
        network, sha256 = with_random_weights(lambda: PublishedNetwork(about).requires_grad_(False).eval())
    else:
        if weights is None:
            path = hub.cached_file(about, revision) or _download(about, revision, progress)
            commit = hub.commit_of(path)
        else:
            path = Path(weights)
        network, sha256 = load_network(about, path), file_sha256(path)
    return TorchEncoder(
        network.to(where),
        name=name,
        dim=about.dim,
        input_px=about.patch_px,
        mean=about.transform.mean,
        std=about.transform.std,
        device=device,
        revision=commit,
        weights_sha256=sha256,
        note=note,
        any_size=about.transform.resize_px is not None,
        target_mpp=about.mpp,
        transform_note=about.transform_text,
    )


def _download(about: PublishedEncoder, revision: str | None, progress: Progress | None) -> Path:
    if not is_accepted(about):
        raise FeatureError(
            f"{about.terms} Nothing is downloaded before you have accepted it: on the page Features, or with "
            f"napari-mil encoders {about.name} --accept-licence"
        )
    return hub.download(about, revision, progress)
