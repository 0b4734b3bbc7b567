"""Levels as array-likes over the tiles; none is handed out whole when it is giant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

from .chain import TILE_PX
from .source import Pixels
from .tiles import Box

WHOLE_LIMIT_BYTES = 512 * 1024**2
"""More pixels than this are not handed out in one piece."""


class Level:
    """One level of the chain as an array-like (h, w, 3) uint8. Reads what it needs, when indexed.

    It has no `copy` on purpose: dask would use it.

    Parameters
    ----------
    size : (int, int)
        Width and height.
    index : int
        Place in the chain.
    region : callable
        Gives the pixels of a box of a level.
    title : str
        The slide's name, for messages.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, size: tuple[int, int], index: int, region: Callable[[int, Box], Pixels], title: str) -> None:
        self.shape = (size[1], size[0], 3)
        self.chunks = (TILE_PX, TILE_PX, 3)
        self.size = math.prod(self.shape)
        self.nbytes = self.size
        self._index = index
        self._region = region
        self._title = title

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self  # nothing of it changes; a layer that is duplicated shows the same slide

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<level {self._index} of {self._title}, shape {self.shape}>"

    def __getitem__(self, index: Any) -> Any:
        rows, columns, rest = _regions(index, self.shape)
        refuse_giant((rows[1] - rows[0]) * (columns[1] - columns[0]) * 3, self._title, self.shape)
        block = self._region(self._index, Box(*rows, *columns))
        return block if rest is None else block[rest]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def refuse_giant(n_bytes: int, title: str, shape: tuple[int, ...]) -> None:
    """Raise SlideError when so many bytes of a level of this shape are asked for in one piece."""
    if n_bytes > WHOLE_LIMIT_BYTES:
        raise SlideError(
            f"{title}: {n_bytes / 1e9:.1f} GB of a level of {shape[1]} x {shape[0]} pixels were asked for in one "
            f"piece; at most {WHOLE_LIMIT_BYTES / 1e9:.1f} GB are given: take a smaller region or a coarser level."
        )


Range = tuple[int, int]


def _regions(index: Any, shape: tuple[int, int, int]) -> tuple[Range, Range, tuple[Any, ...] | None]:
    """Rows and columns that an index touches, and the index that is left to do on that block (None: nothing)."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is None for part in parts):
        raise IndexError("a level cannot be given new axes; slice it first")
    if Ellipsis in [part for part in parts if not isinstance(part, np.ndarray)]:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (3 - (len(parts) - 1))
    if len(parts) > 3:
        raise IndexError(f"too many indices for a level of 3 axes: {len(parts)}")
    parts += [slice(None)] * (3 - len(parts))
    ranges: list[Range] = []
    rest: list[Any] = []
    for part, length in zip(parts, shape, strict=True):
        span, left = _axis(part, length)
        ranges.append(span)
        rest.append(left)
    ranges[2], rest[2] = (0, shape[2]), parts[2]
    trivial = all(isinstance(part, slice) and part == slice(None) for part in rest[:2])
    whole = isinstance(rest[2], slice) and rest[2].indices(3) == (0, 3, 1)
    return ranges[0], ranges[1], None if trivial and whole else tuple(rest)


def _axis(part: Any, length: int) -> tuple[Range, Any]:
    """The span of an axis that one index touches, and the index within that span."""
    if isinstance(part, slice):
        start, stop, step = part.indices(length)
        if step == 1:
            return (start, max(start, stop)), slice(None)
        touched = range(start, stop, step)
        if len(touched) == 0:
            return (0, 0), slice(None)
        low, high = min(touched), max(touched) + 1
        return (low, high), slice(None, None, step)
    where = np.asarray(part)
    if where.dtype == np.bool_:
        where = np.flatnonzero(where)
    if where.size == 0:
        return (0, 0), where.astype(int)
    if (where < -length).any() or (where >= length).any():
        raise IndexError(f"index {part} is out of bounds for an axis of {length} pixels")
    where = np.where(where < 0, where + length, where)
    low = int(where.min())
    left = where - low
    return (low, int(where.max()) + 1), int(left) if where.ndim == 0 else left
