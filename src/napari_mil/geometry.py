"""Where things are: the patch grid, and the one place where slide pixels become napari's micrometres.

Slides and files speak (x, y) in level-0 pixels, pixel edges at whole numbers: pixel (0, 0) covers [0, 1) x [0, 1).
napari speaks (y, x) in micrometres with pixel *centres* at whole multiples of the scale: level-0 pixel (0, 0) has its
centre at (0, 0) um. Hence the half pixel below, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Pair = tuple[float, float]


def _int_pair(value: int | Sequence[int] | npt.NDArray[Any], name: str) -> tuple[int, int]:
    array = np.broadcast_to(np.asarray(value, dtype=float), (2,))
    if not (np.isfinite(array).all() and (array >= 1).all() and (array == np.round(array)).all()):
        raise ValueError(f"{name} is {value!r}; expected one or two whole numbers of level-0 pixels, at least 1.")
    return int(array[0]), int(array[1])


def _mpp_pair(value: float | Sequence[float]) -> Pair:
    array = np.broadcast_to(np.asarray(value, dtype=float), (2,))
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise ValueError(f"mpp is {value!r}; expected one or two positive numbers of µm per level-0 pixel.")
    return float(array[0]), float(array[1])


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """The patches of one slide.

    Parameters
    ----------
    coords : (N, 2) array of int64
        Top-left corner (x, y) of each patch in level-0 pixels.
    patch_px_level0, stride_px_level0 : int or (int, int)
        Width and height of a patch, and the step between patches, in whole level-0 pixels (x, y).
    mpp : float or (float, float)
        The slide's level-0 µm per pixel (x, y).

    Raises
    ------
    ValueError
        When a shape, a size or the mpp makes no sense; the message says which.
    """

    coords: npt.NDArray[np.int64]
    patch_px_level0: tuple[int, int]
    stride_px_level0: tuple[int, int]
    mpp: Pair

    def __init__(
        self,
        coords: npt.ArrayLike,
        patch_px_level0: int | Sequence[int],
        stride_px_level0: int | Sequence[int],
        mpp: float | Sequence[float],
    ) -> None:
        array = np.asarray(coords)
        if array.size == 0:
            array = array.reshape(0, 2)
        if array.ndim != 2 or array.shape[1] != 2:
            raise ValueError(f"coords have shape {array.shape}; expected (N, 2), x and y of each patch.")
        whole = np.ascontiguousarray(array, dtype=np.int64)
        if not np.array_equal(whole, array):
            raise ValueError("coords are not whole level-0 pixels; round them before making a PatchGrid.")
        if whole is coords:  # the caller may go on writing to theirs
            whole = whole.copy()
        whole.flags.writeable = False
        object.__setattr__(self, "coords", whole)
        object.__setattr__(self, "patch_px_level0", _int_pair(patch_px_level0, "patch_px_level0"))
        object.__setattr__(self, "stride_px_level0", _int_pair(stride_px_level0, "stride_px_level0"))
        object.__setattr__(self, "mpp", _mpp_pair(mpp))

    def __len__(self) -> int:
        return len(self.coords)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PatchGrid):
            return NotImplemented
        return (
            self.patch_px_level0 == other.patch_px_level0
            and self.stride_px_level0 == other.stride_px_level0
            and self.mpp == other.mpp
            and np.array_equal(self.coords, other.coords)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def boxes(self) -> npt.NDArray[np.int64]:
        """(N, 4) x_min, y_min, x_max, y_max in level-0 pixels, the maximum exclusive."""
        return np.hstack([self.coords, self.coords + np.asarray(self.patch_px_level0)])

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """(N, 2) centre (x, y) of each patch in level-0 pixels."""
        return self.coords + np.asarray(self.patch_px_level0) / 2

    @property
    def patch_um(self) -> Pair:
        """Width and height of a patch in µm, as whole pixels give it."""
        return self.patch_px_level0[0] * self.mpp[0], self.patch_px_level0[1] * self.mpp[1]

    def select(self, index: npt.NDArray[Any]) -> PatchGrid:
        """The same grid with only the patches of an index or a boolean mask (N,)."""
        return PatchGrid(self.coords[index], self.patch_px_level0, self.stride_px_level0, self.mpp)

    def patch_at(self, x: float, y: float) -> int | None:
        """Index of the patch that covers a level-0 point (x, y), the one whose centre is nearest; None outside."""
        point = np.array([x, y])
        inside = ((self.coords <= point) & (point < self.coords + np.asarray(self.patch_px_level0))).all(axis=1)
        candidates = np.flatnonzero(inside)
        if len(candidates) == 0:
            return None
        distance = np.abs(self.centers[candidates] - point).sum(axis=1)
        return int(candidates[distance.argmin()])


def level0_to_world(xy: npt.ArrayLike, mpp: float | Sequence[float]) -> npt.NDArray[np.float64]:
    """Level-0 points (…, 2) as (x, y) → world points (…, 2) as (y, x) in µm."""
    points = np.asarray(xy, dtype=float)
    world: npt.NDArray[np.float64] = (points - 0.5) * np.asarray(_mpp_pair(mpp))
    return world[..., ::-1]


def world_to_level0(yx: npt.ArrayLike, mpp: float | Sequence[float]) -> npt.NDArray[np.float64]:
    """World points (…, 2) as (y, x) in µm → level-0 points (…, 2) as (x, y)."""
    points: npt.NDArray[np.float64] = np.asarray(yx, dtype=float)[..., ::-1]
    level0: npt.NDArray[np.float64] = points / np.asarray(_mpp_pair(mpp)) + 0.5
    return level0


def raster_transform(
    origin: Sequence[float], cell: float | Sequence[float], mpp: float | Sequence[float]
) -> tuple[Pair, Pair]:
    """Scale and translate, both (y, x) in µm, of an image layer over a raster of the slide.

    Parameters
    ----------
    origin : (x, y)
        Level-0 position of the outer corner of the raster's first pixel.
    cell : float or (x, y)
        Size of one raster pixel in level-0 pixels (a level's downsample, a map's stride).
    mpp : float or (x, y)
        The slide's level-0 µm per pixel.
    """
    size = np.broadcast_to(np.asarray(cell, dtype=float), (2,))
    scale = size * np.asarray(_mpp_pair(mpp))
    translate = level0_to_world(np.asarray(origin, dtype=float) + size / 2, mpp)
    return (float(scale[1]), float(scale[0])), (float(translate[0]), float(translate[1]))
