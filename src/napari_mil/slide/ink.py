"""Pen marks on a thumbnail: blue, green, red and black ink, by hue and saturation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .source import Pixels
from .threshold import tones

Bools = npt.NDArray[np.bool_]


def pen_marks(rgb: Pixels, min_px: int = 30, grow_px: int = 2) -> Bools:
    """(h, w, 3) uint8 → (h, w) bool, True on ink.

    Hematoxylin is violet (red well above green) and eosin pink, so: green ink is any clear green; blue ink has red no
    higher than green; red ink is red without the blue that eosin has; black ink is dark and colourless.

    Parameters
    ----------
    min_px : int
        Connected marks smaller than this are none (a nucleus, a red cell).
    grow_px : int
        Marks are widened by this, since their rims are mixed with glass.
    """
    from scipy.ndimage import binary_dilation, binary_opening, label

    red, green, blue = (rgb[..., i].astype(np.int16) for i in range(3))
    green_ink = (green - red > 20) & (green - blue > -25) & (green - np.minimum(red, blue) > 30)
    blue_ink = (blue - red > 50) & (blue - green > 20) & (red - green < 8)
    red_ink = (red - green > 90) & (red - blue > 70) & (red > 120)
    _, brightest, chroma = tones(rgb)
    black_ink = (brightest < 70) & (chroma < 22)
    marks = np.zeros(rgb.shape[:2], bool)
    for ink in (green_ink, blue_ink, red_ink, black_ink):
        solid = binary_opening(ink)
        regions, count = label(solid)
        if count == 0:
            continue
        large = np.bincount(regions.ravel(), minlength=count + 1) >= max(1, min_px)
        large[0] = False
        marks |= large[regions]
    if grow_px > 0 and marks.any():
        marks = binary_dilation(marks, iterations=grow_px)
    return marks
