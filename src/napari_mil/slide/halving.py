"""Half the size: the mean of each 2 x 2 pixels."""

from __future__ import annotations

import numpy as np

from .source import Pixels

_ROWS = 64  # at a time, so that what lies between fits into the processor's cache


def halve(pixels: Pixels, out: Pixels | None = None) -> Pixels:
    """Each 2 x 2 pixels become their mean, rounded half up; an odd last row or column counts twice.

    Parameters
    ----------
    pixels : (h, w, 3) uint8
        None of the sides 0.
    out : (h' <= (h + 1) // 2, w' <= (w + 1) // 2, 3) uint8, optional
        Where the result goes; what would lie beyond it is left out.

    Returns
    -------
    (h', w', 3) uint8
    """
    height, width = pixels.shape[:2]
    if out is None:
        out = np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.uint8)
    if 2 * out.shape[0] > height or 2 * out.shape[1] > width:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    for start in range(0, out.shape[0], _ROWS):
        part = out[start : start + _ROWS]
        rows = pixels[2 * start : 2 * (start + part.shape[0]), : 2 * part.shape[1]]
        total = np.add(rows[0::2], rows[1::2], dtype=np.uint16)
        total += 1  # and one more from the other column: half up
        for channel in range(3):  # strided by channel: three values in a row are too short a run for numpy
            mean = total[:, 0::2, channel] + total[:, 1::2, channel]
            mean >>= 2
            part[..., channel] = mean
    return out
