"""A slide: pixels, scale, and the pyramid that the window shows. Made by `open_slide`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

from .blocks import Blocks
from .cache import tile_cache
from .chain import plan_chain
from .darkness import LOOKS_FLUORESCENT, looks_fluorescent
from .icc import AS_STORED
from .levels import Level, refuse_giant
from .source import Pixels, PixelSource, Size, checked_mpp
from .tiles import Tiles
from .watch import FileWatch
from .zarr_source import folder_hash

if TYPE_CHECKING:
    from .dask_levels import LevelArray
    from .view import SlideView

_HASHED_BYTES = 64 * 1024


class Slide:
    """An open slide. Thread-safe; a context manager.

    `level_dimensions`, `level_downsamples` and `read` speak of the file's **native** levels; `levels`, `pyramid` and
    `chain_downsamples` of the completed factor-2 chain that is shown.

    Parameters
    ----------
    path : Path
    source : PixelSource
        The back end that reads it.
    mpp : float or (float, float), optional
        µm per level-0 pixel (x, y) that a person gave; it wins over the file's.
    color : str
        How the source's colours came to be, in words.

    Attributes
    ----------
    color : str
        "as stored", or "sRGB …" and by which profile.
    level_dimensions : tuple of (int, int)
        Width and height of each native level.
    level_downsamples : tuple of float
        Level-0 pixels per pixel of each native level.
    levels : tuple of Level
        The chain as array-likes (h, w, 3) uint8; reading them waits for pixels.
    associated : mapping of str to (h, w, 3) uint8
        Label, macro, thumbnail: whatever the file has, read when asked for. They may carry names of patients.
    vendor : str
    properties : mapping of str to str
    objective_power : float or None
        A label only; the scale is `mpp`.
    bounds : (int, int, int, int)
        x, y, width, height of the part that was scanned, level-0 pixels.
    """

    def __init__(
        self,
        path: Path,
        source: PixelSource,
        mpp: float | Sequence[float] | None = None,
        color: str = AS_STORED,
    ) -> None:
        self.path = path
        self.color = color
        self.source = source
        self._blocks = Blocks(source, tile_cache(), FileWatch(path))
        chain = plan_chain(source.level_dimensions, source.level_downsamples)
        self.tiles = Tiles(self._blocks, chain, tile_cache())
        self.level_dimensions: tuple[Size, ...] = source.level_dimensions
        self.level_downsamples: tuple[float, ...] = source.level_downsamples
        self.vendor = source.vendor
        self.properties: Mapping[str, str] = source.properties
        self.objective_power = source.objective_power
        self.bounds = source.bounds
        self.associated: Mapping[str, Pixels] = _Associated(source)
        self.levels: tuple[Level, ...] = tuple(
            Level(level.size, index, self.tiles.region, path.name) for index, level in enumerate(self.tiles.chain)
        )
        self._mpp: tuple[float, float] | None = source.mpp
        self._mpp_source: str | None = "file" if source.mpp else None
        self._fingerprint: str | None = None
        if mpp is not None:
            self.set_mpp(mpp)

    def __repr__(self) -> str:
        return f"<Slide {self.path.name}, {self.dimensions[0]} x {self.dimensions[1]}, mpp {self.mpp}>"

    @property
    def dimensions(self) -> Size:
        """Width and height of level 0."""
        return self.level_dimensions[0]

    @property
    def mpp(self) -> tuple[float, float] | None:
        """µm per level-0 pixel (x, y); None when neither the file nor a person said it plausibly."""
        return self._mpp

    @property
    def mpp_source(self) -> str | None:
        """ "file", "user", or None."""
        return self._mpp_source

    def set_mpp(self, mpp: float | Sequence[float] | None) -> None:
        """Take a person's µm per level-0 pixel, one number or (x, y); None goes back to what the file says.

        Raises
        ------
        SlideError
            When a value is outside 0.05–20.
        """
        if mpp is None:
            self._mpp, self._mpp_source = self.source.mpp, "file" if self.source.mpp else None
        else:
            self._mpp, self._mpp_source = checked_mpp(mpp), "user"

    @property
    def chain_downsamples(self) -> tuple[tuple[float, float], ...]:
        """Exact level-0 pixels per pixel (x, y) of each of `levels`; outer corners of all levels coincide."""
        return tuple(level.downsample for level in self.tiles.chain)

    @property
    def levels_mpp(self) -> tuple[tuple[float, float], ...] | None:
        """µm per pixel (x, y) of each of `levels`; None when the slide's mpp is unknown."""
        if self._mpp is None:
            return None
        return tuple((dx * self._mpp[0], dy * self._mpp[1]) for dx, dy in self.chain_downsamples)

    @property
    def problems(self) -> list[str]:
        """What could not be read so far, a sentence each."""
        return list(self.tiles.problems)

    @property
    def fingerprint(self) -> str:
        """Hash of the file's content, the same wherever the file lies: its size, beginning, end and levels."""
        if self._fingerprint is None:
            self._fingerprint = _fingerprint(self.path, self.source)
        return self._fingerprint

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> Pixels:
        """Pixels of a native level.

        Parameters
        ----------
        x, y : int
            Top-left corner in level-0 pixels; taken to the nearest pixel of the level (half up), never shifted by
            part of one.
        width, height : int
            In pixels of the level.
        level : int
            Native level.

        Returns
        -------
        (height, width, 3) array of uint8
            White where the file has nothing.

        Raises
        ------
        SlideError
            When the region cannot be read (see `problems` for what the shown pyramid met), is too large to be held,
            or there is no such level.
        """
        if not 0 <= level < len(self.level_dimensions):
            raise SlideError(f"{self.path.name} has no level {level}; it has {len(self.level_dimensions)} from 0 on.")
        if width < 0 or height < 0:
            raise SlideError(f"A region of {width} x {height} pixels cannot be read; expected 0 or more.")
        downsample = self.level_downsamples[level]
        return self.read_native(
            level, math.floor(x / downsample + 0.5), math.floor(y / downsample + 0.5), int(width), int(height)
        )

    def read_native(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """As `read`, with (x, y) in pixels of the native level."""
        refuse_giant(width * height * 3, self.path.name, self.level_dimensions[level][::-1])
        level_width, level_height = self.level_dimensions[level]
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + width, level_width), min(y + height, level_height)
        if x1 - x0 == width and y1 - y0 == height and width and height:
            return self._blocks.region(level, x0, y0, width, height)
        out = np.full((height, width, 3), 255, np.uint8)
        if x1 > x0 and y1 > y0:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = self._blocks.region(level, x0, y0, x1 - x0, y1 - y0)
        return out

    def pyramid(self) -> list[LevelArray]:
        """The chain as dask arrays (h, w, 3) uint8, finest first; reading them waits for pixels (see `view`)."""
        from .dask_levels import dask_level

        return [dask_level(level, f"slide-{self._blocks.token}-level-{i}") for i, level in enumerate(self.levels)]

    def view(self, on_tile: Callable[[], None] | None = None, *, threads: int | None = None) -> SlideView:
        """The chain for a window: it never waits for pixels.

        Parameters
        ----------
        on_tile : callable, optional
            Called from a pool thread whenever a tile has arrived that was answered from a coarser level before.
        threads : int, optional
            Size of the pool that reads behind.
        """
        from .view import THREADS, SlideView

        return SlideView(self.tiles, self.path.name, on_tile, threads=threads or THREADS)

    def thumbnail(self, max_px: int = 512) -> Pixels:
        """The whole slide, (h, w, 3), its longer side `max_px` (or the slide's own, if that is less)."""
        from PIL import Image

        width, height = self.dimensions
        factor = min(1.0, max(1, max_px) / max(width, height))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        fine = [level for level in self.levels if max(level.shape[:2]) >= max(size)]
        pixels = fine[-1][:]
        self.look_at(pixels)
        if pixels.shape[:2] == size[::-1]:
            return np.array(pixels)
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))

    def look_at(self, picture: Pixels) -> None:
        """Note among `problems` what a picture of the whole slide, (h, w, 3), tells: that it looks fluorescent."""
        if looks_fluorescent(picture):
            self.tiles.note(LOOKS_FLUORESCENT)

    def failed_boxes(self) -> npt.NDArray[np.int64]:
        """(N, 4) x_min, y_min, x_max, y_max in level-0 pixels of the regions that could not be read so far."""
        return self.tiles.failed_boxes()

    def close(self) -> None:
        """Give the file and its tiles back. Reads under way in other threads end in peace; later ones raise."""
        self.tiles.close()
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Associated(Mapping[str, Pixels]):
    """Label, macro and thumbnail, read when asked for."""

    def __init__(self, source: PixelSource) -> None:
        self._source = source

    def __getitem__(self, name: str) -> Pixels:
        if name not in self._source.associated_names:
            raise KeyError(name)
        return self._source.read_associated(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.associated_names)

    def __len__(self) -> int:
        return len(self._source.associated_names)


def _fingerprint(path: Path, source: PixelSource) -> str:
    digest = hashlib.sha256(repr(source.level_dimensions).encode())
    digest.update(source.properties.get("openslide.quickhash-1", "").encode())
    try:
        if source.name == "zarr":
            digest.update(folder_hash(path))
        elif source.vendor != "dicom":  # any file of a DICOM slide opens the same slide
            with path.open("rb") as file:
                size = path.stat().st_size
                digest.update(str(size).encode())
                digest.update(file.read(_HASHED_BYTES))
                file.seek(max(0, size - _HASHED_BYTES))
                digest.update(file.read(_HASHED_BYTES))
    except OSError as error:
        raise SlideError(f"{path.name} can no longer be read ({error}); was it moved or removed?") from error
    return digest.hexdigest()
