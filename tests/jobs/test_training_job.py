"""Real trainings in the child: finished, cancelled in three ways, killed, resumed; predictions after them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from napari_mil.jobs import ApplyJob, ExperimentJob, ExtractJob, Job, JobRunner, PredictJob, TrainJob, unfinished_jobs
from napari_mil.study import Project

from .cohort import make_project, method
from .jobs_help import until

LONG = 20_000


@pytest.fixture(scope="module")
def runner() -> Iterator[JobRunner]:
    with JobRunner() as runner:
        runner.warm_up()
        yield runner


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("jobs") / "project")


def started(runner: JobRunner, project: Project, epochs: int = LONG, out: Path | None = None) -> Job:
    """A training that has finished an epoch or two."""
    spec = TrainJob(project=str(project.folder), method=method(epochs), seed=5, out=None if out is None else str(out))
    job = runner.submit(spec)
    until(lambda: len(job.reports) >= 2 or job.status.finished, 30)
    assert job.status.phase == "running", job.status.error
    return job


def facts(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "run.json").read_text())
    return content


def weights(result: dict[str, Any]) -> dict[str, np.ndarray]:
    """The best weights of the run that a job's result names."""
    return load_file(Path(result["run"]) / "best.safetensors")


def test_training_reports_and_finishes(runner: JobRunner, project: Project) -> None:
    job = runner.submit(TrainJob(project=str(project.folder), method=method(4), seed=5, device="cpu"))
    result = job.result(60)
    assert [report["epoch"] for report in job.reports] == [1, 2, 3, 4]
    assert {"train_loss", "val_loss", "val_auroc", "parts"} <= set(job.reports[0])
    assert job.status.device == "cpu"
    assert job.status.memory_mb
    assert (Path(result["run"]) / "best.safetensors").is_file()
    assert Path(result["run"]) in project.runs()
    assert "validation" in result["metrics"]["sets"]
    assert job.resume_spec() is None


def test_cancel_keeping_the_best(runner: JobRunner, project: Project) -> None:
    job = started(runner, project)
    job.cancel("best")
    status = job.wait(20)
    assert status.phase == "cancelled"
    assert "the best epoch's weights are kept" in status.message
    assert job.run_folder is not None
    assert (facts(job.run_folder)["status"], facts(job.run_folder)["use"]) == ("cancelled", "best")
    # it can be used as it is, and be gone on with
    assert runner.submit(PredictJob(project=str(project.folder), run=str(job.run_folder))).wait(60).phase == "done"
    again = job.resume_spec()
    assert isinstance(again, TrainJob)
    assert (again.resume, again.out) == (True, str(job.run_folder))


def test_cancel_keeping_the_last(runner: JobRunner, project: Project) -> None:
    job = started(runner, project)
    job.cancel("last")
    assert "the last epoch's weights are kept" in job.wait(10).message
    assert job.run_folder is not None
    from napari_mil.study.runs import load_run

    assert load_run(job.run_folder).which == "last"


def test_cancel_discarding(runner: JobRunner, project: Project) -> None:
    before = set((project.folder / "runs").iterdir())
    job = started(runner, project)
    job.cancel("discard")
    assert "discarded" in job.wait(10).message
    assert set((project.folder / "runs").iterdir()) == before
    assert job.resume_spec() is None


def test_discarding_a_resumed_run_leaves_it(runner: JobRunner, project: Project) -> None:
    first = started(runner, project)
    first.cancel()
    first.wait(10)
    spec = first.resume_spec()
    assert spec is not None
    assert first.run_folder is not None
    job = runner.submit(spec)
    until(lambda: len(job.reports) >= 1, 30)
    job.cancel("discard")
    assert "stays" in job.wait(10).message
    assert (first.run_folder / "best.safetensors").is_file()


def test_a_window_s_own_empty_folder_is_discarded_too(runner: JobRunner, project: Project) -> None:
    out = project.new_run_folder("by the window")
    job = started(runner, project, out=out)
    job.cancel("discard")
    job.wait(10)
    assert not out.exists()


