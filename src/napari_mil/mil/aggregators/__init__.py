"""From the patches of a slide to its logits: one file per model, one contract for all."""

from __future__ import annotations

from .base import Aggregator, BagOutput, threshold_attention
from .registry import build_aggregator

__all__ = ["Aggregator", "BagOutput", "build_aggregator", "threshold_attention"]
