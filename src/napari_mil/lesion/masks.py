"""Label images (GlaS, DigestPath, any segmentation) as outlines, along the edges of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import shapely

from napari_mil.errors import LesionError

from .model import Lesion, LesionSet
from .parts import polygons_of


def lesions_from_mask(
    mask: npt.ArrayLike,
    *,
    downsample: float | Sequence[float] = 1.0,
    origin: Sequence[float] = (0.0, 0.0),
    classes: Mapping[int, str] | None = None,
) -> LesionSet:
    """Outlines of the connected regions of a label image; 0 is background.

    Parameters
    ----------
    mask : (h, w) array of bool or int
    downsample : float or (x, y)
        Level-0 pixels per mask pixel.
    origin : (x, y)
        Level-0 position of the outer corner of the mask's first pixel.
    classes : mapping, optional
        Value → class name; values not in it are left out. Without it every value but 0 is "Tumor".

    Raises
    ------
    LesionError
        When it is no label image.
    """
    image = np.asarray(mask)
    if image.ndim != 2 or image.dtype.kind not in "bui":
        raise LesionError(
            f"The mask has shape {image.shape} of {image.dtype}; expected (h, w) of bool or whole numbers. "
            "Give one channel of label values."
        )
    scale = np.broadcast_to(np.asarray(downsample, dtype=float), (2,))
    values = [int(value) for value in np.unique(image) if value != 0]
    wanted = dict.fromkeys(values, "Tumor") if classes is None else {v: classes[v] for v in values if v in classes}
    lesions = [
        Lesion(shapely.transform(polygon, lambda xy: xy * scale + np.asarray(origin, dtype=float)), label=label)
        for value, label in wanted.items()
        for polygon in polygons_of(shapely.union_all(_runs(image == value)))
    ]
    return LesionSet(lesions, meta={"format": "mask"})


def _runs(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Boxes, in mask pixels, of the horizontal runs of a mask (h, w), equal runs of following rows as one."""
    padded = np.zeros((region.shape[0], region.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = region
    step = np.diff(padded, axis=1)
    row, start = np.nonzero(step == 1)
    _, stop = np.nonzero(step == -1)
    order = np.lexsort((row, stop, start))
    row, start, stop = row[order], start[order], stop[order]
    new = np.ones(len(row), dtype=bool)
    new[1:] = (start[1:] != start[:-1]) | (stop[1:] != stop[:-1]) | (row[1:] != row[:-1] + 1)
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(row)) - 1 if len(row) else first
    boxes: npt.NDArray[np.object_] = shapely.box(start[first], row[first], stop[first], row[last] + 1)
    return boxes
