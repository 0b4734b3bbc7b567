"""The sample cohort: the same every time, readable by everybody, with its truth where it says."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from napari_mil.lesion import read_lesions
from napari_mil.sample import create_sample, sample_folder
from napari_mil.sample.anatomy import Planner
from napari_mil.sample.cohort import plan_cohort
from napari_mil.sample.paint import Painter
from napari_mil.sample.slides import MASK_PX, tumor_polygons, write_slide
from napari_mil.slide import open_slide
from napari_mil.study import Project

SIZE = (2048, 1536)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cohort: eight slides of a quarter of the usual size."""
    folder = tmp_path_factory.mktemp("cohort")
    create_sample(folder, n_slides=8, seed=3, size=SIZE)
    return folder


def checksums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((folder / "slides").iterdir())}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "slides.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_same_seed_gives_the_same_files_another_seed_others(cohort: Path, tmp_path: Path) -> None:
    create_sample(tmp_path / "again", n_slides=8, seed=3, size=SIZE)
    assert checksums(tmp_path / "again") == checksums(cohort)
    create_sample(tmp_path / "other", n_slides=1, seed=4, size=SIZE)
    assert next(iter(checksums(tmp_path / "other").values())) not in checksums(cohort).values()


def test_an_interrupted_cohort_is_completed_not_made_anew(cohort: Path) -> None:
    before = checksums(cohort)
    kept, lost = cohort / "slides" / "P01-A.tif", cohort / "slides" / "P02-A.tif"
    age = kept.stat().st_mtime_ns
    lost.unlink()
    said: list[tuple[int, int, str]] = []
    create_sample(cohort, n_slides=8, seed=3, size=SIZE, progress=lambda *told: said.append(told))
    assert checksums(cohort) == before
    assert kept.stat().st_mtime_ns == age
    assert [done for done, _, _ in said] == list(range(9))
    assert not list(cohort.rglob("*.part"))


def test_openslide_sees_a_pyramid_at_half_a_micrometre(cohort: Path) -> None:
    for path in sorted((cohort / "slides").iterdir()):
        with openslide.OpenSlide(path) as slide:
            assert slide.dimensions == SIZE
            assert slide.properties["openslide.vendor"] == "generic-tiff"
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, abs=1e-6)
            assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5, abs=1e-6)
            assert slide.level_count >= 2
            assert slide.level_downsamples[1] == pytest.approx(4)


def test_our_own_reader_agrees_with_openslide(cohort: Path) -> None:
    path = cohort / "slides" / "P01-A.tif"
    with open_slide(path) as ours, openslide.OpenSlide(path) as theirs:
        assert ours.mpp == pytest.approx((0.5, 0.5), abs=1e-6)
        theirs_pixels = np.asarray(theirs.read_region((600, 500), 0, (300, 200)))[..., :3]
        np.testing.assert_array_equal(ours.read(600, 500, 300, 200), theirs_pixels)


def test_it_looks_like_stained_tissue_on_glass(cohort: Path) -> None:
    """Bright glass around, pink (red over blue over green) within, and not one flat colour."""
    for path in sorted((cohort / "slides").iterdir()):
        picture = np.asarray(Image.open(path).reduce(8), float)
        glass = (picture.min(axis=2) > 225).mean()
        assert 0.2 < glass < 0.75
        tissue = picture[(picture.min(axis=2) < 215) & (picture.max(axis=2) > 120)]
        red, green, blue = tissue.mean(axis=0)
        assert red > blue - 5 > green + 15
        assert tissue.std() > 15


def test_labels_patients_and_outlines_fit_together(cohort: Path) -> None:
    rows = table(cohort)
    assert Counter(row["label"] for row in rows) == {"tumor": 4, "normal": 4}
    assert max(Counter(row["patient_id"] for row in rows).values()) == 2
    for row in rows:
        assert (cohort / row["path"]).is_file()
        files = list((cohort / "annotations").glob(f"{row['slide_id']}.*"))
        assert len(files) == (row["label"] == "tumor")
    suffixes = Counter(path.suffix for path in (cohort / "annotations").iterdir())
    assert suffixes[".geojson"] > 0
    assert suffixes[".xml"] > 0


