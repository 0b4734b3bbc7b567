"""Survival and patients on a project: figures, splits, obstacles, training, experiments."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf, logrank

from napari_mil.errors import ProjectError, TrainingError
from napari_mil.mil import Method, c_index
from napari_mil.study import (
    Project,
    Protocol,
    SlideRow,
    changes_since,
    experiment,
    k_fold,
    load_map_scores,
    load_run,
    method_for,
    metrics_sentence,
    predict_project,
    predict_slide,
    propose_split,
    retrain_from,
    train_project,
    write_report,
)
from napari_mil.study.survival import (
    _c_index_of,
    draw_kaplan_meier,
    kaplan_meier,
    log_rank,
    pooled_folds,
    survival_metrics,
)

from .conftest import cohort, drain, quick_method


def survival_project(folder: Path, patients: int = 16, labels: bool = False) -> Project:
    """Patients with two slides each: those with a lesion have the event early."""
    project = cohort(folder, patients)
    changes = {}
    for row in project.slides:
        number = int(row.patient_id[1:])
        ill = number % 2
        time = 5.0 + number / 4 if ill else 30.0 + number
        changes[row.slide_id] = {"time": time, "event": bool(ill or number % 3 == 0), "role": None}
        if not labels:
            changes[row.slide_id]["label"] = None
    project.update_slides(changes)
    project.set_roles(project.propose_split((0.5, 0.25, 0.25), seed=1, by="event"))
    return project


def survival_method(preset: str = "ab_mil_rank", **settings: object) -> Method:
    return quick_method(preset, epochs=2).with_settings({"task.kind": "survival", **settings})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return survival_project(tmp_path_factory.mktemp("survival") / "project")


@pytest.fixture(scope="module")
def run(project: Project) -> Path:
    """Of a survival method; tests only read it."""
    method = survival_method(**{"training.epochs": 12, "training.monitor": "val_c_index"})
    return drain(train_project(project, method))[1].folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestFigures:
    @pytest.mark.parametrize("seed", range(4))
    def test_as_scipy_has_them(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        time = generator.integers(1, 15, 40).astype(float)
        event, high = generator.random(40) < 0.6, generator.random(40) < 0.4
        sample = CensoredData.right_censored(time, ~event)
        times, survival = kaplan_meier(time, event)
        np.testing.assert_allclose(survival, ecdf(sample).sf.evaluate(times))
        groups = [CensoredData.right_censored(time[of], ~event[of]) for of in (high, ~high)]
        expected = logrank(*groups)
        found = log_rank(time, event, high)
        assert found.statistic == pytest.approx(expected.statistic**2)
        assert found.p_value == pytest.approx(expected.pvalue)
        assert found.alternative == "two-sided"

    def test_where_nothing_can_be_told(self) -> None:
        assert np.isnan(log_rank([1, 2], [False, False], [True, False]).p_value)
        assert np.isnan(log_rank([1, 2], [True, True], [True, True]).p_value)
        found = survival_metrics([1.0, 2.0], [False, False], [0.1, 0.2], threshold=0.15, threshold_from="validation")
        assert found["c_index"]["value"] is None
        assert found["risk_groups"]["log_rank_p"] is None
        assert metrics_sentence({"sets": {"test": found}}) == (
            "Test: no C-index: no pair of the 2 cases with 0 events can be compared."
        )
        json.dumps(found, allow_nan=False)

    def test_figures_of_a_set(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        risk = generator.normal(size=60)
        time = np.exp(1.5 - risk + 0.5 * generator.normal(size=60))
        event = generator.random(60) < 0.7
        median = float(np.median(risk))
        found = survival_metrics(time, event, risk, threshold=median, threshold_from="validation", repeats=100)
        assert found["c_index"]["value"] == c_index(time, event, risk)
        assert found["c_index"]["low"] < found["c_index"]["value"] < found["c_index"]["high"]
        groups = found["risk_groups"]
        assert groups["high"]["n"] == groups["low"]["n"] == 30
        assert groups["high"]["events"] + groups["low"]["events"] == found["events"] == event.sum()
        assert groups["high"]["survival"][-1] < groups["low"]["survival"][0]
        assert groups["log_rank_p"] < 0.001
        assert groups["threshold_is"] == "median risk of validation"
        sentence = metrics_sentence({"sets": {"test": found}})
        assert sentence.startswith(f"Test: C-index {found['c_index']['value']:.3f} (0.")
        assert "60 cases" in sentence
        assert "log-rank p = " in sentence
        picture = draw_kaplan_meier({"test": found}, tmp_path / "km.png")
        assert picture is not None
        assert picture.read_bytes()[:4] == b"\x89PNG"
        assert draw_kaplan_meier({"test": {"n": 3}}, tmp_path / "none.png") is None

    def test_draws_have_the_c_index_of_their_cases(self) -> None:
        generator = np.random.default_rng(3)
        time, risk = generator.integers(1, 9, 30).astype(float), generator.integers(0, 5, 30).astype(float)
        event = generator.random(30) < 0.5
        metric = _c_index_of(time, event, risk)
        for _ in range(20):
            drawn = generator.integers(0, 30, 30)
            assert metric(drawn, drawn) == pytest.approx(c_index(time[drawn], event[drawn], risk[drawn]))

    def test_patients_are_drawn_together(self) -> None:
        generator = np.random.default_rng(1)
        time, risk = generator.random(12), generator.random(12)
        doubled = [np.repeat(values, 2) for values in (time, np.ones(12, bool), risk)]
        names = [str(k // 2) for k in range(24)]
        apart = survival_metrics(*doubled, repeats=200)["c_index"]
        together = survival_metrics(*doubled, groups=names, repeats=200)["c_index"]
        assert "patients" in together["method"]
        assert together["high"] - together["low"] > apart["high"] - apart["low"]


class TestSplits:
    def rows(self, n: int = 30) -> list[SlideRow]:
        return [
            SlideRow(slide_id=f"s{k}", path="", patient_id=f"p{k // 2}", time=1.0 + k // 2, event=k // 2 % 3 == 0)
            for k in range(n)
        ]

    def test_events_in_proportion_and_patients_together(self) -> None:
        rows = self.rows()
        split = propose_split(rows, seed=2)  # no label anywhere: by event
        assert split == propose_split(rows, seed=2, by="event")
        roles: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            roles[row.patient].add(split[row.slide_id])
        assert all(len(found) == 1 for found in roles.values())
        events = defaultdict(list)
        for row in rows:
            events[split[row.slide_id]].append(row.event)
        assert [sum(events[role]) for role in ("train", "validation", "test")] == [6, 2, 2]
        folds = k_fold(rows, 5, by="event")
        assert all(sum(row.event for row in rows if fold[row.slide_id] == "test") == 2 for fold in folds)

    def test_what_is_not_known_gets_no_role(self) -> None:
        rows = [*self.rows(8), SlideRow(slide_id="x", path="", time=3.0)]
        assert "x" not in propose_split(rows, by="event")
        with pytest.raises(ProjectError, match=r"No slide has time and event yet.*read them from a table"):
            propose_split([rows[-1]], by="event")
        with pytest.raises(ProjectError, match="No slide has a label yet"):
            propose_split(rows, by="label")
        with pytest.raises(ProjectError, match="rarest event, too few for 7 folds"):
            k_fold(self.rows(), 7, by="event")


class TestObstacles:
    def test_times_instead_of_labels(self, tmp_path: Path) -> None:
        project = survival_project(tmp_path / "p")
        found = project.check_trainable()  # no label, but times: taken for survival
        assert not any(finding.blocking for finding in found)
        assert any("Only 3 validation patients have had the event" in finding for finding in found)
        assert found == project.check_trainable(survival=True)
        assert any("No slide has a label" in finding and finding.blocking for finding in project.check_trainable(False))

    def test_what_is_missing_is_said(self, made_up: Project) -> None:
        (finding, *_) = made_up.check_trainable(survival=True)
        assert finding.blocking
        assert "columns time and event" in finding
        with pytest.raises(TrainingError, match="No slide has a time and an event yet"):
            drain(train_project(made_up, survival_method()))
        train = [row.slide_id for row in made_up.slides if row.role == "train"]
        made_up.update_slides({i: {"time": 3.0, "event": False} for i in train})
        said = [str(f) for f in made_up.check_trainable(survival=True) if f.blocking]
        assert any("have a role but no time or event" in sentence for sentence in said)
        assert any("No slide with time and event has the role validation" in sentence for sentence in said)
        assert any("has had the event, so there is nothing to learn" in sentence for sentence in said)


class TestTraining:
    def test_a_run_of_patients(self, project: Project, run: Path) -> None:
        rows = read_csv(run / "predictions.csv")
        held_out = {r.patient: r for r in project.slides if r.role in ("validation", "test")}
        assert {row["slide_id"]: row["role"] for row in rows} == {name: r.role for name, r in held_out.items()}
        assert list(rows[0])[:7] == ["slide_id", "patient_id", "role", "time", "event", "risk", "group"]
        first = rows[0]
        assert first["slides"] == f"{first['slide_id']}_a;{first['slide_id']}_b"
        assert float(first["time"]) == held_out[first["slide_id"]].time
        assert sum(float(first[f"p_bin {k}"]) for k in range(1, 5)) == pytest.approx(1, abs=1e-5)
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        test = [row for row in rows if row["role"] == "test"]
        columns = [[float(row[name]) for row in test] for name in ("time", "event", "risk")]
        assert metrics["sets"]["test"]["c_index"]["value"] == pytest.approx(c_index(*columns))
        threshold = float(np.median([float(row["risk"]) for row in rows if row["role"] == "validation"]))
        assert metrics["risk_threshold"] == pytest.approx(threshold, rel=1e-4)
        assert {row["group"] for row in rows if float(row["risk"]) > threshold + 1e-4} <= {"high"}
        assert metrics["sets"]["test"]["n"] == len(test) == 4
        assert (run / "kaplan_meier.png").is_file()
        loaded = load_run(run)
        assert len(loaded.time_edges) == 5
        assert loaded.provenance["slides"]["p00_a"]["time"] == project.slide("p00_a").time
        assert loaded.history[-1]["val_metrics"]["c_index"] is not None

    def test_the_same_again(self, project: Project, run: Path, tmp_path: Path) -> None:
        import torch

        _, again = drain(retrain_from(run, project=project, out=tmp_path / "again"))
        assert all(torch.equal(value, load_run(run).weights[key]) for key, value in again.weights.items())

    def test_maps_are_of_slides(self, project: Project, run: Path, tmp_path: Path) -> None:
        reports, failed = drain(predict_project(project, run, ["p01_a", "p02_b", "p01_b"], out=tmp_path))
        assert failed == []
        one, other = (load_map_scores(tmp_path / f"p01_{k}.npz") for k in "ab")
        assert one.risk == other.risk == pytest.approx(reports[0].risk)
        assert one.attention.sum() + other.attention.sum() == pytest.approx(1, abs=1e-5)
        assert len(one.attention) == len(one.grid)
        assert not np.array_equal(one.scores, other.scores)
        assert reports[0].message.startswith("p01_a: risk -")
        alone = predict_slide(project, run, "p01_b", out=tmp_path / "alone")
        np.testing.assert_allclose(alone.attention, other.attention, rtol=1e-5)

    def test_other_times_are_changes(self, tmp_path: Path) -> None:
        project = survival_project(tmp_path / "p")
        method = survival_method()
        running = train_project(project, method, out=tmp_path / "run")
        next(running)
        running.close()
        one = next(r.slide_id for r in project.slides if r.role == "train")
        patient = project.slide(one).patient
        mates = [r.slide_id for r in project.slides if r.patient == patient]
        project.update_slides({name: {"time": 99.0} for name in mates})
        assert changes_since(project, tmp_path / "run") == [f"{name}: its time is another." for name in mates]
        with pytest.raises(TrainingError, match="its time is another"):
            drain(train_project(project, method, out=tmp_path / "run", resume=True))
        project.update_slide(mates[0], time=98.0)
        with pytest.raises(TrainingError, match=f"slides of patient {patient} have different times"):
            drain(train_project(project, method, out=tmp_path / "other"))

    def test_labels_are_left_alone(self, tmp_path: Path) -> None:
        """With labels the classes of the task are still the bins, and outlines of lesions teach."""
        project = survival_project(tmp_path / "p", labels=True)
        method = method_for(project, survival_method("rank_induction"))
        assert method.task.kind == "survival"
        reports, run = drain(train_project(project, method))
        assert run.classes == ("bin 1", "bin 2", "bin 3", "bin 4")
        assert reports[0].parts["rank"] > 0


class TestPatients:
    def test_two_classes(self, made_up: Project, tmp_path: Path) -> None:
        method = quick_method(epochs=2).with_settings({"task.bags": "patient"})
        _, run = drain(train_project(made_up, method))
        rows = read_csv(run.folder / "predictions.csv")
        patients = {r.patient for r in made_up.slides if r.role in ("validation", "test")}
        assert sorted(row["slide_id"] for row in rows) == sorted(patients)
        for row in rows:
            assert row["label"] == made_up.slide(f"{row['slide_id']}_a").label
        metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
        test = [r.patient for r in made_up.slides if r.role == "test"]
        assert metrics["sets"]["test"]["n"] == len(set(test))
        assert predict_slide(made_up, run, "p00_a", out=tmp_path).slide_id == "p00_a"

    def test_slides_of_a_patient_that_disagree(self, made_up: Project) -> None:
        """Of two classes a patient with a positive slide is positive."""
        patient = next(r.patient for r in made_up.slides if r.role == "test" and r.label == "tumor")
        made_up.update_slide(f"{patient}_a", label="normal")
        _, run = drain(train_project(made_up, quick_method(epochs=1).with_settings({"task.bags": "patient"})))
        rows = {row["slide_id"]: row for row in read_csv(run.folder / "predictions.csv")}
        assert rows[patient]["label"] == "tumor"


def test_folds_together(project: Project, tmp_path: Path) -> None:
    """Each patient is tested in one fold, and is of the group that this fold's validation put it in."""
    protocol = Protocol(kind="k_fold", folds=2)
    _, table = drain(experiment(project, {"plain": survival_method()}, protocol, out=tmp_path))
    tables = sorted(tmp_path.glob("plain-*/*/predictions.csv"))
    tested = [row for path in tables for row in read_csv(path) if row["role"] == "test"]
    assert sorted(row["slide_id"] for row in tested) == sorted({r.patient for r in project.slides})
    found = pooled_folds(tables)
    assert found["n"] == 16
    high = [row["group"] == "high" for row in tested]
    assert found["risk_groups"]["high"]["n"] == sum(high)
    columns = [[float(row[name]) for row in tested] for name in ("time", "event")]
    assert found["risk_groups"]["log_rank_p"] == pytest.approx(log_rank(*columns, high).p_value)
    assert (tmp_path / "kaplan_meier.png").is_file()
    assert "kaplan_meier.png" in write_report(table, tmp_path).read_text(encoding="utf-8")
    assert pooled_folds([]) == {"n": 0, "events": 0}


def test_experiment(project: Project, tmp_path: Path) -> None:
    methods = {
        "plain": survival_method(),
        "gated": Method.preset("ab_mil_gated").with_settings({"task.kind": "survival", "training.epochs": 2}),
    }
    reports, table = drain(experiment(project, methods, Protocol(repeats=2, fractions=(0.5, 0.25, 0.25)), out=tmp_path))
    assert not table.error.any()
    assert table.c_index.between(0, 1).all()
    assert table.val_c_index.between(0, 1).all()
    assert table.n_test.eq(4).all()  # patients, not slides
    assert table.n_events.eq(3).all()  # dealt by event
    assert any("C-index" in report.message for report in reports)
    rows = read_csv(next(tmp_path.glob("plain-*/split0-seed0/predictions.csv")))
    assert {row["slide_id"] for row in rows} <= {r.patient for r in project.slides}
    text = write_report(table, tmp_path / "report").read_text(encoding="utf-8")
    assert "kaplan_meier" not in text  # patients come twice in these splits
    assert "C-index" in text
    assert "C-index against plain" in text
