"""MHIM on a project: the plain run it starts from is found, trained first, or shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_mil.errors import Cancelled
from napari_mil.mil import Method, Run
from napari_mil.study import Project, Protocol, experiment, resume_obstacle, train_project
from napari_mil.study.experiments import plan

from .conftest import cohort, drain

TINY = {"training.epochs": 2, "training.min_epochs": 0, "aggregator.stem_dim": 8, "aggregator.attention_dim": 4}


@pytest.fixture
def mhim() -> Method:
    return Method.preset("mhim_abmil_c16").with_settings(TINY)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return cohort(tmp_path / "p")


def notes_of(folder: Path) -> list[str]:
    return list(json.loads((folder / "run.json").read_text(encoding="utf-8"))["notes"])


class TestTraining:
    def test_a_plain_run_of_the_project_is_found(self, project: Project, mhim: Method) -> None:
        _, plain = drain(train_project(project, mhim.with_settings({"mining.kind": "none"}), seed=4))
        reports, run = drain(train_project(project, mhim, seed=4))
        assert not any(report.stage for report in reports)
        assert any(f"The teacher starts from runs/{plain.folder.name} " in note for note in run.notes)
        assert not (run.folder / "plain").exists()

    def test_without_one_it_is_trained_first_and_found_the_next_time(self, project: Project, mhim: Method) -> None:
        reports, run = drain(train_project(project, mhim, seed=4))
        assert [report.stage for report in reports] == ["plain", "plain", "", ""]
        assert Run.load(run.folder / "plain").provenance["split"] == run.provenance["split"]
        other = mhim.with_settings({"mining.random": 0.7})
        reports, second = drain(train_project(project, other, seed=4))
        assert [report.stage for report in reports] == ["", ""]
        assert any(f"The teacher starts from {run.folder.name}/plain " in note for note in second.notes)

    @pytest.mark.parametrize("what", ["settings", "seed", "split", "features", "label", "unfinished"])
    def test_another_one_is_none(self, project: Project, mhim: Method, what: str) -> None:
        plain = mhim.with_settings({"mining.kind": "none"})
        if what == "settings":
            plain = plain.with_settings({"training.learning_rate": 0.5})
        _, first = drain(train_project(project, plain, seed=5 if what == "seed" else 4))
        if what == "split":
            moved = next(row.slide_id for row in project.slides if row.role == "train")
            mates = [r.slide_id for r in project.slides if r.patient_id == project.slide(moved).patient_id]
            project.set_roles(dict.fromkeys(mates, "test"))
        elif what == "features":
            trained = next(row.slide_id for row in project.slides if row.role == "train")
            other = next(row.slide_id for row in project.slides if row.role == "test")
            project.feature_path(trained).write_bytes(project.feature_path(other).read_bytes())
        elif what == "label":
            trained = next(row.slide_id for row in project.slides if row.role == "train")
            swapped = {"tumor": "normal", "normal": "tumor"}[project.slide(trained).label]
            project.update_slides({trained: {"label": swapped}})
        elif what == "unfinished":
            path = first.folder / "run.json"
            path.write_text(path.read_text(encoding="utf-8").replace('"finished": true', '"finished": false'))
        training = train_project(project, mhim, seed=4)
        assert next(training).stage == "plain"
        training.close()

    def test_patients_matter_where_they_are_the_bags(self, project: Project, mhim: Method) -> None:
        moved = next(row.slide_id for row in project.slides if row.role == "train")
        for bags, stages in (("slide", ""), ("patient", "plain")):
            method = mhim.with_settings({"task.bags": bags})
            drain(train_project(project, method.with_settings({"mining.kind": "none"}), seed=4))
            project.update_slides({moved: {"patient_id": f"another, by {bags}"}})
            training = train_project(project, method, seed=4)
            assert next(training).stage == stages
            training.close()

    def test_outlines_matter_where_they_teach(self, project: Project, mhim: Method) -> None:
        outlined = next(i for i in project.slide_ids if project.slide(i).role == "train" and project.lesions(i))
        taught = mhim.with_settings({"supervision.kind": "rank"})
        for method in (mhim, taught):
            drain(train_project(project, method.with_settings({"mining.kind": "none"}), seed=4))
        project.update_slides({outlined: {"partial_annotation": True}})
        for method, stage in ((mhim, ""), (taught, "plain")):
            training = train_project(project, method, seed=4)
            assert next(training).stage == stage
            training.close()

    @pytest.mark.parametrize("reports", [0, 1, 3])
    def test_interrupted_in_either_stage_it_goes_on(self, project: Project, mhim: Method, reports: int) -> None:
        _, whole = drain(train_project(project, mhim, seed=4))
        for folder in (whole.folder, whole.folder / "plain"):  # or it would be found
            (folder / "run.json").rename(folder / "hidden.json")
        out = project.folder / "runs" / "cut"
        seen = 0

        def stop(done: int, total: int) -> None:
            nonlocal seen
            seen += 1
            if seen == reports * total + 2:
                raise Cancelled

        with pytest.raises(Cancelled):
            drain(train_project(project, mhim, seed=4, out=out, on_bag=stop))
        assert resume_obstacle(out) == ""
        assert out in project.runs()
        rest, run = drain(train_project(project, mhim, seed=4, out=out, resume=True))
        assert len(rest) == 4 - reports
        assert all((run.weights[key] == whole_weight).all() for key, whole_weight in whole.weights.items())


class TestExperiments:
    def test_a_plain_method_of_the_experiment_teaches(self, project: Project, mhim: Method) -> None:
        plain = mhim.with_settings({"mining.kind": "none"})
        copy = mhim.with_settings({"mining.teacher": "copy"})
        cells, _ = plan(project, {"mhim": mhim, "copy": copy, "plain": plain}, Protocol(repeats=1))
        assert [c.name for c in cells] == ["copy", "plain", "mhim"]
        assert cells[2].teacher == cells[1].folder
        assert cells[0].teacher is None

    def test_without_it_methods_share_what_they_start_from(self, project: Project, mhim: Method) -> None:
        other = mhim.with_settings({"mining.random": 0.7})
        methods, protocol = {"one": mhim, "two": other}, Protocol(repeats=1, seeds=2)
        cells, _ = plan(project, methods, protocol)
        _, table = drain(experiment(project, methods, protocol))
        assert not table.error.any()
        trained = [(Path(cell.folder) / "plain").is_dir() for cell in cells]
        assert trained == [True, False, True, False]
        for cell in cells:
            assert any("The teacher starts from" in note for note in notes_of(Path(cell.folder)))
            assert not list(Path(cell.folder).rglob("last.safetensors"))
