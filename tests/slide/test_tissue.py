"""Tissue: thresholds against scikit-image, the judgement of the background, cleaning, and shares of patches."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from napari_mil.geometry import PatchGrid
from napari_mil.slide import (
    SlideWarning,
    TissueConfig,
    TissueMask,
    open_slide,
    tissue_mask,
    tissue_pixels,
    tissue_share,
)
from napari_mil.slide.ink import pen_marks
from napari_mil.slide.threshold import judge, otsu_thresholds, tones

from .conftest import Pixels, fake_slide

PLAIN = TissueConfig(um_per_px=0.5)  # slides of the tests have 0.5 µm/px: the mask is at level 0


def noisy(image: np.ndarray, sd: float = 2.0, seed: int = 0) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, sd, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def blob(size: int = 600, share: float = 0.4, seed: int = 0) -> np.ndarray:
    """(size, size) bool, smooth random regions over about this share."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), 25)
    return field > np.quantile(field, 1 - share)


def stained(tissue: np.ndarray, glass: tuple[int, int, int] = (242, 241, 243), seed: int = 0) -> Pixels:
    """Pink tissue with violet nuclei on glass."""
    image = np.empty((*tissue.shape, 3))
    image[:] = glass
    texture = gaussian_filter(np.random.default_rng(seed).normal(size=tissue.shape), 2)
    image[tissue] = (205, 140, 185)
    image[tissue & (texture > 0.12)] = (110, 70, 150)
    return noisy(image, 4.0, seed)


def found(image: Pixels, config: TissueConfig = PLAIN) -> TissueMask:
    slide, _ = fake_slide([image], mpp=(0.5, 0.5))
    return tissue_mask(slide, config)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@given(st.lists(st.integers(0, 40), min_size=256, max_size=256), st.integers(1, 100))
@settings(max_examples=25, deadline=None)
def test_otsu_is_scikit_images(counts: list[int], peak: int) -> None:
    from skimage.filters import threshold_multiotsu, threshold_otsu

    histogram = np.array(counts)
    histogram[[20, 120, 235]] += 1 + peak
    image = np.repeat(np.arange(256), histogram).astype(np.uint8)
    ours, theirs = otsu_thresholds(histogram, 3), threshold_multiotsu(image, classes=3)

    def between(thresholds: tuple[int, ...]) -> float:
        parts = np.digitize(image, np.asarray(thresholds), right=True)
        return sum((parts == k).mean() * (image[parts == k].mean() - image.mean()) ** 2 for k in np.unique(parts))

    assert between(ours) >= between(tuple(int(t) for t in theirs)) - 1e-6
    assert np.abs(np.array(ours) - theirs).max() <= 2 or between(ours) == pytest.approx(
        between(tuple(theirs)), rel=1e-3
    )
    assert abs(otsu_thresholds(histogram, 2)[0] - int(threshold_otsu(image))) <= 1


