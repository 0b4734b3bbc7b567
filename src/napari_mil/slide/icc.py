"""Colours as the scanner's profile means them: ICC → sRGB, where a person asks for it.

Each scanner has colours of its own, and says in the file's ICC profile what they mean. Converted to sRGB, slides of
several scanners look more alike, to people and to encoders. It is a choice that changes features, so it is recorded.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mil.errors import SlideError

from .source import Pixels, PixelSource, Size

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsProfile

AS_STORED = "as stored"
"""Colours without any conversion."""

_ICC_TAG = 34675


def with_srgb(source: PixelSource, path: Path) -> tuple[PixelSource, str]:
    """The source with its colours in sRGB, and how they came to be, in words.

    A file without a profile (or with one that cannot be used) is taken to be sRGB already.
    """
    content = icc_profile(path)
    if content is None:
        return source, "sRGB assumed: the file has no colour profile"
    try:
        profile = _parsed(content)
        converted = SrgbSource(source, profile)
    except ValueError as error:
        return source, f"sRGB assumed: the file's colour profile cannot be used ({error})"
    return converted, f"sRGB by the profile {_title(content, profile)}, {converted.intent}"


def icc_profile(path: Path) -> bytes | None:
    """The ICC profile of a slide's image; None where the file has none."""
    if path.is_dir():  # OME-Zarr has no place for one
        return None
    import openslide
    from PIL import ImageCms

    try:
        with openslide.OpenSlide(path) as slide:
            profile: ImageCmsProfile | None = slide.color_profile
            if profile is not None:
                return bytes(profile.tobytes())
    except (openslide.OpenSlideError, ImageCms.PyCMSError, OSError):  # not one of its formats, or a damaged profile
        pass
    return _profile_in_tiff(path) or _profile_in_image(path)


def profile_title(path: Path) -> str | None:
    """Name of a slide's ICC profile, with the beginning of its hash; None where it has none that can be used."""
    content = icc_profile(path)
    try:
        return None if content is None else _title(content, _parsed(content))
    except ValueError:
        return None


class SrgbSource:
    """Another source's pixels, converted from its ICC profile to sRGB. Thread-safe as the other is.

    Label and macro are left as they are: another camera took them.

    Parameters
    ----------
    source : PixelSource
    profile : PIL.ImageCms.ImageCmsProfile
        What the source's colours mean; one of RGB.

    Attributes
    ----------
    intent : str
        Rendering intent, the profile's own default: "perceptual", "relative colorimetric", …

    Raises
    ------
    ValueError
        When no conversion can be made from this profile.
    """

    def __init__(self, source: PixelSource, profile: ImageCmsProfile) -> None:
        from PIL import ImageCms

        self._source = source
        self.name: str = source.name
        self.vendor: str = source.vendor
        self.level_dimensions: tuple[Size, ...] = source.level_dimensions
        self.level_downsamples: tuple[float, ...] = source.level_downsamples
        self.properties: Mapping[str, str] = source.properties
        self.mpp = source.mpp
        self.objective_power = source.objective_power
        self.bounds = source.bounds
        self.associated_names: tuple[str, ...] = source.associated_names
        self.notes: tuple[str, ...] = source.notes
        try:
            intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
            self._transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent)
        except ImageCms.PyCMSError as error:
            raise ValueError(str(error).strip()) from error
        self.intent = intent.name.lower().replace("_", " ")

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        return self._convert(self._source.read(level, x, y, width, height))

    def block_size(self, level: int) -> Size:
        """See PixelSource."""
        return self._source.block_size(level)

    def read_blocks(
        self, level: int, blocks: Sequence[tuple[int, int]], outs: Sequence[Pixels]
    ) -> list[SlideError | None]:
        """See PixelSource."""
        errors = self._source.read_blocks(level, blocks, outs)
        for error, out in zip(errors, outs, strict=True):
            if error is None:
                self._convert(out)
        return errors

    def can_halve(self, level: int) -> bool:
        """See PixelSource."""
        return self._source.can_halve(level)

    def read_half(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource: halved first, then converted."""
        return self._convert(self._source.read_half(level, x, y, width, height))

    def read_associated(self, name: str) -> Pixels:
        """See PixelSource."""
        return self._source.read_associated(name)

    def close(self) -> None:
        """See PixelSource."""
        self._source.close()

    def _convert(self, pixels: Pixels) -> Pixels:
        """(h, w, 3) pixels, changed in place where they can be."""
        from PIL import Image, ImageCms

        if pixels.size == 0:
            return pixels
        if not (pixels.flags.writeable and pixels.flags.c_contiguous):
            pixels = np.array(pixels)
        height, width = pixels.shape[:2]
        image = Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)  # a copy: RGB has 4 bytes there
        ImageCms.applyTransform(image, self._transform, inPlace=True)
        pixels[...] = np.asarray(image)
        return pixels


def _parsed(content: bytes) -> ImageCmsProfile:
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
    except (OSError, ImageCms.PyCMSError) as error:
        raise ValueError("it is damaged") from error
    space = str(profile.profile.xcolor_space).strip()
    if space != "RGB":
        raise ValueError(f"it is one of {space}, not of RGB")
    return profile


def _title(content: bytes, profile: ImageCmsProfile) -> str:
    from PIL import ImageCms

    name = " ".join(ImageCms.getProfileDescription(profile).split()) or "without a name"
    return f"“{name}” (sha256 {hashlib.sha256(content).hexdigest()[:8]})"


def _profile_in_tiff(path: Path) -> bytes | None:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            series = max(tif.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
            keyframe: Any = series.keyframe
            tag = keyframe.tags.get(_ICC_TAG)
            return None if tag is None else bytes(tag.value)
    except Exception:  # no TIFF, or whatever tifffile's parsing met: the pixels were read by other means
        return None


def _profile_in_image(path: Path) -> bytes | None:
    from PIL import Image

    from .plain_source import without_pillow_limit

    try:
        with without_pillow_limit(), Image.open(path) as image:
            return image.info.get("icc_profile") or None
    except (OSError, SyntaxError, ValueError):
        return None
