"""Lesions supervise: losses on scores, on attention, and on single patches."""

from __future__ import annotations

from .attention_induction import attention_induction_loss, attention_target
from .instance import instance_bce_loss, shuffle_labels
from .rank import rank_loss

__all__ = ["attention_induction_loss", "attention_target", "instance_bce_loss", "rank_loss", "shuffle_labels"]
