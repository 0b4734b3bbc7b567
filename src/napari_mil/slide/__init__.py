"""Pixels: slides of any format behind one `Slide`, their tissue, and the grid of patches on it.

Importing this room costs milliseconds: OpenSlide, tifffile and scikit-image are loaded where they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# public name → the module it lives in; loaded on first use
_PUBLIC = {
    "open_slide": "opening",
    "Slide": "slide",
    "SlideView": "view",
    "PixelSource": "source",
    "SlideWarning": "source",
    "SLIDE_SUFFIXES": "files",
    "IMAGE_SUFFIXES": "files",
    "find_slides": "files",
    "is_slide_file": "files",
    "TileCache": "cache",
    "tile_cache": "cache",
    "set_cache_limit": "cache",
    "TissueConfig": "tissue",
    "TissueMask": "tissue",
    "tissue_mask": "tissue",
    "tissue_pixels": "tissue",
    "tissue_share": "tissue",
    "TileConfig": "tiling",
    "tile": "tiling",
    "RESAMPLING": "patches",
    "read_level": "patches",
    "read_patch": "patches",
    "read_patches": "patches",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from .cache import TileCache as TileCache
    from .cache import set_cache_limit as set_cache_limit
    from .cache import tile_cache as tile_cache
    from .files import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from .files import SLIDE_SUFFIXES as SLIDE_SUFFIXES
    from .files import find_slides as find_slides
    from .files import is_slide_file as is_slide_file
    from .opening import open_slide as open_slide
    from .patches import RESAMPLING as RESAMPLING
    from .patches import read_level as read_level
    from .patches import read_patch as read_patch
    from .patches import read_patches as read_patches
    from .slide import Slide as Slide
    from .source import PixelSource as PixelSource
    from .source import SlideWarning as SlideWarning
    from .tiling import TileConfig as TileConfig
    from .tiling import tile as tile
    from .tissue import TissueConfig as TissueConfig
    from .tissue import TissueMask as TissueMask
    from .tissue import tissue_mask as tissue_mask
    from .tissue import tissue_pixels as tissue_pixels
    from .tissue import tissue_share as tissue_share
    from .view import SlideView as SlideView


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'napari_mil.slide' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
