"""Which patches a model is shown: masked hard instance mining."""

from __future__ import annotations

from .masks import MaskedBag, MaskRatios, mask_instances
from .mhim import Lesson, Miner, build_miner, consistency_loss, cosine_schedule, ema_update

__all__ = [
    "Lesson",
    "MaskRatios",
    "MaskedBag",
    "Miner",
    "build_miner",
    "consistency_loss",
    "cosine_schedule",
    "ema_update",
    "mask_instances",
]
