"""Maps: scores of patches as rasters in µm, compared and written to files. No torch, no window."""

from __future__ import annotations

from .raster import AttentionMap, Normalisation, attention_map, normalise, patch_values
from .table import patch_table

__all__ = [
    "AttentionMap",
    "Normalisation",
    "attention_map",
    "normalise",
    "patch_table",
    "patch_values",
]
