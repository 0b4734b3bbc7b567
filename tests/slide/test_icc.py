"""Colours in sRGB where a person asks for it: by which profile, at what price, and what stays as it is."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from napari_mil.slide import open_slide
from napari_mil.slide.icc import AS_STORED, SrgbSource, icc_profile, profile_title
from napari_mil.slide.source import PixelSource, block_shape

from .conftest import FakeSource, Pixels, halved, in_threads, pattern, write_pyramid

SRGB_MATRIX = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]


def rgb_profile(gamma: float, *, swap: bool = False, space: bytes = b"RGB ") -> bytes:
    """An ICC profile with the primaries of sRGB and another gamma; with `swap` its red is blue."""

    def xyz(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    primaries = SRGB_MATRIX[::-1] if swap else SRGB_MATRIX
    text = b"Test scanner\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * (4 + 4 + 2 + 1 + 67)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= {name: xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    head = bytearray(128)
    head[0:4] = struct.pack(">I", 128 + len(table) + len(body))
    head[8:12], head[12:24], head[36:40] = b"\x02\x10\0\0", b"scnr" + space + b"XYZ ", b"acsp"
    head[64:68] = struct.pack(">I", 1)  # relative colorimetric
    head[68:80] = xyz((0.9642, 1.0, 0.8249))[8:]
    return bytes(head) + table + body


def converted(pixels: Pixels, profile: bytes) -> Pixels:
    """What Pillow makes of the pixels, all at once."""
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), "RGB", "RGB", 1
    )
    image = ImageCms.applyTransform(Image.fromarray(pixels), transform)
    assert image is not None
    return np.asarray(image)


SWAPPED = rgb_profile(2.2, swap=True)
LINEAR = rgb_profile(1.0)


def tagged_tiff(path: Path, levels: list[Pixels], profile: bytes | None = LINEAR, **options: Any) -> Path:
    """A tiled TIFF pyramid with a profile in its first image."""
    extra = [] if profile is None else [(34675, 7, len(profile), profile, True)]
    with tifffile.TiffWriter(path, ome=options.pop("ome", False)) as tif:
        for index, level in enumerate(levels):
            tags = {"extratags": extra} if index == 0 else {"subfiletype": 1}
            tif.write(level, tile=(256, 256), photometric="rgb", compression="deflate", **tags, **options)
    return path


def test_the_profile_says_what_colours_mean(tmp_path: Path) -> None:
    levels = [pattern(700, 900), pattern(350, 450, 1)]
    path = tagged_tiff(tmp_path / "a.tif", levels)
    with open_slide(path) as stored, open_slide(path, srgb=True) as slide:
        assert isinstance(slide.source, SrgbSource)
        assert isinstance(slide.source, PixelSource)
        assert stored.color == AS_STORED == "as stored"
        assert slide.color.startswith("sRGB by the profile “Test scanner” (sha256 ")
        assert slide.color.endswith("), relative colorimetric")
        assert slide.fingerprint == stored.fingerprint
        np.testing.assert_array_equal(stored.read(0, 0, 900, 700), levels[0])
        for index, level in enumerate(levels):
            h, w = level.shape[:2]
            np.testing.assert_array_equal(slide.read_native(index, 0, 0, w, h), converted(level, LINEAR))
        np.testing.assert_array_equal(slide.read(-1, 0, 1, 1), [[[255, 255, 255]]])
        assert not np.array_equal(slide.thumbnail(100), stored.thumbnail(100))
        np.testing.assert_array_equal(slide.levels[0][100:300, 10:500], converted(levels[0], LINEAR)[100:300, 10:500])


def test_red_and_blue_change_places(tmp_path: Path) -> None:
    pixels = np.zeros((300, 300, 3), np.uint8)
    pixels[..., 0] = 200
    with open_slide(tagged_tiff(tmp_path / "a.tif", [pixels], SWAPPED), srgb=True) as slide:
        red, _, blue = slide.read(10, 10, 1, 1)[0, 0]
        assert blue > 190
        assert red < 20


@pytest.mark.parametrize("kind", ["png", "jpg", "ome.tif", "strips.tif", "svs"])
def test_profiles_of_all_kinds_of_files(tmp_path: Path, kind: str, shared_data: Path) -> None:
    pixels = np.kron(pattern(40, 40), np.ones((8, 8, 1), np.uint8))
    path = tmp_path / f"a.{kind}"
    if kind in ("png", "jpg"):
        Image.fromarray(pixels).save(path, icc_profile=LINEAR)
    elif kind == "ome.tif":
        tagged_tiff(path, [pixels], ome=True)
    elif kind == "svs":
        path = shared_data / "wsi" / "boxes_0.dcm"
    else:
        tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(34675, 7, len(LINEAR), LINEAR, True)])
    profile = icc_profile(path)
    title = profile_title(path)
    assert profile is not None
    assert title is not None
    assert kind == "svs" or profile == LINEAR
    with open_slide(path) as stored, open_slide(path, srgb=True) as slide:
        assert title in slide.color
        w, h = slide.dimensions
        if kind != "svs":
            np.testing.assert_array_equal(slide.read(0, 0, w, h), converted(stored.read(0, 0, w, h), LINEAR))
        for name in slide.associated:
            np.testing.assert_array_equal(slide.associated[name], stored.associated[name])


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (None, "the file has no colour profile"),
        (b"no profile at all " * 20, "the file's colour profile cannot be used"),
        (rgb_profile(2.0, space=b"CMYK"), "cannot be used (it is one of CMYK, not of RGB)"),
    ],
)
def test_without_a_profile_that_can_be_used_colours_stay(tmp_path: Path, profile: bytes | None, reason: str) -> None:
    level = pattern(300, 300)
    with open_slide(tagged_tiff(tmp_path / "a.tif", [level], profile), srgb=True) as slide:
        assert slide.color.startswith("sRGB assumed: ")
        assert reason in slide.color
        np.testing.assert_array_equal(slide.read(0, 0, 300, 300), level)


def source_of(level: Pixels) -> tuple[SrgbSource, FakeSource]:
    fake = FakeSource([level])
    return SrgbSource(fake, ImageCms.ImageCmsProfile(io.BytesIO(LINEAR))), fake


def test_blocks_and_halves_are_converted_too() -> None:
    level = pattern(900, 1100)
    source, fake = source_of(level)
    expected = converted(level, LINEAR)
    blocks = [(0, 0), (2, 1), (1, 0)]
    fake.fails = lambda _, x, y: (x, y) == (1024, 512)
    outs = [np.empty(block_shape(source, 0, *block), np.uint8) for block in blocks]
    errors = source.read_blocks(0, blocks, outs)
    assert [error is None for error in errors] == [True, False, True]
    np.testing.assert_array_equal(outs[0], expected[:512, :512])
    np.testing.assert_array_equal(outs[2], expected[:512, 512:1024])
    assert not source.can_halve(0)
    half = halved(level)
    fake.can_halve = lambda _: True  # type: ignore[method-assign]
    fake.read_half = lambda _, x, y, w, h: half[y : y + h, x : x + w].copy()  # type: ignore[method-assign]
    assert source.can_halve(0)
    np.testing.assert_array_equal(source.read_half(0, 5, 7, 100, 90), converted(half, LINEAR)[7:97, 5:105])


def test_pixels_that_cannot_be_written_are_left_alone() -> None:
    level = pattern(40, 60)
    source, fake = source_of(level)
    kept = level.copy()
    level.flags.writeable = False
    fake.read = lambda *_: level[::2, ::2]  # type: ignore[method-assign]
    np.testing.assert_array_equal(source.read(0, 0, 0, 30, 20), converted(kept[::2, ::2].copy(), LINEAR))
    np.testing.assert_array_equal(level, kept)
    fake.read = lambda *_: level[:0]  # type: ignore[method-assign]
    assert source.read(0, 0, 0, 60, 0).shape == (0, 60, 3)


def test_one_conversion_serves_many_threads() -> None:
    level = pattern(600, 600)
    source, _ = source_of(level)
    expected = converted(level, LINEAR)
    wrong: list[int] = []

    def hammer(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            x, y = (int(v) for v in random.integers(0, 400, 2))
            if not np.array_equal(source.read(0, x, y, 200, 200), expected[y : y + 200, x : x + 200]):
                wrong.append(seed)

    in_threads(hammer)
    assert wrong == []


def test_slides_without_any_place_for_a_profile(tmp_path: Path) -> None:
    assert icc_profile(tmp_path) is None
    path = write_pyramid(tmp_path / "a.tif", [pattern(300, 300)])
    assert icc_profile(path) is None
    assert profile_title(path) is None
