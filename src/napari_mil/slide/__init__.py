"""Pixels: slides of any format behind one `Slide`, their tissue, and the grid of patches on it.

Importing this room costs milliseconds: OpenSlide, tifffile and scikit-image are loaded where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

# public name → the module it lives in; loaded on first use
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "opening": ["open_slide"],
        "slide": ["Slide"],
        "view": ["SlideView"],
        "source": ["PixelSource", "SlideWarning"],
        "zarr_source": ["is_ome_zarr", "is_zarr"],
        "files": ["SLIDE_SUFFIXES", "IMAGE_SUFFIXES", "find_slides", "is_slide_file"],
        "cache": ["TileCache", "tile_cache", "set_cache_limit"],
        "tissue": ["TissueConfig", "TissueMask", "tissue_mask", "tissue_pixels", "tissue_share"],
        "tiling": ["TileConfig", "tile"],
        "patches": ["RESAMPLING", "PatchReader", "read_level", "read_patch", "read_patches"],
    },
)

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
    from .patches import PatchReader as PatchReader
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
    from .zarr_source import is_ome_zarr as is_ome_zarr
    from .zarr_source import is_zarr as is_zarr
