"""Tissue and patches over the slide as rasters: 20,000 patches are one small picture, not 20,000 shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.geometry import Pair, PatchGrid, raster_transform

from .tags import UM, find_layers, tag, tag_of, units_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_mil.slide import TissueMask

Color = tuple[int, int, int]
PATCH_COLORS: dict[int | None, Color] = {1: (200, 0, 0), 0: (40, 110, 220), -1: (150, 150, 150), None: (40, 160, 90)}
"""Lesion, not, unknown, and patches without labels."""
TISSUE_COLOR: Color = (40, 160, 90)
FACE_ALPHA = 90
CELLS = 12
"""Raster pixels along a patch, so that a border of one of them can be painted."""
MAX_RASTER_PX = 4096


def show_tissue(
    viewer: ViewerModel,
    mask: TissueMask,
    mpp: tuple[float, float] | None,
    *,
    slide_id: str | None = None,
    color: Color = TISSUE_COLOR,
    opacity: float = 0.35,
) -> Image:
    """Show a tissue mask (h, w) exactly over its slide; called again it updates the layer.

    Parameters
    ----------
    viewer : napari viewer
    mask : TissueMask
        `array` (h, w) bool and its `downsample` from level 0.
    mpp : (x, y) or None
        The slide's µm per level-0 pixel.
    """
    picture = np.zeros((*mask.array.shape, 4), dtype=np.uint8)
    picture[mask.array] = (*color, 255)
    scale, translate = raster_transform((0, 0), mask.downsample, mpp or (1.0, 1.0))
    return _show(viewer, picture, "tissue", "Tissue", scale, translate, opacity, slide_id, units_of(mpp))


def show_patches(
    viewer: ViewerModel,
    grid: PatchGrid,
    labels: npt.NDArray[np.int8] | None = None,
    *,
    slide_id: str | None = None,
    opacity: float = 0.6,
) -> Image:
    """Show the patches of a grid, coloured by label (1 lesion, 0 not, −1 unknown), with borders.

    Parameters
    ----------
    viewer : napari viewer
    grid : PatchGrid
    labels : (N,) int8, optional
    """
    picture, origin, cell = patch_picture(grid, labels)
    scale, translate = raster_transform(origin, cell, grid.mpp)
    count = f"Patches ({len(grid):,})"
    return _show(viewer, picture, "patches", count, scale, translate, opacity, slide_id, UM)


def patch_picture(
    grid: PatchGrid, labels: npt.NDArray[np.int8] | None = None
) -> tuple[npt.NDArray[np.uint8], Pair, Pair]:
    """RGBA raster of a grid's patches, with the level-0 origin (x, y) and cell size (x, y) of its pixels.

    Patches on one lattice, overlapping or not, lie exactly where they are; on several, within 1/24 of a patch.
    """
    if len(grid) == 0:
        return np.zeros((1, 1, 4), dtype=np.uint8), (0.0, 0.0), (1.0, 1.0)
    origin = grid.coords.min(axis=0)
    patch = np.asarray(grid.patch_px_level0)
    extent = grid.coords.max(axis=0) + patch - origin
    cell = np.array([_cell_px(grid.coords[:, k] - origin[k], int(patch[k]), int(extent[k])) for k in (0, 1)])
    width, height = np.maximum(np.round(extent / cell), 1).astype(int)
    size = np.clip(np.round(patch / cell).astype(int), 1, (width, height))
    start = np.minimum(np.round((grid.coords - origin) / cell).astype(np.int64), (width - size[0], height - size[1]))
    raster = np.zeros(width * height, dtype=np.uint8)  # 2 × place in PATCH_COLORS + 1 within, + 2 on the border
    first = start[:, 1] * width + start[:, 0]
    offsets = np.arange(size[1])[:, None] * width + np.arange(size[0])
    rim = np.zeros(offsets.shape, dtype=bool)
    if (size >= 4).all():
        rim[[0, -1]] = rim[:, [0, -1]] = True
    values = list(PATCH_COLORS)
    for on_rim in (False, True):
        places = offsets[rim == on_rim]
        for value in (None,) if labels is None else (0, -1, 1):
            chosen = first if value is None else first[np.asarray(labels) == value]
            for some in np.array_split(chosen, max(1, len(chosen) * len(places) // 2_000_000)):
                raster[some[:, None] + places] = 2 * values.index(value) + 1 + on_rim
    table = np.array([(0, 0, 0, 0), *((*color, a) for color in PATCH_COLORS.values() for a in (FACE_ALPHA, 255))])
    picture = table.astype(np.uint8)[raster.reshape(height, width)]
    return picture, (float(origin[0]), float(origin[1])), (float(cell[0]), float(cell[1]))


def _cell_px(starts: npt.NDArray[np.int64], patch: int, extent: int) -> float:
    """Level-0 pixels of a raster pixel along one axis: a whole part of patch and positions where that is not tiny."""
    common = math.gcd(int(np.gcd.reduce(starts)), patch)
    parts = patch // common
    cell = common / math.ceil(CELLS / parts) if parts <= 2 * CELLS else patch / CELLS
    return max(cell, extent / MAX_RASTER_PX)


def _show(
    viewer: ViewerModel,
    picture: npt.NDArray[np.uint8],
    kind: str,
    name: str,
    scale: tuple[float, float],
    translate: tuple[float, float],
    opacity: float,
    slide_id: str | None,
    units: tuple[str, str],
) -> Image:
    from napari.layers import Image

    old = find_layers(viewer, kind, slide_id)
    if old:
        layer: Any = old[-1]
        layer.data = picture
        layer.scale, layer.translate, layer.name, layer.units = scale, translate, name, units
        return layer
    layer = Image(
        picture,
        rgb=True,
        name=name,
        scale=scale,
        translate=translate,
        units=units,
        opacity=opacity,
        interpolation2d="nearest",
        blending="translucent_no_depth",
        metadata=tag(kind, slide_id),
    )
    below = ("overview", "slide", "associated", "tissue")
    ours = [i for i, other in enumerate(viewer.layers) if tag_of(other).get("kind") in below]
    viewer.layers.insert(ours[-1] + 1 if ours else len(viewer.layers), layer)
    return layer
