from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

import napari_mil.features as features
from napari_mil.errors import FeatureError
from napari_mil.study import Project
from napari_mil.study.encoder import load_encoder


def drain(generator: Any) -> tuple[list[Any], Any]:
    reports = []
    while True:
        try:
            reports.append(next(generator))
        except StopIteration as end:
            return reports, end.value


def test_a_download_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.create(tmp_path / "p", encoder="resnet50")

    def slow(name: str, *, weights: object, device: str, progress: Callable[[int, int], None]) -> str:
        for done in range(1, 4):
            progress(done * 10_000_000, 30_000_000)
            time.sleep(0.6)
        return f"{name} on {device}"

    monkeypatch.setattr(features, "get_encoder", slow)
    reports, encoder = drain(load_encoder(project, "s1", "cpu"))
    assert encoder == "resnet50 on cpu"
    assert re.fullmatch(r"Downloading the weights of resnet50: [12]0 of 30 MB\.", reports[0].message)
    assert {r.slide_id for r in reports} == {"s1"}


def test_one_without_weights_says_nothing(tmp_path: Path) -> None:
    reports, encoder = drain(load_encoder(Project.create(tmp_path / "p"), "s1", "cpu"))
    assert reports == []
    assert encoder.name == "texture"


def test_a_failure_comes_through(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", encoder=str(tmp_path / "nowhere.pt2"))
    with pytest.raises(FeatureError, match=r"nowhere\.pt2"):
        drain(load_encoder(project, "s1", "cpu"))


def test_the_precision_of_the_features_that_are_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.create(tmp_path / "p", encoder="resnet50")
    asked: list[str] = []
    monkeypatch.setattr(features, "get_encoder", lambda name, **_: name)
    monkeypatch.setattr(features, "in_precision", lambda encoder, precision: asked.append(precision))

    def load() -> str:
        drain(load_encoder(project, "s1", "cpu"))
        return asked.pop()

    assert load() == "auto"
    open_set = project.feature_set
    project.feature_folder.mkdir(parents=True)
    with h5py.File(project.feature_folder / "s0.h5.part", "w") as file:
        file.attrs["precision"] = "bf16"
    assert load() == "bf16"  # also on a machine that gains nothing by it
    project.config.precision = "fp32"
    assert load() == "fp32"
    assert project.feature_set != open_set  # asked for: a set of its own


def test_the_precision_is_told_where_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fast:
        name, precision, backend, precision_cosine = "resnet50", "bf16", "openvino", 0.99982

    monkeypatch.setattr(features, "get_encoder", lambda name, **_: Fast())
    reports, encoder = drain(load_encoder(Project.create(tmp_path / "p", encoder="resnet50"), "s1", "cpu"))
    assert isinstance(encoder, Fast)
    assert "computes in bf16 by openvino" in reports[0].message
    assert "0.99982" in reports[0].message


def test_the_first_of_several_processes_chooses_the_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that gains by bf16 and a processor that does not begin together, before any slide is done."""
    project = Project.create(tmp_path / "p", encoder="resnet50")

    class Made:
        name, backend, precision_cosine = "resnet50", "torch", None

        def __init__(self, precision: str) -> None:
            self.precision = precision

    best = {"cuda:0": "bf16", "cpu": "fp32"}
    monkeypatch.setattr(features, "get_encoder", lambda name, device, **_: device)
    monkeypatch.setattr(
        features, "in_precision", lambda device, wanted: Made(best[device] if wanted == "auto" else wanted)
    )
    made = [drain(load_encoder(project, "s1", device))[1].precision for device in ("cuda:0", "cpu", "cuda:0")]
    assert made == ["bf16"] * 3
    project.config.precision = "fp32"
    assert drain(load_encoder(project, "s1", "cuda:0"))[1].precision == "fp32"
    assert not project.feature_folder.exists()  # nothing was left open
