"""Plain images (PNG, JPEG, TIFF, WebP, BMP): the whole image in memory, one native level."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideClosed, SlideError

from .source import GIANT_PX, BlocksOfRegions, Pixels, Size, on_background

_MOST_PIXELS = 400_000_000  # 1.2 GB in memory
_pillow_limit = threading.Lock()  # Pillow's own limit is a global


class PlainSource(BlocksOfRegions):
    """An image held in memory.

    Parameters
    ----------
    pixels : (h, w, 3) uint8
    vendor : str
        The file's format, lower case.
    """

    name = "plain"

    def __init__(
        self,
        path: Path,
        pixels: Pixels,
        vendor: str,
        *,
        mpp: tuple[float, float] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        height, width = pixels.shape[:2]
        pixels.flags.writeable = False
        self._path = path
        self._pixels: Pixels | None = pixels
        self.vendor = vendor
        self.level_dimensions: tuple[Size, ...] = ((width, height),)
        self.level_downsamples: tuple[float, ...] = (1.0,)
        self.properties: Mapping[str, str] = dict(properties or {})
        self.mpp = mpp
        self.objective_power: float | None = None
        self.bounds = (0, 0, width, height)
        self.associated_names: tuple[str, ...] = ()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        pixels = self._pixels
        if pixels is None:
            raise SlideClosed(f"{self._path.name} was closed; open it again to read from it.")
        return pixels[y : y + height, x : x + width].copy()

    def read_associated(self, name: str) -> Pixels:
        """See PixelSource: a plain image has none."""
        raise SlideError(f"{self._path.name} has no {name} image.")

    def close(self) -> None:
        """See PixelSource."""
        self._pixels = None


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Let Pillow read the head of an image of any size."""
    from PIL import Image

    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_size(path: Path, width: int, height: int) -> None:
    """Refuse an image that has no smaller levels and is too large to be held or shown without them."""
    if max(width, height) > GIANT_PX or width * height > _MOST_PIXELS:
        raise SlideError(
            f"{path.name} is one image of {width} x {height} pixels without smaller levels; expected at most "
            f"{GIANT_PX} pixels a side or a pyramid: convert it once, for example with "
            f"`vips tiffsave in.tif out.tif --tile --pyramid --bigtiff --compression jpeg`."
        )


def open_plain(path: Path) -> PlainSource:
    """Read PNG, JPEG, WebP or BMP. Raises SlideError when it is damaged, too large or not 8-bit colour or grey."""
    from PIL import Image, UnidentifiedImageError

    try:
        with without_pillow_limit():  # while the size is read; check_size decides before anything is decoded
            image = Image.open(path)
        with image:
            check_size(path, *image.size)
            vendor = (image.format or path.suffix.lstrip(".")).lower()
            pixels = _rgb(path, image)
    except UnidentifiedImageError as error:
        raise SlideError(f"{path.name} looks like an image but cannot be read as one; export it again.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise SlideError(f"{path.name} is damaged or cut short ({error}); copy it anew or export it again.") from error
    return PlainSource(path, pixels, vendor)


def _rgb(path: Path, image: object) -> Pixels:
    from PIL import Image

    assert isinstance(image, Image.Image)
    if image.mode.startswith(("I", "F")):
        raise SlideError(
            f"{path.name} has pixels of mode {image.mode} (more than 8 bits); expected 8-bit grey or colour: "
            f"convert it to 8-bit RGB first."
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return on_background(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def to_rgb(path: Path, array: npt.NDArray[np.generic]) -> Pixels:
    """(h, w), (h, w, 1|3|4) uint8 or bool → (h, w, 3). Raises SlideError for anything else."""
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise SlideError(
            f"{path.name} has pixels of shape {array.shape} and type {array.dtype}; expected one 8-bit grey or RGB "
            f"plane: export it as 8-bit RGB."
        )
    whole = np.asarray(array, dtype=np.uint8)
    if whole.shape[2] == 4:
        return on_background(whole)
    return np.ascontiguousarray(np.broadcast_to(whole, (*whole.shape[:2], 3)))
