"""Colours in sRGB through a whole study: in features, their folder, runs and models, never mixed with others."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import shapely
from PIL import Image

from napari_mil.errors import FeatureError
from napari_mil.features import feature_set_name, read_features
from napari_mil.lesion import Lesion, LesionSet
from napari_mil.study import (
    Project,
    apply_bundle,
    bundle_of_run,
    export_bundle,
    load_bundle,
    load_run,
    open_project_slide,
    prepare_all,
    prepare_slide,
    train_project,
)
from napari_mil.study.provenance import feature_facts
from napari_mil.study.runs import refuse_other_features

from .conftest import drain, paint_slide, quick_method


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory, scanner_profile: bytes) -> Path:
    """Eight pictures with a scanner's profile, and one without."""
    folder = tmp_path_factory.mktemp("colour") / "slides"
    for k in range(9):
        path = folder / f"s{k}.png"
        paint_slide(path, lesion=k % 2 == 1, seed=k)
        if k < 8:
            with Image.open(path) as image:
                image.load()
                image.save(path, icc_profile=scanner_profile)
    return folder


def project_of(folder: Path, slides: Path) -> Project:
    project = Project.create(folder, slides, encoder="texture", tile={"target_mpp": 1.0, "patch_px": 32})
    project.set_mpp("s0", 1.0, folder=True)
    return project


def test_features_say_how_their_colours_came_to_be(slides: Path, tmp_path: Path) -> None:
    project = project_of(tmp_path / "project", slides)
    stored = project.feature_set
    assert stored == feature_set_name("texture", project.config.tile, project.config.tissue)
    _, plain = drain(prepare_slide(project, "s1"))
    project.config.color = "srgb"
    project.save()
    project = Project.open(project.folder)
    assert project.config.color == "srgb"
    assert project.feature_set != stored
    with open_project_slide(project, "s1") as slide:
        assert slide.color.startswith("sRGB by the profile “Test scanner”")
        color = slide.color
    _, converted = drain(prepare_slide(project, "s1"))
    _, without = drain(prepare_slide(project, "s8"))
    first, second, third = (read_features(path) for path in (plain, converted, without))
    assert "color" not in first.attrs
    assert second.attrs["color"] == color
    assert third.attrs["color"] == "sRGB assumed: the file has no colour profile"
    assert [f.provenance["color"] for f in (first, second, third)] == ["as stored", "srgb", "srgb"]
    assert second.attrs["transform"] == third.attrs["transform"] == f"sRGB; {first.attrs['transform']}"
    assert first.fingerprint == second.fingerprint
    assert first.features.shape[1] == second.features.shape[1]
    assert not np.array_equal(first.features.mean(axis=0), second.features.mean(axis=0))
    assert [(feature_facts(path) or {})["color"] for path in (plain, converted)] == ["as stored", "srgb"]


def test_rows_of_other_colours_are_not_gone_on_with(slides: Path, tmp_path: Path) -> None:
    project = project_of(tmp_path / "project", slides)
    _, path = drain(prepare_slide(project, "s1"))
    project.config.color = "srgb"
    target = project.feature_path("s1")
    target.parent.mkdir(parents=True)
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:  # as if the transform, which differs too, did not tell
        file.attrs["transform"] = f"sRGB; {file.attrs['transform']}"
    drain(prepare_slide(project, "s1"))
    assert read_features(target).attrs["color"].startswith("sRGB by the profile")


def test_a_model_takes_slides_in_its_own_colours(slides: Path, tmp_path: Path) -> None:
    project = project_of(tmp_path / "project", slides)
    project.config.color = "srgb"
    project.update_slides({f"s{k}": {"label": "tumor" if k % 2 else "normal"} for k in range(8)})
    project.set_roles({f"s{k}": "train" if k < 4 else "validation" if k < 6 else "test" for k in range(8)})
    for k in range(1, 8, 2):
        project.save_lesions(f"s{k}", LesionSet([Lesion(shapely.box(64, 64, 192, 192), label="Tumor")]))
    drain(prepare_all(project))
    _, run = drain(train_project(project, quick_method("ab_mil_rank", epochs=2), seed=1))
    assert load_run(run.folder).provenance["features"]["color"] == "srgb"
    bundle = load_bundle(export_bundle(run.folder, tmp_path / "model"))
    assert bundle.features["color"] == "srgb"
    _, applied = drain(apply_bundle(bundle, slides / "s6.png", tmp_path / "out", mpp=1.0))
    made = read_features(tmp_path / "out" / "features" / "s6.h5")
    assert made.attrs["color"].startswith("sRGB by the profile")
    np.testing.assert_array_equal(made.features, read_features(project.feature_path("s6")).features)
    assert applied.slide_id == "s6"
    project.config.color = "as stored"
    _, plain = drain(prepare_slide(project, "s6"))
    with pytest.raises(FeatureError, match="colours as stored instead of in sRGB"):
        bundle_of_run(run.folder).check_features(read_features(plain))


def test_older_runs_and_files_count_as_stored() -> None:
    old = {"encoder": "e", "dim": 8}
    refuse_other_features(old, {**old, "color": "as stored"}, "s")
    with pytest.raises(FeatureError, match="colours in sRGB instead of as stored"):
        refuse_other_features(old, {**old, "color": "srgb"}, "s")
