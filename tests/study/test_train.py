"""Training on a project, and what is written beside it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_mil.errors import Cancelled, FeatureError, ProjectError, TrainingError
from napari_mil.lesion import Lesion, LesionSet
from napari_mil.study import (
    Project,
    changes_since,
    evaluate_run,
    load_run,
    method_for,
    read_epochs,
    resume_obstacle,
    retrain_from,
    train_project,
)

from .conftest import DIM, cohort, drain, grid_of, quick_method, write_features


def same_weights(a, b) -> bool:  # type: ignore[no-untyped-def]
    import torch

    return a.weights.keys() == b.weights.keys() and all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights)


def test_a_run_folder_says_everything_it_depends_on(trained: tuple[Project, Path]) -> None:
    project, folder = trained
    assert folder.parent == project.folder / "runs"
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert facts["seed"] == 3
    assert facts["classes"] == ["normal", "tumor"]
    provenance = facts["provenance"]
    assert provenance["split"] == {
        role: [r.slide_id for r in project.slides if r.role == role] for role in ("train", "validation", "test")
    }
    entry = provenance["slides"]["p01_a"]
    assert entry["patient_id"] == "p01"
    assert entry["fingerprint"] == "print-of-p01_a"
    assert entry["features_hash"].startswith("quick-sha256:")
    assert len(entry["lesions_sha256"]) == 64
    assert provenance["features"]["encoder"] == "texture"
    assert (provenance["features"]["target_mpp"], provenance["features"]["patch_px"]) == (0.5, 100)
    assert {"torch", "numpy", "python", "napari-mil"} <= set(provenance["versions"])
    assert str(project.folder) not in json.dumps(facts)  # nothing ties it to this place
    assert [e["epoch"] for e in read_epochs(folder)] == [1, 2, 3, 4, 5, 6]
    assert "is finished" in resume_obstacle(folder)


def test_predictions_and_metrics_of_held_out_slides(trained: tuple[Project, Path]) -> None:
    project, folder = trained
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["slide_id"]: r["role"] for r in rows} == {
        r.slide_id: r.role for r in project.slides if r.role in ("validation", "test")
    }
    for row in rows:
        assert float(row["p_normal"]) + float(row["p_tumor"]) == pytest.approx(1, abs=1e-5)
        assert row["label"] == project.slide(row["slide_id"]).label
        assert row["predicted"] == ("tumor" if float(row["p_tumor"]) > 0.5 else "normal")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    test = [r for r in rows if r["role"] == "test"]
    scores = np.array([float(r["p_tumor"]) for r in test])
    labels = np.array([r["label"] == "tumor" for r in test])
    expected = (scores[labels][:, None] > scores[~labels]).mean()
    assert metrics["sets"]["test"]["auroc"]["value"] == pytest.approx(expected)
    assert metrics["sets"]["test"]["at_youden"]["threshold_is"] == "found on validation"
    assert evaluate_run(project, folder, repeats=1000) == metrics


def test_the_same_again_from_run_json(trained: tuple[Project, Path], tmp_path: Path) -> None:
    project, folder = trained
    assert changes_since(project, folder) == []
    _, again = drain(retrain_from(folder / "run.json", out=tmp_path / "again"))
    assert same_weights(again, load_run(folder))
    assert again.provenance["split"] == load_run(folder).provenance["split"]


def test_interrupted_and_resumed_is_the_same(made_up: Project, trained: tuple[Project, Path]) -> None:
    method, out = quick_method(epochs=6), made_up.folder / "runs" / "stopped"
    seen = 0

    def stop(done: int, total: int) -> None:
        nonlocal seen
        seen += 1
        if seen > 2.5 * total:
            raise Cancelled

    with pytest.raises(Cancelled):
        drain(train_project(made_up, method, seed=3, out=out, on_bag=stop))
    assert len(read_epochs(out)) == 2
    assert resume_obstacle(out) == ""
    assert not (out / "metrics.json").exists()
    # roles changed in between do not mix slides into the run
    roles = {r.slide_id: r.role for r in made_up.slides}
    made_up.set_roles(dict.fromkeys(made_up.slide_ids))
    _, run = drain(train_project(made_up, method, seed=3, out=out, resume=True))
    assert same_weights(run, load_run(trained[1]))
    assert {i for i, r in roles.items() if r == "train"} == set(run.provenance["split"]["train"])
    assert (out / "metrics.json").exists()


def test_a_run_goes_on_with_the_outlines_it_began_with(made_up: Project, trained: tuple[Project, Path]) -> None:
    method, out = quick_method(epochs=6), made_up.folder / "runs" / "stopped"
    running = train_project(made_up, method, seed=3, out=out)
    next(running)
    running.close()
    before = load_run(out).provenance
    for slide_id in before["split"]["train"]:  # somebody drew on while the run stood still
        made_up.save_lesions(slide_id, LesionSet([Lesion(shapely.box(0, 0, 100, 100), label="Tumor")]))
    _, run = drain(train_project(made_up, method, seed=3, out=out, resume=True))
    assert same_weights(run, load_run(trained[1]))
    assert run.provenance["slides"] == before["slides"]


def test_a_run_does_not_go_on_with_other_features_or_unknown_outlines(made_up: Project) -> None:
    out = made_up.folder / "runs" / "stopped"
    running = train_project(made_up, quick_method(epochs=6), out=out)
    next(running)
    running.close()
    (out / "patch_labels.npz").unlink()
    train = [r.slide_id for r in made_up.slides if r.role == "train"]
    one = next(i for i in train if made_up.slide(i).label == "tumor")
    made_up.save_lesions(one, LesionSet([Lesion(shapely.box(0, 0, 100, 100), label="Tumor")]))
    assert changes_since(made_up, out) == [f"{one}: its outlines were changed."]
    with pytest.raises(TrainingError, match=f"cannot go on as it began: {one}: its outlines were changed"):
        drain(train_project(made_up, quick_method(epochs=6), out=out, resume=True))
    other = next(i for i in train if i != one)
    made_up.feature_path(other).unlink()
    write_features(made_up.feature_path(other), np.zeros((20, DIM)), grid_of())
    made_up.update_slide(one, label="normal")
    assert changes_since(made_up, out) == [
        f"{change}."
        for slide in train
        for change in (
            [f"{one}: its label is another", f"{one}: its outlines were changed"]
            if slide == one
            else [f"{other}: its features were made again"]
            if slide == other
            else []
        )
    ]


def test_what_stands_in_the_way_is_said_before_anything_starts(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / "a.svs"])
    with pytest.raises(TrainingError, match="No slide has a label yet"):
        drain(train_project(project, "rank_induction"))
    assert project.runs() == []
    assert not (project.folder / "runs").exists()
    with pytest.raises(TrainingError, match="0 slide labels; training needs two or more"):
        method_for(project, "rank_induction")


def test_a_refused_training_leaves_no_folder(made_up: Project) -> None:
    split = dict.fromkeys(made_up.slide_ids, "train")
    with pytest.raises(TrainingError, match="no validation slide"):
        drain(train_project(made_up, quick_method(), split=split))  # type: ignore[arg-type]
    assert list((made_up.folder / "runs").iterdir()) == []


def test_another_split_than_the_tables(made_up: Project) -> None:
    split = {r.slide_id: "train" if r.patient_id < "p04" else "validation" for r in made_up.slides}
    _, run = drain(train_project(made_up, quick_method(epochs=1), split=split))  # type: ignore[arg-type]
    assert run.provenance["split"]["test"] == []
    assert len(run.provenance["split"]["train"]) == 8
    assert run.provenance["slides"]["p08_a"]["patient_id"] == "p08"
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["sets"]) == {"validation"}
    with pytest.raises(ProjectError, match="patient p00 is in"):
        drain(train_project(made_up, quick_method(epochs=1), split=split | {"p00_a": "test"}))  # type: ignore[arg-type]
    with pytest.raises(ProjectError, match="has no slide"):
        drain(train_project(made_up, quick_method(epochs=1), split={"nix": "train"}))


def test_three_labels_make_it_multiclass(made_up: Project) -> None:
    made_up.update_slides({i: {"label": "grade 2"} for i in made_up.slide_ids if i[1:3] in ("03", "07", "05")})
    made_up.set_roles(made_up.propose_split((0.5, 0.25, 0.25), seed=0))
    method = method_for(made_up, quick_method("ab_mil_rank", epochs=1))
    assert method.task.kind == "multiclass"
    assert tuple(method.task.classes) == ("normal", "grade 2", "tumor") == tuple(made_up.label_names)
    made_up.update_slides({i: {"label": "grade 2"} for i in made_up.slide_ids if i.startswith("p01")})
    again = method_for(made_up, method)
    assert (again.task.kind, tuple(again.task.classes)) == ("binary", ("normal", "grade 2"))


def test_features_of_two_kinds_are_refused(made_up: Project) -> None:
    train = next(r.slide_id for r in made_up.slides if r.role == "train")
    made_up.feature_path(train).unlink()
    write_features(made_up.feature_path(train), np.zeros((20, DIM)), grid_of(), target_mpp=0.25)
    with pytest.raises(ProjectError, match="holds features of 2 kinds"):
        drain(train_project(made_up, quick_method(epochs=1)))


def test_damaged_features_are_named(made_up: Project) -> None:
    train = next(r.slide_id for r in made_up.slides if r.role == "train")
    made_up.feature_path(train).write_bytes(b"damaged")
    with pytest.raises(FeatureError, match=rf"{train}\.h5: is damaged .* prepare the slide again"):
        drain(train_project(made_up, quick_method(epochs=1)))


def test_a_person_may_keep_the_last_weights(trained: tuple[Project, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[1], folder)
    assert load_run(folder).which == "best"
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"use": "last"}), encoding="utf-8")
    assert load_run(folder).which == "last"
    assert load_run(path).which == "last"
    assert resume_obstacle(tmp_path) != ""
    assert read_epochs(tmp_path) == []


def test_moved_projects_retrain_too(trained: tuple[Project, Path], tmp_path: Path) -> None:
    project, folder = trained
    shutil.copytree(project.folder, tmp_path / "moved")
    _, again = drain(retrain_from(tmp_path / "moved" / "runs" / folder.name, out=tmp_path / "again"))
    assert same_weights(again, load_run(folder))
    with pytest.raises(ProjectError, match="lies in no project's folder"):
        drain(retrain_from(tmp_path / "again"))
    lonely = cohort(tmp_path / "other" / "p", patients=4)
    with pytest.raises(ProjectError, match="has no slide"):
        drain(retrain_from(folder, project=lonely, out=tmp_path / "x"))
