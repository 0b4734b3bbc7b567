"""The runner with real child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from napari_mil.errors import Cancelled, JobError
from napari_mil.jobs import Executor, JobHandle, JobRunner, JobStatus

from .jobs_help import call, until, working


def test_a_job_runs_and_tells_of_it(runner: JobRunner) -> None:
    job = runner.submit(call("epochs", n=3, pause=0.06))
    seen = list(job.events())
    phases = [status.phase for status in seen]
    assert phases[-1] == "done"
    assert phases.index("running") < phases.index("done")
    assert seen[-1].result == {"epochs": 3}
    assert seen[-1].fraction == 1.0
    fractions = [status.fraction for status in seen]
    assert fractions == sorted(fractions)
    assert [report["epoch"] for report in job.reports] == [1, 2, 3]
    assert any(status.memory_mb and status.memory_mb > 5 for status in seen)
    assert job.result() == {"epochs": 3}
    assert json.loads(json.dumps(seen[-1].to_dict()))["phase"] == "done"
    assert isinstance(runner, Executor)
    assert isinstance(job, JobHandle)


def test_the_child_is_warm_slim_and_polite(runner: JobRunner) -> None:
    first = runner.submit(call("facts")).result(20)
    second = runner.submit(call("facts")).result(20)
    assert first["pid"] == second["pid"] == runner.child_pid != os.getpid()
    # neither the main script nor anything of the window comes along
    assert not {"napari", "qtpy", "pytest", "torch", "PyQt6"} & set(first["modules"])
    assert first["main"] is None
    assert int(first["threads"]) >= 1
    if os.name == "posix":
        assert first["nice"] >= os.nice(0) + 1


def test_warm_up_imports_ahead(project: Path) -> None:
    with JobRunner() as runner:
        runner.warm_up("colorsys", "no_such_module_at_all")
        job = runner.submit(call("facts"))
        assert "colorsys" in job.result(20)["modules"]


def test_reports_of_odd_types_arrive_as_json(runner: JobRunner) -> None:
    job = runner.submit(call("numbers"))
    assert job.result(20) == {"path": "x", "value": 0.5}
    assert job.reports == [{"epoch": 1, "epochs": 1, "val_auroc": None, "array": [0, 1, 2]}]


def test_jobs_wait_for_each_other_in_order(runner: JobRunner, tmp_path: Path) -> None:
    ended: list[str] = []
    gate = tmp_path / "gate"
    jobs = [runner.submit(call("gated", gate=str(gate))), *(runner.submit(call("count", n=1)) for _ in range(2))]
    for job in jobs:
        job.subscribe(lambda status: ended.append(status.job_id) if status.finished else None)
    until(lambda: jobs[0].status.phase == "running")
    assert jobs[1].status.phase == jobs[2].status.phase == "queued"
    assert jobs[1].status.message == "Waiting for one job to finish."
    assert jobs[2].status.message == "Waiting for 2 jobs to finish."
    gate.touch()
    until(lambda: len(ended) == 3)
    assert ended == [job.id for job in jobs]
    assert not runner.busy


def test_a_queued_job_can_be_cancelled(runner: JobRunner, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first, second, third = (runner.submit(call("gated", gate=str(gate))) for _ in range(3))
    second.cancel()
    assert second.wait(15).phase == "cancelled"
    assert second.status.message == "Cancelled before it started."
    gate.touch()
    assert first.wait(40).phase == third.wait(40).phase == "done"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("mil", "only one class in the training slides"),
        ("oom", "graphics card is exhausted"),
        ("memory", "computer's memory is exhausted"),
        ("runtime", "unexpected RuntimeError: something odd. Details are in"),
        ("stop", "unexpected RuntimeError: generator raised StopIteration"),
    ],
)
def test_every_error_arrives_as_a_sentence(runner: JobRunner, kind: str, words: str) -> None:
    job = runner.submit(call("fail", kind=kind))
    status = list(job.events())[-1]
    assert status.phase == "failed"
    assert words in (status.error or "")
    assert status.message == status.error
    assert "Traceback" not in status.message
    with pytest.raises(JobError, match=words[:20]):
        job.result()
    # the queue goes on
    assert runner.submit(call("count", n=1)).result(20) == {"counted": 1}


def test_the_log_holds_the_traceback_and_prints(runner: JobRunner, project: Path) -> None:
    failed = runner.submit(call("fail", project, kind="runtime"))
    failed.wait(20)
    assert failed.log == project / "jobs" / f"{failed.id}.log"
    assert "something odd\nwith a second line" in failed.log.read_text()
    assert str(failed.log) in (failed.status.error or "")
    noisy = runner.submit(call("noisy", project))
    assert noisy.result(20) == {"ok": True}
    assert noisy.log is not None
    text = noisy.log.read_text()
    assert all(words in text for words in ("from print", "from C", "from stderr"))
    quiet = runner.submit(call("count", project, n=1))
    quiet.wait(20)
    assert quiet.log is not None
    assert not quiet.log.exists()


def test_an_unknown_function_is_a_sentence(runner: JobRunner) -> None:
    status = runner.submit(call("no_such_function")).wait(20)
    assert status.phase == "failed"
    assert "expected an importable" in (status.error or "")


def test_cancel_lets_the_job_tidy_up(runner: JobRunner, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    job = runner.submit(call("polite", marker=str(marker)))
    working(job)
    pid = runner.child_pid
    job.cancel()
    assert job.wait(20).phase == "cancelled"
    assert marker.read_text() == "tidy"
    assert runner.child_pid == pid  # still warm
    with pytest.raises(Cancelled):
        job.result()


def test_cancel_ends_a_stubborn_job(runner: JobRunner) -> None:
    job = runner.submit(call("stubborn", seconds=60))
    working(job)
    pid = runner.child_pid
    assert pid is not None
    job.cancel()
    until(lambda: job.status.message == "Stopping…" or job.status.finished)
    job.cancel()  # impatience must not extend the grace
    assert job.wait(20).phase == "cancelled"
    assert not psutil.pid_exists(pid)  # no zombie either
    assert runner.submit(call("facts")).result(20)["pid"] != pid


def test_killing_the_child_is_survived(runner: JobRunner, project: Path) -> None:
    job = runner.submit(call("count", project, n=1000, pause=0.02))
    follower = runner.submit(call("count", n=2))
    working(job)
    assert runner.child_pid is not None
    psutil.Process(runner.child_pid).kill()
    status = job.wait(20)
    assert status.phase == "failed"
    assert "ended from outside" in (status.error or "") or os.name == "nt"
    assert "resume" in (status.error or "")
    assert job.interrupted
    assert job.resume_spec() == job.spec
    assert follower.result(20) == {"counted": 2}


def test_a_crash_is_told_from_a_kill(runner: JobRunner) -> None:
    status = runner.submit(call("crash")).wait(20)
    assert status.phase == "failed"
    assert "crashed (SIGABRT)" in (status.error or "") or os.name == "nt"


def test_a_child_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_mil.jobs._process._BOOTSTRAP", "raise ImportError('no torch here')")
    with JobRunner() as runner:
        status = runner.submit(call("facts")).wait(20)
    assert status.phase == "failed"
    assert "could not start" in (status.error or "")
    assert "no torch here" in (status.error or "")


def test_a_flood_of_reports_is_coalesced_but_no_epoch_lost(runner: JobRunner) -> None:
    seen: list[JobStatus] = []
    begun = time.monotonic()
    job = runner.submit(call("epochs", n=5000))
    job.subscribe(seen.append)
    job.result(30)
    elapsed = time.monotonic() - begun
    assert [report["epoch"] for report in job.reports] == list(range(1, 5001))
    assert len(seen) <= 20 * elapsed + 10


def test_a_subscriber_hears_everything_from_one_other_thread(runner: JobRunner) -> None:
    seen: list[JobStatus] = []
    threads: set[str] = set()

    def hear(status: JobStatus) -> None:
        seen.append(status)
        threads.add(threading.current_thread().name)
        raise ValueError("a fault of the subscriber's")

    job = runner.submit(call("epochs", n=3, pause=0.06))
    job.subscribe(hear)
    job.wait(10)
    until(lambda: bool(seen) and seen[-1].finished)
    assert threads == {"napari-mil jobs"}
    late: list[JobStatus] = []
    job.subscribe(late.append)
    until(lambda: bool(late))
    assert late[0].phase == "done"


def test_an_ended_subscription_hears_nothing_more(runner: JobRunner, tmp_path: Path) -> None:
    seen: list[JobStatus] = []
    gate = tmp_path / "gate"
    job = runner.submit(call("gated", gate=str(gate)))
    end = job.subscribe(seen.append)
    working(job)
    end()
    heard = len(seen)
    gate.touch()
    assert job.wait(10).phase == "done"
    assert len(seen) <= heard + 1


def test_a_closed_runner_wakes_its_listeners_and_refuses() -> None:
    runner = JobRunner()
    job = runner.submit(call("stubborn", seconds=60))
    waiting = runner.submit(call("count", n=1))
    working(job)
    pid = runner.child_pid
    assert pid is not None
    runner.close()
    assert list(job.events())[-1].phase == "cancelled"
    assert waiting.status.phase == "cancelled"
    assert not psutil.pid_exists(pid)
    with pytest.raises(JobError, match="closed"):
        runner.submit(call("count", n=1))
    runner.close()


_SCRIPT = """
import sys, time
sys.path.insert(0, {here!r})
from napari_mil.jobs import CallJob, JobRunner
runner = JobRunner()
job = runner.submit(CallJob(target="demo_work:{work}", kwargs={kwargs!r}))
while job.status.report is None:
    time.sleep(0.01)
print(runner.child_pid, flush=True)
{rest}
"""


def _script(work: str, rest: str, **kwargs: object) -> subprocess.Popen[str]:
    code = _SCRIPT.format(here=str(Path(__file__).parent), work=work, kwargs=kwargs, rest=rest)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_the_child_dies_with_its_parent() -> None:
    parent = _script("stubborn", "time.sleep(60)", seconds=60)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 5)


def test_a_script_may_end_without_closing_and_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        _SCRIPT.format(here=str(Path(__file__).parent), work="stubborn", kwargs={"seconds": 60}, rest="print('end')")
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=20, check=True)
    pid, end = done.stdout.split()
    assert end == "end"
    assert done.stderr == ""
    until(lambda: not psutil.pid_exists(int(pid)), 5)
