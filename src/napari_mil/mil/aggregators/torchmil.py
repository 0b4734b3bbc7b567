"""Models of torchmil (Apache-2.0, https://torchmil.readthedocs.io) as aggregators; needs `napari-mil[torchmil]`.

    Method(aggregator={"name": "torchmil", "custom_options": {"model": "ABMIL", "att_dim": 64, "gated": True}})

It is announced by the entry point `napari_mil.aggregators`, like an aggregator of any other package.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from napari_mil.errors import MethodError

from .base import Aggregator, BagOutput, SlideLoss

_HEADS = ("classifier", "bag_classifier", "last_layer")
"""What torchmil calls the layer that makes logits of a bag's embedding."""
_NORMALISED = ("DSMIL",)
"""Models whose attention is after the softmax; torchmil hands out what is before it."""
_SIGNED = ("TransMIL",)
"""Models whose attention is a row of Nyström attention: of any sign, and no softmax belongs to it."""


class TorchmilAggregator(Aggregator):
    """A model of torchmil for two classes: it has one logit, and sees a bag as a batch of one, (1, N, D).

    `scores` is the attention that the model returns, before its softmax where it has one (DSMIL: the patches' logits;
    TransMIL: N times the class token's row of its last layer), `attention` adds up to 1. DSMIL learns from both
    of its streams, and predicts by the mean of their logits.

    Parameters
    ----------
    in_dim, n_classes : int
    model : str
        Name of a class in `torchmil.models`.
    **keywords
        Handed to that class; `in_shape` is known.

    Raises
    ------
    MethodError
        torchmil is not installed or has no such model; the model needs more than patches, gives no attention, or was
        given a keyword that it has not; or there are more than two classes.
    """

    def __init__(self, in_dim: int, n_classes: int, model: str = "ABMIL", **keywords: Any) -> None:
        super().__init__(in_dim, n_classes, "single")
        if n_classes != 2:
            raise MethodError(
                f"Models of torchmil tell two classes apart, and this task has {n_classes}; choose another aggregator."
            )
        self.kind = model
        self.model = _build(model, in_dim, keywords)
        found = [name for name in _HEADS if hasattr(self.model, name)]
        if not found:
            raise MethodError(f"torchmil's {model} has no classifier of a bag's embedding that is known here.")
        self.head = found[0]

    def instances(self, x: Tensor) -> Tensor:
        return x

    def pool(self, h: Tensor) -> BagOutput:
        asked = {"return_inst_pred": True} if self.kind in _NORMALISED else {}
        seen: list[Tensor] = []
        hook = getattr(self.model, self.head).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            logit, attention, *rest = self.model(h[None], return_att=True, **asked)
        finally:
            hook.remove()
        logits, attention = logit.reshape(1), attention.reshape(-1)  # (1,), (N,)
        embedding = seen[-1].reshape(-1)  # (D',)
        if self.kind in _NORMALISED:
            each = rest[0].reshape(-1)  # (N,)
            extras = {"streams": torch.stack([logits[0], each.max()])}  # its loss is of both, its prediction their mean
            return BagOutput(extras["streams"].mean().reshape(1), each, attention, embedding, extras=extras)
        if self.kind in _SIGNED:
            positive = attention.clamp(min=0)
            even = torch.full_like(attention, 1 / len(attention))
            shares = positive / positive.sum() if bool(positive.sum() > 0) else even
            return BagOutput(logits, attention * len(attention), shares, embedding)
        return BagOutput(logits, attention, torch.softmax(attention, dim=0), embedding)

    def loss(self, output: BagOutput, slide_loss: SlideLoss, label: int | None) -> Tensor:
        """The slide's loss; DSMIL: that of both streams."""
        if "streams" in output.extras:
            return slide_loss(output.extras["streams"][:1]) + slide_loss(output.extras["streams"][1:])
        return slide_loss(output.logits)


def _build(name: str, in_dim: int, keywords: dict[str, Any]) -> nn.Module:
    try:
        models = importlib.import_module("torchmil.models")
    except ImportError as error:
        raise MethodError(
            f"The aggregator torchmil needs the package torchmil ({error}); install it with "
            "pip install 'napari-mil[torchmil]'."
        ) from error
    kind = getattr(models, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise MethodError(f"torchmil has no model {name!r}; set model in aggregator.custom_options, to ABMIL say.")
    needed = [
        key
        for key, parameter in inspect.signature(kind.forward).parameters.items()
        if key not in ("self", "X") and parameter.default is parameter.empty
    ]
    if needed:
        raise MethodError(
            f"torchmil's {name} needs {', '.join(needed)} besides the patches, which is not handed to it."
        )
    if name == "CLAM_SB":  # in 1.0.2 its loss of patches ends in a RuntimeError as soon as they are told apart well
        raise MethodError("torchmil's CLAM_SB fails in its own loss of patches; choose the aggregator clam_sb.")
    if "return_samples" in inspect.signature(kind.forward).parameters:
        raise MethodError(f"torchmil's {name} draws samples and has losses of its own for it; choose another (ABMIL).")
    if "return_att" not in inspect.signature(kind.forward).parameters:
        raise MethodError(f"torchmil's {name} returns no attention for its patches; choose a model that does (ABMIL).")
    known = [key for key in inspect.signature(kind).parameters if key not in ("in_shape", "feat_ext", "criterion")]
    unknown = [key for key in keywords if key not in known]
    if unknown:
        raise MethodError(f"torchmil's {name} has no setting {unknown[0]!r}; it has {', '.join(known)}.")
    try:
        built: nn.Module = kind(in_shape=(in_dim,), **keywords)
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise MethodError(f"torchmil's {name} cannot be built so: {error}.") from error
    return built
