"""Levels that are read past OpenSlide: the same pixels in every compression and colour space, also of ill files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import SlideClosed, SlideError
from napari_mil.slide import open_slide
from napari_mil.slide.openslide_source import OpenSlideSource
from napari_mil.slide.source import PixelSource, block_shape, on_background
from napari_mil.slide.tiff_level import TiffLevel
from napari_mil.slide.tile_codecs import JpegCodec, TifffileCodec

from .conftest import Pixels, in_threads, pattern, write_pyramid
from .tiffs import (
    APERIO,
    DIRECT,
    HEIGHT,
    RGB,
    WIDTH,
    YCBCR,
    encoded,
    jpegs,
    levels_of,
    overwrite_entry,
    overwrite_tile,
    smooth,
    tables_of,
    tiles_of,
    write_tiles,
)

Known = tuple[PixelSource, list[Pixels]]
"""A source, and the pixels of each of its levels."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("direct")


def direct(source: PixelSource, level: int) -> TiffLevel | None:
    assert isinstance(source, OpenSlideSource)
    return source._direct.level(level)


def by_openslide(path: Path) -> list[Pixels]:
    """Each whole level."""
    with openslide.OpenSlide(path) as slide:
        levels = zip(range(slide.level_count), slide.level_dimensions, strict=True)
        return [on_background(np.asarray(slide.read_region((0, 0), i, size))) for i, size in levels]


