from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_mil.errors import JobError
from napari_mil.jobs import ApplyJob, CallJob, ExtractJob, JobStatus, PredictJob, TrainJob, parse_spec, plain
from napari_mil.jobs._specs import from_portable, portable


@pytest.mark.parametrize(
    "spec",
    [
        ExtractJob(project="p", slide_ids=["a"], device="cpu", retry_failed=True),
        ExtractJob(slides=["a.svs"], encoder="texture", out="features"),
        TrainJob(project="p", method={"task": {"kind": "binary"}}, seed=3, out="p/runs/x", resume=True),
        PredictJob(project="p", run="p/runs/x", slide_ids=None),
        ApplyJob(bundle="b", slides=["ä [1].svs"], out="o"),
        CallJob(target="package.module:function", kwargs={"n": 1}),
    ],
    ids=lambda spec: spec.kind,
)
def test_a_spec_survives_json(spec: TrainJob) -> None:
    assert parse_spec(json.loads(spec.model_dump_json())) == spec


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert TrainJob(project="p", method={}).project == str(tmp_path / "p")


def test_unknown_fields_and_kinds_are_refused() -> None:
    with pytest.raises(ValidationError):
        TrainJob(project="p", method={}, epochs=3)  # type: ignore[call-arg]
    with pytest.raises(JobError, match="kind"):
        parse_spec({"kind": "dance"})
    with pytest.raises(JobError, match=r"method: Field required"):
        parse_spec({"kind": "train", "project": "p"})
    with pytest.raises(ValidationError, match="either a project, or slides"):
        ExtractJob()
    with pytest.raises(ValidationError):
        CallJob(target="os.system")


def test_a_moved_project_takes_its_jobs_along(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    spec = TrainJob(project=str(old), method={"out": "untouched"}, out=str(old / "runs" / "x"))
    data = portable(spec, old)
    assert str(tmp_path) not in json.dumps(data)
    moved = from_portable(data, new)
    assert isinstance(moved, TrainJob)
    assert (moved.project, moved.out) == (str(new), str(new / "runs" / "x"))
    assert moved.method == {"out": "untouched"}


def test_paths_outside_the_project_stay(tmp_path: Path) -> None:
    spec = PredictJob(project=str(tmp_path / "p"), run=str(tmp_path / "elsewhere"), paths=[str(tmp_path / "p/s.svs")])
    data = portable(spec, tmp_path / "p")
    assert data["run"] == str(tmp_path / "elsewhere")
    assert data["paths"] == ["s.svs"]
    assert from_portable(data, tmp_path / "p") == spec


def test_phases_follow_each_other_only_forwards() -> None:
    status = JobStatus("1", "call").replace(phase="starting").replace(phase="running", fraction=0.5)
    assert status.replace(fraction=0.6).phase == "running"
    done = status.replace(phase="done")
    assert done.finished
    with pytest.raises(JobError, match="after 'done'"):
        done.replace(phase="running")
    with pytest.raises(JobError):
        JobStatus("1", "call").replace(phase="done")
    with pytest.raises(dataclasses.FrozenInstanceError):
        done.fraction = 0.0  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class _Report:
    path: Path
    values: tuple[float, ...]
    count: np.int64


def test_reports_become_plain() -> None:
    report = _Report(Path("x"), (1.0, float("nan"), float("inf")), np.int64(3))
    assert plain(report) == {"path": "x", "values": [1.0, None, None], "count": 3}
    assert plain({1: np.array([[1, 2]]), "b": np.float32(0.5), "c": {True}}) == {"1": [[1, 2]], "b": 0.5, "c": [True]}


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_json)
def test_anything_plain_is_strict_json(value: object) -> None:
    once = plain(value)
    assert json.loads(json.dumps(once, allow_nan=False)) == once
    assert plain(once) == once
