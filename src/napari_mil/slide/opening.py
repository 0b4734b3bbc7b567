"""`open_slide`: the file's content, not its name, chooses the back end; every refusal is a sentence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_mil.errors import SlideError

from .cut_short import cut_short
from .icc import AS_STORED, with_srgb
from .plain_source import check_size, open_plain
from .slide import Slide
from .source import PixelSource, probe
from .zarr_source import is_zarr, open_zarr

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLAIN_TIFFS = ("tiff", "ome-tiff", "generic-tiff")
_IMAGE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM")
_KNOWN = "SVS, NDPI, MRXS, SCN, BIF, VMS, SVSLIDE, DICOM, (OME-)TIFF, OME-Zarr, PNG, JPEG, WebP or BMP"


def open_slide(
    path: str | os.PathLike[str], *, mpp: float | Sequence[float] | None = None, srgb: bool = False
) -> Slide:
    """Open a slide or a plain image.

    Parameters
    ----------
    path : str or path
        A file of any format that OpenSlide reads, an OME-TIFF or tiled TIFF, a plain 8-bit image; or a folder: an
        OME-Zarr, or that of a DICOM slide.
    mpp : float or (float, float), optional
        µm per level-0 pixel (x, y) that a person gave; recorded as `mpp_source = "user"`.
    srgb : bool
        Convert colours from the file's ICC profile to sRGB; `Slide.color` says by which, or that there is none.

    Raises
    ------
    SlideError
        When there is no such file, it may not be read, is damaged, cut short, of an unknown kind, or too large to be
        shown without smaller levels; one sentence that says which, and what to do.
    """
    file = _file(Path(path))
    source = _source(file)
    try:
        check_size(file, *source.level_dimensions[-1])
        probe(source)
        source, color = with_srgb(source, file) if srgb else (source, AS_STORED)
        slide = Slide(file, source, mpp, color)
        for sentence in source.notes:
            slide.tiles.note(sentence)
        lost = cut_short(file) if source.vendor in _PLAIN_TIFFS else None  # scanners' own kinds are refused when cut
        if lost is not None:
            slide.tiles.note(lost)
        return slide
    except BaseException:
        source.close()
        raise


def _file(path: Path) -> Path:
    """The file to open, which exists and may be read."""
    try:
        if path.is_dir():
            return path if is_zarr(path) else _dicom_in(path)
        with path.open("rb") as file:
            if not file.read(1):
                raise SlideError(f"{path.name} is empty (0 bytes); copy it anew from where it was scanned.")
    except FileNotFoundError as error:
        raise SlideError(f"{path} does not exist; was it moved, renamed, or is its drive not connected?") from error
    except PermissionError as error:
        raise SlideError(f"{path.name} may not be read by you; ask for permission to read {path}.") from error
    except OSError as error:
        raise SlideError(f"{path.name} cannot be read ({error.strerror or error}); is its drive connected?") from error
    return path


def _dicom_in(folder: Path) -> Path:
    from .files import find_slides

    dicom = [p for p in find_slides(folder, recursive=False) if p.suffix.lower() == ".dcm"]
    if not dicom:  # what none of them can be opened for, the largest says
        dicom = sorted(folder.glob("*.dcm"), key=lambda path: path.stat().st_size)[-1:]
    if len(dicom) != 1:
        raise SlideError(
            f"{folder} is a folder with {len(dicom) or 'no'} DICOM slides; expected a slide file, an OME-Zarr, or the "
            f"folder of one DICOM slide: choose a file in it."
        )
    return dicom[0]


def _source(path: Path) -> PixelSource:
    if path.is_dir():
        return open_zarr(path)
    import openslide

    from .openslide_source import OpenSlideSource

    with path.open("rb") as file:
        magic = file.read(12)
    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:  # known by its beginning, broken further on; opening says how
        vendor = "unknown"
    is_tiff = magic.startswith(_TIFF_MAGIC)
    if is_tiff and vendor in (None, "generic-tiff", "unknown"):
        from .tiff_source import open_tiff

        return open_tiff(path, openslide_knows_it=vendor == "generic-tiff")
    if vendor is not None:
        return OpenSlideSource(path)
    if magic.startswith(_IMAGE_MAGIC) or (magic[:4] == b"RIFF" and magic[8:12] == b"WEBP"):
        return open_plain(path)
    raise SlideError(
        f"{path.name} is not a slide that can be read: its content is none of {_KNOWN}; is the file "
        f"damaged, incomplete, or does its name end wrongly?"
    )
