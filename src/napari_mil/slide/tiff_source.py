"""TIFF files that OpenSlide does not take, or takes only in part: OME-TIFF with its levels in SubIFDs, tiled TIFF."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mil.errors import SlideError

from .direct_levels import agrees
from .kinds import refuse_other_kinds
from .plain_source import PlainSource, check_size, to_rgb
from .source import (
    Pixels,
    PixelSource,
    Size,
    mean_downsamples,
    mpp_from_resolution,
    plausible_mpp,
    probe,
)
from .tiff_level import TiffLevel
from .tile_codecs import TifffileCodec, can_read, jpeg_codecs
from .tile_file import TileFile

if TYPE_CHECKING:
    from .openslide_source import OpenSlideSource

_ASSOCIATED = ("label", "macro", "thumbnail", "overview")
_RESOLUTION = ("XResolution", "YResolution", "ResolutionUnit")
_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "pm": 1e-6, "Å": 1e-4}


def open_tiff(path: Path, *, openslide_knows_it: bool) -> PixelSource:
    """A TIFF of no scanner's own kind: by OpenSlide, tile by tile, or whole, whichever shows most of it."""
    import tifffile

    _hush()
    tif = None
    try:
        tif = tifffile.TiffFile(path)
        if not tif.series:
            raise ValueError("it holds no image")
        series = max(tif.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
        levels = list(series.levels)
    except Exception as error:  # tifffile raises whatever its parsing met: struct.error, IndexError, ...
        if tif is not None:
            tif.close()
        if openslide_knows_it:
            from .openslide_source import OpenSlideSource

            return OpenSlideSource(path)
        raise SlideError(
            f"{path.name} begins like a TIFF but cannot be understood ({error}); it is damaged or cut short: copy it "
            f"anew or export it again."
        ) from error
    try:
        _check_kind(path, series)  # OpenSlide would show the first page, channel or eight bits of it
        notes = _notes(path, tif, series)
        if openslide_knows_it and not tif.is_ome:
            slide = _openslide(path)
            size = series.keyframe.imagewidth, series.keyframe.imagelength
            if slide is not None and len(slide.level_dimensions) >= len(levels) and slide.level_dimensions[0] == size:
                tif.close()
                slide.notes = notes
                return slide
        if (series.keyframe.is_tiled or len(levels) > 1) and all(_by_segments(level) for level in levels):
            source = TiffSource(path, tif, series)
            source.notes = notes
            return source
        page = series.keyframe
        check_size(path, page.imagewidth, page.imagelength)
        whole = PlainSource(path, _whole(path, series), "ome-tiff" if tif.is_ome else "tiff", mpp=_mpp(tif, series))
        whole.notes = notes
    except BaseException:
        tif.close()
        raise
    tif.close()
    return whole


def _hush() -> None:
    """Keep tifffile's log off the terminal where nobody has asked for it: what matters is told in sentences."""
    logger = logging.getLogger("tifffile")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _openslide(path: Path) -> OpenSlideSource | None:
    from .openslide_source import OpenSlideSource

    slide: OpenSlideSource | None = None
    try:
        slide = OpenSlideSource(path)
        probe(slide)
        return slide
    except SlideError:  # a compression that OpenSlide lacks, or tiles that it finds odd; tifffile may read them
        if slide is not None:
            slide.close()
        return None


class TiffSource:
    """A tiled (or stripped) 8-bit TIFF, its levels in SubIFDs or in a file each. Thread-safe.

    Parameters
    ----------
    path : Path
    tif : tifffile.TiffFile
        Owned from now on.
    series : tifffile.TiffPageSeries
        The image; each of its levels is one page of 1, 3 or 4 samples.
    """

    name = "tifffile"
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, tif: Any, series: Any) -> None:
        self._path = path
        self._tif = tif
        self._files: dict[Path, TileFile] = {}
        self._levels = [self._level(i, level.keyframe) for i, level in enumerate(series.levels)]
        self.vendor = "ome-tiff" if tif.is_ome else "tiff"
        self.level_dimensions: tuple[Size, ...] = tuple(level.size for level in self._levels)
        self.level_downsamples: tuple[float, ...] = mean_downsamples(self.level_dimensions)
        self.properties: Mapping[str, str] = _properties(tif, series)
        self.mpp = _mpp(tif, series)
        self.objective_power: float | None = None
        self.bounds = (0, 0, *self.level_dimensions[0])
        self._associated = {
            str(other.name).lower(): other
            for other in tif.series
            if other is not series and str(other.name).lower() in _ASSOCIATED
        }
        self.associated_names: tuple[str, ...] = tuple(self._associated)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        return self._levels[level].read(x, y, width, height)

    def block_size(self, level: int) -> Size:
        """See PixelSource."""
        return self._levels[level].tile

    def read_blocks(
        self, level: int, blocks: Sequence[tuple[int, int]], outs: Sequence[Pixels]
    ) -> list[SlideError | None]:
        """See PixelSource."""
        return self._levels[level].read_blocks(blocks, outs)

    def can_halve(self, level: int) -> bool:
        """See PixelSource."""
        return self._levels[level].can_halve

    def read_half(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        return self._levels[level].read_half(x, y, width, height)

    def read_associated(self, name: str) -> Pixels:
        """See PixelSource."""
        try:
            return _whole(self._path, self._associated[name])
        except Exception as error:  # whatever tifffile and its codecs met
            raise SlideError(f"{self._path.name}: its {name} image cannot be read ({error}).") from error

    def close(self) -> None:
        """See PixelSource."""
        for file in self._files.values():
            file.close()
        self._tif.close()

    def _level(self, index: int, page: Any) -> TiffLevel:
        """A page by the quickest way that gives tifffile's pixels."""
        path = Path(page.parent.filehandle.path)
        if path not in self._files:
            self._files[path] = TileFile(path)
        file = self._files[path]
        known = TiffLevel(page, file, TifffileCodec(page), self._path.name)
        for codec in jpeg_codecs(page):
            level = TiffLevel(page, file, codec, self._path.name)
            if agrees(level, known.read, (file.size, index)):
                return level
        return known


def _check_kind(path: Path, series: Any) -> None:
    """Refuse what is not one plane of 8-bit grey or colour."""
    page = series.keyframe
    sizes = {axis: n for axis, n in zip(str(series.axes).lower(), series.shape, strict=True) if axis not in "yxs"}
    if page.samplesperpixel > 4 or (page.samplesperpixel == 4 and int(page.photometric) in (0, 1)):
        sizes["c"] = page.samplesperpixel
    refuse_other_kinds(path.name, sizes, np.uint8 if series.dtype is None else series.dtype)


def _notes(path: Path, tif: Any, shown: Any) -> tuple[str, ...]:
    """A sentence where the file holds images that are neither shown nor smaller copies of what is."""
    page = shown.keyframe
    others = [
        other.keyframe
        for other in tif.series
        if other is not shown and str(other.name).lower() not in _ASSOCIATED and not other.keyframe.is_reduced
    ]
    ratio = page.imagewidth / page.imagelength
    others = [
        o for o in others if abs(o.imagewidth / o.imagelength / ratio - 1) > 0.02 or o.imagewidth == page.imagewidth
    ]
    if not others:
        return ()
    return (
        f"{path.name} holds {len(others) + 1} images; the largest of them ({page.imagewidth} x {page.imagelength} "
        f"pixels) is shown.",
    )


def _by_segments(level: Any) -> bool:
    """Whether a level is one page that can be read tile by tile."""
    page = level.keyframe
    one_page = len(level.pages) == 1 and tuple(level.shape[:2]) == (page.imagelength, page.imagewidth)
    return one_page and can_read(page)


def _whole(path: Path, series: Any) -> Pixels:
    """All pixels of a series' first level as (h, w, 3)."""
    page = series.keyframe
    photometric = int(page.photometric)
    if photometric not in (0, 1, 2) and not (photometric == 6 and int(page.compression) == 7):
        from .plain_source import open_plain

        plain = open_plain(path)  # palettes and further colour spaces
        return plain.read(0, 0, 0, *plain.level_dimensions[0])
    try:
        array = series.asarray()
    except Exception as error:  # whatever tifffile and its codecs met
        raise SlideError(
            f"{path.name} cannot be read ({error}); it is damaged, cut short, or packed in a way that is not "
            f"supported: copy it anew or export it again."
        ) from error
    array = array.reshape([n for a, n in zip(series.axes, series.shape, strict=True) if a in "YXS"])
    kept = [a for a in series.axes if a in "YXS"]
    if "S" in kept and kept[-1] != "S":
        array = np.moveaxis(array, kept.index("S"), -1)
    if photometric == 0 and array.dtype != np.bool_:
        array = 255 - array
    return to_rgb(path, array)


def _mpp(tif: Any, series: Any) -> tuple[float, float] | None:
    """OME physical size, else the resolution tags."""
    page = series.keyframe
    if tif.is_ome:
        found = _ome_mpp(tif.ome_metadata, page.imagewidth, page.imagelength)
        if found is not None:
            return found
    x, y, unit = (page.tags.get(name) for name in _RESOLUTION)
    if x is None or y is None:
        return None
    return mpp_from_resolution(x.value, y.value, int(unit.value) if unit is not None else 2)


def _ome_mpp(xml: str | None, width: int, height: int) -> tuple[float, float] | None:
    """PhysicalSizeX/Y of the image of this size."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root = fromstring(xml or "")
    except (ParseError, DefusedXmlException):
        return None
    for element in root.iter():
        if element.tag.rpartition("}")[2] != "Pixels":
            continue
        if (element.get("SizeX"), element.get("SizeY")) == (str(width), str(height)):
            factors = [_UM.get(element.get(f"PhysicalSize{a}Unit") or "µm") for a in "XY"]
            sizes = [element.get(f"PhysicalSize{a}") for a in "XY"]
            try:
                return plausible_mpp(
                    *(float(s or "nan") * (f or float("nan")) for s, f in zip(sizes, factors, strict=True))
                )
            except ValueError:
                return None
    return None


def _properties(tif: Any, series: Any) -> dict[str, str]:
    page = series.keyframe
    names = ("Make", "Model", "Software", "DateTime", "ImageDescription", *_RESOLUTION)
    return {f"tiff.{name}": str(page.tags[name].value) for name in names if name in page.tags}
