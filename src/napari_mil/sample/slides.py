"""Files of one synthetic slide: a pyramidal JPEG-tiled TIFF, and its outlines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from napari_mil.whole import written_whole

from .anatomy import Plan
from .paint import MPP

if TYPE_CHECKING:
    from shapely import Polygon

_TILE_PX = 256
_STEP = 4  # each level is a quarter of the one before, as scanners do it
_JPEG_QUALITY = 75
MASK_PX = 16  # level-0 pixels to a pixel of the truth mask


def write_slide(path: Path, rgb: npt.NDArray[np.uint8], mpp: float = MPP) -> None:
    """Write a slide (rows, columns, 3) as a pyramid of JPEG tiles that OpenSlide opens as generic TIFF.

    Parameters
    ----------
    path : Path
        The .tif; it appears when it is complete.
    rgb : (rows, columns, 3) uint8
        The full picture.
    mpp : float
        Its µm per pixel, kept in the resolution tags.
    """
    import tifffile

    with written_whole(path) as part, tifffile.TiffWriter(part) as tiff:
        level = Image.fromarray(rgb)
        downsample = 1
        while True:
            tiff.write(
                np.asarray(level),
                tile=(_TILE_PX, _TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": _JPEG_QUALITY},
                subfiletype=int(downsample > 1),
                resolution=(1e4 / (mpp * downsample),) * 2,
                resolutionunit="CENTIMETER",
                software="napari-mil synthetic cohort",
                metadata=None,
            )
            if max(level.size) <= 2 * _TILE_PX:
                break
            level = level.reduce(_STEP)
            downsample *= _STEP


def tumor_polygons(plan: Plan) -> list[Polygon]:
    """Outlines of a plan's tumour in level-0 pixels: its areas with every malignant nest, a few µm wide of them."""
    import shapely

    nests = [shapely.Polygon(gland.outline) for gland in plan.glands if gland.malignant]
    areas = [shapely.Polygon(outline) for outline in plan.tumors]
    together = shapely.union_all([shapely.make_valid(shape) for shape in [*areas, *nests]])
    smooth = together.buffer(10).buffer(-6).simplify(1.0)
    polygons = shapely.get_parts(shapely.transform(smooth, lambda xy: np.round(xy / MPP, 2)))
    return [shapely.Polygon(polygon.exterior) for polygon in polygons if not polygon.is_empty]


def write_mask(path: Path, polygons: Sequence[Polygon], size: tuple[int, int]) -> None:
    """Write the truth as a PNG: 255 where there is tumour, one pixel per MASK_PX × MASK_PX level-0 pixels."""
    mask = Image.new("L", (-(-size[0] // MASK_PX), -(-size[1] // MASK_PX)), 0)
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        draw.polygon([(x / MASK_PX - 0.5, y / MASK_PX - 0.5) for x, y in polygon.exterior.coords], fill=255)
    with written_whole(path) as part:
        mask.save(part, format="PNG")
