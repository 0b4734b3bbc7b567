"""Mistakes on the command line: what is told, what is done all the same, and that nothing is passed over in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_mil.study import Project

from .conftest import Run


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The job specs that commands hand in, none of which is run."""
    specs: list[Any] = []

    def take(spec: Any) -> dict[str, Any]:
        specs.append(spec)
        return {"message": "Done."}

    monkeypatch.setattr("napari_mil.cli._slides.run_job", take)
    return specs


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two slides without a scale, and a file that is none."""
    folder = tmp_path / "sl ides [é]"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    for name in ("a.tif", "c.tif"):
        tifffile.imwrite(folder / name, image, tile=(128, 128), photometric="rgb")
    (folder / "b.svs").write_bytes(b"no slide at all")
    return folder


def test_info_of_a_folder_goes_on_after_a_bad_slide(run: Run, slides: Path) -> None:
    code, out, err = run("info", slides)
    assert code == 2
    assert out.count("400, 300") == 2
    assert "b.svs" in err
    assert err.count("\n") == 1


def test_info_in_json_is_json_also_of_a_bad_slide(run: Run, slides: Path) -> None:
    code, out, _ = run("info", "--json", slides)
    rows = json.loads(out)
    assert code == 2
    assert [Path(row["path"]).name for row in rows] == ["a.tif", "b.svs", "c.tif"]
    assert "b.svs" in rows[1]["error"]
    code, out, _ = run("info", "--json", slides / "b.svs")
    assert (code, set(json.loads(out))) == (2, {"path", "error"})


def test_a_folder_that_cannot_be_written_is_a_sentence(run: Run, slides: Path) -> None:
    code, _, err = run("tissue", slides / "a.tif", "--out", slides / "b.svs" / "picture.png")
    assert code == 2
    assert err.splitlines()[-1].startswith("napari-mil: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("wrong", [("--target-mpp", "-1"), ("--target-mpp", "0"), ("--patch-px", "0")])
def test_a_wrong_size_of_patches_is_refused_before_anything_starts(
    run: Run, jobs: list[Any], slides: Path, wrong: tuple[str, str]
) -> None:
    code, _, err = run("extract", slides / "a.tif", *wrong)
    assert code == 2
    assert " ".join(wrong) in err
    assert not jobs


def test_the_scale_of_a_projects_slides_can_be_told(run: Run, jobs: list[Any], slides: Path, tmp_path: Path) -> None:
    Project.create(tmp_path / "project", slides)
    code, _, err = run("extract", tmp_path / "project", "--mpp", "0.25")
    assert code == 0
    assert "0.25 µm per pixel" in err
    assert jobs[0].retry_failed
    assert Project.open(tmp_path / "project").mpp_of("a") == (0.25, 0.25)


def test_options_of_slide_files_are_refused_for_a_project(
    run: Run, jobs: list[Any], slides: Path, tmp_path: Path
) -> None:
    Project.create(tmp_path / "project", slides)
    code, _, err = run("extract", tmp_path / "project", "--target-mpp", "1", "--out", tmp_path / "features")
    assert code == 2
    assert "--out and --target-mpp" in err
    assert not jobs


@pytest.mark.parametrize("encoder", ["textur", "nowhere.pt2"])
def test_an_encoder_that_is_not_there_changes_no_project(
    run: Run, jobs: list[Any], slides: Path, tmp_path: Path, encoder: str
) -> None:
    Project.create(tmp_path / "project", slides)
    code, _, err = run("extract", tmp_path / "project", "--encoder", encoder)
    assert code == 2
    assert encoder in err
    assert not jobs
    assert Project.open(tmp_path / "project").config.encoder == "texture"
    assert run("project", "new", tmp_path / "other", "--slides", slides, "--encoder", encoder)[0] == 2
    assert not (tmp_path / "other").exists()


def test_an_encoder_program_is_found_from_where_it_was_named(
    run: Run, jobs: list[Any], slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Project.create(tmp_path / "project", slides)
    (tmp_path / "own.pt2").touch()
    monkeypatch.chdir(tmp_path)
    assert run("extract", "project", "--encoder", "own.pt2")[0] == 0
    assert Path(Project.open(tmp_path / "project").encoder) == tmp_path / "own.pt2"
    assert jobs[0].project == str(tmp_path / "project")


def test_a_mistake_leaves_no_half_project(run: Run, slides: Path, tmp_path: Path) -> None:
    code, _, err = run("project", "new", tmp_path / "new", "--slides", slides, "--lesions", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in err
    assert not (tmp_path / "new").exists()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Features of slide a: of CLAM, and of two encoders by TRIDENT."""
    import h5py

    coords = np.array([[0, 0], [128, 0], [0, 128]])
    for folder, value in (("clam/h5_files", 1), ("trident/features_uni", 2), ("trident/features_conch", 3)):
        (tmp_path / folder).mkdir(parents=True)
        with h5py.File(tmp_path / folder / "a.h5", "w") as file:
            file["features"] = np.full((3, 4), value, np.float32)
            attrs = file.create_dataset("coords", data=coords).attrs
            attrs.update({"patch_size": 128, "patch_size_level0": 128, "level0_width": 400, "level0_height": 300})
    (tmp_path / "clam/patches").mkdir()
    with h5py.File(tmp_path / "clam/patches/a.h5", "w") as file:
        file.create_dataset("coords", data=coords).attrs.update({"patch_size": 128, "patch_level": 0})
    return tmp_path