def test_tumour_is_a_small_share_and_the_outlines_are_the_truth(cohort: Path) -> None:
    for row in table(cohort):
        truth = np.asarray(Image.open(cohort / "truth" / f"{row['slide_id']}.png"))
        assert truth.shape == (SIZE[1] // MASK_PX, SIZE[0] // MASK_PX)
        if row["label"] == "normal":
            assert not truth.any()
            continue
        lesions = read_lesions(next((cohort / "annotations").glob(f"{row['slide_id']}.*")))
        outlined = sum(lesion.geometry.area for lesion in lesions)
        assert (truth > 0).sum() * MASK_PX**2 == pytest.approx(outlined, rel=0.15)
        picture = np.asarray(Image.open(cohort / row["path"]).reduce(MASK_PX))
        tissue = (picture.min(axis=2) < 215).sum() * MASK_PX**2
        assert 0.01 < outlined / tissue < 0.2


def test_tumour_nuclei_are_crowded_and_dark_where_the_truth_says(cohort: Path) -> None:
    """What a method shall find is in the pixels: dark nuclei crowd the tumour more than the rest of the tissue."""
    for row in table(cohort):
        if row["label"] == "normal":
            continue
        truth = np.asarray(Image.open(cohort / "truth" / f"{row['slide_id']}.png")) > 0
        picture = np.asarray(Image.open(cohort / row["path"]).reduce(MASK_PX))
        tissue = picture.min(axis=2) < 215
        dark = picture[..., 0] < 185
        assert dark[truth].mean() > 1.5 * dark[tissue & ~truth].mean()


def test_the_project_is_ready(cohort: Path) -> None:
    project = Project.open(cohort / "project")
    assert project.config.label_names == ["normal", "tumor"]
    rows = {row.slide_id: row for row in project.slides}
    assert set(rows) == {row["slide_id"] for row in table(cohort)}
    roles: dict[str, set[str]] = {}
    for row in rows.values():
        assert project.slide_path(row.slide_id).is_file()
        assert not Path(row.path).is_absolute()
        assert row.role is not None
        assert row.partial_annotation is False
        roles.setdefault(row.patient_id, set()).add(row.role)
        assert len(project.lesions(row.slide_id)) == (
            0 if row.label == "normal" else len(_outlines(cohort, row.slide_id))
        )
    assert all(len(roles_of_one) == 1 for roles_of_one in roles.values())


def _outlines(cohort: Path, slide_id: str) -> list:
    return list(read_lesions(next((cohort / "annotations").glob(f"{slide_id}.*"))))


def test_a_person_s_work_in_the_project_is_kept(cohort: Path) -> None:
    project = Project.open(cohort / "project")
    project.update_slide("P01-A", role=None)
    project.save()
    create_sample(cohort, n_slides=8, seed=3, size=SIZE)
    assert next(r for r in Project.open(cohort / "project").slides if r.slide_id == "P01-A").role is None


def test_folds_and_pens_do_not_tell_the_label() -> None:
    cases = plan_cohort(400, seed=1)
    for mark in ("fold", "pen"):
        marked = Counter(case.label for case in cases if getattr(case, mark))
        assert min(marked.values()) > 0.6 * max(marked.values())


def test_pen_and_fold_are_painted() -> None:
    plans = [Planner(np.random.default_rng(5), 1024, 768).make(tumor_share=0) for _ in range(3)]
    painter = Painter(np.random.default_rng(6))
    plain, penned, folded = (
        painter.paint(plan, np.random.default_rng(7), **marks)  # type: ignore[arg-type]
        for plan, marks in zip(plans, ({}, {"pen": "blue"}, {"fold": True}), strict=True)
    )
    ink = (plain.astype(int) - penned).sum(axis=2) > 150
    assert 500 < ink.sum() < 0.05 * ink.size
    assert (penned[ink][:, 2] > penned[ink][:, 0] + 40).mean() > 0.8
    assert folded.mean() < plain.mean()


def test_outlines_hold_every_malignant_nest() -> None:
    import shapely

    plan = Planner(np.random.default_rng(11), 2048, 1536).make(tumor_share=0.06)
    together = shapely.union_all(tumor_polygons(plan))
    nests = [gland.outline for gland in plan.glands if gland.malignant]
    assert len(nests) > 5
    for nest in nests:
        assert shapely.covers(together, shapely.MultiPoint(nest / 0.5))
    others = [gland.outline.mean(axis=0) / 0.5 for gland in plan.glands if not gland.malignant]
    assert not shapely.contains_xy(together, np.array(others)).any()


@pytest.mark.parametrize(("n_slides", "size"), [(0, SIZE), (3, (512, 2048)), (3, (2048, 1535))])
def test_nonsense_is_refused(tmp_path: Path, n_slides: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be made"):
        create_sample(tmp_path, n_slides=n_slides, size=size)


def test_half_written_slides_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", fail)
    with pytest.raises(OSError, match="no space"):
        write_slide(tmp_path / "a.tif", np.zeros((1024, 1024, 3), np.uint8))
    assert not (tmp_path / "a.tif").exists()


def test_the_cache_is_the_person_s_to_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path))
    assert sample_folder().is_relative_to(tmp_path)