def in_blocks(source: PixelSource, level: int) -> tuple[Pixels, list[SlideError | None]]:
    """A whole level by one call of `read_blocks`, grey where it failed, and its answers."""
    width, height = source.level_dimensions[level]
    block = source.block_size(level)
    places = [(c, r) for r in range(-(-height // block[1])) for c in range(-(-width // block[0]))]
    outs = [np.full(block_shape(source, level, *place), 77, np.uint8) for place in places]
    errors = source.read_blocks(level, places, outs)
    whole = np.zeros((height, width, 3), np.uint8)
    for (column, row), out, error in zip(places, outs, errors, strict=True):
        top, left = row * block[1], column * block[0]
        whole[top : top + block[1], left : left + block[0]] = out if error is None else 210
    return whole, errors


@pytest.mark.parametrize("kind", DIRECT)
def test_pixels_are_openslides(folder: Path, kind: str) -> None:
    path = DIRECT[kind](folder / f"{kind}.tif")
    expected = by_openslide(path)
    with open_slide(path) as slide:
        assert slide.vendor == (kind if kind in ("aperio", "philips") else "generic-tiff")
        for level, pixels in enumerate(expected):
            found = direct(slide.source, level)
            assert found is not None
            is_jpeg = kind not in ("deflate", "deflate-predictor", "lzw", "none", "grey-lzw")
            assert isinstance(found._codec, JpegCodec if is_jpeg and not (kind == "mixed" and level) else TifffileCodec)
            whole, errors = in_blocks(slide.source, level)
            assert errors == [None] * len(errors)
            np.testing.assert_array_equal(whole, pixels)
            np.testing.assert_array_equal(slide.source.read(level, 0, 0, *slide.level_dimensions[level]), pixels)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("kind", ["ycbcr420", "rgb-unmarked", "philips", "deflate"])
def test_regions_are_openslides(reference: Callable[[str], Known], kind: str, data: Any) -> None:
    source, expected = reference(kind)
    level = data.draw(st.integers(0, len(expected) - 1))
    height, width = expected[level].shape[:2]
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    np.testing.assert_array_equal(source.read(level, x, y, w, h), expected[level][y : y + h, x : x + w])


@pytest.fixture(scope="module")
def reference(folder: Path) -> Iterator[Callable[[str], Known]]:
    made: dict[str, Known] = {}

    def get(kind: str) -> Known:
        if kind not in made:
            path = DIRECT[kind](folder / f"region-{kind}.tif")
            made[kind] = OpenSlideSource(path), by_openslide(path)
        return made[kind]

    yield get
    for source, _ in made.values():
        source.close()


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("colours", ["ycbcr", "rgb"])
def test_ome_tiff_with_jpeg_in_subifds_equals_tifffile(tmp_path: Path, colours: str, bigtiff: bool) -> None:
    tables = tables_of(encoded(smooth(256, 256), colours))
    options = (YCBCR if colours == "ycbcr" else RGB) | {"jpegtables": tables}
    levels = levels_of(lambda a: jpegs(a, colours, adobe=False, jfif=False, tables=False), options)
    path = write_tiles(tmp_path / "a.ome.tif", levels, ome=True, subifds=True, bigtiff=bigtiff)
    with tifffile.TiffFile(path) as tif:
        expected = [level.asarray() for level in tif.series[0].levels]
    with open_slide(path) as slide:
        assert (slide.source.name, len(expected)) == ("tifffile", 2)
        for level, pixels in enumerate(expected):
            assert slide.source.block_size(level) == (256, 256)
            assert slide.source.can_halve(level)
            np.testing.assert_array_equal(in_blocks(slide.source, level)[0], pixels)


def test_levels_of_fractional_downsample_are_what_is_stored(tmp_path: Path) -> None:
    fine, coarse = smooth(1901, 2603, 1), smooth(475, 650, 2)
    path = write_tiles(tmp_path / "a.tif", [(a.shape, jpegs(a), YCBCR) for a in (fine, coarse)])
    with tifffile.TiffFile(path) as tif:
        stored = [page.asarray() for page in tif.pages]
    with open_slide(path) as slide:
        assert slide.level_downsamples[1] % 1
        for level, pixels in enumerate(stored):
            assert direct(slide.source, level) is not None
            np.testing.assert_array_equal(in_blocks(slide.source, level)[0], pixels)


def test_jpeg_2000_is_left_to_openslide_in_blocks_of_512(tmp_path: Path) -> None:
    def make(pixels: Pixels) -> list[bytes | None]:
        return [imagecodecs.jpeg2k_encode(tile, level=30, codecformat="j2k") for tile in tiles_of(pixels, 256)]

    first = {"description": APERIO.format(width=WIDTH - 1, height=HEIGHT), "metadata": None}
    levels = levels_of(make, {"photometric": "rgb", "compression": 33005})
    path = write_tiles(tmp_path / "a.svs", levels, first=first)
    with open_slide(path) as slide:
        source = slide.source
        assert direct(source, 0) is None
        assert source.block_size(0) == (512, 512)
        assert not source.can_halve(0)
        for level, pixels in enumerate(by_openslide(path)):
            whole, errors = in_blocks(source, level)
            assert errors == [None] * len(errors)
            np.testing.assert_array_equal(whole, pixels)


def test_colours_that_nothing_explains_are_left_to_openslide(tmp_path: Path) -> None:
    """Tags say YCbCr, Adobe's marker in the tiles says RGB; OpenSlide goes by the tags, libjpeg by the marker."""
    levels = levels_of(lambda a: jpegs(a, "rgb"), YCBCR | {"subsampling": (1, 1)})
    path = write_tiles(tmp_path / "a.tif", levels)
    with open_slide(path) as slide:
        for level, pixels in enumerate(by_openslide(path)):
            np.testing.assert_array_equal(slide.source.read(level, 0, 0, *slide.level_dimensions[level]), pixels)


def test_a_level_that_decodes_to_other_pixels_is_left_to_openslide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = DIRECT["ycbcr420"](tmp_path / "a.tif")
    expected = by_openslide(path)
    decode = JpegCodec.decode

    def slightly_wrong(self: JpegCodec, raw: memoryview, index: int, out: Pixels) -> None:
        decode(self, raw, index, out)
        out[0, 0, 0] ^= 1

    monkeypatch.setattr(JpegCodec, "decode", slightly_wrong)
    with open_slide(path) as slide:
        found = direct(slide.source, 0)
        assert found is None or isinstance(found._codec, TifffileCodec)
        np.testing.assert_array_equal(in_blocks(slide.source, 0)[0], expected[0])


def ruin(path: Path, tile: int, how: str) -> None:
    if how == "zeros":
        overwrite_tile(path, 0, tile)
    elif how == "truncated":
        with tifffile.TiffFile(path) as tif:
            page = tif.series[0].levels[0].keyframe
            raw = path.read_bytes()[page.dataoffsets[tile] :][: page.databytecounts[tile] // 2]
        overwrite_tile(path, 0, tile, raw)
        overwrite_entry(path, 0, tile, "TileByteCounts", len(raw))
    elif how == "other-size":
        overwrite_tile(path, 0, tile, encoded(np.full((64, 64, 3), 99, np.uint8)))
    elif how == "behind-end":
        overwrite_entry(path, 0, tile, "TileOffsets", path.stat().st_size + 5)
    elif how == "nowhere":
        overwrite_entry(path, 0, tile, "TileOffsets", 2**64 - 1)
    elif how == "endless":
        overwrite_entry(path, 0, tile, "TileByteCounts", 2**32 - 1)
    else:
        raise AssertionError(how)


@pytest.mark.parametrize("how", ["zeros", "truncated", "other-size", "behind-end", "nowhere", "endless"])
@pytest.mark.parametrize("kind", ["tif", "ome.tif"])
def test_one_bad_tile_spoils_no_other(tmp_path: Path, kind: str, how: str) -> None:
    fine = smooth(HEIGHT, WIDTH, 1)
    levels = [(fine.shape, jpegs(fine), YCBCR)]
    path = write_tiles(tmp_path / f"a.{kind}", levels, ome=kind == "ome.tif", bigtiff=True)
    with tifffile.TiffFile(path) as tif:
        expected = tif.series[0].asarray()
    ruin(path, 5, how)
    with open_slide(path) as slide:
        if how not in ("behind-end", "nowhere"):  # OpenSlide does not open that
            assert slide.source.name == ("openslide" if kind == "tif" else "tifffile")
        whole, errors = in_blocks(slide.source, 0)
        bad = np.zeros(whole.shape[:2], bool)
        bad[256:512, 256:512] = True
        np.testing.assert_array_equal(whole[~bad], expected[~bad])
        assert isinstance(errors[5], SlideError)
        assert path.name in str(errors[5])
        assert "cannot be read" in str(errors[5])
        assert errors[:5] + errors[6:] == [None] * 11
        with pytest.raises(SlideError, match="cannot be read"):
            slide.source.read(0, 500, 500, 30, 30)
        if slide.source.can_halve(0):
            with pytest.raises(SlideError, match="cannot be read"):
                slide.source.read_half(0, 250, 250, 30, 30)
        np.testing.assert_array_equal(slide.source.read(0, 512, 0, 100, 700), expected[:, 512:612])


@pytest.mark.parametrize("kind", ["tif", "ome.tif", "svs"])
def test_tiles_left_out_are_background(tmp_path: Path, kind: str) -> None:
    fine = smooth(HEIGHT, WIDTH - 1, 1)
    coarse = np.ascontiguousarray(fine[::2, ::2])
    tiles = jpegs(fine)
    tiles[0] = tiles[6] = None
    first = {"description": APERIO.format(width=WIDTH - 1, height=HEIGHT), "metadata": None} if kind == "svs" else None
    levels = [(fine.shape, tiles, YCBCR), (coarse.shape, jpegs(coarse), YCBCR)]
    path = write_tiles(
        tmp_path / f"a.{kind}", levels[: 1 if kind == "ome.tif" else 2], first=first, ome=kind == "ome.tif"
    )
    with open_slide(path) as slide:
        whole, errors = in_blocks(slide.source, 0)
        assert errors == [None] * len(errors)
        assert (whole[:256, :256] == 255).all()
        assert (whole[256:512, 512:768] == 255).all()
        assert not (whole[:256, 256:] == 255).all()
        if kind != "ome.tif":
            for level, pixels in enumerate(by_openslide(path)):
                np.testing.assert_array_equal(in_blocks(slide.source, level)[0], pixels)
        if slide.source.can_halve(0):
            assert (slide.source.read_half(0, 0, 0, 128, 128) == 255).all()


def test_many_threads_read_blocks(folder: Path) -> None:
    path = DIRECT["ycbcr420"](folder / "threads.tif")
    expected = by_openslide(path)[0]
    wrong: list[str] = []
    with open_slide(path) as slide:
        source = slide.source
        places = [(c, r) for r in range(3) for c in range(4)]

        def hammer(seed: int) -> None:
            rng = np.random.default_rng(seed)
            try:
                for _ in range(25):
                    batch = [places[i] for i in rng.integers(0, len(places), 6)]
                    outs = [np.empty(block_shape(source, 0, *place), np.uint8) for place in batch]
                    if source.read_blocks(0, batch, outs) != [None] * 6:
                        wrong.append("not read")
                    for (c, r), out in zip(batch, outs, strict=True):
                        if not np.array_equal(out, expected[r * 256 : r * 256 + 256, c * 256 : c * 256 + 256]):
                            wrong.append(f"{c} {r}")
            except Exception as error:  # a thread's failure must fail the test
                wrong.append(repr(error))

        in_threads(hammer)
    assert wrong == []


@pytest.mark.parametrize("kind", ["tif", "ome.tif"])
def test_closed_slides_give_no_blocks(tmp_path: Path, kind: str) -> None:
    path = write_pyramid(
        tmp_path / f"a.{kind}", [pattern(300, 300)], ome={"axes": "YXS"} if kind == "ome.tif" else None
    )
    slide = open_slide(path)
    source = slide.source
    out = np.empty(block_shape(source, 0, 0, 0), np.uint8)
    assert source.read_blocks(0, [(0, 0)], [out]) == [None]
    slide.close()
    for _ in range(2):
        with pytest.raises(SlideClosed, match="was closed"):
            source.read_blocks(0, [(0, 0)], [out])


def test_every_readable_file_of_the_real_data_equals_its_reference(shared_data: Path) -> None:
    import PIL.Image

    folder = shared_data / "wsi"
    dicom = max((folder / "CMU-1-Small-Region-dicom").glob("*.dcm"), key=lambda p: p.stat().st_size)
    for path in [*sorted(folder.iterdir()), dicom]:
        try:
            slide = open_slide(path)
        except SlideError:
            assert path.name in ("broken.svs", "unopenable.tiff", "unreadable.svs")
            continue
        with slide:
            if slide.source.name == "openslide":
                expected = by_openslide(dicom if path.is_dir() else path)
            else:
                expected = [np.asarray(PIL.Image.open(path).convert("RGB"))]
            assert len(expected) == len(slide.level_dimensions)
            for level, pixels in enumerate(expected):
                if slide.level_downsamples[level] % 1 == 0:
                    np.testing.assert_array_equal(in_blocks(slide.source, level)[0], pixels, err_msg=path.name)
