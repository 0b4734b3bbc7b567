"""JPEG decoded at half the size: near the mean of the pixels, and exactly in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mil.slide import open_slide
from napari_mil.slide.tile_codecs import JpegCodec

from .tiffs import DIRECT, YCBCR, encoded, jpegs, smooth, tiles_of, write_tiles


def test_half_size_is_near_the_mean_of_the_pixels(tmp_path: Path) -> None:
    """By less than the quantization of the JPEG itself changes them; the same region from any other is the same."""
    for kind in ("ycbcr444", "ycbcr420", "rgb-unmarked", "aperio", "philips", "grey-jpeg"):
        path = DIRECT[kind](tmp_path / f"half-{kind}.tif")
        with open_slide(path) as slide:
            source = slide.source
            assert source.can_halve(0)
            width, height = (n // 2 for n in slide.dimensions)
            full = source.read(0, 0, 0, 2 * width, 2 * height).astype(float)
            mean = full.reshape(height, 2, width, 2, 3).mean((1, 3))
            half = source.read_half(0, 0, 0, width, height)
            off = np.abs(half - mean)
            assert off.mean() < 1.5, kind
            assert np.percentile(off, 99) < 6, kind
            np.testing.assert_array_equal(source.read_half(0, 101, 77, 180, 200), half[77:277, 101:281])


def triangle(length: int, period: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rising and falling by turns between 30 and 220."""
    phase = np.arange(length) % period / period
    return 30 + 190 * np.where(phase < 0.5, 2 * phase, 2 - 2 * phase)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_half_size_is_not_shifted(tmp_path: Path, axis: int, subsampling: str) -> None:
    """On slopes of 4 a pixel a shift of a tenth of a half-size pixel would change all values by 0.8."""
    wave = triangle(768, 95)  # no multiple of 8: slopes lie everywhere in the blocks of the JPEG
    flat = np.broadcast_to(wave[:, None] if axis == 0 else wave, (768, 768))
    image = np.stack([flat, 250 - flat, flat], axis=2).round().astype(np.uint8)
    tiles: list[bytes | None] = [encoded(t, "ycbcr", subsampling) for t in tiles_of(image, 256)]
    factors = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[subsampling]
    path = write_tiles(tmp_path / "a.tif", [(image.shape, tiles, YCBCR | {"subsampling": factors})])
    with open_slide(path) as slide:
        half = slide.source.read_half(0, 0, 0, 384, 384).astype(float)
    wanted = image.astype(float).reshape(384, 2, 384, 2, 3).mean((1, 3))
    slope = np.gradient(wanted, axis=axis)
    steep = np.abs(slope) > 7
    shift = ((half - wanted) * np.sign(slope))[steep].mean() / np.abs(slope[steep]).mean()
    assert steep.mean() > 0.5
    assert abs(shift) < 0.02  # of a half-size pixel


@pytest.mark.parametrize("side", [128, 512])
def test_a_tile_of_another_size_is_refused(side: int) -> None:
    codec = JpegCodec((256, 256), None, None)
    raw = memoryview(encoded(smooth(side, side, 3), "ycbcr"))
    for decode in (codec.half, lambda raw: codec.decode(raw, 0, np.empty((256, 256, 3), np.uint8))):
        with pytest.raises(ValueError, match=f"{side}"):
            decode(raw)


def test_half_size_of_an_odd_level(tmp_path: Path) -> None:
    fine = smooth(301, 515, 3)
    path = write_tiles(tmp_path / "a.tif", [(fine.shape, jpegs(fine), YCBCR)])
    with open_slide(path) as slide:
        assert slide.source.read_half(0, 0, 0, 258, 151).shape == (151, 258, 3)
        inside = slide.source.read_half(0, 200, 100, 57, 50).astype(float)
        full = slide.source.read(0, 400, 200, 114, 100).astype(float).reshape(50, 2, 57, 2, 3).mean((1, 3))
        assert np.abs(inside - full).mean() < 3
