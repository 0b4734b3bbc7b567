"""Which patches a model is shown: masked hard instance mining."""

from __future__ import annotations

from .build import build_miner
from .masks import MaskedBag, MaskRatios, mask_instances
from .mhim import Lesson, MhimMiner, Miner, consistency_loss, cosine_schedule, ema_update
from .mhim2 import Mhim2Miner, class_aware_score
from .recycle import RecycleNetwork

__all__ = [
    "Lesson",
    "MaskRatios",
    "MaskedBag",
    "Mhim2Miner",
    "MhimMiner",
    "Miner",
    "RecycleNetwork",
    "build_miner",
    "class_aware_score",
    "consistency_loss",
    "cosine_schedule",
    "ema_update",
    "mask_instances",
]