@pytest.mark.parametrize("shape", [(1, 1), (31, 7), (32, 5), (97, 40)])
def test_tones_are_those_of_their_definitions(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    image[0, 0] = 255
    grey, brightest, chroma = tones(image)
    assert grey.dtype == brightest.dtype == chroma.dtype == np.uint8
    np.testing.assert_array_equal(grey, np.floor(image @ np.array([299, 587, 114]) / 1000 + 0.5))
    np.testing.assert_array_equal(brightest, image.max(axis=2))
    np.testing.assert_array_equal(chroma, np.ptp(image, axis=2))
    np.testing.assert_array_equal(tones(image[:, ::-1])[0], grey[:, ::-1])


def test_real_slide_is_the_published_rule(shared_data: Path) -> None:
    """On an ordinary slide nothing bends the rule: grey of the thumbnail, three classes, brightest is background."""
    from skimage.filters import threshold_multiotsu

    with open_slide(shared_data / "wsi" / "CMU-1-Small-Region.svs") as slide:
        mask = tissue_mask(slide)
        assert mask.downsample == 4.0
        assert mask.array.shape == (742, 555)
        assert mask.background == "bright"
        grey, _, _ = tones(slide.levels[-1][:])
        assert mask.threshold == pytest.approx(threshold_multiotsu(grey, classes=3)[1], abs=1)
        np.testing.assert_array_equal(mask.array, grey <= mask.threshold)
        assert 0.25 < mask.share < 0.4
        otsu = tissue_mask(slide, TissueConfig(method="otsu"))
        assert otsu.threshold < mask.threshold


def test_real_fluorescence_has_a_dark_ground(shared_data: Path) -> None:
    with open_slide(shared_data / "wsi" / "test3-DAPI-2-(387).ndpi") as slide:
        mask = tissue_mask(slide)
        assert mask.background == "dark"
        assert 0.05 < mask.share < 0.3
        image = slide.levels[3][:]
        assert image[mask.array].max(axis=1).mean() > 5 * image[~mask.array].max(axis=1).mean()


def test_real_tissue_without_glass_is_all_tissue(shared_data: Path) -> None:
    from PIL import Image

    paths = sorted((shared_data / "camelyon16_patches256").rglob("*.webp"))
    shares = [found(np.asarray(Image.open(path).convert("RGB"))).share for path in paths]
    assert np.median(shares) > 0.8


@pytest.mark.parametrize("share", [0.003, 0.05, 0.4, 0.8])
@pytest.mark.parametrize("method", ["multi_otsu", "otsu"])
def test_stained_tissue_on_glass(share: float, method: str) -> None:
    tissue = blob(share=share)
    mask = found(stained(tissue), PLAIN.model_copy(update={"method": method}))
    assert mask.background == "bright"
    covered = gaussian_filter(mask.array.astype(float), 2) > 0.5
    assert agreement(covered, tissue) > (0.85 if method == "multi_otsu" else 0.5)
    assert mask.array[~tissue].mean() < 1e-3


@pytest.mark.parametrize("method", ["multi_otsu", "otsu"])
@pytest.mark.parametrize("level", [0, 12, 240, 252, 255])
@pytest.mark.parametrize("sd", [0.0, 0.7, 3.0])
def test_a_blank_slide_has_no_tissue(method: str, level: int, sd: float) -> None:
    image = noisy(np.full((500, 500, 3), float(level)), sd)
    mask = found(image, PLAIN.model_copy(update={"method": method}))
    assert mask.share < 1e-3
    assert mask.background == ("dark" if level < 50 else "bright")


@pytest.mark.parametrize("sd", [0.0, 6.0])
def test_tissue_everywhere_is_all_tissue(sd: float) -> None:
    assert found(noisy(np.full((400, 400, 3), (200.0, 130, 180)), sd)).share == 1.0
    assert found(stained(np.ones((600, 600), bool))).share > 0.999


def test_fluorescence_on_a_dark_ground() -> None:
    cells = blob(share=0.2)
    image = np.zeros((600, 600, 3))
    image[..., 2] = 6
    image[cells, 2] = 120
    mask = found(noisy(image, 1.5))
    assert mask.background == "dark"
    assert agreement(mask.array, cells) > 0.98
    grey = np.repeat(np.where(cells, 90.0, 15.0)[..., None], 3, axis=2)
    assert agreement(found(noisy(grey)).array, cells) > 0.98
    crowded = np.zeros((600, 600, 3))
    crowded[blob(share=0.6)] = (10, 90, 30)
    assert found(noisy(crowded)).background == "dark"


def test_a_person_may_say_what_the_ground_is() -> None:
    image = noisy(np.where(blob(share=0.3)[..., None], 30.0, 225.0) * np.ones(3))
    assert found(image).share == pytest.approx(0.3, abs=0.02)
    dark = found(image, PLAIN.model_copy(update={"background": "dark"}))
    assert dark.share == pytest.approx(0.7, abs=0.02)


def test_black_padding_of_a_bright_slide_is_no_tissue() -> None:
    tissue = blob(share=0.3)
    tissue[:, :250] = False
    image = stained(tissue)
    image[:, :200] = 0
    mask = found(image)
    assert mask.background == "bright"
    assert not mask.array[:, :200].any()
    assert agreement(gaussian_filter(mask.array.astype(float), 2) > 0.5, tissue) > 0.85
    square = np.full((300, 300, 3), 255, np.uint8)
    square[100:200, 0:100] = 0  # black tissue at the border of a drawing, and nothing else, is tissue
    assert found(square).share == pytest.approx(1 / 9)


def test_manual_threshold() -> None:
    image = np.repeat(np.linspace(0, 255, 256).round().astype(np.uint8)[None, :, None], 3, axis=2).repeat(50, axis=0)
    config = TissueConfig(method="manual", threshold=99.5, background="bright", um_per_px=0.5)
    np.testing.assert_array_equal(found(image, config).array, tones(image)[0] <= 99)
    dark = config.model_copy(update={"background": "dark"})
    np.testing.assert_array_equal(found(image, dark).array, tones(image)[0] > 99)
    with pytest.raises(ValueError, match="manual method needs a threshold"):
        TissueConfig(method="manual")
    with pytest.raises(ValueError, match="Extra inputs"):
        TissueConfig(treshold=3)  # type: ignore[call-arg]


def squares() -> Pixels:
    """A 200 px square with a 20 px hole and a 10 px speck, on glass: at 0.5 µm/px 10,000, 100 and 25 µm²."""
    image = np.full((400, 400, 3), 240, np.uint8)
    image[100:300, 100:300] = (180, 90, 150)
    image[150:170, 150:170] = 240
    image[20:30, 20:30] = (180, 90, 150)
    image[100:120, 100:110] = 240  # a bay, open to the outside
    return image


def test_smallest_area_and_holes_are_in_um2() -> None:
    full, hole, speck, bay = 200 * 200, 400, 100, 200
    area = full - hole - bay + speck
    assert found(squares()).array.sum() == area

    def sized(**options: float) -> int:
        return int(found(squares(), PLAIN.model_copy(update=options)).array.sum())

    assert sized(min_area_um2=25) == area
    assert sized(min_area_um2=25.3) == area - speck
    assert sized(fill_holes_um2=99.9) == area
    assert sized(fill_holes_um2=100) == area + hole
    assert sized(fill_holes_um2=1000, min_area_um2=1000) == full - bay


def test_areas_without_mpp_are_not_applied_and_say_so() -> None:
    slide, _ = fake_slide([squares()])
    with pytest.warns(SlideWarning, match="µm per pixel are unknown"):
        mask = tissue_mask(slide, TissueConfig(min_area_um2=1e6))
    assert mask.share > 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tissue_mask(slide)


def test_pen_marks_are_found_and_tissue_is_none() -> None:
    tissue = blob(share=0.5)
    image = stained(tissue)
    assert pen_marks(image).mean() < 0.002
    marks = np.zeros(tissue.shape, bool)
    for row, ink in enumerate([(40, 60, 190), (20, 120, 60), (200, 30, 40), (25, 25, 28), (90, 170, 120)]):
        where = np.s_[40 + 110 * row : 60 + 110 * row, 50:500]
        image[where] = noisy(np.full((20, 450, 3), ink, float), 4)
        marks[where] = True
    inked = pen_marks(image)
    assert inked[marks].mean() > 0.97
    assert inked[~marks].mean() < 0.05
    slide, _ = fake_slide([image], mpp=(4.0, 4.0))
    mask = tissue_mask(slide, TissueConfig(exclude_pen=True))
    assert mask.array[marks].mean() < 0.03
    assert found(image).array[marks].mean() > 0.9


def test_real_tissue_is_not_taken_for_ink(shared_data: Path) -> None:
    with open_slide(shared_data / "wsi" / "CMU-1-Small-Region.svs") as slide:
        without = tissue_mask(slide, TissueConfig(exclude_pen=True))
        assert without.share > 0.9 * tissue_mask(slide).share
    with open_slide(shared_data / "wsi" / "slide.jpeg") as slide:
        assert pen_marks(slide.levels[-1][:]).mean() < 0.01


def test_what_cannot_be_read_is_no_tissue() -> None:
    image = stained(np.ones((1024, 1024), bool))
    image[:300] = (242, 241, 243)
    slide, source = fake_slide([image], mpp=(0.5, 0.5))
    source.fails = lambda level, x, y: (x, y) == (512, 512)
    mask = tissue_mask(slide, PLAIN)
    assert not mask.array[512:, 512:].any()
    assert mask.array[512:, :512].mean() > 0.95


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (16, 16), (1, 300)])
def test_tiny_slides(shape: tuple[int, int]) -> None:
    for value in (0, 120, 255):
        mask = found(np.full((*shape, 3), value, np.uint8))
        assert mask.array.shape == shape
        grid = PatchGrid([[0, 0]], 1, 1, 0.5)
        assert tissue_pixels(mask, grid)[0] == mask.array[0, 0]


