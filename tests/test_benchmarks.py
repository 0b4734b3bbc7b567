"""The slide that the benchmarks make."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parent.parent / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = script("big_slide").big_slide(tmp_path_factory.mktemp("big") / "slide.tif", (3501, 2602))
    return path


def test_openslide_opens_it_with_its_levels_and_scale(made: Path) -> None:
    import openslide
    import tifffile

    with openslide.OpenSlide(made) as slide:
        assert slide.level_dimensions == ((3501, 2602), (875, 650))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
    with tifffile.TiffFile(made) as tif:
        page = tif.pages[0]
        assert (page.tilewidth, page.tilelength) == (256, 256)
        assert page.tags["YCbCrSubSampling"].value == (2, 2)
        sizes = np.array(page.databytecounts)
    assert 12_000 < np.percentile(sizes, 90) < 28_000, "a tile of tissue: 7:1 to 16:1"
    assert sizes.min() < 9_000, "a tile of glass is small"


def test_its_levels_show_the_same_place(made: Path) -> None:
    import openslide

    with openslide.OpenSlide(made) as slide:
        coarse = np.asarray(slide.read_region((720, 520), 1, (100, 80)).convert("RGB")).astype(int)

        def mean_of(x: int, y: int) -> np.ndarray:
            fine = slide.read_region((x, y), 0, (400, 320)).convert("RGB").reduce(4)
            return np.asarray(fine).astype(int)

        there = np.abs(coarse - mean_of(720, 520)).mean()
        beside = [np.abs(coarse - mean_of(720 + dx, 520 + dy)).mean() for dx, dy in ((4, 0), (-4, 0), (0, 4), (0, -4))]
    assert there < 8
    assert there < 0.75 * min(beside)


def test_another_seed_is_another_slide_and_the_same_one_is_not_made_anew(made: Path, tmp_path: Path) -> None:
    big = script("big_slide")
    age = made.stat().st_mtime_ns
    assert big.big_slide(made, (3501, 2602)) == made
    assert made.stat().st_mtime_ns == age
    first, second = (big.big_slide(tmp_path / f"{s}.tif", (1024, 768), step=2, seed=s) for s in (1, 2))
    assert first.read_bytes() != second.read_bytes()
    with Image.open(first) as image:
        assert image.size == (1024, 768)
