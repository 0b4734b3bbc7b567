"""napari-mil: multiple-instance learning on whole-slide images, in one napari window. For research use only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

__version__ = "0.1.0"

# public name → the room it lives in; loaded on first use, so that `import napari_mil` costs milliseconds
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "slide": ["open_slide", "Slide", "tissue_mask", "TissueMask", "tile"],
        "geometry": ["PatchGrid"],
        "lesion": ["Lesion", "LesionSet", "read_lesions", "write_lesions", "patch_labels"],
        "features": ["extract", "read_features", "ExtractReport"],
        "mil": ["Bag", "Method", "Run", "EpochReport", "Prediction", "fit", "predict"],
        "maps": ["AttentionMap", "attention_map", "compare_maps"],
        "study": ["Project", "experiment"],
        "jobs": ["JobStatus"],
        "errors": ["MilError"],
    },
)

if TYPE_CHECKING:
    from .errors import MilError as MilError
    from .features import ExtractReport as ExtractReport
    from .features import extract as extract
    from .features import read_features as read_features
    from .geometry import PatchGrid as PatchGrid
    from .jobs import JobStatus as JobStatus
    from .lesion import Lesion as Lesion
    from .lesion import LesionSet as LesionSet
    from .lesion import patch_labels as patch_labels
    from .lesion import read_lesions as read_lesions
    from .lesion import write_lesions as write_lesions
    from .maps import AttentionMap as AttentionMap
    from .maps import attention_map as attention_map
    from .maps import compare_maps as compare_maps
    from .mil import Bag as Bag
    from .mil import EpochReport as EpochReport
    from .mil import Method as Method
    from .mil import Prediction as Prediction
    from .mil import Run as Run
    from .mil import fit as fit
    from .mil import predict as predict
    from .slide import Slide as Slide
    from .slide import TissueMask as TissueMask
    from .slide import open_slide as open_slide
    from .slide import tile as tile
    from .slide import tissue_mask as tissue_mask
    from .study import Project as Project
    from .study import experiment as experiment
