"""A map is painted only over the slide that its patches were cut from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mil.errors import MilError
from napari_mil.geometry import PatchGrid

from .raster import AttentionMap


def check_geometry(
    what: PatchGrid | AttentionMap,
    dimensions: Sequence[int],
    mpp: Sequence[float] | None = None,
    *,
    fingerprint: str | None = None,
    slide_fingerprint: str | None = None,
    name: str = "this slide",
) -> None:
    """Refuse patches or a map of another slide.

    Parameters
    ----------
    what : PatchGrid or AttentionMap
    dimensions : (width, height)
        The slide's, in level-0 pixels.
    mpp : (x, y), optional
        The slide's µm per level-0 pixel; not compared where unknown.
    fingerprint, slide_fingerprint : str, optional
        What the features say they are from, and the slide's own; compared where both are known.
    name : str
        How the slide is called in the sentence.

    Raises
    ------
    MilError
        When the fingerprints differ, the scales differ by more than 1 %, or a patch lies outside the slide.
    """
    again = "Choose the slide that it was made from, or prepare this slide again."
    if fingerprint and slide_fingerprint and fingerprint != slide_fingerprint:
        raise MilError(
            f"These patches are of another file than {name} (fingerprint {fingerprint[:12]}, expected "
            f"{slide_fingerprint[:12]}). {again}"
        )
    if mpp is not None and not np.allclose(what.mpp, mpp, rtol=0.01):
        raise MilError(
            f"These patches were made at {what.mpp[0]:.4g} × {what.mpp[1]:.4g} µm per pixel, {name} has "
            f"{mpp[0]:.4g} × {mpp[1]:.4g}. {again}"
        )
    low, high = _extent(what)
    width, height = int(dimensions[0]), int(dimensions[1])
    # a last patch may hang over the right and lower edge by less than itself
    if low[0] < 0 or low[1] < 0 or high[0] > width or high[1] > height:
        raise MilError(
            f"Patches lie from ({low[0]}, {low[1]}) to ({high[0]}, {high[1]}) in level-0 pixels, outside {name} of "
            f"{width} × {height}: they are of another slide, or of another scan of it. {again}"
        )


def _extent(what: PatchGrid | AttentionMap) -> tuple[tuple[int, int], tuple[int, int]]:
    """First corner of the first, and first corner of the last patch or cell plus one pixel."""
    if isinstance(what, AttentionMap):
        rows, cols = what.data.shape
        (x, y), (cx, cy) = what.origin_px_level0, what.cell_px_level0
        return (x, y), (x + (cols - 1) * cx + 1, y + (rows - 1) * cy + 1)
    low, high = what.coords.min(axis=0, initial=0), what.coords.max(axis=0, initial=0)
    return (int(low[0]), int(low[1])), (int(high[0]) + 1, int(high[1]) + 1)
