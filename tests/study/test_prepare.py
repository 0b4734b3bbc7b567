"""Slides of a project become features; a bad one is recorded and the others go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_mil.errors import MilError, ProjectError
from napari_mil.features import read_features
from napari_mil.lesion import Lesion, LesionSet
from napari_mil.study import (
    Project,
    estimate_project,
    grid_for,
    open_project_slide,
    prepare_all,
    prepare_slide,
    preview_patches,
)

from .conftest import drain, paint_slide


@pytest.fixture
def pictures(tmp_path: Path) -> Project:
    for k in range(3):
        paint_slide(tmp_path / "slides" / f"s{k}.png", lesion=k == 1, seed=k)
    project = Project.create(
        tmp_path / "project", tmp_path / "slides", encoder="texture", tile={"target_mpp": 1.0, "patch_px": 32}
    )
    project.set_mpp("s0", 1.0, folder=True)
    return project


def test_one_slide_from_tissue_to_features(pictures: Project) -> None:
    reports, path = drain(prepare_slide(pictures, "s1"))
    assert path == pictures.feature_path("s1")
    assert reports[-1].done == reports[-1].total > 0
    features = read_features(path)
    assert features.encoder == "texture"
    assert (features.target_mpp, features.patch_px) == (1.0, 32)
    assert features.tissue["tile"]["patch_px"] == 32
    assert features.grid == grid_for(pictures, "s1")
    with open_project_slide(pictures, "s1") as slide:
        assert slide.mpp_source == "user"
        assert features.fingerprint == slide.fingerprint
        patches = preview_patches(pictures, "s1", slide)
    assert patches.grid == features.grid
    with np.load(path.with_suffix(".tissue.npz")) as kept:
        np.testing.assert_array_equal(kept["coords"], features.grid.coords)
        pixels = kept["tissue_pixels"]
        mask = np.unpackbits(kept["mask"], axis=1)[:, : kept["shape"][1]].astype(bool)
    np.testing.assert_array_equal(mask, patches.tissue.array)
    assert pixels.min() > 0
    np.testing.assert_array_equal(pictures.bag("s1").tissue_pixels, pixels)


def test_a_bad_slide_is_recorded_and_the_others_go_on(pictures: Project) -> None:
    good = pictures.slide_path("s1").read_bytes()
    pictures.slide_path("s1").write_bytes(b"no picture")
    _, summary = drain(prepare_all(pictures))
    assert summary.done == ["s0", "s2"]
    assert list(summary.failed) == ["s1"]
    assert summary.sentence == "2 slides prepared, 1 failed (s1)."
    sentence = pictures.failures()["s1"]
    assert sentence == summary.failed["s1"]
    assert "s1" in sentence
    stored = json.loads((pictures.feature_folder / "failures.json").read_text(encoding="utf-8"))
    assert set(stored["s1"]) == {"when", "sentence", "file"}
    _, again = drain(prepare_all(pictures))
    assert (again.there, again.passed_over, again.failed) == (["s0", "s2"], ["s1"], {})
    assert again.sentence == "0 slides prepared, 2 were ready, 1 passed over (it failed before; retry it)."
    _, tried = drain(prepare_all(pictures, retry_failed=True))
    assert list(tried.failed) == ["s1"]
    pictures.slide_path("s1").write_bytes(good)
    _, mended = drain(prepare_all(pictures))  # another file: tried again without being asked
    assert mended.done == ["s1"]
    assert pictures.failures() == {}


def test_a_slide_that_another_process_works_on_is_no_failure(pictures: Project) -> None:
    part = pictures.feature_path("s1").with_name("s1.h5.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'w'); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(part)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        _, summary = drain(prepare_all(pictures))
        other.communicate()
    assert (summary.done, summary.busy, summary.failed) == (["s0", "s2"], ["s1"], {})
    assert summary.sentence == "2 slides prepared, 1 passed over (another process works on it)."
    assert pictures.failures() == {}


def test_unknown_scale_is_a_failure_that_says_so(pictures: Project) -> None:
    pictures.set_mpp("s0", None, folder=True)
    with pytest.raises(MilError, match="µm per pixel"):
        drain(prepare_slide(pictures, "s0"))
    assert "µm per pixel" in pictures.failures()["s0"]
    pictures.set_mpp("s0", 1.0)
    drain(prepare_slide(pictures, "s0"))
    assert pictures.failures() == {}


def test_what_is_given_for_a_slide_goes_before_its_folder(pictures: Project) -> None:
    pictures.set_mpp("s2", 0.5)
    with open_project_slide(pictures, "s2") as slide:
        assert slide.mpp == (0.5, 0.5)
    with open_project_slide(pictures, "s0") as slide:
        assert slide.mpp == (1.0, 1.0)


def test_ignored_regions_lose_their_patches_and_previews_follow_settings(pictures: Project) -> None:
    everything = grid_for(pictures, "s0")
    ignored = LesionSet([Lesion(shapely.box(0, 0, 160, 320), label="Ignore")])
    with open_project_slide(pictures, "s0") as slide:
        halved = preview_patches(pictures, "s0", slide, lesions=ignored)
        assert (halved.grid.coords[:, 0] >= 128).all()
        assert 0 < len(halved.grid) < len(everything)
        config = pictures.config.model_copy(update={"tile": pictures.config.tile.model_copy(update={"patch_px": 64})})
        assert preview_patches(pictures, "s0", slide, config).grid.patch_px_level0 == (64, 64)
        coarse = pictures.config.model_copy(
            update={"tile": pictures.config.tile.model_copy(update={"target_mpp": 0.5})}
        )
        assert "coarser than" in preview_patches(pictures, "s0", slide, coarse).note
    pictures.save_lesions("s0", ignored)
    assert len(grid_for(pictures, "s0")) == len(halved.grid)


def test_an_estimate_before_extraction(pictures: Project) -> None:
    estimate = estimate_project(pictures)
    assert (estimate.slides, estimate.sampled, estimate.failed) == (3, 3, {})
    assert estimate.patches == sum(len(grid_for(pictures, i)) for i in pictures.slide_ids)
    assert estimate.minutes > 0
    assert estimate.gigabytes > 0
    pictures.slide_path("s0").unlink()
    broken = estimate_project(pictures)
    assert list(broken.failed) == ["s0"]
    assert broken.patches < estimate.patches
    drain(prepare_all(pictures, ["s1", "s2"]))
    assert estimate_project(pictures).slides == 1


def test_stopping_keeps_what_is_done(pictures: Project) -> None:
    running = prepare_all(pictures)
    for report in running:
        if report.slide_id == "s1" and report.done:
            running.close()
            break
    assert pictures.has_features("s0")
    assert not pictures.has_features("s2")
    assert pictures.failures() == {}
    _, summary = drain(prepare_all(pictures))
    assert (summary.there, summary.done) == (["s0"], ["s1", "s2"])


def test_imported_features_cannot_be_made_here(pictures: Project) -> None:
    pictures.config.feature_set = "clam-imported"
    with pytest.raises(ProjectError, match="uses the imported features clam-imported"):
        drain(prepare_slide(pictures, "s0"))
