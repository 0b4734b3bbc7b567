"""Multiple-instance learning: bags in, scores out. Knows no slide, no file layout of a project, no window.

Everything here is loaded on first use: describing a method or a bag needs no torch, training one does.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

# public name → the module it lives in
_PUBLIC = {
    "Bag": "bag",
    "EpochReport": "records",
    "Prediction": "records",
    "auroc": "metrics",
    "Method": "method",
    "PresetInfo": "presets",
    "Run": "checkpoint",
    "fit": "fit",
    "predict": "predict",
    "Aggregator": "aggregators",
    "BagOutput": "aggregators",
    "aggregator_names": "plugins",
    "build_aggregator": "aggregators",
    "rank_loss": "supervision",
    "attention_induction_loss": "supervision",
    "attention_target": "supervision",
    "instance_bce_loss": "supervision",
    "shuffle_labels": "supervision",
    "threshold_attention": "aggregators",
    "MaskRatios": "mining",
    "MaskedBag": "mining",
    "mask_instances": "mining",
    "consistency_loss": "mining",
    "ema_update": "mining",
    "cosine_schedule": "mining",
    "convert_state_dict": "convert",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from .aggregators import Aggregator as Aggregator
    from .aggregators import BagOutput as BagOutput
    from .aggregators import build_aggregator as build_aggregator
    from .aggregators import threshold_attention as threshold_attention
    from .bag import Bag as Bag
    from .checkpoint import Run as Run
    from .convert import convert_state_dict as convert_state_dict
    from .fit import fit as fit
    from .method import Method as Method
    from .metrics import auroc as auroc
    from .mining import MaskedBag as MaskedBag
    from .mining import MaskRatios as MaskRatios
    from .mining import consistency_loss as consistency_loss
    from .mining import cosine_schedule as cosine_schedule
    from .mining import ema_update as ema_update
    from .mining import mask_instances as mask_instances
    from .plugins import aggregator_names as aggregator_names
    from .predict import predict as predict
    from .presets import PresetInfo as PresetInfo
    from .records import EpochReport as EpochReport
    from .records import Prediction as Prediction
    from .supervision import attention_induction_loss as attention_induction_loss
    from .supervision import attention_target as attention_target
    from .supervision import instance_bce_loss as instance_bce_loss
    from .supervision import rank_loss as rank_loss
    from .supervision import shuffle_labels as shuffle_labels


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'napari_mil.mil' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Room(ModuleType):
    """Importing the modules `fit` and `predict` must not hide the functions of the same names."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _PUBLIC:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Room
