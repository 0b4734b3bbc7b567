"""Outlines of one slide: read, written, kept, and turned into patch labels. Knows no window and no network."""

from .classes import LESION_CLASSES, ClassRoles, Role, class_color
from .files import ConvertSummary, convert, read_lesions, write_lesions
from .labels import patch_labels
from .model import Lesion, LesionSet
from .overlap import overlap_fractions

__all__ = [
    "LESION_CLASSES",
    "ClassRoles",
    "ConvertSummary",
    "Lesion",
    "LesionSet",
    "Role",
    "class_color",
    "convert",
    "overlap_fractions",
    "patch_labels",
    "read_lesions",
    "write_lesions",
]
