"""Slides that do not look as stained tissue under a bright field does."""

from __future__ import annotations

from .source import Pixels

_DARK, _PALE = 48, 150  # grey values; a bright field's background and stroma are pale, its darkest nuclei rarely dark
_SIDE_PX = 256  # is enough to see it
_MOST_DARK, _LEAST_PALE = 0.5, 0.01

LOOKS_FLUORESCENT = (
    "This looks like a fluorescence slide: its background is dark. Tissue detection, encoders and models for stained "
    "tissue (H&E and the like) do not apply to it; what they say of it means nothing."
)


def looks_fluorescent(picture: Pixels) -> bool:
    """Whether a picture of a slide, (h, w, 3), is dark for the most part and pale nowhere.

    Stained tissue on black, where a scanner or converter filled what it did not scan, is not meant: it has pale parts.
    """
    step = 1 + max(picture.shape[:2]) // _SIDE_PX
    picture = picture[::step, ::step]
    dark = picture.max(axis=2) < _DARK
    pale = picture.min(axis=2) > _PALE
    return bool(dark.mean() > _MOST_DARK and pale.mean() < _LEAST_PALE)
