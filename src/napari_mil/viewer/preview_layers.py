"""Tissue and patches over the slide as rasters: 20,000 patches are one small picture, not 20,000 shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.geometry import PatchGrid, raster_transform

from .tags import UM, find_layers, tag, tag_of, units_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_mil.slide import TissueMask

Color = tuple[int, int, int]
PATCH_COLORS: dict[int | None, Color] = {1: (200, 0, 0), 0: (40, 110, 220), -1: (150, 150, 150), None: (40, 160, 90)}
"""Lesion, not, unknown, and patches without labels."""
TISSUE_COLOR: Color = (40, 160, 90)
CELL_PX = 8
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
) -> tuple[npt.NDArray[np.uint8], tuple[float, float], tuple[float, float]]:
    """RGBA raster of a grid's patches, with the level-0 origin (x, y) and cell size (x, y) of its pixels."""
    if len(grid) == 0:
        return np.zeros((1, 1, 4), dtype=np.uint8), (0.0, 0.0), (1.0, 1.0)
    boxes = grid.boxes.astype(float)
    origin = boxes[:, :2].min(axis=0)
    extent = boxes[:, 2:].max(axis=0) - origin
    patch = np.asarray(grid.patch_px_level0, dtype=float)
    cell = np.maximum(patch / CELL_PX, extent / MAX_RASTER_PX)
    shape = np.ceil(extent / cell - 1e-9).astype(int)
    picture = np.zeros((shape[1], shape[0], 4), dtype=np.uint8)
    start = np.round((boxes[:, :2] - origin) / cell).astype(int)
    size = np.maximum(np.round(patch / cell).astype(int), 1)
    border = bool((size >= 4).all())
    colors = np.zeros((len(grid), 4), dtype=np.uint8)
    if labels is None:
        colors[:] = (*PATCH_COLORS[None], 90)
    else:
        for value in (0, -1, 1):
            colors[np.asarray(labels) == value] = (*PATCH_COLORS[value], 90)
    order = np.arange(len(grid)) if labels is None else np.argsort(np.asarray(labels), kind="stable")
    x, y = start[order, 0], start[order, 1]
    for row in range(size[1]):
        for column in range(size[0]):
            edge = border and (row in (0, size[1] - 1) or column in (0, size[0] - 1))
            paint = colors[order].copy()
            if edge:
                paint[:, 3] = 255
            inside = (y + row < picture.shape[0]) & (x + column < picture.shape[1])
            picture[y[inside] + row, x[inside] + column] = paint[inside]
    return picture, (float(origin[0]), float(origin[1])), (float(cell[0]), float(cell[1]))


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
        return layer  # type: ignore[no-any-return]
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
    return layer  # type: ignore[no-any-return]
