"""napari without widgets: layers, undo, autosave, overlays, hover, navigation. Never torch, never openslide."""

from __future__ import annotations

from .active_slide import ActiveSlide
from .autosave import Autosave
from .hover import Hover, hover_text
from .lesion_layer import LesionLayer
from .map_layer import COLORMAPS, MapToggle, show_map, smooth_map
from .navigation import (
    OBJECTIVES,
    camera_state,
    current_mpp,
    fit,
    go_to,
    magnification,
    minimap_state,
    mpp_of,
    position_um,
    readout_text,
    restore_camera,
    set_magnification,
    show_scale_bar,
)
from .preview_layers import show_patches, show_tissue
from .slide_layer import SlideLayers, show_slide
from .tags import find_layers, is_ours, tag

__all__ = [
    "COLORMAPS",
    "OBJECTIVES",
    "ActiveSlide",
    "Autosave",
    "Hover",
    "LesionLayer",
    "MapToggle",
    "SlideLayers",
    "camera_state",
    "current_mpp",
    "find_layers",
    "fit",
    "go_to",
    "hover_text",
    "is_ours",
    "magnification",
    "minimap_state",
    "mpp_of",
    "position_um",
    "readout_text",
    "restore_camera",
    "set_magnification",
    "show_map",
    "show_patches",
    "show_scale_bar",
    "show_slide",
    "show_tissue",
    "smooth_map",
    "tag",
]
