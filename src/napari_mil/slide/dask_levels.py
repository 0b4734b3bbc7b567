"""Levels as dask arrays: what napari's image layer is given."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np

from .levels import Level, refuse_giant


class LevelArray(da.Array):
    """A dask array that refuses to become one giant numpy array; its slices are ordinary dask arrays.

    The layer controls' resolution drop-down of napari asks a level for all its pixels, 10.8 GB of a large slide.
    """

    __slots__ = ()

    def compute(self, **kwargs: Any) -> Any:
        """As dask's, for a level of at most `WHOLE_LIMIT_BYTES`. Raises SlideError beyond."""
        refuse_giant(int(self.nbytes), "The slide", self.shape)
        return super().compute(**kwargs)  # type: ignore[no-untyped-call]

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        refuse_giant(int(self.nbytes), "The slide", self.shape)
        return super().__array__(*args, **kwargs)  # type: ignore[no-untyped-call]


def dask_level(level: Level, name: str) -> LevelArray:
    """A dask array (h, w, 3) over a level, one chunk per tile; a millisecond to build whatever the slide's size."""
    array = da.from_array(  # type: ignore[no-untyped-call]
        level,
        chunks=level.chunks,
        asarray=False,
        lock=False,
        inline_array=True,
        name=name,
        meta=np.empty((0, 0, 0), "u1"),
    )
    return LevelArray(array.dask, array.name, array.chunks, meta=array._meta)  # type: ignore[no-untyped-call]
