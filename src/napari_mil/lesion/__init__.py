"""Outlines of one slide: read, written, kept, and turned into patch labels. Knows no window and no network."""

from .change import areas_um2, buffer, shift
from .classes import LESION_CLASSES, ClassRoles, Role, class_color
from .files import ConvertSummary, convert, read_lesions, write_lesions
from .labels import patch_labels
from .masks import lesions_from_mask
from .match import ImportReport, MatchReport, import_folder, match_files
from .merge import merge
from .model import Lesion, LesionSet
from .overlap import overlap_fractions
from .store import lesion_history, load_lesions, save_lesions

__all__ = [
    "LESION_CLASSES",
    "ClassRoles",
    "ConvertSummary",
    "ImportReport",
    "Lesion",
    "LesionSet",
    "MatchReport",
    "Role",
    "areas_um2",
    "buffer",
    "class_color",
    "convert",
    "import_folder",
    "lesion_history",
    "lesions_from_mask",
    "load_lesions",
    "match_files",
    "merge",
    "overlap_fractions",
    "patch_labels",
    "read_lesions",
    "save_lesions",
    "shift",
    "write_lesions",
]
