"""In which precision and by what an encoder computes: chosen, checked against float32, remembered.

bfloat16 halves what is moved and, where the processor has instructions for it, more than doubles what is computed. It
changes features a little; how much is measured once for each network on each kind of machine, on patches that look
like tissue, and written into every feature file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError

from .encoder import Encoder, Pixels, Rows
from .weights import cache_folder

if TYPE_CHECKING:
    from .torch_encoder import Network, TorchEncoder

PRECISIONS = ("auto", "fp32", "bf16", "int8")
BACKENDS = ("auto", "torch", "openvino")

LEAST_COSINE = {"fp32": 0.999, "bf16": 0.999, "int8": 0.95}
"""Rows of a faster way must agree with those of float32 at least so well; int8 only who asks for it gets."""

_CHECKED = 16  # patches


def in_precision(encoder: Encoder, precision: str = "auto", backend: str = "auto") -> Encoder:
    """The encoder computing in a precision, by a backend.

    Parameters
    ----------
    encoder : Encoder
        In float32. One that is no `TorchEncoder` computes as it does.
    precision : "auto", "fp32", "bf16" or "int8"
        "auto" is bf16 where the device gains by it and the rows agree with those of float32 (every cosine at least
        0.999), else fp32. "bf16" is kept to also where it is no faster.
        "int8" (whole numbers of eight bits, by OpenVINO only) is the quickest on a CPU and changes features most:
        never chosen by itself, and its measured cosine is recorded like that of bf16.
    backend : "auto", "torch" or "openvino"
        "auto" is OpenVINO on a CPU where it is installed (the extra fast-cpu) and takes the network, else torch.

    Raises
    ------
    FeatureError
        A name that is none of these; a precision or backend that was asked for and cannot be had, or whose rows do
        not agree with those of float32.
    """
    from .torch_encoder import TorchEncoder

    if not isinstance(encoder, TorchEncoder):
        return encoder
    for what, name, known in (("precision", precision, PRECISIONS), ("backend", backend, BACKENDS)):
        if name not in known:
            raise FeatureError(f"There is no {what} {name!r}. Choose one of {', '.join(known)}.")
    problem: FeatureError | None = None
    for wanted, by in _ways(encoder.device, precision, backend):
        if (wanted, by) == ("fp32", "torch"):
            return encoder
        try:
            return _checked(encoder, _network(encoder, wanted, by))
        except FeatureError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def gains_from_bf16(device: str) -> bool:
    """Whether a device computes faster in bfloat16: CPUs with AVX-512 BF16 or AMX, NVIDIA GPUs since Ampere."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device != "cpu":
        return False
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in asked if hasattr(torch.cpu, name))


def _ways(device: str, precision: str, backend: str) -> Iterator[tuple[str, str]]:
    """Precisions and backends to try, the best first."""
    from .openvino_network import has_openvino

    if precision == "int8":
        if backend == "torch":
            raise FeatureError("int8 is computed by OpenVINO only. Choose the backend openvino or auto.")
        backend = "openvino"
    precisions = [precision] if precision != "auto" else (["bf16", "fp32"] if gains_from_bf16(device) else ["fp32"])
    backends = [backend] if backend != "auto" else (["openvino", "torch"] if has_openvino() else ["torch"])
    if device != "cpu":
        if backend == "openvino":
            raise FeatureError(f"OpenVINO computes on the CPU here, not on {device}. Choose the backend torch.")
        backends = ["torch"]
    return ((wanted, by) for wanted in precisions for by in backends)


def _network(encoder: TorchEncoder, precision: str, backend: str) -> Network:
    from .openvino_network import OpenvinoNetwork
    from .torch_network import TorchNetwork

    plain = encoder.network
    assert isinstance(plain, TorchNetwork), "the precision of an encoder is chosen once"
    if backend == "openvino":
        return OpenvinoNetwork(plain, encoder.input_px, precision, any_size=encoder.any_size)
    return plain.in_bf16()


def _checked(encoder: TorchEncoder, network: Network) -> TorchEncoder:
    """The encoder with another network, once its rows were found to agree."""
    key = _key(encoder, network)
    cosine = _remembered().get(key)
    if cosine is None:
        patches = textured_patches(_CHECKED, encoder.input_px)
        try:
            rows = encoder.with_network(network, None).encode(patches)
        except RuntimeError as error:  # a network that insists on float32 somewhere
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise FeatureError(
                f"{encoder.name} cannot be computed in {network.precision} by {network.backend} ({lines[0]}). Choose "
                "the precision fp32 or auto."
            ) from error
        cosine = least_cosine(rows, encoder.encode(patches))
        _remember(key, cosine)
    least = LEAST_COSINE[network.precision]
    if not cosine >= least:
        raise FeatureError(
            f"{encoder.name} in {network.precision} by {network.backend} does not agree with float32: the least cosine "
            f"between their rows is {cosine:.5f}, expected {least} or more. Choose the precision fp32 or auto."
        )
    return encoder.with_network(network, cosine)


def least_cosine(rows: Rows, others: Rows) -> float:
    """The least cosine between row i of one and row i of the other, rounded down to six digits."""
    one, other = (np.asarray(some, np.float64) for some in (rows, others))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return float(np.floor(cosines.min() * 1e6) / 1e6)


def textured_patches(count: int, px: int, seed: int = 2) -> Pixels:
    """(count, px, px, 3) patches with the colours and grain of an H&E stain, the same every time."""
    rng = np.random.default_rng(seed)
    patches = np.empty((count, px, px, 3), np.uint8)
    for index in range(count):
        eosin = 0.15 + 0.5 * _cloud(rng, px, 2.0 + index) * index / count
        nuclei = np.clip(6 * (_cloud(rng, px, 3.0) - 0.9 + 0.4 * index / count), 0, 1)
        stained = eosin[..., None] * (0.1, 0.9, 0.3) + nuclei[..., None] * (0.9, 1.2, 0.5)
        noisy = 245 * np.exp(-stained) + rng.normal(0, 3, (px, px, 3))
        patches[index] = np.clip(noisy, 0, 255).astype(np.uint8)
    return patches


def _cloud(rng: np.random.Generator, px: int, grain_px: float) -> npt.NDArray[np.float64]:
    """(px, px) smooth noise between 0 and 1."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.normal(size=(px, px)), grain_px, mode="wrap")
    low, high = noise.min(), noise.max()
    cloud: npt.NDArray[np.float64] = (noise - low) / max(high - low, 1e-12)
    return cloud


def _key(encoder: TorchEncoder, network: Network) -> str:
    """What the agreement depends on: weights, way, version, kind of machine."""
    from importlib.metadata import version

    import torch

    machine = torch.backends.cpu.get_cpu_capability()
    if encoder.device.startswith("cuda"):
        machine = torch.cuda.get_device_name(encoder.device)
    parts = (encoder.name, encoder.weights_sha256, encoder.transform, network.precision)
    return " | ".join((*parts, f"{network.backend} {version(network.backend)}", machine))


def _remembered() -> dict[str, float]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _remember(key: str, cosine: float) -> None:
    """Keep a cosine; a cache that cannot be written is no reason to fail."""
    path: Any = _file()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**_remembered(), key: cosine}, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)


def _file() -> Any:
    return cache_folder() / "precision.json"
