"""The same network computed by OpenVINO (the extra ``fast-cpu``): the fastest way on a CPU of Intel or AMD."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

import numpy as np

from napari_mil.errors import FeatureError

from .encoder import Pixels, Rows
from .torch_network import Pending, TorchNetwork

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
_CALIBRATED = 32  # patches on which the ranges of whole numbers are measured
_AT_ONCE = 2  # patches of one request: their activations stay in a core's cache


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return find_spec("openvino") is not None


class OpenvinoNetwork:
    """A network of torch converted for OpenVINO; see `TorchNetwork` for what it wants and gives.

    Pairs of patches are computed side by side, as many as OpenVINO finds best on this machine.

    Parameters
    ----------
    network : TorchNetwork
        In fp32, on the CPU; it is left as it is.
    px : int
        Side of the patches.
    precision : "fp32", "bf16" or "int8"
        "int8" computes in whole numbers where that is quicker, their ranges measured on patches that are always the
        same: so the network depends on nothing but its weights. It wants nncf.
    any_size : bool
        Whether patches of other sides shall be taken, too.

    Raises
    ------
    FeatureError
        OpenVINO is not installed, cannot convert this network, or this processor has no bf16.
    """

    backend = "openvino"
    ahead = 0

    def __init__(self, network: TorchNetwork, px: int, precision: str, *, any_size: bool = False) -> None:
        self.precision = precision
        try:
            self._model = _of_pixels(_converted(network, px, any_size), network)
            if precision == "int8":
                self._model = _in_whole_numbers(self._model, px)
            self._queues = {(px, px): self._queue((px, px))}
        except FeatureError:
            raise
        except Exception as error:  # converters raise whatever they meet; a person reads one sentence
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise FeatureError(
                f"OpenVINO cannot convert this network ({lines[0]}). Choose the backend torch."
            ) from error

    def submit(self, patches: Pixels) -> Pending:
        """Compute (B, h, w, 3) uint8 patches, B > 0; what comes back gives their (B, D) float32 rows."""
        size = (patches.shape[1], patches.shape[2])
        if size not in self._queues:
            self._queues[size] = self._queue(size)
        queue, dim = self._queues[size]
        rows = np.empty((len(patches), dim), np.float32)
        for first in range(0, len(patches), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            queue.start_async({0: np.ascontiguousarray(patches[some])}, rows[some])
        queue.wait_all()
        return lambda: rows

    def _queue(self, size: tuple[int, int]) -> tuple[Any, int]:
        """Requests for patches of one (h, w), and the length of a row."""
        import torch

        ov = _openvino()
        model = self._model.clone()
        model.reshape(ov.PartialShape([-1, *size, 3]))
        hint = _HINTS[self.precision]
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "THROUGHPUT"}
        options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()  # the window may want a core for itself
        compiled = ov.Core().compile_model(model, "CPU", options)
        if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != hint:
            raise FeatureError(f"OpenVINO has no {self.precision} on this processor. Choose another precision.")
        queue = ov.AsyncInferQueue(compiled)
        queue.set_callback(_keep)
        return queue, int(compiled.output(0).get_partial_shape()[1].get_length())


def _keep(request: Any, rows: Rows) -> None:
    rows[...] = request.get_output_tensor(0).data


def _openvino() -> Any:
    """The package, without its telemetry: nobody outside hears that slides are worked on here."""
    if not has_openvino():
        raise FeatureError(
            'OpenVINO is not installed. Choose the backend torch, or: pip install "napari-mil[fast-cpu]"'
        )
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _converted(network: TorchNetwork, px: int, any_size: bool) -> Any:
    """The network as a model (B, 3, h, w) float32 → (B, D) of OpenVINO."""
    import torch

    ov = _openvino()
    function: Any = network.function
    if not isinstance(function, torch.nn.Module):
        raise FeatureError("OpenVINO takes torch modules only. Choose the backend torch.")
    free = dict.fromkeys((0, 2, 3) if any_size else (0,), torch.export.Dim.AUTO)
    with torch.no_grad():
        program = torch.export.export(function, (torch.zeros(2, 3, px, px),), dynamic_shapes=(free,))
        return ov.convert_model(program)


def _in_whole_numbers(model: Any, px: int) -> Any:
    """The model quantised by nncf: eight bits for weights and for what lies between layers."""
    if find_spec("nncf") is None:
        raise FeatureError('int8 wants nncf, which is not installed: pip install "napari-mil[fast-cpu]"')
    import nncf

    from .precision import textured_patches

    nncf.set_log_level(logging.ERROR)
    patches = nncf.Dataset([patch[None] for patch in textured_patches(_CALIBRATED, px, seed=3)])
    with redirect_stdout(io.StringIO()):  # its progress bars, where others expect our JSON
        return nncf.quantize(model, patches, preset=nncf.QuantizationPreset.MIXED, subset_size=_CALIBRATED)


def _of_pixels(model: Any, network: TorchNetwork) -> Any:
    """The model with (B, h, w, 3) uint8 in, normalised by itself."""
    ov = _openvino()
    from openvino.preprocess import PrePostProcessor

    shape = model.input(0).get_partial_shape()
    steps = PrePostProcessor(model)
    pixels = steps.input(0)
    pixels.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pixels.tensor().set_shape(ov.PartialShape([shape[0], shape[2], shape[3], shape[1]]))
    pixels.model().set_layout(ov.Layout("NCHW"))
    mean, std = ([value * 255 for value in values] for values in (network.mean, network.std))
    pixels.preprocess().convert_element_type(ov.Type.f32).mean(mean).scale(std)
    return steps.build()
