"""Slides divided over devices; two processes on the CPU stand in for two graphics cards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from napari_mil.errors import JobError
from napari_mil.features import read_features
from napari_mil.jobs import ExtractJob, JobRunner
from napari_mil.jobs import _devices as devices
from napari_mil.jobs._devices import _settle, devices_of, extract_on
from napari_mil.study import Project
from napari_mil.study.prepare import record_failure

from .test_training_job import paint


class Context:
    """As much of a job's context as is needed; `stop` is what a person's wish raises."""

    def __init__(self) -> None:
        self.stop: Exception | None = None

    def part(self, index: int, parts: int, name: str = "") -> None:
        assert 0 <= index < parts

    def check_cancelled(self) -> None:
        if self.stop is not None:
            raise self.stop


@pytest.fixture
def pictures(tmp_path: Path) -> Project:
    """Five small slides; the last one's file is no slide."""
    paths = [tmp_path / "slides" / f"s{number}.png" for number in range(5)]
    for number, path in enumerate(paths[:4]):
        paint(path, number)
    project = Project.create(tmp_path / "project", slides=paths)
    project.config.tile = project.config.tile.model_copy(update={"target_mpp": 1.0, "patch_px": 64})
    project.update_slides({f"s{number}": {"mpp": (1.0, 1.0)} for number in range(5)})
    project.save()
    return project


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert devices_of("auto") == ["auto"]
    assert devices_of("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of("cuda:all") == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(JobError, match="no CUDA graphics card"):
        devices_of("cuda:all")
    with pytest.raises(JobError, match="none is named"):
        devices_of(" , ")


def test_each_slide_is_done_once_and_a_bad_one_fails_alone(runner: JobRunner, pictures: Project) -> None:
    job = runner.submit(ExtractJob(project=str(pictures.folder), device="cpu,cpu"))
    result = job.result(120)
    assert sorted(result["done"]) == ["s0", "s1", "s2", "s3"]
    assert list(result["failed"]) == ["s4"]
    assert result["there"] == result["busy"] == []
    assert job.status.device == "cpu, cpu"
    told = [report["slide_id"] for report in job.reports if report["done"] == report["total"] > 0]
    assert sorted(told) == ["s0", "s1", "s2", "s3"]
    assert all(len(read_features(pictures.feature_path(slide_id))) > 0 for slide_id in result["done"])
    pictures.feature_path("s0").unlink()
    pictures.feature_path("s1").unlink()
    again = runner.submit(ExtractJob(project=str(pictures.folder), device="cpu,cpu")).result(120)
    assert sorted(again["done"]) == ["s0", "s1"]
    assert sorted(again["there"]) == ["s2", "s3"]
    assert again["passed_over"] == ["s4"]


def test_several_devices_are_for_projects(runner: JobRunner, tmp_path: Path) -> None:
    spec = ExtractJob(slides=[str(tmp_path / "a.svs")], encoder="texture", out=str(tmp_path), device="cpu,cpu")
    with pytest.raises(JobError, match="several devices are for the slides of a project"):
        runner.submit(spec).result(60)


def test_stopping_ends_the_processes(pictures: Project) -> None:
    spec: Any = ExtractJob(project=str(pictures.folder))
    before = set(psutil.Process().children())
    generator = extract_on(["cpu", "cpu"], pictures, pictures.slide_ids, spec, Context())  # type: ignore[arg-type]
    next(generator)
    assert len(set(psutil.Process().children()) - before) == 2
    generator.close()
    assert not set(psutil.Process().children()) - before


def test_the_slides_of_a_process_that_dies_are_done_by_another(
    pictures: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec: Any = ExtractJob(project=str(pictures.folder))
    monkeypatch.setattr(devices, "_SHARES", 1)
    before = set(psutil.Process().children())
    generator = extract_on(["cpu", "cpu"], pictures, pictures.slide_ids[:4], spec, Context())  # type: ignore[arg-type]
    told = [generator.send(None)]
    one = min(set(psutil.Process().children()) - before, key=lambda process: process.pid)
    one.kill()
    while True:
        try:
            told.append(next(generator))
        except StopIteration as end:
            outcome = end.value
            break
    assert any("cpu: Features on cpu: the background process was ended from outside" in r.message for r in told)
    lost = set(outcome["failed"])
    assert len(lost) <= 1  # the one it was at
    assert sorted([*lost, *outcome["done"]]) == ["s0", "s1", "s2", "s3"]
    assert set(pictures.failures()) == lost


def test_only_the_slide_that_a_process_was_at_has_failed(pictures: Project) -> None:
    worker: Any = SimpleNamespace(slides=["s0", "s1", "s2", "s3"], at="s2")
    pictures.feature_folder.mkdir(parents=True)
    pictures.feature_path("s0").touch()
    record_failure(pictures, "s1", "s1 is no slide.")
    outcome: dict[str, Any] = {"done": [], "failed": {}}
    assert _settle(outcome, worker, "It died.", pictures) == ["s3"]
    assert outcome == {"done": ["s0"], "failed": {"s1": "s1 is no slide.", "s2": "It died."}}
    assert pictures.failures() == outcome["failed"]


def test_an_encoder_that_cannot_be_made_is_no_fault_of_the_slides(runner: JobRunner, pictures: Project) -> None:
    pictures.config.encoder = "nowhere.pt2"
    pictures.save()
    with pytest.raises(JobError, match=r"There is no encoder program .*nowhere\.pt2"):
        runner.submit(ExtractJob(project=str(pictures.folder), device="cpu,cpu")).result(60)
    assert pictures.failures() == {}  # or they would be passed over from then on
