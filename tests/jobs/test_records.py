"""What a project remembers of its jobs, and what a cancelled run leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from napari_mil.errors import JobError
from napari_mil.jobs import ExtractJob, JobRunner, TrainJob, unfinished_jobs
from napari_mil.jobs._job import resumed
from napari_mil.jobs._records import SCHEMA_VERSION, prune
from napari_mil.jobs._runs import settle_run

from .jobs_help import call, until, working


def record(project: Path, job_id: str = "1", **changes: Any) -> Path:
    """Write a record of an extraction whose process is long dead."""
    path = project / "jobs" / f"{job_id}.json"
    path.parent.mkdir(exist_ok=True)
    fields = {
        "schema_version": SCHEMA_VERSION,
        "job_id": job_id,
        "kind": "extract",
        "spec": {"kind": "extract", "project": "."},
        "phase": "running",
        "fraction": 0.25,
        "message": "slide 3",
        "error": None,
        "result": None,
        "run": None,
        "interrupted": False,
        "updated": time.time(),
        "host": __import__("platform").node(),
        "owner": {"pid": os.getpid(), "started": 12345.0},
    }
    path.write_text(json.dumps({**fields, **changes}))
    return path


def test_records_follow_the_job(runner: JobRunner, project: Path) -> None:
    gate = project / "gate"
    job = runner.submit(call("gated", project, gate=str(gate)))
    working(job)
    path = project / "jobs" / f"{job.id}.json"
    until(lambda: json.loads(path.read_text())["phase"] == "running")
    found = unfinished_jobs(project)
    assert [(item.job_id, item.alive, item.resume_spec) for item in found] == [(job.id, True, None)]
    with pytest.raises(JobError, match="still running"):
        runner.resume(found[0])
    gate.touch()
    job.wait(10)
    assert json.loads(path.read_text())["phase"] == "done"
    assert unfinished_jobs(project) == []
    assert not list(path.parent.glob("*.part"))


def test_a_killed_job_is_offered_again(runner: JobRunner, project: Path) -> None:
    job = runner.submit(call("stubborn", project, seconds=60))
    working(job)
    assert runner.child_pid is not None
    psutil.Process(runner.child_pid).kill()
    job.wait(5)
    (found,) = unfinished_jobs(project)
    assert not found.alive
    assert found.resume_spec is None  # whoever sends me a folder must not choose what I run
    with pytest.raises(JobError, match="cannot be taken up"):
        runner.resume(found)
    found.forget()
    assert unfinished_jobs(project) == []


def test_a_failed_or_cancelled_job_is_not_offered(runner: JobRunner, project: Path) -> None:
    runner.submit(call("fail", project, kind="mil")).wait(20)
    job = runner.submit(call("stubborn", project, seconds=60))
    working(job)
    job.cancel()
    job.wait(5)
    assert unfinished_jobs(project) == []


def test_closing_the_runner_leaves_an_offer(project: Path) -> None:
    with JobRunner() as runner:
        job = runner.submit(call("stubborn", project, seconds=60))
        waiting = runner.submit(call("count", project, n=1))
        working(job)
    assert job.interrupted
    assert {item.job_id for item in unfinished_jobs(project)} == {job.id, waiting.id}
    assert not any(item.alive for item in unfinished_jobs(project))


def test_a_living_job_of_another_process_is_recognised(project: Path) -> None:
    code = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from jobs_help import call\n"
        "from pathlib import Path\n"
        "from napari_mil.jobs import JobRunner\n"
        f"job = JobRunner().submit(call('stubborn', Path({str(project)!r}), seconds=60))\n"
        "while job.status.report is None: time.sleep(0.01)\n"
        "print('working', flush=True)\n"
        "time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    with other.stdout:
        assert other.stdout.readline() == "working\n"
        (found,) = unfinished_jobs(project)
        assert found.alive
        assert found.pid == other.pid
        other.kill()
        other.wait()
    (found,) = unfinished_jobs(project)
    assert not found.alive


def test_a_record_of_a_reused_process_number_is_not_alive(project: Path) -> None:
    record(project)  # our own number, but another start time
    (found,) = unfinished_jobs(project)
    assert not found.alive
    assert found.resume_spec == ExtractJob(project=str(project))
    assert (found.title, found.fraction, found.message) == ("Features", 0.25, "slide 3")


def test_a_job_on_another_computer_is_alive_while_its_record_is_fresh(project: Path) -> None:
    record(project, "fresh", host="elsewhere")
    record(project, "stale", host="elsewhere", updated=time.time() - 3600)
    assert [(item.job_id, item.alive) for item in unfinished_jobs(project)] == [("stale", False), ("fresh", True)]


def test_a_moved_project_resumes_where_it_is_now(project: Path, tmp_path: Path) -> None:
    spec = {"kind": "train", "project": ".", "method": {"a": 1}, "seed": 7}
    record(project, kind="train", spec=spec, run="runs/x")
    (project / "runs" / "x").mkdir(parents=True)
    (project / "runs" / "x" / "last.safetensors").touch()
    moved = tmp_path / "moved"
    shutil.move(project, moved)
    (found,) = unfinished_jobs(moved)
    out = str(moved / "runs" / "x")
    assert found.resume_spec == TrainJob(project=str(moved), method={"a": 1}, seed=7, out=out, resume=True)


def test_broken_records_are_passed_over(project: Path) -> None:
    record(project, "good")
    record(project, "unknown", spec={"kind": "dance"})
    record(project, "incomplete").write_text("{}")
    record(project, "torn").write_text('{"job_id": ')
    assert [item.job_id for item in unfinished_jobs(project)] == ["good"]
    assert unfinished_jobs(project / "not there") == []


def test_old_records_of_finished_jobs_go(project: Path) -> None:
    for number in range(60):
        path = record(project, f"{number:03}", phase="done")
        path.with_suffix(".log").write_text("x")
        os.utime(path, (number, number))
    os.utime(record(project, "interrupted"), (0, 0))
    prune(project)
    left = sorted(path.stem for path in (project / "jobs").glob("*.json"))
    assert left == [f"{number:03}" for number in range(10, 60)] + ["interrupted"]
    assert len(list((project / "jobs").glob("*.log"))) == 50


def test_a_read_only_project_still_works(runner: JobRunner, project: Path) -> None:
    (project / "jobs").write_text("a file where the folder should be")
    job = runner.submit(call("count", project, n=2))
    assert job.result(20) == {"counted": 2}


# -- runs --------------------------------------------------------------------------------------------------


def run_folder(tmp_path: Path, *files: str) -> Path:
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text('{"seed": 1}' if name.endswith(".json") else "w")
    return folder


_FULL = ("run.json", "best.safetensors", "last.safetensors")


@pytest.mark.parametrize("keep", ["best", "last"])
def test_keeping_marks_the_run(tmp_path: Path, keep: str) -> None:
    folder = run_folder(tmp_path, *_FULL)
    assert f"the {keep} epoch's weights" in settle_run(folder, keep, True)  # type: ignore[arg-type]
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["status"], facts["use"], facts["seed"]) == ("cancelled", keep, 1)
    assert not list(folder.glob("*.part"))


def test_discarding_removes_what_the_job_made_and_nothing_else(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, *_FULL)
    assert "stays" in settle_run(folder, "discard", False)
    assert folder.is_dir()
    assert "discarded" in settle_run(folder, "discard", True)
    assert not folder.exists()
    assert folder.parent.is_dir()


def test_a_run_without_a_finished_epoch_has_nothing_to_keep(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "run.json")
    assert "nothing to keep" in settle_run(folder, "best", True)
    assert not folder.exists()
    assert settle_run(None, "best", False) == "Cancelled."


@pytest.mark.parametrize("keep", ["best", "last"])
def test_stopping_in_the_plain_run_keeps_it_as_a_run_of_its_own(tmp_path: Path, keep: str) -> None:
    folder = run_folder(tmp_path, "run.json", "last.safetensors", "patch_labels.npz")
    (folder / "plain").mkdir()
    for name in _FULL:
        (folder / "plain" / name).write_text('{"seed": 1}' if name.endswith(".json") else "w")
    assert f"its {keep} epoch's weights are kept in x-plain" in settle_run(folder, keep, True)  # type: ignore[arg-type]
    assert not folder.exists()
    kept = folder.with_name("x-plain")
    assert sorted(path.name for path in kept.iterdir()) == sorted([*_FULL, "patch_labels.npz"])
    assert json.loads((kept / "run.json").read_text()) == {"seed": 1, "status": "cancelled", "use": keep}


def test_discarding_in_the_plain_run_keeps_nothing(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "run.json")
    (folder / "plain").mkdir()
    for name in _FULL:
        (folder / "plain" / name).write_text("{}")
    assert "discarded" in settle_run(folder, "discard", True)
    assert list(folder.parent.iterdir()) == []


def test_a_training_resumes_in_its_folder_once_it_has_a_state(tmp_path: Path) -> None:
    spec = TrainJob(project=str(tmp_path), method={})
    assert resumed(spec, None) == spec
    folder = run_folder(tmp_path, "run.json")
    assert resumed(spec, folder) == spec
    for stage in ("plain", ""):  # in the plain run that it starts from, or in the training itself
        state = folder / stage / "last.safetensors"
        state.parent.mkdir(exist_ok=True)
        state.touch()
        assert resumed(spec, folder) == spec.model_copy(update={"out": str(folder), "resume": True})
        state.unlink()
