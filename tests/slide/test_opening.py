"""Which files open, with what scale, and the sentence each of the others gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_mil.errors import SlideError
from napari_mil.slide import Slide, open_slide
from napari_mil.slide.darkness import LOOKS_FLUORESCENT
from napari_mil.slide.source import PixelSource, checked_mpp, mpp_from_resolution, plausible_mpp

from .conftest import Pixels, pattern, write_pyramid


@pytest.mark.parametrize(
    ("name", "vendor", "size", "mpp", "associated"),
    [
        ("CMU-1-Small-Region.svs", "aperio", (2220, 2967), (0.499, 0.499), {"label", "macro", "thumbnail"}),
        ("CMU-1-Small-Region-dicom", "dicom", (2220, 2967), (0.499, 0.499), {"label", "macro", "thumbnail"}),
        ("test3-DAPI-2-(387).ndpi", "hamamatsu", (3968, 4864), (0.22818, 0.22818), {"macro"}),
        ("kidney-48-5.tif", "tiff", (1493, 901), None, set()),
        ("slide.jpeg", "jpeg", (2500, 2500), None, set()),
        ("boxes.tiff", "generic-tiff", (300, 250), None, set()),
        ("boxes_0.dcm", "dicom", (16, 16), (0.499, 0.499), {"thumbnail"}),
        ("boxes_1.dcm", "dicom", (16, 16), (0.499, 0.499), {"thumbnail"}),
    ],
)
def test_real_slides_open_and_read(
    shared_data: Path, name: str, vendor: str, size: tuple[int, int], mpp: Any, associated: set[str]
) -> None:
    with open_slide(shared_data / "wsi" / name) as slide:
        assert isinstance(slide, Slide)
        assert isinstance(slide.source, PixelSource)
        assert (slide.vendor, slide.dimensions) == (vendor, size)
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp, abs=1e-5))
        assert slide.mpp_source == ("file" if mpp else None)
        assert set(slide.associated) == associated
        for key in associated:
            assert slide.associated[key].ndim == 3
        assert "nothing" not in slide.associated
        assert slide.bounds == (0, 0, *size)
        assert max(slide.levels[-1].shape[:2]) <= 1024
        middle = slide.read(size[0] // 2, size[1] // 2, 64, 64)
        inside = min(64, size[0] - size[0] // 2), min(64, size[1] - size[1] // 2)
        shown = slide.levels[0][size[1] // 2 : size[1] // 2 + 64, size[0] // 2 : size[0] // 2 + 64]
        np.testing.assert_array_equal(middle[: inside[1], : inside[0]], shown)
        assert slide.thumbnail(200).shape[2] == 3
        assert [*slide.problems] == ([LOOKS_FLUORESCENT] if "DAPI" in name else [])


def test_pixels_are_openslides_on_real_slides(shared_data: Path) -> None:
    import openslide

    for name in ("CMU-1-Small-Region.svs", "test3-DAPI-2-(387).ndpi"):
        path = shared_data / "wsi" / name
        with open_slide(path) as slide, openslide.OpenSlide(path) as plain:
            for level, (width, height) in enumerate(slide.level_dimensions):
                at = (1001, 777)
                w, h = min(300, width), min(200, height)
                rgba = np.asarray(plain.read_region(at, level, (w, h)))
                if rgba[..., 3].min() == 255 and slide.level_downsamples[level] == 1:
                    np.testing.assert_array_equal(slide.read(*at, w, h, level), rgba[..., :3])


def test_any_file_of_a_dicom_slide_is_the_slide(shared_data: Path) -> None:
    folder = shared_data / "wsi" / "CMU-1-Small-Region-dicom"
    prints = set()
    for path in [folder, *folder.glob("*.dcm")]:
        with open_slide(path) as slide:
            prints.add(slide.fingerprint)
            assert slide.dimensions == (2220, 2967)
    assert len(prints) == 1


@pytest.mark.parametrize("name", ["broken.svs", "unopenable.tiff", "unreadable.svs"])
def test_real_damaged_files_get_a_sentence(shared_data: Path, name: str) -> None:
    with pytest.raises(SlideError) as error:
        open_slide(shared_data / "wsi" / name)
    assert name in str(error.value)
    assert_sentence(str(error.value))


def assert_sentence(text: str) -> None:
    assert len(text) > 40
    assert text.rstrip().endswith((".", "?", "`."))
    assert "Traceback" not in text


def refused(path: Path, match: str) -> None:
    with pytest.raises(SlideError, match=match) as error:
        open_slide(path)
    assert_sentence(str(error.value))


def test_missing_empty_folder_and_foreign_files(tmp_path: Path) -> None:
    refused(tmp_path / "gone.svs", "does not exist")
    refused(tmp_path, "is a folder with no DICOM slides")
    (tmp_path / "empty.svs").touch()
    refused(tmp_path / "empty.svs", r"empty\.svs is empty")
    (tmp_path / "text.svs").write_text("not a slide at all, " * 10)
    refused(tmp_path / "text.svs", "not a slide that can be read")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 30)
    refused(tmp_path / "cut.png", r"cut\.png")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pyramid(tmp_path / "a.tiff", [pattern(64, 64)])

    def forbidden(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", forbidden)
    refused(path, "may not be read by you")


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7])
@pytest.mark.parametrize("kind", ["jpeg", "png", "strips.tif", "ome.tif"])
def test_files_cut_short(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / f"slide.{kind}"
    pixels = np.kron(pattern(60, 60), np.ones((8, 8, 1), np.uint8))
    if kind == "ome.tif":
        write_pyramid(path, [pixels], ome={"axes": "YXS"}, subifds=True, tile=64)
    elif kind == "strips.tif":
        tifffile.imwrite(path, pixels, photometric="rgb", rowsperstrip=16)
    else:
        Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    sentence = ""
    try:
        with open_slide(path) as slide:  # where a TIFF's head says all, what is there is shown, and the rest named
            slide.levels[0][:]
            sentence = " ".join(slide.problems)
    except SlideError as error:
        sentence = str(error)
    assert path.name in sentence
    assert_sentence(sentence)


def test_the_next_image_lies_where_no_file_reaches(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pattern(300, 300), bigtiff=True, tile=(256, 256), metadata=None)
    with tifffile.TiffFile(path) as tif:
        link = tif.pages[0].offset + 8 + 20 * len(tif.pages[0].tags)
    data = bytearray(path.read_bytes())
    data[link : link + 8] = b"\xff" * 8
    path.write_bytes(data)
    with open_slide(path) as slide:
        assert "it speaks of an image at byte 18,446,744,073,709,551,615" in slide.problems[-1]


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_a_lost_end_is_told_although_all_pixels_are_there(
    tmp_path: Path, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "slide.tif"
    pixels = np.kron(pattern(60, 60), np.ones((8, 8, 1), np.uint8))
    with tifffile.TiffWriter(path, **options) as tif:
        tif.write(pixels, photometric="rgb", tile=(64, 64))
        tif.write(pixels[::2, ::2], photometric="rgb", tile=(64, 64), subfiletype=1)
    with open_slide(path) as slide:
        assert slide.problems == []
    with tifffile.TiffFile(path) as tif:
        end = tif.pages[1].offset
    path.write_bytes(path.read_bytes()[:end])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.levels[0][:], pixels)
        assert len(slide.problems) == 1
        assert f"slide.tif is cut short: it speaks of an image at byte {end:,}" in slide.problems[0]
        assert_sentence(slide.problems[0])
    assert capfd.readouterr().err == ""


def test_a_tiff_whose_list_of_images_is_lost_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    path.write_bytes(b"II*\0" + (10**6).to_bytes(4, "little") + bytes(100))
    refused(path, "it holds no image")


def test_a_slide_that_fails_half_way_shows_what_it_has(tmp_path: Path) -> None:
    pixels = np.kron(pattern(130, 160), np.ones((8, 8, 1), np.uint8))  # 1280 x 1040
    path = write_pyramid(tmp_path / "half.tiff", [pixels], compression="jpeg", tile=256)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        offset, count = page.dataoffsets[2], page.databytecounts[2]  # columns 512–767 of the first row
    with open_slide(path) as slide:
        whole = slide.levels[0][:].copy()
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\0" * count
    path.write_bytes(data)
    with open_slide(path) as slide:
        got = slide.levels[0][:]
        bad = np.zeros(got.shape[:2], bool)
        bad[:256, 512:768] = True
        np.testing.assert_array_equal(got[~bad], whole[~bad])
        assert (got[bad] == 210).all()
        assert len(slide.problems) == 1
        assert "half.tiff: the region at x=512, y=0 of level 0 cannot be read" in slide.problems[0]
        np.testing.assert_array_equal(slide.read(0, 600, 200, 200), whole[600:800, :200])
        with pytest.raises(SlideError, match="cannot be read"):
            slide.read(600, 100, 50, 50)
        np.testing.assert_array_equal(slide.read(1024, 0, 200, 200), whole[:200, 1024:1224])


@pytest.mark.parametrize("tiled", [False, True])
def test_giants_without_pyramid_are_refused_before_they_are_read(tmp_path: Path, tiled: bool) -> None:
    path = tmp_path / "giant.tif"
    tifffile.imwrite(
        path,
        np.zeros((32, 20_016, 3), np.uint8),
        photometric="rgb",
        tile=(16, 16) if tiled else None,
        compression="lzw",
    )
    refused(path, "20016 x 32 pixels without smaller levels")
    Image.new("RGB", (20_001, 8)).save(tmp_path / "giant.png")
    refused(tmp_path / "giant.png", "20001 x 8 pixels without smaller levels")


@pytest.mark.parametrize("name", ["schön [2] (1) µ 日本.tiff", "a b#c%20.TIF", "none", "wrong.svs", "wrong.jpg"])
def test_names_do_not_matter(tmp_path: Path, name: str) -> None:
    levels = [pattern(1200, 1100)]
    with open_slide(write_pyramid(tmp_path / name, levels)) as slide:
        np.testing.assert_array_equal(slide.read(100, 50, 30, 20), levels[0][50:70, 100:130])
        with open_slide(str(tmp_path / name)) as again:
            assert again.fingerprint == slide.fingerprint


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "jpg"])
def test_plain_images_open(tmp_path: Path, suffix: str) -> None:
    pixels = np.kron(pattern(100, 130), np.ones((16, 16, 1), np.uint8))
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    wanted = np.asarray(Image.open(path).convert("RGB"))
    with open_slide(path) as slide:
        assert (slide.source.name, slide.dimensions, slide.mpp) == ("plain", (2080, 1600), None)
        np.testing.assert_array_equal(slide.levels[0][:], wanted)
        assert [level.shape[:2] for level in slide.levels] == [(1600, 2080), (800, 1040), (400, 520)]


def test_transparent_and_palette_images_lie_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((40, 50, 4), np.uint8)
    rgba[:20] = (10, 20, 30, 255)
    rgba[20:30] = (0, 0, 0, 128)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    with open_slide(tmp_path / "alpha.png") as slide:
        got = slide.read(0, 0, 50, 40)
        assert (got[:20] == (10, 20, 30)).all()
        assert (got[20:30] == 127).all()
        assert (got[30:] == 255).all()
    palette = Image.fromarray(rgba[..., :3]).quantize(8)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "palette.tif")
    for name in ("palette.png", "palette.tif"):
        with open_slide(tmp_path / name) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 50, 20), np.asarray(palette.convert("RGB"))[:20])


def test_deep_png_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(tmp_path / "deep.png")
    refused(tmp_path / "deep.png", "more than 8 bits")


def test_white_is_zero_and_one_bit_and_planar_tiffs(tmp_path: Path) -> None:
    grey = pattern(70, 90)[..., 0]
    tifffile.imwrite(tmp_path / "inverted.tif", grey, photometric="miniswhite")
    planar = np.moveaxis(pattern(70, 90), -1, 0)
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "bits.tif", grey > 99, photometric="minisblack")
    for name, wanted in (
        ("inverted.tif", np.repeat(255 - grey[..., None], 3, axis=2)),
        ("planar.tif", np.moveaxis(planar, 0, -1)),
        ("bits.tif", np.repeat(((grey > 99) * 255)[..., None], 3, axis=2)),
    ):
        with open_slide(tmp_path / name) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 90, 70), wanted)


@pytest.mark.parametrize(
    ("unit", "resolution", "mpp"),
    [
        ("CENTIMETER", (20_000, 40_000), (0.5, 0.25)),
        ("INCH", (50_800, 50_800), (0.5, 0.5)),
        ("NONE", (20_000, 20_000), None),
        ("INCH", (72, 72), None),
        ("CENTIMETER", (10_000_000, 10_000_000), None),
    ],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_mpp_from_resolution_tags(tmp_path: Path, unit: str, resolution: Any, mpp: Any, tiled: bool) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        pattern(64, 64),
        photometric="rgb",
        resolution=resolution,
        resolutionunit=unit,
        tile=(16, 16) if tiled else None,
    )
    with open_slide(path) as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-5))
        assert slide.mpp_source == ("file" if mpp else None)
        slide.set_mpp(0.3)
        assert (slide.mpp, slide.mpp_source) == ((0.3, 0.3), "user")
        slide.set_mpp(None)
        assert slide.mpp_source == ("file" if mpp else None)


def test_mpp_of_a_person(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tiff", [pattern(64, 64)])
    with open_slide(path, mpp=(0.25, 0.5)) as slide:
        assert (slide.mpp, slide.mpp_source) == ((0.25, 0.5), "user")
        assert slide.levels_mpp == ((0.25, 0.5),)
    for nonsense in (0, -1, 352.8, float("nan"), "x", (1, 2, 3), (0.5, 1e9)):
        with pytest.raises(SlideError, match="not possible"):
            open_slide(path, mpp=nonsense)  # type: ignore[arg-type]
    assert checked_mpp("0.5") == (0.5, 0.5)
    assert plausible_mpp(None, 0.5) is None
    assert mpp_from_resolution((0, 0), (1, 1), 2) is None


def test_ome_units(tmp_path: Path) -> None:
    for unit, size, wanted in (("nm", 250.0, 0.25), ("mm", 0.0005, 0.5), ("pixel", 0.5, None), ("µm", 900.0, None)):
        ome = {"PhysicalSizeX": size, "PhysicalSizeY": size, "PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
        path = write_pyramid(tmp_path / f"{unit}.ome.tif", [pattern(64, 64)], mpp=None, ome=ome | {"axes": "YXS"})
        with open_slide(path) as slide:
            assert slide.mpp == (None if wanted is None else pytest.approx((wanted, wanted)))


def test_opening_leaves_no_handle_open(tmp_path: Path, pyramid_file: tuple[Path, list[Pixels]]) -> None:
    """A file can be removed or replaced after closing, also where open files cannot (Windows)."""
    import psutil

    path = write_pyramid(tmp_path / "a.ome.tif", [pattern(300, 300)], ome={"axes": "YXS"}, tile=64)
    for file in (path, pyramid_file[0]):
        with open_slide(file) as slide:
            slide.read(0, 0, 10, 10, len(slide.level_dimensions) - 1)
            slide.levels[-1][:]
        del slide
        assert str(file) not in {f.path for f in psutil.Process().open_files()}


def test_messages_are_free_of_paths_of_others(tmp_path: Path) -> None:
    (tmp_path / "x.svs").write_bytes(b"hello hello")
    with pytest.raises(SlideError) as error:
        open_slide(tmp_path / "x.svs")
    assert re.match(r"x\.svs is not a slide", str(error.value))
