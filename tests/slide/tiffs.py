"""TIFFs as scanners and programs write them, made tile by tile so that each byte can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from .conftest import Pixels, pattern

APERIO = "Aperio Image Library v11.2.1 \r\n{width}x{height} (256x256) JPEG/RGB Q=80|AppMag = 20|MPP = 0.499"
PHILIPS = """<?xml version="1.0" encoding="UTF-8" ?>
<DataObject ObjectType="DPUfsImport"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030"
PMSVR="IDoubleArray">"{mm}" "{mm}"</Attribute><Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003"
PMSVR="IDataObjectArray"><Array><DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE"
Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"
Group="0x1001" Element="0x8B01" PMSVR="IDataObjectArray"><Array>{levels}</Array></Attribute></DataObject></Array>
</Attribute></DataObject>
"""
PHILIPS_LEVEL = """<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028"
Element="0x0030" PMSVR="IDoubleArray">"{mm}" "{mm}"</Attribute></DataObject>"""

YCBCR = {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2)}
RGB = {"photometric": "rgb", "compression": "jpeg"}
HEIGHT, WIDTH = 700, 899


def smooth(height: int, width: int, seed: int = 0) -> Pixels:
    """(height, width, 3) colours that change slowly, with some noise: what JPEG is made for."""
    rng = np.random.default_rng(seed)
    coarse = pattern(height // 32 + 2, width // 32 + 2, seed).astype(float)
    y, x = np.arange(height) / 32, np.arange(width) / 32
    rows = coarse[y.astype(int)] * (1 - y % 1)[:, None, None] + coarse[y.astype(int) + 1] * (y % 1)[:, None, None]
    left, right = rows[:, x.astype(int)], rows[:, x.astype(int) + 1]
    mixed = left * (1 - x % 1)[:, None] + right * (x % 1)[:, None]
    return np.clip(mixed + rng.normal(0, 6, mixed.shape), 0, 255).astype(np.uint8)


def tiles_of(pixels: Pixels, tile: int) -> Iterator[Pixels]:
    """The tiles of an image, row by row, filled up with grey at its right and lower edge."""
    for top in range(0, pixels.shape[0], tile):
        for left in range(0, pixels.shape[1], tile):
            whole = np.full((tile, tile, *pixels.shape[2:]), 128, np.uint8)
            part = pixels[top : top + tile, left : left + tile]
            whole[: part.shape[0], : part.shape[1]] = part
            yield whole


def segments(jpeg: bytes) -> tuple[dict[int, list[bytes]], bytes]:
    """The marker segments of a JPEG by marker, and the rest from the start of its scan on."""
    found: dict[int, list[bytes]] = {}
    at = 2
    while jpeg[at + 1] != 0xDA:
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.setdefault(jpeg[at + 1], []).append(jpeg[at : at + length])
        at += length
    return found, jpeg[at:]


def encoded(
    tile: Pixels,
    colours: str = "ycbcr",
    subsampling: str | None = "420",
    *,
    adobe: bool = True,
    jfif: bool = True,
    tables: bool = True,
) -> bytes:
    """A tile as JPEG.

    `colours` are "rgb", "ycbcr" or "grey"; `adobe` and `jfif` keep those markers where libjpeg writes them; without
    `tables` the tile needs a JPEGTables tag (see `tables_of`).
    """
    if colours == "grey":
        jpeg = imagecodecs.jpeg8_encode(tile, level=80)
    else:
        sampling = None if colours == "rgb" else subsampling
        jpeg = imagecodecs.jpeg8_encode(tile, level=80, colorspace="rgb", outcolorspace=colours, subsampling=sampling)
    found, scan = segments(jpeg)
    frame = bytearray(found[0xC0][0])
    scan_header = bytearray(scan)
    if colours == "rgb":  # numbered 1, 2, 3 as YCbCr is, so that nothing but the tags or Adobe's marker says RGB
        for i in range(3):
            frame[10 + 3 * i] = scan_header[5 + 2 * i] = i + 1
    kept = b"".join(found.get(0xE0, []) if jfif else []) + b"".join(found.get(0xEE, []) if adobe else [])
    if tables:
        kept += b"".join(found[0xDB] + found[0xC4])
    return b"\xff\xd8" + kept + bytes(frame) + bytes(scan_header)


def tables_of(jpeg: bytes) -> bytes:
    """The quantization and Huffman tables of a JPEG, as a JPEGTables tag has them."""
    found, _ = segments(jpeg)
    return b"\xff\xd8" + b"".join(found[0xDB] + found[0xC4]) + b"\xff\xd9"


def write_tiles(
    path: Path,
    levels: list[tuple[tuple[int, ...], list[bytes | None], dict[str, Any]]],
    *,
    tile: int = 256,
    ome: bool = False,
    subifds: bool = False,
    bigtiff: bool = False,
    first: dict[str, Any] | None = None,
) -> Path:
    """A TIFF of tiles that are compressed already: shape, tiles and options of `TiffWriter.write` of each level.

    None in place of a tile leaves it out: the file says that it has 0 bytes.
    """
    with tifffile.TiffWriter(path, bigtiff=bigtiff, ome=ome) as tif:
        for i, (shape, parts, options) in enumerate(levels):
            more: dict[str, Any] = {"subfiletype": 1} if i else dict(first or {})
            if subifds and i == 0:
                more["subifds"] = len(levels) - 1
            if ome and i == 0:
                more["metadata"] = {"axes": "YXS"}
            if options["photometric"] == "rgb" and options["compression"] == "jpeg":
                more["compressionargs"] = {"outcolorspace": "rgb"}  # else tifffile writes YCbCr into the tag
            there = [b"\0" if part is None else part for part in parts]
            tif.write(iter(there), shape=shape, dtype=np.uint8, tile=(tile, tile), **options, **more)
    for i, (_, parts, _) in enumerate(levels):
        for index, part in enumerate(parts):
            if part is None:
                overwrite_entry(path, i, index, "TileOffsets", 0)
                overwrite_entry(path, i, index, "TileByteCounts", 0)
    return path


def overwrite_entry(path: Path, page: int, tile: int, name: str, value: int) -> None:
    """Change where a TIFF says that a tile begins ("TileOffsets"), or how many bytes it has ("TileByteCounts")."""
    with tifffile.TiffFile(path) as tif:
        tag = _pages(tif)[page].tags[name]
        size = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
        at, order = tag.valueoffset + tile * size, ">" if tif.byteorder == ">" else "<"
    data = bytearray(path.read_bytes())
    data[at : at + size] = value.to_bytes(size, "big" if order == ">" else "little")
    path.write_bytes(data)


def _pages(tif: tifffile.TiffFile) -> list[Any]:
    return [level.keyframe for level in tif.series[0].levels] if tif.is_ome else [page.aspage() for page in tif.pages]


def overwrite_tile(path: Path, page: int, tile: int, content: bytes | None = None) -> None:
    """Destroy a tile (zeros), or put other bytes of at most its length in its place."""
    with tifffile.TiffFile(path) as tif:
        offset, count = _pages(tif)[page].dataoffsets[tile], _pages(tif)[page].databytecounts[tile]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = (b"" if content is None else content).ljust(count, b"\0")
    path.write_bytes(data)


def jpegs(pixels: Pixels, *args: Any, **options: Any) -> list[bytes | None]:
    return [encoded(tile, *args, **options) for tile in tiles_of(pixels, 256)]


def levels_of(make: Callable[[Pixels], list[bytes | None]], options: dict[str, Any]) -> list[Any]:
    """Two levels, the second exactly half the size in one direction (OpenSlide shifts nothing then)."""
    fine = smooth(HEIGHT, WIDTH - 1, 1)
    return [(a.shape, make(a), options) for a in (fine, np.ascontiguousarray(fine[::2, ::2]))]


def ycbcr(subsampling: str, factors: tuple[int, int]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        options = YCBCR | {"subsampling": factors}
        return write_tiles(path, levels_of(lambda a: jpegs(a, "ycbcr", subsampling), options))

    return write


def rgb(**markers: bool) -> Callable[[Path], Path]:
    return lambda path: write_tiles(path, levels_of(lambda a: jpegs(a, "rgb", **markers), RGB))


def shared_tables(colours: str, options: dict[str, Any]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        tables = tables_of(encoded(smooth(256, 256), colours))
        levels = levels_of(lambda a: jpegs(a, colours, adobe=False, jfif=False, tables=False), options)
        return write_tiles(path, [(s, t, o | {"jpegtables": tables}) for s, t, o in levels])

    return write


def aperio(path: Path) -> Path:
    text = APERIO.format(width=WIDTH - 1, height=HEIGHT)
    tables = tables_of(encoded(smooth(256, 256), "rgb"))
    levels = levels_of(lambda a: jpegs(a, "rgb", adobe=False, tables=False), RGB | {"jpegtables": tables})
    return write_tiles(path, levels, first={"description": text, "metadata": None})


def philips(path: Path) -> Path:
    """Levels padded to whole tiles; background left out."""
    fine = np.full((1024, 1280, 3), 255, np.uint8)
    fine[:HEIGHT, :WIDTH] = smooth(HEIGHT, WIDTH, 1)
    coarse = np.full((512, 768, 3), 255, np.uint8)
    coarse[:, :640] = fine[::2, ::2]
    spacing = PHILIPS_LEVEL.format(mm=0.00025) + PHILIPS_LEVEL.format(mm=0.0005)
    first = {
        "description": PHILIPS.format(mm=0.00025, levels=spacing),
        "software": "Philips DP v1.0",
        "metadata": None,
    }
    tiles = jpegs(fine)
    tiles[15:] = [None] * 5
    tiles[6] = None
    return write_tiles(path, [(fine.shape, tiles, YCBCR), (coarse.shape, jpegs(coarse), YCBCR)], first=first)


def plain(compression: str | None, *, samples: int = 3, **options: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        fine = smooth(HEIGHT, WIDTH - 1, 1)[..., : None if samples == 3 else samples].squeeze()
        with tifffile.TiffWriter(path, bigtiff=options.get("bigtiff", False)) as tif:
            for i, a in enumerate((fine, fine[::2, ::2])):
                tif.write(
                    a,
                    tile=(256, 256),
                    compression=compression,
                    photometric="rgb" if samples == 3 else "minisblack",
                    subfiletype=int(i > 0),
                    predictor=options.get("predictor", False),
                )
        return path

    return write


def mixed(path: Path) -> Path:
    """Each level another compression."""
    fine = smooth(512, 1024, 1)
    with tifffile.TiffWriter(path) as tif:
        for i, compression in enumerate(["jpeg", "deflate", "lzw"]):
            level = np.ascontiguousarray(fine[:: 2**i, :: 2**i])
            tif.write(level, tile=(128, 128), photometric="rgb", compression=compression, subfiletype=int(i > 0))
    return path


DIRECT: dict[str, Callable[[Path], Path]] = {
    "ycbcr444": ycbcr("444", (1, 1)),
    "ycbcr422": ycbcr("422", (2, 1)),
    "ycbcr420": ycbcr("420", (2, 2)),
    "rgb-adobe": rgb(),
    "rgb-unmarked": rgb(adobe=False),
    "tables-ycbcr": shared_tables("ycbcr", YCBCR),
    "tables-rgb": shared_tables("rgb", RGB),
    "ycbcr-called-rgb": lambda path: write_tiles(path, levels_of(lambda a: jpegs(a, "ycbcr", "420"), RGB)),
    "grey-jpeg": lambda path: write_tiles(
        path, [((HEIGHT, WIDTH), jpegs(smooth(HEIGHT, WIDTH)[..., 0], "grey"), {**RGB, "photometric": "minisblack"})]
    ),
    "aperio": aperio,
    "philips": philips,
    "deflate": plain("deflate"),
    "deflate-predictor": plain("deflate", predictor=True),
    "lzw": plain("lzw"),
    "none": plain(None),
    "grey-lzw": plain("lzw", samples=1),
    "bigtiff": plain("jpeg", bigtiff=True),
    "mixed": mixed,
}
