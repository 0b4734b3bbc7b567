"""Encoders on the command line: what is told of them, and licences that are read before anything is downloaded."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from napari_mil.features.licences import is_accepted
from napari_mil.features.published import PUBLISHED
from napari_mil.study import Project

from .conftest import Run


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that commands would run."""
    seen: list[Any] = []

    def pretend(spec: Any) -> dict[str, Any]:
        seen.append(spec)
        return {"message": "Pretended."}

    monkeypatch.setattr("napari_mil.cli._slides.run_job", pretend)
    return seen


def test_all_encoders_and_one_with_its_licence(run: Run) -> None:
    code, out, _ = run("encoders")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()][:4] == ["resnet50", "resnet18", "texture", "uni"]
    listed = json.loads(run("encoders", "--json")[1])
    assert {row["encoder"] for row in listed} >= set(PUBLISHED)
    one = json.loads(run("encoders", "virchow2", "--json")[1])
    assert (one["numbers"], one["target_mpp"], one["patch_px"]) == (2560, 0.5, 224)
    assert one["source"] == "https://huggingface.co/paige-ai/Virchow2"
    assert one["licence_to_accept"]
    code, out, err = run("encoders", "virchow2", "--accept-licence", "--json")
    assert code == 0
    assert "https://creativecommons.org/licenses/by-nc-nd/4.0/" in err  # shown all the same
    assert not json.loads(out)["licence_to_accept"]
    assert is_accepted(PUBLISHED["virchow2"])
    assert run("encoders", "--accept-licence")[0] == 2
    assert "there is no encoder 'uni9'" in run("encoders", "uni9")[2]


def test_no_job_before_the_licence_is_accepted(
    run: Run, jobs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = tmp_path / "a.svs"
    slide.touch()
    command = ("extract", slide, "--encoder", "uni")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = run(*command)
    assert code == 2
    assert "The weights of UNI (1214 MB from https://huggingface.co/MahmoodLab/UNI) come under CC BY-NC-ND 4.0" in err
    assert "add --accept-licence" in err
    assert jobs == []

    asked = io.StringIO("n\n")
    asked.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", asked)
    assert run(*command)[0] == 2
    assert jobs == []
    asked = io.StringIO("y\n")
    asked.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", asked)
    assert run(*command)[0] == 0
    assert is_accepted(PUBLISHED["uni"])
    assert "come under" not in run(*command)[2]  # once is enough
    assert run("extract", slide, "--encoder", "conch", "--weights", tmp_path / "w.bin")[0] == 0  # no download
    assert [spec.encoder for spec in jobs] == ["uni", "uni", "conch"]


def test_patches_are_cut_as_the_encoder_wants_them_unless_told_otherwise(
    run: Run, jobs: list[Any], tmp_path: Path
) -> None:
    slide = tmp_path / "a.svs"
    slide.touch()
    assert "Note" not in run("extract", slide, "--encoder", "uni", "--accept-licence")[2]
    assert jobs[-1].tile == {"target_mpp": 0.5, "patch_px": 256}
    err = run("extract", slide, "--encoder", "uni", "--patch-px", "224")[2]
    assert jobs[-1].tile == {"target_mpp": 0.5, "patch_px": 224}
    assert "Note: UNI was made for patches of 256 px at 0.5 µm/px. Here they are 224 px" in err
    run("extract", slide)
    assert jobs[-1].tile == {}


def test_a_project_has_the_scale_of_its_encoder(run: Run, jobs: list[Any], tmp_path: Path) -> None:
    assert run("project", "new", tmp_path / "new", "--encoder", "conch")[0] == 0
    tile = Project.open(tmp_path / "new").config.tile
    assert (tile.target_mpp, tile.patch_px) == (0.5, 512)
    Project.create(tmp_path / "old")
    code, _, err = run("extract", tmp_path / "old", "--encoder", "uni", "--accept-licence")
    assert code == 0
    assert "Here they are 224 px at 0.5 µm/px" in err
    assert "Change it on the page Features or in project.json." in err
    assert Project.open(tmp_path / "old").config.tile.patch_px == 224  # what somebody chose is theirs
    assert jobs[-1].project == str(tmp_path / "old")


def test_a_licence_that_is_not_accepted_leaves_the_project_its_encoder(
    run: Run, jobs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.create(tmp_path / "p")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = run("extract", project.folder, "--encoder", "uni")
    assert code == 2
    assert "add --accept-licence" in err
    assert Project.open(project.folder).config.encoder == "texture"
    assert jobs == []
