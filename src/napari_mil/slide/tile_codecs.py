"""How the tiles of a TIFF page become pixels: JPEG by libjpeg-turbo straight into place, anything else by tifffile."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from .plain_source import to_rgb
from .source import Pixels, Size, on_background

_JPEG = 7
_YCBCR = 6
_SEGMENT_LIMIT = 64 * 1024**2  # bytes of one decoded tile or strip
_SOI, _EOI, _APP0 = b"\xff\xd8", b"\xff\xd9", b"\xff\xe0"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0"  # Adobe TN 5116: APP14; its last byte says the colour transform


class Codec(Protocol):
    """Decodes the tiles of one page. Thread-safe."""

    halves: bool
    """Whether `half` works."""

    def decode(self, raw: memoryview, index: int, out: Pixels) -> None:
        """Fill `out`, the tile or what of it lies inside the image. Raises ValueError or what the codec raises."""
        ...

    def half(self, raw: memoryview) -> Pixels:
        """(h / 2, w / 2, 3) pixels of the whole tile."""
        ...


def can_read(page: Any) -> bool:
    """Whether a tifffile page is 8-bit grey or colour in tiles or strips of a size that can be read one by one."""
    photometric, compression = int(page.photometric), int(page.compression)
    segment = page.tilewidth * page.tilelength if page.is_tiled else page.imagewidth * page.rowsperstrip
    return bool(
        (photometric in (0, 1, 2) or (photometric == _YCBCR and compression == _JPEG))
        and int(page.planarconfig) == 1
        and page.samplesperpixel in (1, 3, 4)
        and page.bitspersample == 8
        and 0 < segment * page.samplesperpixel <= _SEGMENT_LIMIT
    )


def tile_size(page: Any) -> Size:
    """(width, height) of a page's tiles or strips."""
    return (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)


def jpeg_codecs(page: Any) -> list[Codec]:
    """Ways to read a page of JPEG tiles, likeliest first: in the colours that its tags say, or its tiles themselves.

    Scanners and programs differ in what they write into either; only comparing with a reference tells.
    """
    photometric = int(page.photometric)
    if int(page.compression) != _JPEG or page.samplesperpixel not in (1, 3) or photometric == 0:
        return []
    by_tags = {2: 0, _YCBCR: 1}.get(photometric)
    ways = [by_tags, None] if by_tags is not None else [None]
    return [JpegCodec(tile_size(page), page.jpegtables, way) for way in ways]


class JpegCodec:
    """JPEG tiles by libjpeg-turbo; a tile with any fault is refused.

    Parameters
    ----------
    size : (int, int)
        Width and height of a tile.
    tables : bytes or None
        The page's JPEGTables: a JPEG of tables only, which belong between each tile's SOI and its other markers.
    transform : 0, 1 or None
        Colours of three components: 0 RGB, 1 YCbCr, None what the tile's own markers say.
    """

    def __init__(self, size: Size, tables: bytes | None, transform: int | None) -> None:
        self._shape = size[1], size[0], 3
        self._transform = transform
        body = bytes(tables or b"").removeprefix(_SOI).removesuffix(_EOI)
        self._head = _SOI + (b"" if transform is None else _ADOBE + bytes([transform])) + body
        self.halves = size[0] % 8 == 0 == size[1] % 8

    def decode(self, raw: memoryview, index: int, out: Pixels) -> None:
        """See Codec."""
        import simplejpeg

        if out.shape == self._shape:
            pixels = simplejpeg.decode_jpeg(self._joined(raw), "RGB", buffer=out)
        else:
            pixels = simplejpeg.decode_jpeg(self._joined(raw), "RGB")
        if pixels.shape not in (self._shape, out.shape):
            raise ValueError(f"its tile has {pixels.shape[1]} x {pixels.shape[0]} pixels, expected {self._expected()}")
        if out.shape != self._shape:
            out[...] = pixels[: out.shape[0], : out.shape[1]]

    def half(self, raw: memoryview) -> Pixels:
        """See Codec."""
        import simplejpeg

        joined = self._joined(raw)
        found = simplejpeg.decode_jpeg_header(joined)[:2]
        if found != self._shape[:2]:  # a larger one would be decoded at a quarter, and pass
            raise ValueError(f"its tile has {found[1]} x {found[0]} pixels, expected {self._expected()}")
        height, width = self._shape[0] // 2, self._shape[1] // 2
        pixels: Pixels = simplejpeg.decode_jpeg(joined, "RGB", min_height=height, min_width=width, min_factor=2)
        return pixels

    def _joined(self, raw: memoryview) -> bytes:
        """The tile with the page's tables, and with the marker that says its colours."""
        at = 2 if raw[:2] == _SOI else 0
        if self._transform == 0 and raw[at : at + 2] == _APP0:  # JFIF means YCbCr, whatever Adobe's marker says
            at += 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
        return b"".join((self._head, raw[at:]))

    def _expected(self) -> str:
        return f"{self._shape[1]} x {self._shape[0]}"


class TifffileCodec:
    """Tiles and strips of every compression that tifffile knows.

    Parameters
    ----------
    page : tifffile.TiffPage
        One that `can_read` accepts.
    """

    halves = False

    def __init__(self, page: Any) -> None:
        self._page = page
        self._path = Path(page.parent.filehandle.path)
        self._inverted = int(page.photometric) == 0

    def decode(self, raw: memoryview, index: int, out: Pixels) -> None:
        """See Codec."""
        height, width = out.shape[:2]
        pixels = self._page.decode(bytes(raw), index, jpegtables=self._page.jpegtables)[0][0, :height, :width]
        if pixels.shape[:2] != (height, width):
            raise ValueError(f"its tile has {pixels.shape[1]} x {pixels.shape[0]} pixels, expected {width} x {height}")
        if self._inverted:
            pixels = 255 - pixels
        out[...] = on_background(pixels) if pixels.shape[2] == 4 else to_rgb(self._path, pixels)

    def half(self, raw: memoryview) -> Pixels:
        """See Codec."""
        raise NotImplementedError
