"""What every back end gives: native levels and their pixels. OpenSlide, tifffile and plain images stand behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideClosed, SlideError

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]

MPP_RANGE = (0.05, 20.0)
"""µm per pixel that a slide can have; a value outside (352 from a 72-dpi tag) counts as unknown."""

BLOCK_PX = 512
"""Side of the blocks in which a level is read whose file has no tiles that could be decoded directly."""

HALF_FILTER = "jpeg-dct-4x4"
"""Name of the filter of `read_half`: each 8 x 8 block of a JPEG is decoded to 4 x 4 from its lowest frequencies."""

GIANT_PX = 20_000
"""An image with a longer side than this cannot be shown without smaller levels in its file."""


class SlideWarning(UserWarning):
    """Something about a slide that a person should know; work goes on."""


@runtime_checkable
class PixelSource(Protocol):
    """One file's pixels, native levels only. Thread-safe; coordinates in `read` are those of the level.

    A back end registers nowhere: `open_slide` chooses it by the file's content. A reader of another kind (tiles
    decoded directly, OME-Zarr) only has to give these names.
    """

    name: str
    """The back end: "openslide", "tifffile", "zarr", "plain"."""
    vendor: str
    """Format as the back end calls it: "aperio", "ome-tiff", "ome-zarr", "png"."""
    level_dimensions: tuple[Size, ...]
    """(width, height) of each native level, finest first."""
    level_downsamples: tuple[float, ...]
    """Level-0 pixels per pixel of each level, the mean of both axes."""
    properties: Mapping[str, str]
    """What the file says about itself."""
    mpp: tuple[float, float] | None
    """µm per level-0 pixel (x, y), if the file says it plausibly."""
    objective_power: float | None
    """The objective as a label, never a scale."""
    bounds: tuple[int, int, int, int]
    """(x, y, width, height) of the part that was scanned, level-0 pixels."""
    associated_names: tuple[str, ...]
    """Label, macro, thumbnail: whatever the file has."""
    notes: tuple[str, ...]
    """What a person should know of how the file was understood, a sentence each."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """(height, width, 3) pixels of a level, a region inside it. Raises SlideError when they cannot be read."""
        ...

    def block_size(self, level: int) -> Size:
        """(width, height) of the blocks in which a level is best read: the file's own tiles where there are some."""
        ...

    def read_blocks(
        self, level: int, blocks: Sequence[tuple[int, int]], outs: Sequence[Pixels]
    ) -> list[SlideError | None]:
        """Fill one batch of blocks of a level.

        Parameters
        ----------
        level : int
        blocks : sequence of (int, int)
            Column and row of each block.
        outs : sequence of (h, w, 3) uint8
            Where each block's pixels go: writable, C-contiguous, of the size that `block_shape` says.

        Returns
        -------
        list of SlideError or None
            For each block, why it could not be read (its pixels are then undefined), else None.

        Raises
        ------
        SlideClosed
            When the slide is closed.
        """
        ...

    def can_halve(self, level: int) -> bool:
        """Whether `read_half` works for a level."""
        ...

    def read_half(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """(height, width, 3) pixels of a level at half its size, by `HALF_FILTER`.

        Parameters
        ----------
        level : int
            One that `can_halve`.
        x, y, width, height : int
            A region inside the level at half its size, in pixels of that; its pixel (i, j) covers the level's pixels
            2i, 2i + 1 and 2j, 2j + 1 (an odd last row or column belongs to the last pixel).

        Raises
        ------
        SlideError
            When the pixels cannot be read.
        """
        ...

    def read_associated(self, name: str) -> Pixels:
        """(h, w, 3) pixels of an associated image. Raises SlideError when they cannot be read."""
        ...

    def close(self) -> None:
        """Give the file back; reads that are under way end in peace."""
        ...


class BlocksOfRegions:
    """The part of `PixelSource` that follows from `read`: blocks of 512 x 512, no decoding at half the size."""

    level_dimensions: tuple[Size, ...]
    notes: tuple[str, ...] = ()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        raise NotImplementedError

    def block_size(self, level: int) -> Size:
        """See PixelSource."""
        return BLOCK_PX, BLOCK_PX

    def read_blocks(
        self, level: int, blocks: Sequence[tuple[int, int]], outs: Sequence[Pixels]
    ) -> list[SlideError | None]:
        """See PixelSource."""
        width, height = self.block_size(level)
        errors: list[SlideError | None] = []
        for (column, row), out in zip(blocks, outs, strict=True):
            try:
                out[...] = self.read(level, column * width, row * height, out.shape[1], out.shape[0])
                errors.append(None)
            except SlideClosed:
                raise
            except SlideError as error:
                errors.append(error)
        return errors

    def can_halve(self, level: int) -> bool:
        """See PixelSource."""
        return False

    def read_half(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        raise NotImplementedError("only where can_halve says so")


def block_shape(source: PixelSource, level: int, column: int, row: int) -> tuple[int, int, int]:
    """(h, w, 3) of a block: smaller than `block_size` at the level's right and lower edge."""
    width, height = source.block_size(level)
    level_width, level_height = source.level_dimensions[level]
    return min(height, level_height - row * height), min(width, level_width - column * width), 3


def plausible_mpp(x: object, y: object) -> tuple[float, float] | None:
    """(x, y) as floats if both are numbers within `MPP_RANGE`, else None."""
    try:
        pair = float(x), float(y)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    low, high = MPP_RANGE
    return pair if all(math.isfinite(v) and low <= v <= high for v in pair) else None


def mpp_from_resolution(x: object, y: object, unit: object) -> tuple[float, float] | None:
    """µm per pixel from TIFF resolution tags: pixels per centimetre or inch; any other unit means unknown.

    Parameters
    ----------
    x, y : number, string or (numerator, denominator)
        XResolution and YResolution.
    unit : int or str
        ResolutionUnit: 2 or "inch", 3 or "centimeter".
    """
    um = {"2": 25_400.0, "inch": 25_400.0, "3": 10_000.0, "centimeter": 10_000.0}.get(str(unit).lower())
    if um is None:
        return None
    try:
        pixels = [v[0] / v[1] if isinstance(v, tuple) else float(v) for v in (x, y)]  # type: ignore[arg-type]
        return plausible_mpp(um / pixels[0], um / pixels[1])
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def checked_mpp(mpp: object) -> tuple[float, float]:
    """µm per pixel that a person gave, one number or (x, y). Raises SlideError when it cannot be."""
    values = np.asarray(mpp, dtype=object).ravel()
    pair = plausible_mpp(values[0], values[-1]) if values.size in (1, 2) else None
    if pair is None:
        raise SlideError(
            f"{mpp!r} µm per pixel is not possible; expected one or two numbers between {MPP_RANGE[0]} and "
            f"{MPP_RANGE[1]} (a slide scanned at 20x has about 0.5, at 40x about 0.25)."
        )
    return pair


def on_background(rgba: npt.NDArray[np.uint8], background: tuple[int, int, int] = (255, 255, 255)) -> Pixels:
    """(h, w, 4) with straight alpha → (h, w, 3) over a colour."""
    alpha = rgba[..., 3]
    if alpha.size == 0 or alpha.min() == 255:
        opaque = np.empty((*rgba.shape[:2], 3), np.uint8)
        for channel in range(3):  # three strided copies are several times as fast as one of three bytes each
            opaque[..., channel] = rgba[..., channel]
        return opaque
    weight = alpha[..., None].astype(np.uint32)
    below = np.asarray(background, dtype=np.uint32)
    mixed = (rgba[..., :3].astype(np.uint32) * weight + below * (255 - weight) + 127) // 255
    return mixed.astype(np.uint8)


def mean_downsamples(dimensions: tuple[Size, ...]) -> tuple[float, ...]:
    """Downsample of each level from its size, the mean of both axes (as OpenSlide has it)."""
    width, height = dimensions[0]
    return tuple((width / w + height / h) / 2 for w, h in dimensions)


def probe(source: PixelSource) -> None:
    """Read a few pixels at three places; a slide that gives none of them is refused with the first one's reason."""
    first: SlideError | None = None
    coarsest = len(source.level_dimensions) - 1
    for level, share in ((coarsest, 0.5), (0, 0.0), (0, 0.5)):
        width, height = source.level_dimensions[level]
        try:
            source.read(level, int(width * share), int(height * share), 1, 1)
            return
        except SlideError as error:
            first = first or error
    assert first is not None
    raise first
