"""A map as a figure: thumbnail, map, colour bar, and what the reader must know in the title."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .raster import AttentionMap

INCHES = 7.0  # the longer side of the slide in the figure


def draw_figure(
    path: Path,
    amap: AttentionMap,
    title: str,
    thumbnail: npt.NDArray[np.uint8] | None = None,
    slide_dimensions: Sequence[int] | None = None,
    colormap: str = "inferno",
) -> None:
    """Write a PNG; axes in mm from the slide's upper left corner, the map half transparent over a thumbnail."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, cols = amap.data.shape
    (x, y), (cell_x, cell_y), mpp = amap.origin_px_level0, amap.cell_px_level0, amap.mpp
    place = _extent_mm(x, y, x + cols * cell_x, y + rows * cell_y, mpp)
    whole, under = place, None
    if thumbnail is not None and slide_dimensions is not None:
        under = thumbnail
        whole = _extent_mm(0, 0, slide_dimensions[0], slide_dimensions[1], mpp)
    width, height = whole[1] - whole[0], whole[2] - whole[3]
    unit = INCHES / max(width, height)
    figure = Figure(
        figsize=(max(width * unit, 3.0) + 1.8, max(height * unit, 2.2) + 1.3), layout="constrained", dpi=150
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if under is not None:
        axes.imshow(under, extent=whole, interpolation="bilinear")
    colours = colormaps[colormap].with_extremes(bad=(0, 0, 0, 0))
    limits = (0.0, 100.0) if amap.normalisation == "percentile" else (None, None)
    shown = axes.imshow(
        np.ma.masked_invalid(amap.data),
        extent=place,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        alpha=1.0 if under is None else 0.6,
        interpolation="nearest",
    )
    axes.set_xlim(whole[0], whole[1])
    axes.set_ylim(whole[2], whole[3])
    axes.set_xlabel("mm")
    axes.set_title(title, fontsize=9, wrap=True)
    beside = axes.inset_axes((1.02, 0.0, 0.035, 1.0))
    figure.colorbar(shown, cax=beside, label=_meaning(amap.normalisation))
    figure.savefig(path, format="png", metadata={"Description": title})


def _extent_mm(
    x0: float, y0: float, x1: float, y1: float, mpp: tuple[float, float]
) -> tuple[float, float, float, float]:
    """(left, right, bottom, top) in mm, y down."""
    return x0 * mpp[0] / 1000, x1 * mpp[0] / 1000, y1 * mpp[1] / 1000, y0 * mpp[1] / 1000


def _meaning(normalisation: str) -> str:
    return {
        "raw": "raw score",
        "softmax": "softmax of scores (adds up to 1)",
        "percentile": "percentile of score",
        "rank": "rank of score (highest is hot)",
    }.get(normalisation, normalisation)
