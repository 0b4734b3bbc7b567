"""Files that hold no one plane of 8-bit grey or colour: a sentence for each kind, whoever could read a part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_mil.errors import SlideError
from napari_mil.slide import open_slide

from .conftest import pattern

TILES = {"tile": (256, 256)}


def image(*shape: int, dtype: str = "u1") -> Any:
    values = np.random.default_rng(0).random(shape)
    return values.astype(dtype) if dtype[0] == "f" else (values * np.iinfo(dtype).max).astype(dtype)


def spectral(samples: int) -> dict[str, Any]:
    extra = ("unspecified",) * (samples - 1)
    return {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": extra}


@pytest.mark.parametrize("tiles", [TILES, {}])
@pytest.mark.parametrize(
    ("name", "shape", "dtype", "options", "sentence"),
    [
        ("z.ome.tif", (5, 300, 400, 3), "u1", {"metadata": {"axes": "ZYXS"}}, "z-stack of 5 planes"),
        ("t.ome.tif", (4, 300, 400, 3), "u1", {"metadata": {"axes": "TYXS"}}, "time series of 4 images"),
        ("c.ome.tif", (4, 300, 400), "u1", {"metadata": {"axes": "CYX"}}, "4 channels, as fluorescence"),
        ("c16.ome.tif", (4, 300, 400), "u2", {"metadata": {"axes": "CYX"}}, "4 channels, as fluorescence"),
        ("rgb16.ome.tif", (300, 400, 3), "u2", {"metadata": {"axes": "YXS"}}, r"16-bit pixels \(uint16\)"),
        ("rgb16.tif", (300, 400, 3), "u2", {"photometric": "rgb"}, r"16-bit pixels \(uint16\)"),
        ("grey16.tif", (300, 400), "u2", {}, r"16-bit pixels \(uint16\)"),
        ("float.tif", (300, 400), "f4", {}, "32-bit floating-point pixels"),
        ("pages.tif", (5, 300, 400, 3), "u1", {"photometric": "rgb"}, r"several images \(5 pages\)"),
        ("planar.tif", (4, 300, 400), "u1", {"photometric": "minisblack", "planarconfig": "separate"}, "4 channels"),
        ("four.tif", (300, 400, 4), "u1", spectral(4), "4 channels"),
        ("seven.tif", (300, 400, 7), "u1", spectral(7), "7 channels"),
    ],
)
def test_refused(
    tmp_path: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    options: dict[str, Any],
    sentence: str,
    tiles: dict[str, Any],
) -> None:
    tifffile.imwrite(tmp_path / name, image(*shape, dtype=dtype), **options, **tiles)
    with pytest.raises(SlideError, match=sentence) as error:
        open_slide(tmp_path / name)
    assert str(error.value).startswith(name)
    assert str(error.value).endswith(".")
    assert "export" in str(error.value)


@pytest.mark.parametrize("tiles", [TILES, {}])
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
def test_a_palette_is_shown_in_its_colours(tmp_path: Path, name: str, tiles: dict[str, Any]) -> None:
    indices = pattern(300, 400)[..., 0]
    colours = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    table = colours.T.astype(np.uint16) * 257
    more = {"metadata": {"axes": "YX"}} if "ome" in name else {}
    tifffile.imwrite(tmp_path / name, indices, photometric="palette", colormap=table, **more, **tiles)
    with open_slide(tmp_path / name) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 400, 300), colours[indices])


@pytest.mark.parametrize("ome", [True, False])
@pytest.mark.parametrize("first", ["small", "large"])
def test_of_several_images_the_largest_is_shown_and_the_others_named(tmp_path: Path, ome: bool, first: str) -> None:
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    large, small = pattern(600, 700), pattern(300, 900)
    with tifffile.TiffWriter(path, ome=ome) as tif:
        for pixels in (small, large) if first == "small" else (large, small):
            tif.write(pixels, photometric="rgb", **TILES, **({"metadata": {"axes": "YXS"}} if ome else {}))
    with open_slide(path) as slide:
        assert slide.problems == [f"{path.name} holds 2 images; the largest of them (700 x 600 pixels) is shown."]
        np.testing.assert_array_equal(slide.read(0, 0, 700, 600), large)


def test_labels_and_smaller_copies_are_no_further_images(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(pattern(600, 700), photometric="rgb", subifds=1, metadata={"axes": "YXS"}, **TILES)
        tif.write(pattern(300, 350), photometric="rgb", subfiletype=1, **TILES)
        tif.write(pattern(90, 80), photometric="rgb", metadata={"axes": "YXS", "Name": "label"})
    with open_slide(path) as slide:
        assert slide.problems == []
        assert slide.level_dimensions == ((700, 600), (350, 300))
        assert set(slide.associated) == {"label"}


@pytest.mark.parametrize(
    ("tag", "value", "sentence"),
    [
        (b"\x48\x00\x03\x03UL\x04\x00", 3, "is a z-stack of 3 planes"),
        (b"\x28\x00\x00\x01US\x02\x00", 16, r"has 16-bit pixels \(uint16\)"),
    ],
)
def test_dicom_of_other_kinds(tmp_path: Path, shared_data: Path, tag: bytes, value: int, sentence: str) -> None:
    for path in (shared_data / "wsi" / "CMU-1-Small-Region-dicom").glob("*.dcm"):
        content = bytearray(path.read_bytes())
        at = content.index(tag) + len(tag)
        content[at] = value
        (tmp_path / path.name).write_bytes(content)
    for path in (tmp_path, *tmp_path.glob("*.dcm")):
        with pytest.raises(SlideError, match=sentence):
            open_slide(path)
