"""What all torch encoders share: pixels in, normalisation, the device, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError

from .encoder import Pixels, Rows

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


def normalisation_text(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    def numbers(values: tuple[float, ...]) -> str:
        return ", ".join(f"{value:.6g}" for value in values)

    return f"(rgb/255 - ({numbers(mean)})) / ({numbers(std)})"


class TorchEncoder:
    """A torch function (B, 3, h, w) float32 → (B, D) as an `Encoder`.

    Everything is reckoned in float32, also on a GPU (no TF32), so that a row depends on its patch alone up to
    rounding in the last bits.
    """

    any_size = False
    precision = "fp32"

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        name: str,
        dim: int,
        input_px: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: str,
        revision: str,
        weights_sha256: str,
        note: str,
        any_size: bool = False,
        target_mpp: float | None = 0.5,
        transform_note: str = "",
    ) -> None:
        import torch

        self.name, self.dim, self.input_px, self.any_size = name, dim, input_px, any_size
        self.device, self.revision, self.weights_sha256 = device, revision, weights_sha256
        self.note, self.target_mpp = note, target_mpp
        self.transform = normalisation_text(mean, std) + (f"; {transform_note}" if transform_note else "")
        self._function = function
        self._torch_device = torch_device(device)
        shape = (1, 3, 1, 1)
        self._shift = torch.tensor(mean, device=self._torch_device).mul(255).reshape(shape)
        self._factor = torch.tensor(std, device=self._torch_device).mul(255).reciprocal().reshape(shape)

    def encode(self, patches: Pixels) -> Rows:
        """(B, h, w, 3) uint8 RGB → (B, D) float32.

        Raises
        ------
        FeatureError
            Wrong shape or type, memory exhausted even for one patch, an output of another length than announced.
        """
        array: npt.NDArray[Any] = np.asarray(patches)
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
            raise FeatureError(f"Patches have shape {array.shape}, {array.dtype}; expected (B, h, w, 3) uint8.")
        if not self.any_size and array.shape[1:3] != (self.input_px, self.input_px):
            raise FeatureError(
                f"Patches are {array.shape[2]} x {array.shape[1]} px; {self.name} takes {self.input_px} x "
                f"{self.input_px} px."
            )
        if len(array) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._encode_within_memory(array)

    def _encode_within_memory(self, array: Pixels) -> Rows:
        """The rows; a batch too large for the memory is halved until it fits."""
        import torch

        try:
            return self._forward(array)
        except torch.OutOfMemoryError as error:
            if len(array) == 1:
                raise FeatureError(
                    f"The memory of {self.device} does not suffice for one patch of {self.name}. Close other programs "
                    "that use it, or compute on the CPU."
                ) from error
        torch.cuda.empty_cache()
        half = len(array) // 2
        return np.concatenate([self._encode_within_memory(array[:half]), self._encode_within_memory(array[half:])])

    def _forward(self, array: Pixels) -> Rows:
        import torch

        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            pixels = torch.from_numpy(np.ascontiguousarray(array)).to(self._torch_device)
            tensor = pixels.permute(0, 3, 1, 2).float().sub_(self._shift).mul_(self._factor)
            rows = self._function(tensor)
        if tuple(rows.shape) != (len(array), self.dim):
            raise FeatureError(
                f"{self.name} answered {len(array)} patches with an array of shape {tuple(rows.shape)}; expected "
                f"({len(array)}, {self.dim}). Correct its description or export it anew."
            )
        return np.asarray(rows.float().cpu().numpy(), dtype=np.float32)