def test_a_killed_training_resumes_to_the_same_weights(runner: JobRunner, project: Project) -> None:
    epochs = 40
    whole = runner.submit(TrainJob(project=str(project.folder), method=method(epochs), seed=5))
    expected = weights(whole.result(60))

    job = started(runner, project, epochs)
    assert runner.child_pid is not None
    psutil.Process(runner.child_pid).kill()
    status = job.wait(10)
    assert status.phase == "failed"
    assert "resume" in (status.error or "")
    assert len(job.reports) < epochs

    (found,) = unfinished_jobs(project.folder)
    assert found.job_id == job.id
    again = runner.resume(found)
    result = again.result(60)
    assert again.reports[0]["epoch"] > 1
    assert result["run"] == str(job.run_folder)
    found_weights = weights(result)
    assert found_weights.keys() == expected.keys()
    assert all(np.array_equal(found_weights[name], expected[name]) for name in expected)
    assert unfinished_jobs(project.folder) == []


def test_a_resumed_run_keeps_its_slides(runner: JobRunner, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    job = started(runner, project)
    job.cancel()
    job.wait(10)
    assert job.run_folder is not None
    before = facts(job.run_folder)["provenance"]["split"]  # type: ignore[index]
    project.set_roles(dict.fromkeys(before["validation"], "train"))
    spec = job.resume_spec()
    assert spec is not None
    again = runner.submit(spec)
    until(lambda: len(again.reports) >= 1 or again.status.finished, 30)
    again.cancel()
    again.wait(10)
    assert facts(job.run_folder)["provenance"]["split"] == before  # type: ignore[index]


def test_what_stands_in_the_way_is_a_sentence_and_leaves_no_folder(runner: JobRunner, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", patients=4)
    project.update_slides({slide_id: {"label": None} for slide_id in project.slide_ids})
    status = runner.submit(TrainJob(project=str(project.folder), method=method(2))).wait(60)
    assert status.phase == "failed"
    assert "label" in (status.error or "")
    assert project.runs() == []
    assert not list((project.folder / "runs").glob("*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "cuda:99"}, "cuda"),
        ({"project": "no/such/project"}, "project"),
        ({"method": {"name": "x", "aggregator": {"name": "nothing"}}}, "nothing"),
    ],
)
def test_wrong_wishes_are_sentences(
    runner: JobRunner, project: Project, changes: dict[str, object], words: str
) -> None:
    fields = {"project": str(project.folder), "method": method(2), **changes}
    status = runner.submit(TrainJob(**fields)).wait(60)  # type: ignore[arg-type]
    assert status.phase == "failed"
    assert words.lower() in (status.error or "").lower()
    assert "unexpected" not in (status.error or "")


def test_predictions_of_several_slides(runner: JobRunner, project: Project) -> None:
    run = runner.submit(TrainJob(project=str(project.folder), method=method(3), seed=1)).result(60)["run"]
    slides = project.slide_ids[:3]
    job = runner.submit(PredictJob(project=str(project.folder), run=run, slide_ids=slides))
    result = job.result(60)
    assert set(result["predictions"]) == set(slides)
    assert np.isclose(sum(result["predictions"][slides[0]]["probabilities"]), 1)
    assert sorted(path.stem for path in (Path(run) / "maps").glob("*.npz")) == sorted(slides)
    out = Path(run).parents[2] / "elsewhere"
    spec = PredictJob(project=str(project.folder), run=run, slide_ids=slides[:2], out=str(out))
    kept = runner.submit(spec).result(60)["predictions"]
    for suffix in ("npz", "png"):
        assert sorted(path.stem for path in (out / "maps").glob(f"*.{suffix}")) == sorted(slides[:2])
    lines = (out / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("slide_id,predicted,badge,p_")
    assert [line.split(",")[:2] for line in lines[1:]] == [[name, kept[name]["predicted"]] for name in slides[:2]]


def test_an_experiment_is_summarised(runner: JobRunner, project: Project) -> None:
    methods = {"rank": method(2), "again": method(3)}
    job = runner.submit(ExperimentJob(project=str(project.folder), methods=methods, protocol={"repeats": 2}))
    result = job.result(60)
    assert set(result["methods"]) == {"rank", "again"}
    assert result["methods"]["rank"]["auroc"]["n"] == 2
    assert len(result["cells"]) == 4
    wrong = ExperimentJob(project=str(project.folder), methods=methods, protocol={"kind": "dice"})
    assert "protocol" in (runner.submit(wrong).wait(60).error or "")


def test_features_that_are_there_are_not_made_again(runner: JobRunner, project: Project) -> None:
    result = runner.submit(ExtractJob(project=str(project.folder))).result(60)
    assert sorted(result["there"]) == sorted(project.slide_ids)
    assert result["done"] == []


def test_a_missing_slide_fails_alone(runner: JobRunner, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", patients=4)
    gone = project.slide_ids[0]
    project.feature_path(gone).unlink()
    result = runner.submit(ExtractJob(project=str(project.folder), device="cpu")).result(60)
    assert list(result["failed"]) == [gone]
    assert len(result["there"]) == 3
    passed = runner.submit(ExtractJob(project=str(project.folder))).result(60)
    assert passed["passed_over"] == [gone]
    retried = runner.submit(ExtractJob(project=str(project.folder), retry_failed=True)).result(60)
    assert list(retried["failed"]) == [gone]


def test_from_pictures_to_a_model_on_a_new_slide(runner: JobRunner, tmp_path: Path) -> None:
    """Extract, train, and use the run on a slide file that is in no project; what does not fit is refused."""
    pictures = [tmp_path / "slides" / f"s{number}.png" for number in range(9)]
    for number, path in enumerate(pictures):
        paint(path, number)
    project = Project.create(tmp_path / "project", slides=pictures[:8])
    sizes = {"target_mpp": 1.0, "patch_px": 64}
    project.config.tile = project.config.tile.model_copy(update=sizes)
    rows = {
        f"s{number}": {"label": "tumor" if number % 2 else "normal", "mpp": (1.0, 1.0), "partial_annotation": False}
        for number in range(8)
    }
    project.update_slides(rows)
    roles = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    project.set_roles({f"s{number}": role for number, role in enumerate(roles)})  # type: ignore[misc]
    project.save()

    extract = runner.submit(ExtractJob(project=str(project.folder)))
    assert sorted(extract.result(60)["done"]) == sorted(project.slide_ids)
    assert extract.status.device == "cpu"
    finished = [report["slide_id"] for report in extract.reports if report["done"] == report["total"] > 0]
    assert finished == project.slide_ids

    settings = {**method(3), "supervision": {"kind": "none"}}
    run = runner.submit(TrainJob(project=str(project.folder), method=settings)).result(60)["run"]
    spec = ApplyJob(bundle=run, slides=[str(pictures[8])], out=str(tmp_path / "out"), slide_mpp=1.0)
    found = runner.submit(spec).result(60)["predictions"]["s8"]
    assert found["badge"] == "NEW"
    assert Path(found["picture"]).is_file()
    assert Path(found["scores"]).is_file()

    refused = runner.submit(spec.model_copy(update={"slide_mpp": None})).wait(60)
    assert refused.phase == "failed"
    assert "µm" in (refused.error or "")
    both = runner.submit(PredictJob(project=str(project.folder), run=run, slide_ids=["s6"], paths=[str(pictures[0])]))
    status = both.wait(60)
    assert status.phase == "failed"  # this file does not say its scale
    assert (Path(run) / "maps" / "s6.npz").is_file()


def paint(path: Path, number: int) -> None:
    """A picture with tissue, purple in odd ones."""
    from PIL import Image

    generator = np.random.default_rng(number)
    pixels = np.full((320, 320, 3), 245, np.int16)
    pixels[32:288, 32:288] = (120, 60, 140) if number % 2 else (225, 150, 190)
    pixels += generator.normal(0, 9, pixels.shape).astype(np.int16)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
