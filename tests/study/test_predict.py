"""Predictions kept as files that maps are painted from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_mil.errors import FeatureError, MilError, ProjectError
from napari_mil.maps import attention_map
from napari_mil.study import Project, load_map_scores, load_run, predict_project, predict_slide
from napari_mil.study.runs import refuse_other_features

from .conftest import DIM, cohort, drain, grid_of, write_features


def test_a_prediction_and_its_file(trained: tuple[Project, Path], tmp_path: Path) -> None:
    from napari_mil.mil import predict

    project, folder = trained
    role = {r.slide_id: r.role for r in project.slides}
    for slide_id in ("p01_a", *[i for i in project.slide_ids if role[i] in ("validation", "test")][:3]):
        made = predict_slide(project, folder, slide_id, out=tmp_path)
        read = load_map_scores(tmp_path / f"{slide_id}.npz")
        expected = predict(load_run(folder), project.bag(slide_id))
        for found in (made, read):
            np.testing.assert_array_equal(found.scores, expected.scores)
            np.testing.assert_array_equal(found.attention, expected.attention)
            np.testing.assert_array_equal(found.probabilities, expected.probabilities)
            assert found.grid == grid_of()
            assert found.badge == str(role[slide_id]).upper()
            assert found.classes == ("normal", "tumor")
            assert found.run == folder.name
            assert found.fingerprint == f"print-of-{slide_id}"
        assert attention_map(read.grid, read.scores).data.shape == (4, 5)
        assert read.predicted == read.classes[int(expected.probabilities.argmax())]


def test_a_bad_slide_does_not_stop_the_others(trained: tuple[Project, Path], tmp_path: Path) -> None:
    _, folder = trained
    project = cohort(tmp_path / "new", patients=3)
    project.feature_path("p00_a").unlink()
    project.feature_path("p01_b").write_bytes(b"damaged")
    reports, failed = drain(predict_project(project, folder, project.slide_ids, out=tmp_path / "maps"))
    assert failed == ["p00_a", "p01_b"]
    assert [r.done for r in reports] == [1, 2, 3, 4, 5, 6]
    assert "has no features yet" in reports[0].error
    assert all(abs(sum(r.probabilities) - 1) < 1e-5 for r in reports if not r.error)
    assert sorted(p.stem for p in (tmp_path / "maps").iterdir()) == ["p00_b", "p01_a", "p02_a", "p02_b"]
    assert reports[1].to_dict()["slide_id"] == "p00_b"
    with pytest.raises(ProjectError, match="nothing to predict"):
        drain(predict_project(Project.create(tmp_path / "empty"), folder))


def test_slides_of_training_patients_are_marked_and_others_are_new(
    trained: tuple[Project, Path], tmp_path: Path
) -> None:
    project, folder = trained
    stranger = cohort(tmp_path / "p", patients=2, slides_each=1)
    train_patient = next(r.patient_id for r in project.slides if r.role == "train")
    stranger.update_slides({"p00_a": {"patient_id": train_patient}, "p01_a": {"patient_id": "somebody"}})
    assert stranger.role_badge(folder, "p00_a") == "TRAIN"
    write_features(stranger.folder / "x.h5", np.zeros((20, DIM)), grid_of())
    stranger.feature_path("p01_a").unlink()
    (stranger.folder / "x.h5").rename(stranger.feature_path("p01_a"))  # its own fingerprint
    stranger.add_slides([tmp_path / "n.svs"])
    assert stranger.role_badge(folder, "n") == "NEW"


def test_features_of_another_kind_are_refused(trained: tuple[Project, Path], tmp_path: Path) -> None:
    _, folder = trained
    project = cohort(tmp_path / "p", patients=1, slides_each=2)
    for slide_id, options in (("p00_a", {"encoder": "resnet50"}), ("p00_b", {"target_mpp": 0.25, "px": 200})):
        project.feature_path(slide_id).unlink()
        write_features(project.feature_path(slide_id), np.zeros((20, DIM)), grid_of(), **options)  # type: ignore[arg-type]
    with pytest.raises(FeatureError, match=r"p00_a: .* encoder resnet50 instead of texture"):
        predict_slide(project, folder, "p00_a", out=tmp_path)
    with pytest.raises(FeatureError, match=r"200 instead of 100; 0\.25 µm per pixel instead of 0.5"):
        predict_slide(project, folder, "p00_b", out=tmp_path)


def test_what_counts_as_another_kind() -> None:
    wanted = {"encoder": "e", "weights_sha256": "aaaa", "target_mpp": 0.5, "patch_px": 224, "dim": 8}
    refuse_other_features(wanted, wanted, "s")
    refuse_other_features(wanted, {**wanted, "target_mpp": 0.499, "weights_sha256": ""}, "s")
    refuse_other_features({}, wanted, "s")
    for change, sentence in (
        ({"weights_sha256": "bbbb"}, "other weights of the encoder"),
        ({"dim": 9}, "numbers per patch 9 instead of 8"),
        ({"target_mpp": 1.0}, "1 µm per pixel instead of 0.5"),
    ):
        with pytest.raises(FeatureError, match=sentence):
            refuse_other_features(wanted, {**wanted, **change}, "s")


def test_damaged_files_are_refused(tmp_path: Path, trained: tuple[Project, Path]) -> None:
    project, folder = trained
    predict_slide(project, folder, "p00_a", out=tmp_path)
    path = tmp_path / "p00_a.npz"
    whole = path.read_bytes()
    for content in (b"", b"no", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(MilError, match="holds no scores of a prediction"):
            load_map_scores(path)
    with pytest.raises(MilError, match="holds no scores"):
        load_map_scores(tmp_path / "none.npz")
