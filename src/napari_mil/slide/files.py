"""Which files are slides."""

from __future__ import annotations

import os
from pathlib import Path

from napari_mil.errors import SlideError

from .zarr_source import ZARR_SUFFIX, is_ome_zarr, is_zarr

SLIDE_SUFFIXES = frozenset(
    {".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".tif", ".tiff", ".btf", ".dcm", ".zarr"}
)
"""Suffixes of whole-slide formats; an OME-Zarr (.zarr) is a folder."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
"""Suffixes of plain images, which open as slides without levels."""

_COMPANIONS = frozenset({".vms", ".vmu"})  # Hamamatsu: the JPEGs beside them are their tiles


def is_slide_file(path: str | os.PathLike[str]) -> bool:
    """Whether a name looks like a slide's or a plain image's (the file itself is not opened)."""
    name = Path(path)
    return not name.name.startswith(".") and name.suffix.lower() in SLIDE_SUFFIXES | IMAGE_SUFFIXES


def find_slides(folder: str | os.PathLike[str], *, recursive: bool = True) -> list[Path]:
    """Slides and plain images of a folder, by suffix, sorted by path.

    Hidden files and folders and project folders (ours, QuPath's) are passed over; the many files of one DICOM slide
    give one path (its largest file), an OME-Zarr gives its folder.

    Raises
    ------
    SlideError
        When the folder is none or cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SlideError(f"{root} is not a folder; choose the folder that holds the slides.")
    if is_zarr(root):
        return [root]
    found: list[Path] = []
    dicom: list[Path] = []

    def refuse(error: OSError) -> None:
        if Path(error.filename or root) == root:
            raise SlideError(f"The folder {root} cannot be read ({error.strerror}); check its permissions.") from error

    for where, folders, files in os.walk(root, onerror=refuse):
        here = Path(where)
        visible = [f for f in folders if not f.startswith(".")]
        stores = {f for f in visible if is_zarr(here / f)}
        found += [here / f for f in stores if is_ome_zarr(here / f)]
        folders[:] = sorted(f for f in visible if recursive and f not in stores and not _is_project(here / f))
        names = [here / f for f in files if is_slide_file(f) and not f.lower().endswith(ZARR_SUFFIX)]
        if any(p.suffix.lower() in _COMPANIONS for p in names):
            names = [p for p in names if p.suffix.lower() not in {".jpg", ".jpeg"}]
        dicom += [p for p in names if p.suffix.lower() == ".dcm"]
        found += [p for p in names if p.suffix.lower() != ".dcm"]
    return sorted(found + _one_per_dicom(dicom))


def _is_project(folder: Path) -> bool:
    """A folder of ours, or of QuPath's, has images that are no slides."""
    return any(os.path.isfile(folder / name) for name in ("project.json", "project.qpproj"))


def _one_per_dicom(paths: list[Path]) -> list[Path]:
    """Of the files of each DICOM slide the largest; files that OpenSlide does not take are left out."""
    if not paths:
        return []
    import openslide

    best: dict[str, Path] = {}
    for path in sorted(paths, key=lambda p: (p.stat().st_size, str(p))):
        try:
            with openslide.OpenSlide(path) as handle:
                best[handle.properties.get("openslide.quickhash-1", str(path))] = path
        except openslide.OpenSlideError:
            continue
    return sorted(best.values())
