"""Colours on the command line: in sRGB where it is asked for, and what looks fluorescent is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from napari_mil.jobs import ExtractJob
from napari_mil.study import Project

from .conftest import Run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ExtractJob]:
    """The jobs that `extract` hands in, none of which is run."""
    specs: list[ExtractJob] = []

    def take(spec: ExtractJob) -> dict[str, Any]:
        specs.append(spec)
        return {"message": "Done."}

    monkeypatch.setattr("napari_mil.cli._slides.run_job", take)
    return specs


@pytest.fixture
def tagged(tmp_path: Path, scanner_profile: bytes) -> Path:
    """A picture with a scanner's profile."""
    path = tmp_path / "tagged.png"
    picture = Image.new("RGB", (300, 300), (240, 240, 240))
    picture.paste((150, 70, 140), (50, 50, 250, 250))
    picture.save(path, icc_profile=scanner_profile)
    return path


def test_slide_files(run: Run, asked: list[ExtractJob], tagged: Path, tmp_path: Path) -> None:
    assert run("extract", tagged, "--out", tmp_path / "out")[0] == 0
    assert run("extract", tagged, "--out", tmp_path / "out", "--srgb")[0] == 0
    assert [spec.srgb for spec in asked] == [False, True]


def test_slide_files_really(run: Run, tagged: Path, tmp_path: Path) -> None:
    from napari_mil.features import read_features

    options = ("--mpp", "1", "--target-mpp", "1", "--patch-px", "32", "--out", tmp_path / "out", "--srgb")
    assert run("extract", tagged, *options)[0] == 0
    assert read_features(tmp_path / "out" / "tagged.h5").attrs["color"].startswith("sRGB by the profile")


def test_a_project_remembers_it(run: Run, asked: list[ExtractJob], tagged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    before = Project.create(folder, [tagged]).feature_set
    code, _, err = run("extract", folder, "--srgb")
    assert code == 0
    assert "colours in sRGB, by each file's ICC profile from now on" in err
    assert Project.open(folder).config.color == "srgb"
    assert Project.open(folder).feature_set != before
    run("extract", folder)
    assert Project.open(folder).config.color == "srgb"
    run("extract", folder, "--as-stored")
    assert Project.open(folder).feature_set == before
    assert run("project", "new", tmp_path / "other", "--slides", tagged, "--srgb")[0] == 0
    assert Project.open(tmp_path / "other").config.color == "srgb"


def test_info_and_tissue(run: Run, tagged: Path, tmp_path: Path) -> None:
    assert json.loads(run("info", tagged, "--json")[1])["color_profile"].startswith("“Test scanner” (sha256 ")
    pictures = [tmp_path / "stored.png", tmp_path / "srgb.png"]
    assert run("tissue", tagged, "--mpp", "1", "--out", pictures[0])[0] == 0
    assert run("tissue", tagged, "--mpp", "1", "--out", pictures[1], "--srgb")[0] == 0
    middles = []
    for path in pictures:
        with Image.open(path) as picture:
            middles.append(picture.convert("RGB").getpixel((150, 150)))
    assert middles[0] == (150, 70, 140)
    assert min(a - b for a, b in zip(middles[1], middles[0], strict=True)) > 20


def test_what_looks_fluorescent_is_said(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), (4, 8, 20)).save(tmp_path / "dapi.png")
    facts = json.loads(run("info", tmp_path / "dapi.png", "--json")[1])
    assert "looks like a fluorescence slide" in facts["problems"][0]
