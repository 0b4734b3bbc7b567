"""The grid of patches on a slide."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from napari_mil.errors import SlideError
from napari_mil.geometry import PatchGrid

from .source import SlideWarning

if TYPE_CHECKING:
    from .slide import Slide
    from .tissue import TissueMask

_IGNORED_SHARE = 0.5
_COARSER = 1.02  # from here on a slide counts as coarser than wanted, and is warned of
_JPEG_QUALITY = 75
_JPEG_BLOCK = 32


class TileConfig(BaseModel):
    """Size, step and choice of patches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_mpp: float = Field(default=0.5, ge=0.05, le=100)
    """µm per pixel at which the encoder sees a patch."""
    patch_px: int = Field(default=224, ge=8, le=8192)
    """Side of a patch in pixels at that scale."""
    stride_px: int | None = Field(default=None, ge=1)
    """Step between patches at that scale; None: patch beside patch."""
    min_tissue: float = Field(default=0.05, ge=0, lt=1)
    """A patch is kept if more of it than this is tissue (used only with a tissue mask)."""
    jpeg_filter_kb: float | None = Field(default=None, gt=0)
    """Patches whose JPEG (quality 75) has at most so many kB (1000 bytes) are dropped; the published rule is 10."""
    max_patches: int | None = Field(default=None, ge=1)
    """A preview: so many of the patches, the same ones each time."""


def tile(
    slide: Slide, config: TileConfig | None = None, tissue: TissueMask | None = None, ignore: Any = None
) -> PatchGrid:
    """Lay a grid of patches on a slide.

    The lattice begins at level-0 (0, 0); a patch is `round(patch_px · target_mpp / mpp)` level-0 pixels wide and high,
    each axis by its own mpp, and lies inside the slide. Kept are, row by row, the patches

    - with more tissue than `config.min_tissue`, if a mask is given (without one all);
    - not covered by `ignore` for more than half their area;
    - whose JPEG is larger than `config.jpeg_filter_kb`, if that is set;
    - of a fixed random choice of `config.max_patches`, if that is set.

    Parameters
    ----------
    slide : Slide
        Its mpp must be known.
    config : TileConfig, optional
    tissue : TissueMask, optional
    ignore : shapely geometry, optional
        In level-0 pixels.

    Raises
    ------
    SlideError
        When the slide's µm per pixel are unknown.

    Warns
    -----
    SlideWarning
        When the slide is coarser than `target_mpp`: it is then tiled at its own scale, never enlarged. When it is
        smaller than one patch.
    """
    config = config or TileConfig()
    patch, stride, mpp = patch_size(slide, config)
    grid = PatchGrid(_lattice(slide.dimensions, patch, stride), patch, stride, mpp)
    if len(grid) == 0:
        warnings.warn(
            f"{slide.path.name} ({slide.dimensions[0]} x {slide.dimensions[1]} pixels) is smaller than one patch of "
            f"{patch[0]} x {patch[1]}; it gives no patches: choose smaller ones.",
            SlideWarning,
            stacklevel=2,
        )
    if tissue is not None:
        from .tissue import tissue_share

        grid = grid.select(tissue_share(tissue, grid) > config.min_tissue)
    if ignore is not None:
        grid = grid.select(~covered(grid, ignore))
    if config.jpeg_filter_kb is not None:
        grid = grid.select(_jpeg_bytes(slide, grid, config.patch_px) > config.jpeg_filter_kb * 1000)
    if config.max_patches is not None and len(grid) > config.max_patches:
        chosen = np.random.default_rng(0).choice(len(grid), config.max_patches, replace=False)
        grid = grid.select(np.sort(chosen))
    return grid


def patch_size(slide: Slide, config: TileConfig) -> tuple[tuple[int, int], tuple[int, int], tuple[float, float]]:
    """Patch and stride in level-0 pixels (x, y), and the slide's mpp; raises and warns as `tile` does."""
    mpp = slide.mpp
    if mpp is None:
        raise SlideError(
            f"The µm per pixel of {slide.path.name} are unknown, so its patches have no size; give them to the slide "
            f"(about 0.25 at 40x, 0.5 at 20x)."
        )
    target = max(config.target_mpp, *mpp)
    if target > _COARSER * config.target_mpp:
        warnings.warn(
            f"{slide.path.name} has {max(mpp):.4g} µm per pixel, coarser than the {config.target_mpp:.4g} wanted; it "
            f"is tiled at its own scale, so its patches show {config.patch_px * target:.0f} µm instead of "
            f"{config.patch_px * config.target_mpp:.0f}.",
            SlideWarning,
            stacklevel=3,
        )
    stride_px = config.stride_px or config.patch_px
    patch = _level0(config.patch_px, target, mpp)
    stride = _level0(stride_px, target, mpp)
    return patch, stride, mpp


def covered(grid: PatchGrid, geometry: Any) -> npt.NDArray[np.bool_]:
    """(N,) whether a geometry (level-0 pixels) covers more than half of a patch's area."""
    import shapely

    out = np.zeros(len(grid), bool)
    if geometry is None or geometry.is_empty or len(grid) == 0:
        return out
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    boxes = shapely.box(*grid.boxes.T.astype(float))
    shapely.prepare(geometry)
    out[:] = shapely.contains_properly(geometry, boxes)
    partly = np.flatnonzero(shapely.intersects(geometry, boxes) & ~out)
    area = float(np.prod(grid.patch_px_level0))
    out[partly] = shapely.area(shapely.intersection(geometry, boxes[partly])) > _IGNORED_SHARE * area
    return out


def _level0(px: int, target: float, mpp: tuple[float, float]) -> tuple[int, int]:
    x, y = (max(1, round(px * target / m)) for m in mpp)
    return x, y


def _lattice(size: tuple[int, int], patch: tuple[int, int], stride: tuple[int, int]) -> npt.NDArray[np.int64]:
    """(N, 2) top-left corners, row by row."""
    axes = [np.arange(0, side - px + 1, step) for side, px, step in zip(size, patch, stride, strict=True)]
    y, x = np.meshgrid(axes[1], axes[0], indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64)


def _jpeg_bytes(slide: Slide, grid: PatchGrid, patch_px: int) -> npt.NDArray[np.int64]:
    """(N,) size of each patch as JPEG, at the scale the encoder sees."""
    from PIL import Image

    from .patches import read_patches

    def sizes(start: int) -> list[int]:
        found = []
        for pixels in read_patches(slide, grid, range(start, min(start + _JPEG_BLOCK, len(grid))), patch_px):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
            found.append(buffer.tell())
        return found

    with ThreadPoolExecutor(4, thread_name_prefix="jpeg-filter") as pool:
        blocks = list(pool.map(sizes, range(0, len(grid), _JPEG_BLOCK)))
    return np.array([size for block in blocks for size in block], dtype=np.int64)