def test_imports_of_several_encoders_are_never_mixed(run: Run, slides: Path, foreign: Path) -> None:
    from napari_mil.features import read_features

    made = Project.create(foreign / "project", slides)
    made.set_mpp("a", 0.5)
    assert run("import-features", foreign / "clam", "--project", made.folder)[0] == 0
    assert Project.open(made.folder).feature_set == "clam-4-imported"
    code, _, err = run("import-features", foreign / "trident", "--project", made.folder)
    assert code == 0
    assert "several encoders" in err
    assert Project.open(made.folder).feature_set == "conch-imported"
    found = {path.parent.name: read_features(path).features[0, 0] for path in made.folder.rglob("*.h5")}
    assert found == {"clam-4-imported": 1, "uni-imported": 2, "conch-imported": 3}


def test_imports_into_one_folder_do_not_write_over_each_other(run: Run, foreign: Path) -> None:
    code, out, err = run("import-features", foreign / "trident", "--out", foreign / "out", "--mpp", "0.5", "--json")
    assert code == 2
    assert (json.loads(out)["imported"], json.loads(out)["refused"]) == (1, 1)
    assert "folder of its own" in err


def test_resume_takes_the_run_written_last_whatever_it_is_called(
    run: Run, monkeypatch: pytest.MonkeyPatch, slides: Path, tmp_path: Path
) -> None:
    from napari_mil.mil import Method

    specs: list[Any] = []

    def take(spec: Any) -> dict[str, Any]:
        specs.append(spec)
        return {"message": "Done."}

    monkeypatch.setattr("napari_mil.cli._training.run_job", take)
    Project.create(tmp_path / "project", slides)
    method = Method.preset("mean").model_dump(mode="json")
    for age, (name, finished) in enumerate([("done", True), ("a-second", False), ("z-first", False)]):
        path = tmp_path / "project" / "runs" / name / "run.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"method": method, "finished": finished}))
        os.utime(path, (10_000 - age, 10_000 - age))
    code, _, err = run("train", tmp_path / "project", "--resume")
    assert code == 0
    assert "going on with the run a-second" in err
    assert Path(specs[0].out).name == "a-second"


def test_what_is_said_after_ctrl_c_goes_on_with_that_run_and_no_other(tmp_path: Path) -> None:
    from napari_mil.cli._terminal import _resuming
    from napari_mil.jobs import TrainJob

    out = tmp_path / "my run"
    said = _resuming(TrainJob(project=str(tmp_path / "project"), method={}, out=str(out), resume=True))
    assert said.startswith("napari-mil train ")
    assert "--resume --out " in said
    assert str(out) in said
