"""What all torch encoders share: pixels in, rows out, one batch after the other, and memory that runs out."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError

from .encoder import Pixels, Rows
from .torch_network import Pending, TorchNetwork

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Network(Protocol):
    """What computes the rows of a `TorchEncoder`: torch or OpenVINO, in one precision."""

    backend: str
    precision: str
    ahead: int

    def submit(self, patches: Pixels) -> Pending: ...


def normalisation_text(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    def numbers(values: tuple[float, ...]) -> str:
        return ", ".join(f"{value:.6g}" for value in values)

    return f"(rgb/255 - ({numbers(mean)})) / ({numbers(std)})"


class TorchEncoder:
    """A torch function (B, 3, h, w) float32 → (B, D) as an `Encoder`.

    It computes in float32; `napari_mil.features.precision.in_precision` makes one of it that computes faster.

    Attributes
    ----------
    precision : "fp32" or "bf16"
        Recorded with the features.
    backend : "torch" or "openvino"
        What computes it; recorded with the features, too, though it makes no difference beyond rounding.
    precision_cosine : float or None
        The least cosine between its rows and those of float32, once measured.
    """

    any_size = False
    precision_cosine: float | None = None

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
        self.name, self.dim, self.input_px, self.any_size = name, dim, input_px, any_size
        self.device, self.revision, self.weights_sha256 = device, revision, weights_sha256
        self.note, self.target_mpp = note, target_mpp
        self.transform = normalisation_text(mean, std) + (f"; {transform_note}" if transform_note else "")
        self.network: Network = TorchNetwork(function, mean, std, device)
        self.precision, self.backend = self.network.precision, self.network.backend

    def with_network(self, network: Network, cosine: float | None) -> TorchEncoder:
        """The same encoder computed by another network, whose rows have this cosine with those of float32."""
        other = copy.copy(self)
        other.network, other.precision_cosine = network, cosine
        other.precision, other.backend = network.precision, network.backend
        return other

    def encode(self, patches: Pixels) -> Rows:
        """(B, h, w, 3) uint8 RGB → (B, D) float32.

        Raises
        ------
        FeatureError
            Wrong shape or type, memory exhausted even for one patch, an output of another length than announced.
        """
        return next(self.encode_stream([patches]))

    def encode_stream(self, batches: Iterable[Pixels]) -> Iterator[Rows]:
        """The rows of each batch, in order; on a GPU the next batch is copied there while one is computed.

        Raises
        ------
        FeatureError
            As `encode`.
        """
        under_way: deque[Pending] = deque()
        for patches in batches:
            under_way.append(self._begin(self._checked(patches)))
            if len(under_way) > self.network.ahead:
                yield under_way.popleft()()
        while under_way:
            yield under_way.popleft()()

    def _checked(self, patches: Pixels) -> Pixels:
        array: npt.NDArray[Any] = np.asarray(patches)
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
            raise FeatureError(f"Patches have shape {array.shape}, {array.dtype}; expected (B, h, w, 3) uint8.")
        if not self.any_size and array.shape[1:3] != (self.input_px, self.input_px):
            raise FeatureError(
                f"Patches are {array.shape[2]} x {array.shape[1]} px; {self.name} takes {self.input_px} x "
                f"{self.input_px} px."
            )
        return array

    def _begin(self, array: Pixels) -> Pending:
        """Begin with a batch; one too large for the memory is halved until it fits."""
        import torch

        if len(array) == 0:
            return lambda: np.empty((0, self.dim), dtype=np.float32)
        try:
            pending = self.network.submit(array)
        except torch.OutOfMemoryError as error:
            if len(array) == 1:
                raise FeatureError(
                    f"The memory of {self.device} does not suffice for one patch of {self.name}. Close other programs "
                    "that use it, or compute on the CPU."
                ) from error
        else:
            return lambda: self._of_announced_length(pending(), len(array))
        torch.cuda.empty_cache()
        half = len(array) // 2
        rows = [self._begin(some)() for some in (array[:half], array[half:])]
        return lambda: np.concatenate(rows)

    def _of_announced_length(self, rows: Rows, count: int) -> Rows:
        if tuple(rows.shape) != (count, self.dim):
            raise FeatureError(
                f"{self.name} answered {count} patches with an array of shape {tuple(rows.shape)}; expected "
                f"({count}, {self.dim}). Correct its description or export it anew."
            )
        return rows
