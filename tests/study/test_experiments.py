"""Methods × splits × seeds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from napari_mil.errors import ProjectError
from napari_mil.lesion import LesionSet
from napari_mil.mil import Bag, Method, Prediction
from napari_mil.study import Project, Protocol, experiment, results_table, write_report
from napari_mil.study.cells import cell_metrics
from napari_mil.study.experiments import plan
from napari_mil.study.report import compare_to, to_markdown

from .conftest import cohort, drain, quick_method


@pytest.fixture
def methods() -> dict[str, Method]:
    return {"rank": quick_method(epochs=2), "plain": quick_method("ab_mil_rank", epochs=2)}


def test_every_cell_is_trained_judged_and_kept(made_up: Project, methods: dict[str, Method]) -> None:
    protocol = Protocol(kind="k_fold", folds=3, seeds=2)
    reports, table = drain(experiment(made_up, methods, protocol))
    assert len(table) == 12
    assert set(zip(table.method, table.split, table.seed, strict=True)) == {
        (m, k, s) for m in methods for k in range(3) for s in range(2)
    }
    assert not table.error.any()
    assert table.auroc.between(0, 1).all()
    assert table.patch_auroc.between(0, 1).all()
    assert table.groupby(["method", "seed"]).n_test.sum().eq(18).all()  # each slide is tested once
    assert sum(r.result is not None for r in reports) == 12
    assert sum(r.epoch is not None for r in reports) == 24
    assert reports[-1].done == reports[-1].total == 12
    json.dumps([r.to_dict() for r in reports])
    folder = next((made_up.folder / "experiments").iterdir())
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=[""]).drop(columns="error"),
        table.drop(columns="error"),
        check_dtype=False,
    )
    again, second = drain(experiment(made_up, methods, protocol))
    assert len(again) == 12  # read, not trained
    pd.testing.assert_frame_equal(second, table)


def test_it_goes_on_where_it_stopped(made_up: Project, methods: dict[str, Method]) -> None:
    protocol = Protocol(repeats=2)
    _, whole = drain(experiment(made_up, methods, protocol, out=made_up.folder / "whole"))
    running = experiment(made_up, methods, protocol, out=made_up.folder / "stopped")
    for report in running:
        if report.split == 1 and report.epoch is not None:
            running.close()  # in the middle of a training
            break
    reports, table = drain(experiment(made_up, methods, protocol, out=made_up.folder / "stopped"))
    assert sum(r.epoch is not None for r in reports) == 3  # 1 of the interrupted, 2 of the last
    columns = ["method", "split", "seed", "auroc", "patch_auroc", "best_epoch"]
    pd.testing.assert_frame_equal(table[columns], whole[columns])


def test_other_outlines_make_it_another_experiment(made_up: Project, methods: dict[str, Method]) -> None:
    _, first = plan(made_up, methods, Protocol(repeats=2))
    assert plan(made_up, methods, Protocol(repeats=2))[1] == first
    assert plan(made_up, {"rank": methods["rank"]}, Protocol(repeats=2))[1] == first  # methods may be added
    made_up.save_lesions("p01_a", LesionSet())
    assert plan(made_up, methods, Protocol(repeats=2))[1] != first
    with pytest.raises(ProjectError, match="other splits or outlines"):
        plan(made_up, methods, Protocol(repeats=3), out=first)


def test_an_executor_gives_the_same(made_up: Project, methods: dict[str, Method]) -> None:
    _, here = drain(experiment(made_up, methods, Protocol(repeats=2), out=made_up.folder / "here"))
    with ThreadPoolExecutor(1) as executor:
        reports, there = drain(
            experiment(made_up, methods, Protocol(repeats=2), executor=executor, out=made_up.folder / "there")
        )
    assert [r.done for r in reports] == [1, 2, 3, 4]
    columns = ["method", "split", "seed", "auroc", "patch_auroc", "n_test", "error"]
    pd.testing.assert_frame_equal(there[columns], here[columns])


def test_a_teacher_of_the_same_split_and_seed(made_up: Project) -> None:
    tiny = {"training.epochs": 1, "training.min_epochs": 0, "aggregator.stem_dim": 8, "aggregator.attention_dim": 4}
    student = Method.preset("mhim_abmil_c16").with_settings(tiny)
    teacher = student.with_settings({"mining.kind": "none"})
    methods = {"mhim": student, "baseline": teacher}
    cells, _ = plan(made_up, methods, Protocol(repeats=1), teachers={"mhim": "baseline"})
    assert [c.name for c in cells] == ["baseline", "mhim"]
    assert cells[1].teacher == cells[0].folder
    _, table = drain(experiment(made_up, methods, Protocol(repeats=1), teachers={"mhim": "baseline"}))
    assert not table.error.any()
    notes = json.loads((Path(cells[1].folder) / "run.json").read_text(encoding="utf-8"))["notes"]
    assert any("The teacher starts from" in note for note in notes)
    for teachers in ({"mhim": "nobody"}, {"mhim": "baseline", "baseline": "mhim"}):
        with pytest.raises(ProjectError, match="cannot be part of the experiment"):
            plan(made_up, methods, Protocol(), teachers=teachers)


def test_as_published_chooses_on_the_test_slides_and_says_so(made_up: Project, methods: dict[str, Method]) -> None:
    protocol = Protocol(kind="k_fold", folds=3, as_published=True)
    assert "as published: optimistic" in protocol.sentence
    _, table = drain(experiment(made_up, {"plain": methods["plain"]}, protocol))
    assert (table.n_train + table.n_test == 18).all()
    assert (table.youden_from == "test").all()
    assert (table.val_auroc == table.auroc).all()
    assert table.accuracy_youden.notna().all()
    _, honest = drain(experiment(made_up, {"plain": methods["plain"]}, Protocol(kind="k_fold", folds=3)))
    assert (honest.youden_from == "validation").all()
    assert "validation slides." in Protocol().sentence


def test_a_split_that_cannot_be_trained_is_a_row_with_a_sentence(tmp_path: Path, methods: dict[str, Method]) -> None:
    project = cohort(tmp_path / "p", patients=4)
    project.set_roles({i: "test" if i[1:3] in ("01", "03") else "train" for i in project.slide_ids})
    project.set_roles({i: "validation" for i in project.slide_ids if i[1:3] == "02"})
    _, table = drain(experiment(project, methods, Protocol(kind="as_is")))
    assert table.error.str.contains("training").all()
    assert results_table(table)["runs"].tolist() == [0, 0]
    report = write_report(table, tmp_path / "report").read_text(encoding="utf-8")
    assert "## Not trained" in report


def test_patch_scores_are_judged_against_outlines() -> None:
    generator = np.random.default_rng(0)

    def pair(label: int, patch_labels: list[int] | None, name: str) -> tuple[Bag, Prediction]:
        n = 6
        bag = Bag(
            name, np.zeros((n, 2), np.float32), None, label, None if patch_labels is None else np.array(patch_labels)
        )
        p = generator.random()
        scores = generator.normal(size=n).astype(np.float32)
        return bag, Prediction(name, np.zeros(1), np.array([1 - p, p]), scores, np.full(n, 1 / n))

    pairs = [
        pair(1, [1, 1, 0, 0, -1, 0], "a"),
        pair(1, [0, 1, 0, 0, 1, 1], "b"),
        pair(1, [1, 1, -1, -1, -1, -1], "only lesion known"),
        pair(1, None, "no outlines"),
        pair(0, [0] * 6, "negative"),
    ]
    row = cell_metrics(pairs)
    areas, labels, scores = [], [], []
    for bag, prediction in pairs[:2]:
        known = bag.patch_labels >= 0
        areas.append(roc_auc_score(bag.patch_labels[known], prediction.scores[known]))
        labels.append(bag.patch_labels[known])
        scores.append(prediction.scores[known])
    assert row["n_outlined"] == 2
    assert row["patch_auroc"] == pytest.approx(np.mean(areas))
    assert row["patch_auroc_pooled"] == pytest.approx(roc_auc_score(np.concatenate(labels), np.concatenate(scores)))
    assert (row["n_test"], row["n_positive"]) == (5, 4)
    alone = cell_metrics(pairs[:1])
    assert alone["auroc"] is None  # one class only: not defined, and no NaN in the file


def test_tables_and_report(tmp_path: Path) -> None:
    results = pd.DataFrame(
        {
            "method": ["a", "b"] * 3,
            "split": [0, 0, 1, 1, 2, 2],
            "seed": 0,
            "auroc": [0.6, 0.7, 0.7, 0.9, np.nan, 0.8],
            "patch_auroc": [0.5, 0.9, 0.6, 0.8, 0.7, 0.7],
            "error": [""] * 6,
        }
    )
    table = results_table(results)
    assert table.loc["a", "slide AUROC"] == "0.650 ± 0.071"
    assert table.loc["b", "patch AUROC"] == "0.800 ± 0.100"
    assert table["runs"].tolist() == [3, 3]
    compared = compare_to(results, "a")
    assert compared.loc["b", "difference"] == "+0.150 ± 0.071"
    assert compared.loc["b", "better in"] == "2 of 2"
    assert "p (Mann–Whitney U, two-sided)" in compared.columns
    path = write_report(results, tmp_path / "r", title="Trial", protocol="Three splits.")
    text = path.read_text(encoding="utf-8")
    for part in (
        "# Trial",
        "Three splits.",
        "| a | 0.650 ± 0.071 |",
        "two-sided",
        "not independent",
        "Research use only",
    ):
        assert part in text
    assert (tmp_path / "r" / "results.png").read_bytes()[:4] == b"\x89PNG"
    assert (
        to_markdown(pd.DataFrame({"x": [1]}, index=pd.Index(["m"], name="n"))) == "| n | x |\n| --- | --- |\n| m | 1 |"
    )


def test_a_folder_of_outlines_is_added_once(made_up: Project, tmp_path: Path) -> None:
    from napari_mil.lesion import write_lesions
    from napari_mil.study.annotations import import_annotations

    outlines = made_up.lesions("p01_a")
    (tmp_path / "files").mkdir()
    write_lesions(outlines, tmp_path / "files" / "p03_b.geojson")
    write_lesions(outlines, tmp_path / "files" / "stranger.geojson")
    made_up.save_lesions("p03_b", LesionSet())
    report = import_annotations(made_up, tmp_path / "files")
    assert report.added == {"p03_b": 1}
    assert any("stranger.geojson" in sentence for sentence in report.sentences)
    assert len(made_up.lesions("p03_b")) == 1
    assert import_annotations(made_up, tmp_path / "files").added == {"p03_b": 0}
