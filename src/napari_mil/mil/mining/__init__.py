"""Which patches a model is shown: masked hard instance mining."""

from __future__ import annotations

from .masks import MaskedBag, MaskRatios, mask_instances
from .mhim import Miner, consistency_loss, cosine_schedule, ema_update

__all__ = [
    "MaskRatios",
    "MaskedBag",
    "Miner",
    "consistency_loss",
    "cosine_schedule",
    "ema_update",
    "mask_instances",
]