def test_the_level_nearest_the_wanted_scale_is_taken() -> None:
    slide, _ = fake_slide([np.full((1200, 8000, 3), 240, np.uint8)], mpp=(0.5, 0.5))
    assert [tissue_mask(slide, TissueConfig(um_per_px=u)).downsample for u in (1, 2.2, 4, 500)] == [2, 4, 8, 8]
    assert tissue_mask(slide, TissueConfig(um_per_px=0.5, max_px=2000)).downsample == 4
    slide.set_mpp(0.25)
    assert tissue_mask(slide, TissueConfig(um_per_px=2)).downsample == 8
    mask = tissue_mask(slide)
    assert mask.scale == slide.chain_downsamples[3]
    assert json.loads(json.dumps(mask.to_dict()))["config"]["method"] == "multi_otsu"


MASKS = st.integers(1, 12).flatmap(
    lambda h: st.integers(1, 12).flatmap(
        lambda w: st.lists(st.booleans(), min_size=h * w, max_size=h * w).map(lambda v: np.array(v).reshape(h, w))
    )
)


@given(
    array=MASKS,
    downsample=st.sampled_from([(1.0, 1.0), (4.0, 4.0), (3.9998, 4.016), (16.02, 15.97)]),
    patch=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.integers(-20, 120), st.integers(-20, 120)),
)
@settings(max_examples=150, deadline=None)
def test_share_is_exact_by_area_and_pixels_are_counted(
    array: np.ndarray, downsample: tuple[float, float], patch: tuple[int, int], corner: tuple[int, int]
) -> None:
    mask = TissueMask(array, sum(downsample) / 2, downsample_xy=downsample)
    grid = PatchGrid([corner], patch, patch, 0.5)
    edges = [np.array([corner[a], corner[a] + patch[a]]) / downsample[a] for a in (0, 1)]
    overlap = [
        np.clip(np.minimum(e[1], np.arange(n) + 1) - np.maximum(e[0], np.arange(n)), 0, None)
        for e, n in zip(edges, array.shape[::-1], strict=True)
    ]
    area = (edges[0][1] - edges[0][0]) * (edges[1][1] - edges[1][0])
    assert tissue_share(mask, grid)[0] == pytest.approx(overlap[1] @ array @ overlap[0] / area, abs=1e-9)
    x0, y0 = (int(np.floor(e[0] + 0.5)) for e in edges)
    x1, y1 = (max(int(np.floor(e[1] + 0.5)), start + 1) for e, start in zip(edges, (x0, y0), strict=True))
    inside = array[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
    pixels = tissue_pixels(mask, grid)
    assert pixels.dtype == np.int64
    assert pixels[0] == inside.sum()


def test_plain_masks_of_others_work() -> None:
    mask = TissueMask(np.eye(4, dtype=bool), 16.0)
    assert mask.scale == (16.0, 16.0)
    assert mask.share == 0.25
    grid = PatchGrid([[0, 0], [16, 0], [32, 32]], 16, 16, 0.5)
    np.testing.assert_array_equal(tissue_pixels(mask, grid), [1, 0, 1])
    np.testing.assert_allclose(tissue_share(mask, grid), [1, 0, 1])


def test_judge_leaves_out_what_is_invalid() -> None:
    image = np.full((10, 10, 3), 240, np.uint8)
    image[:, :8] = 0
    valid = np.zeros((10, 10), bool)
    valid[:, 8:] = True
    assert judge(image, valid=valid).kind == "bright"
