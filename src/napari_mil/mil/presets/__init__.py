"""Named methods: the rows of the papers' tables, and the controls that a comparison needs. Free of torch."""

from __future__ import annotations

from ._ablations import ABLATIONS
from ._info import PresetInfo, Table
from ._mining import MINING, MINING_SURVIVAL
from ._networks import ATTENTION, BASELINES, SURVIVAL, TRANSFORMERS
from ._outlines import AS_PUBLISHED, COMBINATIONS, CONTROLS, OUTLINES, SLIDE_LABELS

__all__ = ["ABLATIONS", "FAMILIES", "PRESETS", "RECOMMENDED", "PresetInfo"]

RECOMMENDED = "rank_induction"

# name → (settings, what to say about it); the order is that of the window's list
PRESETS: Table = {
    **OUTLINES,
    **SLIDE_LABELS,
    **ATTENTION,
    **TRANSFORMERS,
    **MINING,
    **COMBINATIONS,
    **SURVIVAL,
    **MINING_SURVIVAL,
    **BASELINES,
    **CONTROLS,
    **AS_PUBLISHED,
}

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(info.family for _, info in PRESETS.values()))
"""Headings of a list of presets, in its order."""
