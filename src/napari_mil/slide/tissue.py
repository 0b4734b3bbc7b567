"""Where a slide has tissue: a mask at about 4 µm per pixel, and the share of it in each patch."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_mil.errors import SlideError
from napari_mil.geometry import PatchGrid

from .chain import TILE_PX
from .source import Pixels, SlideWarning
from .threshold import Ground, find_threshold, judge

if TYPE_CHECKING:
    from .levels import Level
    from .slide import Slide

Bools = npt.NDArray[np.bool_]

_READERS = 4


class TissueConfig(BaseModel):
    """How tissue is found. The defaults are those of Kim et al. 2025: three-class multi-Otsu, nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["multi_otsu", "otsu", "manual"] = "multi_otsu"
    threshold: float | None = Field(default=None, ge=0, le=255)
    """Grey of the manual method: tissue is up to it on bright ground, above it on dark ground."""
    background: Literal["auto", "bright", "dark"] = "auto"
    min_area_um2: float = Field(default=0.0, ge=0)
    """Smaller pieces of tissue are dropped."""
    fill_holes_um2: float = Field(default=0.0, ge=0)
    """Holes up to this area are filled."""
    um_per_px: float = Field(default=4.0, gt=0)
    """Wanted scale of the mask; the nearest level of the pyramid is taken. 1/16 of level 0 if mpp is unknown."""
    max_px: int = Field(default=8192, ge=64)
    """No side of the mask is longer."""
    exclude_pen: bool = False
    """Whether pen marks are no tissue."""

    @model_validator(mode="after")
    def _manual_needs_threshold(self) -> Self:
        if self.method == "manual" and self.threshold is None:
            raise ValueError("the manual method needs a threshold, a grey value from 0 to 255")
        return self


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue of one slide.

    Parameters
    ----------
    array : (h, w) bool
        True is tissue.
    downsample : float
        Level-0 pixels per mask pixel, the mean of both axes.
    threshold : float, optional
        The grey that was found or given.
    background : "bright" or "dark", optional
        What the ground was judged to be.
    config : TissueConfig, optional
    downsample_xy : (float, float), optional
        Exact level-0 pixels per mask pixel (x, y), where the axes differ.
    """

    array: Bools
    downsample: float
    threshold: float | None = None
    background: str | None = None
    config: TissueConfig | None = None
    downsample_xy: tuple[float, float] | None = None

    @property
    def scale(self) -> tuple[float, float]:
        """Level-0 pixels per mask pixel (x, y)."""
        return self.downsample_xy or (self.downsample, self.downsample)

    @property
    def share(self) -> float:
        """Part of the slide that is tissue, 0–1."""
        return float(self.array.mean()) if self.array.size else 0.0

    @property
    def method(self) -> str | None:
        """How the threshold was found."""
        return self.config.method if self.config else None

    def to_dict(self) -> dict[str, Any]:
        """What a features file records of it (JSON-able): settings, threshold, background, scale, share."""
        return {
            "config": self.config.model_dump() if self.config else None,
            "threshold": self.threshold,
            "background": self.background,
            "downsample": list(self.scale),
            "share": round(self.share, 6),
        }


def tissue_mask(slide: Slide, config: TissueConfig | None = None) -> TissueMask:
    """Find the tissue of a slide.

    Grey of a level at about `config.um_per_px` is thresholded; the brightest of three classes is background (METHODS
    of Kim et al. 2025). What the background is, is judged: on fluorescence it is dark; on a slide that is tissue
    everywhere there is none; on a blank slide there is nothing else. Regions that cannot be read are no tissue.

    Raises
    ------
    SlideError
        When the slide was closed or its coarse levels are too large to be read.

    Warns
    -----
    SlideWarning
        When areas in µm² are asked for and the slide's µm per pixel are unknown: they are then not applied.
    """
    config = config or TissueConfig()
    level = _mask_level(slide, config)
    rgb = _read(slide.levels[level])
    slide.look_at(rgb)
    x, y = slide.chain_downsamples[level]
    readable = np.ones(rgb.shape[:2], bool)
    for x0, y0, x1, y1 in slide.failed_boxes():
        readable[int(y0 / y) : -int(-y1 // y), int(x0 / x) : -int(-x1 // x)] = False
    ground = judge(rgb, config.background, readable)
    threshold = float(config.threshold) if config.threshold is not None and config.method == "manual" else None
    if threshold is None:
        threshold = find_threshold(ground, config.method)
    tissue = _above(ground, threshold)
    px_um2 = None if slide.mpp is None else slide.mpp[0] * x * slide.mpp[1] * y
    if config.exclude_pen:
        from .ink import pen_marks

        tissue &= ~pen_marks(rgb, min_px=30 if px_um2 is None else max(9, round(3000 / px_um2)))
    tissue = _clean(tissue, config, px_um2)
    return TissueMask(tissue, (x + y) / 2, threshold, ground.kind, config, (x, y))


def tissue_share(mask: TissueMask, grid: PatchGrid) -> npt.NDArray[np.float64]:
    """(N,) part of each patch that is tissue, 0–1, exact by area; what lies outside the mask is none."""
    integral = _integral(mask.array)
    boxes = grid.boxes / np.array([*mask.scale, *mask.scale])
    sums = (
        _at(integral, boxes[:, 2], boxes[:, 3])
        - _at(integral, boxes[:, 0], boxes[:, 3])
        - _at(integral, boxes[:, 2], boxes[:, 1])
        + _at(integral, boxes[:, 0], boxes[:, 1])
    )
    area = np.prod(np.asarray(grid.patch_px_level0) / np.asarray(mask.scale))
    share: npt.NDArray[np.float64] = np.clip(sums / area, 0.0, 1.0)
    return share


def tissue_pixels(mask: TissueMask, grid: PatchGrid) -> npt.NDArray[np.int64]:
    """(N,) tissue pixels of the mask in each patch, its edges taken to the nearest mask pixel (at least one wide)."""
    integral = _integral(mask.array).astype(np.int64)
    height, width = mask.array.shape
    boxes = np.floor(grid.boxes / np.array([*mask.scale, *mask.scale]) + 0.5).astype(np.int64)
    x0, y0 = np.clip(boxes[:, 0], 0, width), np.clip(boxes[:, 1], 0, height)
    x1 = np.clip(np.maximum(boxes[:, 2], boxes[:, 0] + 1), 0, width)
    y1 = np.clip(np.maximum(boxes[:, 3], boxes[:, 1] + 1), 0, height)
    count: npt.NDArray[np.int64] = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
    return count


def _mask_level(slide: Slide, config: TissueConfig) -> int:
    """The level of the pyramid nearest the wanted scale, on a ratio scale, among those that are small enough."""
    if slide.mpp is None:
        wanted = 16.0
    else:
        wanted = config.um_per_px / float(np.sqrt(slide.mpp[0] * slide.mpp[1]))
    fits = [i for i, level in enumerate(slide.levels) if max(level.shape[:2]) <= config.max_px]
    if not fits:
        raise SlideError(
            f"{slide.path.name} has no level of at most {config.max_px} pixels a side to find tissue on; allow more "
            f"(max_px of the tissue settings)."
        )
    return min(fits, key=lambda i: abs(np.log(np.sqrt(np.prod(slide.chain_downsamples[i])) / wanted)))


def _read(level: Level) -> Pixels:
    """All pixels of a level; threads share its rows of tiles, which helps most where it is made from finer ones."""
    out = np.empty(level.shape, np.uint8)

    def rows(top: int) -> None:
        out[top : top + TILE_PX] = level[top : top + TILE_PX]

    with ThreadPoolExecutor(_READERS, thread_name_prefix="tissue") as pool:
        for _ in pool.map(rows, range(0, level.shape[0], TILE_PX)):
            pass
    return out


def _above(ground: Ground, threshold: float) -> Bools:
    tissue: Bools = ground.grey <= threshold if ground.kind == "bright" else ground.grey > threshold
    return tissue & ground.valid


def _clean(tissue: Bools, config: TissueConfig, px_um2: float | None) -> Bools:
    if not (config.min_area_um2 or config.fill_holes_um2):
        return tissue
    if px_um2 is None:
        warnings.warn(
            "The slide's µm per pixel are unknown, so the smallest area of tissue and of holes, given in µm², are not "
            "applied; give the slide its µm per pixel.",
            SlideWarning,
            stacklevel=3,
        )
        return tissue
    if config.min_area_um2:
        tissue = _without_small(tissue, config.min_area_um2 / px_um2)
    if config.fill_holes_um2:
        tissue = ~_without_small(~tissue, config.fill_holes_um2 / px_um2, inclusive=True, keep_border=True)
    return tissue


def _without_small(mask: Bools, px: float, *, inclusive: bool = False, keep_border: bool = False) -> Bools:
    """A mask without its connected parts of less than (`inclusive`: up to) so many pixels."""
    from scipy.ndimage import label

    parts, count = label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    keep = sizes > px if inclusive else sizes >= px
    if keep_border:  # what opens to the outside is no hole
        keep[np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])] = True
    keep[0] = False
    kept: Bools = keep[parts]
    return kept


def _integral(mask: Bools) -> npt.NDArray[np.uint32]:
    """(h + 1, w + 1) number of True above and left of each corner."""
    out = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.uint32)
    np.cumsum(mask, axis=1, dtype=np.uint32, out=out[1:, 1:])
    for row in range(1, len(out)):  # six times as fast as cumsum down the columns
        out[row] += out[row - 1]
    return out


def _at(
    integral: npt.NDArray[np.uint32], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The integral at corners between pixels, which for a mask is bilinear in each pixel, hence exact."""
    height, width = integral.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    x0, y0 = np.minimum(x.astype(np.intp), width - 2), np.minimum(y.astype(np.intp), height - 2)
    fx, fy = x - x0, y - y0
    top = integral[y0, x0] * (1 - fx) + integral[y0, x0 + 1] * fx
    bottom = integral[y0 + 1, x0] * (1 - fx) + integral[y0 + 1, x0 + 1] * fx
    value: npt.NDArray[np.float64] = top * (1 - fy) + bottom * fy
    return value
