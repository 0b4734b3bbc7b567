"""`read` against numpy, for every level and beyond every edge."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import SlideError
from napari_mil.slide import open_slide

from .conftest import Pixels, pattern, write_pyramid


def expected(
    levels: list[Pixels], downsamples: tuple[float, ...], x: int, y: int, w: int, h: int, level: int
) -> Pixels:
    """White paper with the level on it, cut out."""
    image = levels[level]
    left, top = math.floor(x / downsamples[level] + 0.5), math.floor(y / downsamples[level] + 0.5)
    out = np.full((h, w, 3), 255, np.uint8)
    for row in range(h):
        if 0 <= top + row < image.shape[0]:
            columns = np.arange(left, left + w)
            inside = (columns >= 0) & (columns < image.shape[1])
            out[row, inside] = image[top + row, columns[inside]]
    return out


@given(
    x=st.integers(-200, 2800),
    y=st.integers(-200, 2100),
    w=st.integers(0, 140),
    h=st.integers(0, 140),
    level=st.integers(0, 2),
)
@settings(max_examples=120, deadline=None)
def test_read_is_the_array(pyramid_file: tuple[Path, list[Pixels]], x: int, y: int, w: int, h: int, level: int) -> None:
    path, levels = pyramid_file
    with open_slide(path) as slide:
        assert slide.vendor == "generic-tiff"
        got = slide.read(x, y, w, h, level)
        assert got.dtype == np.uint8
        assert got.shape == (h, w, 3)
        np.testing.assert_array_equal(got, expected(levels, slide.level_downsamples, x, y, w, h, level))


@given(x=st.integers(-50, 700), y=st.integers(-50, 500), w=st.integers(1, 90), h=st.integers(1, 90))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_read_of_ome_tiff_is_the_array(ome_file: tuple[Path, list[Pixels]], level: int, x: int, y: int, w: int, h: int):
    path, levels = ome_file
    with open_slide(path) as slide:
        assert slide.source.name == "tifffile"
        got = slide.read(x, y, w, h, level)
        np.testing.assert_array_equal(got, expected(levels, slide.level_downsamples, x, y, w, h, level))


@pytest.fixture(scope="module")
def ome_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Pixels]]:
    levels = [pattern(430, 650, 4), pattern(215, 325, 5), pattern(107, 162, 6)]
    ome = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.3, "axes": "YXS"}
    path = tmp_path_factory.mktemp("ome") / "slide.ome.tif"
    return write_pyramid(path, levels, mpp=None, tile=64, subifds=True, ome=ome), levels


def test_ome_tiff_has_its_subifd_levels_and_physical_size(ome_file: tuple[Path, list[Pixels]]) -> None:
    path, levels = ome_file
    with open_slide(path) as slide:
        assert slide.vendor == "ome-tiff"
        assert slide.level_dimensions == tuple((a.shape[1], a.shape[0]) for a in levels)
        assert slide.mpp == (0.25, 0.3)
        assert slide.mpp_source == "file"


def test_levels_of_fractional_downsample_are_not_interpolated(pyramid_file: tuple[Path, list[Pixels]]) -> None:
    """OpenSlide mixes neighbours where a pixel begins between two level-0 pixels; we give what is stored."""
    path, levels = pyramid_file
    import openslide

    with open_slide(path) as slide, openslide.OpenSlide(path) as plain:
        assert slide.level_downsamples[1] != 4
        x, y = 1500, 1200
        own = slide.read(x, y, 50, 50, 1)
        left, top = (math.floor(v / slide.level_downsamples[1] + 0.5) for v in (x, y))
        np.testing.assert_array_equal(own, levels[1][top : top + 50, left : left + 50])
        mixed = np.asarray(plain.read_region((x, y), 1, (50, 50)))[..., :3]
        assert not np.array_equal(own, mixed)


@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "jpeg", "webp", "jpeg2000"])
@pytest.mark.parametrize("subifds", [False, True])
def test_every_compression_equals_tifffile(tmp_path: Path, compression: str | None, subifds: bool) -> None:
    smooth = np.kron(pattern(20, 24), np.ones((16, 16, 1), np.uint8))
    path = write_pyramid(
        tmp_path / "a.ome.tif" if subifds else tmp_path / "a.tif",
        [smooth, np.ascontiguousarray(smooth[::2, ::2])],
        compression=compression,
        tile=128,
        subifds=subifds,
        ome={"axes": "YXS"} if subifds else None,
    )
    import tifffile

    with tifffile.TiffFile(path) as tif:
        reference = [level.asarray() for level in tif.series[0].levels]
    with open_slide(path) as slide:
        assert len(slide.level_dimensions) == 2
        for level, pixels in enumerate(reference):
            np.testing.assert_array_equal(slide.read(0, 0, *slide.level_dimensions[level], level), pixels)


@pytest.mark.parametrize("samples", [1, 4])
def test_grey_and_alpha_become_rgb(tmp_path: Path, samples: int) -> None:
    import tifffile

    pixels = np.random.default_rng(0).integers(0, 256, (300, 310, samples), dtype=np.uint8)
    path = tmp_path / "a.ome.tif"
    shape = pixels[..., 0] if samples == 1 else pixels
    tifffile.imwrite(
        path,
        shape,
        tile=(64, 64),
        photometric="minisblack" if samples == 1 else "rgb",
        extrasamples=None if samples == 1 else ["unassalpha"],
        metadata={"axes": "YX" if samples == 1 else "YXS"},
    )
    with open_slide(path) as slide:
        got = slide.read(0, 0, 310, 300).astype(float)
    if samples == 1:
        wanted = np.repeat(pixels, 3, axis=2).astype(float)
    else:
        alpha = pixels[..., 3:] / 255
        wanted = pixels[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(got - wanted).max() <= 0.5 + 1e-9


def test_sparse_tiles_are_white(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.ome.tif", [pattern(200, 200)], tile=64, subifds=True, ome={"axes": "YXS"})
    with open_slide(path) as slide:
        level = slide.source._levels[0]  # type: ignore[attr-defined]
        level._counts[0] = 0
        got = slide.read(0, 0, 100, 100)
        assert (got[:64, :64] == 255).all()
        assert not (got[64:] == 255).all()


def test_impossible_regions_are_refused(pyramid_file: tuple[Path, list[Pixels]]) -> None:
    with open_slide(pyramid_file[0]) as slide:
        with pytest.raises(SlideError, match="has no level 3; it has 3"):
            slide.read(0, 0, 10, 10, 3)
        with pytest.raises(SlideError, match="-1 x 5"):
            slide.read(0, 0, -1, 5)
        with pytest.raises(SlideError, match="take a smaller region"):
            slide.read(0, 0, 100_000, 100_000)
    with pytest.raises(SlideError, match="was closed"):
        slide.read(0, 0, 10, 10)


def test_fingerprint_follows_content_not_place(pyramid_file: tuple[Path, list[Pixels]], tmp_path: Path) -> None:
    path, levels = pyramid_file
    copy = tmp_path / "copy [1] ü.tiff"
    copy.write_bytes(path.read_bytes())
    other = write_pyramid(tmp_path / "other.tiff", [levels[0][::-1], *levels[1:]])
    with open_slide(path) as a, open_slide(copy) as b, open_slide(other) as c:
        assert a.fingerprint == b.fingerprint
        assert a.fingerprint != c.fingerprint
        assert len(a.fingerprint) == 64
