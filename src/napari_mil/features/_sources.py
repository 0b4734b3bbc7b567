"""What this room asks of a slide, and how it reads a batch of patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_mil.geometry import PatchGrid

from .encoder import Pixels


class SlideLike(Protocol):
    """The part of `napari_mil.slide.Slide` that extraction needs."""

    @property
    def path(self) -> Path: ...
    @property
    def dimensions(self) -> tuple[int, int]: ...
    @property
    def mpp(self) -> tuple[float, float] | None: ...
    @property
    def mpp_source(self) -> str | None: ...
    @property
    def level_downsamples(self) -> Sequence[float]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def objective_power(self) -> float | None: ...


def read_patches(slide: Any, grid: PatchGrid, indices: npt.NDArray[np.int64], out_px: int) -> Pixels:
    """(len(indices), out_px, out_px, 3) uint8: the patches of a grid by their index."""
    from napari_mil.slide import read_patches as patches_of

    return patches_of(slide, grid, indices, out_px)


def resampling() -> str:
    """How the pixels come to be, in words that stand in the feature file."""
    from napari_mil.slide import RESAMPLING

    return RESAMPLING


def read_level(slide: Any, grid: PatchGrid, out_px: int) -> int:
    """The native level that is read for patches of this size."""
    from napari_mil.slide import read_level as level_of

    return level_of(slide, grid, out_px)
