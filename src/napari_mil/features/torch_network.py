"""A network of torch over uint8 pixels: where it computes, in which precision, and how copies hide behind it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from napari_mil.errors import FeatureError

from .encoder import Pixels, Rows

Pending = Callable[[], Rows]
"""Rows that are being reckoned; calling it waits for them."""

_AT_ONCE_ON_CPU = 8
"""Patches that go through the network together on a CPU: their activations stay in its caches, 1.3 times as fast as
64 at once; rows do not depend on it."""


def torch_device(name: str) -> Any:
    """The torch device of a name.

    Raises
    ------
    FeatureError
        When there is no such device here; the message names those there are.
    """
    import torch

    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name not in there:
        raise FeatureError(f"There is no device {name!r} here. Choose one of {', '.join(there)}.")
    return torch.device(name)


class TorchNetwork:
    """A torch function (B, 3, h, w) → (B, D) behind pixels of uint8, which become floats where it computes.

    In fp32 everything is reckoned in float32, also on a GPU (no TF32), so that a row depends on its patch alone up to
    rounding in the last bits. In bf16 weights and activations have 8 significant bits.

    Parameters
    ----------
    function : torch.nn.Module or callable
        On its device already, in float32.
    mean, std : (3,) float
        What it wants its pixels scaled with: ``(rgb/255 - mean) / std``.
    device : str
    """

    backend = "torch"
    precision = "fp32"

    def __init__(
        self, function: Callable[[Any], Any], mean: tuple[float, ...], std: tuple[float, ...], device: str
    ) -> None:
        import torch

        self.function, self.mean, self.std = function, mean, std
        self._device = torch_device(device)
        self._dtype = torch.float32
        shape = (1, 3, 1, 1)
        self._shift = torch.tensor(mean, device=self._device).mul(255).reshape(shape)
        self._factor = torch.tensor(std, device=self._device).mul(255).reciprocal().reshape(shape)
        on_gpu = self._device.type == "cuda"
        self._copies: Any = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]
        self.ahead = 1 if on_gpu else 0
        """Batches that may be under way while the rows of an earlier one are waited for."""

    def in_bf16(self) -> TorchNetwork:
        """The same network with weights and activations in bfloat16; this one is left as it is.

        Raises
        ------
        FeatureError
            When it is a bare function, whose weights cannot be reached.
        """
        import torch

        if not isinstance(self.function, torch.nn.Module):
            raise FeatureError("A function that is no torch module has no weights to turn to bf16. Choose fp32.")
        other = copy.copy(self)
        other.function = copy.deepcopy(self.function).to(torch.bfloat16)
        other._dtype, other.precision = torch.bfloat16, "bf16"
        return other

    def submit(self, patches: Pixels) -> Pending:
        """Begin with (B, h, w, 3) uint8 patches, B > 0; what comes back gives their (B, D) float32 rows.

        Raises
        ------
        torch.OutOfMemoryError
        """
        import torch

        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            pixels: Any = torch.from_numpy(np.ascontiguousarray(patches))
            if self._copies is not None:
                return self._submit_to_gpu(pixels)
            at_once = _AT_ONCE_ON_CPU if self._device.type == "cpu" else len(pixels)
            rows = torch.cat([self._rows(some.to(self._device)) for some in pixels.split(at_once)]).cpu().numpy()
            return lambda: rows

    def _submit_to_gpu(self, pixels: Any) -> Pending:
        """Pixels go over from pinned memory in a stream of their own, while the batch before is computed."""
        import torch

        with torch.cuda.device(self._device):
            computing = torch.cuda.current_stream()
            with torch.cuda.stream(self._copies):
                there = pixels.pin_memory().to(self._device, non_blocking=True)
            computing.wait_stream(self._copies)
            there.record_stream(computing)  # its memory is not given away before it was read
            rows = self._rows(there)
            back = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            back.copy_(rows, non_blocking=True)
            arrived: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(computing)

        def wait() -> Rows:
            arrived.synchronize()
            found: Rows = back.numpy()
            return found

        return wait

    def _rows(self, pixels: Any) -> Any:
        """(b, h, w, 3) uint8 → (b, D) float32, both on the device; the permuted view is channels-last already."""
        scaled = pixels.permute(0, 3, 1, 2).float().sub_(self._shift).mul_(self._factor)
        return self.function(scaled.to(self._dtype)).float()


def fold_batch_norm(module: Any) -> Any:
    """Take each batch norm into the convolution registered right before it, as in torchvision's ResNets; in place.

    A frozen batch norm is a scale and a shift of each channel, and so are a convolution's weights and bias: the
    results agree to rounding, and a pass over the activations is saved.
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    parts = list(module.named_children())
    for (name, one), (following, other) in pairwise(parts):
        if isinstance(one, torch.nn.Conv2d) and isinstance(other, torch.nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(one, other))
            setattr(module, following, torch.nn.Identity())
    for _, part in module.named_children():
        fold_batch_norm(part)
    return module
