"""Fluorescence is told from stained tissue, also where that lies on black."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mil.slide import open_slide, tissue_mask
from napari_mil.slide.darkness import LOOKS_FLUORESCENT, looks_fluorescent

from .conftest import Pixels, fake_slide


def picture(background: int, cells: tuple[int, int, int], share: float, noise: int = 6) -> Pixels:
    """Cells on a background, 600 x 800 px."""
    generator = np.random.default_rng(0)
    pixels = np.full((600, 800, 3), background, np.int16)
    pixels[generator.random((600, 800)) < share] = cells
    return (pixels + generator.integers(-noise, noise, pixels.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (picture(8, (40, 60, 220), 0.2), True),
        (picture(0, (30, 255, 40), 0.4, noise=1), True),
        (picture(243, (150, 70, 140), 0.4), False),
        (picture(20, (240, 240, 240), 0.3), False),
        (picture(90, (100, 60, 120), 0.9), False),
    ],
)
def test_what_looks_fluorescent(pixels: Pixels, expected: bool) -> None:
    assert looks_fluorescent(pixels) is expected


def test_stained_tissue_on_black_filling_is_not_meant() -> None:
    pixels = np.zeros((600, 800, 3), np.uint8)
    pixels[:200] = picture(240, (150, 70, 140), 0.5)[:200]
    assert not looks_fluorescent(pixels)


def test_it_is_said_once_wherever_the_whole_slide_is_seen(recwarn: Any) -> None:
    dark = picture(8, (40, 60, 220), 0.2)
    slide, _ = fake_slide([dark], mpp=(4.0, 4.0))
    assert slide.problems == []
    slide.thumbnail(100)
    tissue_mask(slide)
    slide.thumbnail(200)
    assert slide.problems == [LOOKS_FLUORESCENT]
    slide, _ = fake_slide([picture(240, (150, 70, 140), 0.4)], mpp=(4.0, 4.0))
    slide.thumbnail(100)
    assert slide.problems == []


def test_a_real_fluorescence_slide(shared_data: Path) -> None:
    with open_slide(shared_data / "wsi" / "test3-DAPI-2-(387).ndpi") as slide:
        tissue_mask(slide)
        assert LOOKS_FLUORESCENT in slide.problems
    with open_slide(shared_data / "wsi" / "CMU-1-Small-Region.svs") as slide:
        tissue_mask(slide)
        assert slide.problems == []
