"""napari-mil: multiple-instance learning on whole-slide images, in one napari window. For research use only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name → the room it lives in; loaded on first use, so that `import napari_mil` costs milliseconds
_PUBLIC = {
    "open_slide": "slide",
    "Slide": "slide",
    "tissue_mask": "slide",
    "TissueMask": "slide",
    "tile": "slide",
    "PatchGrid": "geometry",
    "Lesion": "lesion",
    "LesionSet": "lesion",
    "read_lesions": "lesion",
    "write_lesions": "lesion",
    "patch_labels": "lesion",
    "extract": "features",
    "read_features": "features",
    "ExtractReport": "features",
    "Bag": "mil",
    "Method": "mil",
    "Run": "mil",
    "EpochReport": "mil",
    "Prediction": "mil",
    "fit": "mil",
    "predict": "mil",
    "AttentionMap": "maps",
    "attention_map": "maps",
    "compare_maps": "maps",
    "Project": "study",
    "experiment": "study",
    "JobStatus": "jobs",
    "MilError": "errors",
}

__all__ = sorted(_PUBLIC)

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


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'napari_mil' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
