"""Maps: scores of patches as rasters in µm, compared and written to files. No torch, no window."""

from __future__ import annotations

from .compare import cells_of, compare_maps, lesion_share
from .export import export_map, load_map
from .geometry import check_geometry
from .ranking import auroc, average_precision, midranks, pearson, spearman
from .raster import AttentionMap, Normalisation, attention_map, normalise, patch_values
from .table import patch_table

__all__ = [
    "AttentionMap",
    "Normalisation",
    "attention_map",
    "auroc",
    "average_precision",
    "cells_of",
    "check_geometry",
    "compare_maps",
    "export_map",
    "lesion_share",
    "load_map",
    "midranks",
    "normalise",
    "patch_table",
    "patch_values",
    "pearson",
    "spearman",
]
