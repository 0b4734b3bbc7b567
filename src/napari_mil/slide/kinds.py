"""Images that are no slides as this program means them, each with the sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

_STAIN = "stain-based methods and encoders trained on stained tissue do not apply to it"


def refuse_other_kinds(name: str, sizes: Mapping[str, int], dtype: npt.DTypeLike) -> None:
    """Refuse what is not one plane of 8-bit grey or colour.

    Parameters
    ----------
    name : str
        The slide's name, for the sentence.
    sizes : mapping of str to int
        Length of each axis that is neither x, y nor the samples of a colour: "t", "z", "c", others by their letter.
    dtype : dtype
        Of the pixels.

    Raises
    ------
    SlideError
    """
    more = {axis.lower(): n for axis, n in sizes.items() if n > 1}
    if more.get("t"):
        raise SlideError(
            f"{name} is a time series of {more['t']} images; expected one image: export the point in time that you "
            f"want as a TIFF or OME-Zarr of its own."
        )
    if more.get("z"):
        raise SlideError(
            f"{name} is a z-stack of {more['z']} planes; expected one plane: export the sharpest plane, or an "
            f"extended-focus image, as a TIFF or OME-Zarr of its own."
        )
    if more.get("c"):
        raise SlideError(
            f"{name} has {more['c']} channels, as fluorescence images have; expected one 8-bit RGB image: render the "
            f"channels to 8-bit RGB and export that. Mind that {_STAIN}."
        )
    if more:
        found = ", ".join(f"{n} pages" if axis in "iq" else f"{n} along {axis}" for axis, n in more.items())
        raise SlideError(f"{name} holds several images ({found}); expected one: export the one that you want.")
    kind = np.dtype(dtype)
    if kind not in (np.uint8, np.bool_):
        bits = f"{8 * kind.itemsize}-bit {'floating-point ' if kind.kind == 'f' else ''}".rstrip()
        raise SlideError(
            f"{name} has {bits} pixels ({kind}); expected 8-bit grey or RGB: convert it to 8 bits a channel (how its "
            f"values map to brightness is yours to choose) and export that."
        )


def refuse_by_reason(name: str, reason: str) -> None:
    """As `refuse_other_kinds`, from the attribute of a DICOM slide that OpenSlide did not like; else nothing."""
    found = re.search(r"Attribute (\w+) value (\d+) != \d+", reason)
    if found is None:
        return
    attribute, value = found[1], int(found[2])
    if attribute == "TotalPixelMatrixFocalPlanes":
        refuse_other_kinds(name, {"z": value}, np.uint8)
    if attribute == "BitsAllocated" and value in (16, 32):
        refuse_other_kinds(name, {}, f"u{value // 8}")
