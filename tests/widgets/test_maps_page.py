from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_mil.geometry import level0_to_world
from napari_mil.study import Project
from napari_mil.study.predict import predict_slide
from napari_mil.viewer.shown_map import is_made, source_of
from napari_mil.widgets.dock import MilDock

from .conftest import click

Until = Callable[..., None]


def slide_of(project: Project, role: str) -> str:
    """A tumour slide of a role, else any slide of it."""
    rows = [r for r in project.slides if r.role == role]
    return next((r.slide_id for r in rows if r.label == "tumor"), rows[0].slide_id)


def show(page: Any, role: str, until: Until) -> str:
    """A slide of a role on stage."""
    slide_id = slide_of(page.session.project, role)
    page.session.stage.show(slide_id)
    until(lambda: page.session.stage.slide_id == slide_id)
    return slide_id


@pytest.fixture(scope="session")
def mapped_cohort(trained_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained cohort with maps of a test and of a training slide."""
    folder = tmp_path_factory.mktemp("mapped") / "cohort"
    shutil.copytree(trained_cohort, folder)
    project = Project.open(folder / "project")
    for role in ("train", "test"):
        predict_slide(project, project.runs()[0], slide_of(project, role))
    return folder


@pytest.fixture
def page(dock: MilDock, mapped_cohort: Path, tmp_path: Path, until: Until) -> Any:
    """The Maps page with the map of a test slide."""
    copy = tmp_path / "mapped"
    shutil.copytree(mapped_cohort, copy)
    dock.session.open_project(copy / "project")
    dock.show_page("Maps")
    show(dock.page, "test", until)
    until(lambda: dock.session.maps.shown is not None)
    return dock.page


def test_the_page_says_what_is_missing(opened: MilDock, until: Until) -> None:
    opened.show_page("Maps")
    page = opened.page
    assert "There is no model yet" in page.hint.text()
    for button in (page.show_map, page.map_all, page.save_model):
        assert button.reason == "Train a model first."
    assert page.export.reason == "Show a map first."
    assert page.run_this.reason == "Open a slide first."
    assert not page.badge_row.isVisible()
    assert page.visible.toolTip() == "No map is shown yet."


def test_one_click_predicts_and_paints(trained: MilDock, until: Until) -> None:
    trained.show_page("Maps")
    page, session = trained.page, trained.session
    slide_id = show(page, "test", until)
    assert "A test slide gives the fairest picture" in page.hint.text()
    click(page.show_map)
    until(lambda: session.maps.shown is not None, 60)
    assert session.maps.shown.slide_id == slide_id
    assert page.badge.text() == "TEST"
    assert page.prediction.text().startswith("The model says: normal 0.")
    assert " · TEST" in session.maps.layer.name
    until(lambda: "patch AUROC" in page.agreement.text())
    assert "learned from" not in page.agreement.text()


def test_a_slide_without_features_is_prepared_first(trained: MilDock, until: Until) -> None:
    trained.show_page("Maps")
    page, session = trained.page, trained.session
    slide_id = slide_of(session.project, "test")
    session.project.feature_path(slide_id).unlink()
    session.preparation.look()
    show(page, "test", until)
    click(page.show_map)
    until(lambda: session.maps.shown is not None, 60)
    assert slide_id in session.preparation.ready


def test_badges_tell_training_slides_from_others(page: Any, until: Until) -> None:
    assert page.badge.text() == "TEST"
    assert "fair picture" in page.badge_note.text()
    show(page, "train", until)
    until(lambda: page.badge.text() == "TRAIN")
    assert "right by construction" in page.badge_note.text()
    until(lambda: "learned from these outlines" in page.agreement.text())
    show(page, "validation", until)  # nobody predicted it: no map
    assert page.session.maps.shown is None
    assert page.session.maps.layer is None
    assert not page.badge_row.isVisible()


def test_the_look_is_changed_here_by_key_and_in_naparis_own_controls(page: Any, until: Until) -> None:
    maps, layer = page.session.maps, page.session.maps.layer
    attention = layer.data
    page.values.setCurrentIndex(page.values.findData("percentile"))
    page.values.activated.emit(page.values.currentIndex())
    until(lambda: "percentile" in layer.name)
    assert layer.data is not attention
    assert tuple(layer.contrast_limits) == (0, 100)
    page.colormap.textActivated.emit("viridis")
    page.opacity.setValue(30)
    assert (layer.colormap.name, layer.opacity) == ("viridis", 0.3)
    click(page.visible)
    assert not layer.visible
    assert "C shows it again" in page.hint.text()
    maps._toggle.toggle()  # what the key does
    assert layer.visible
    assert page.visible.isChecked()
    layer.opacity = 0.8
    layer.colormap = "magma"
    assert page.opacity.value() == 80
    assert page.colormap.currentText() == "magma"
    assert maps.state() == {"values": "percentile", "colormap": "magma", "opacity": 0.8, "visible": True}


def test_a_patch_is_read_under_the_mouse(page: Any) -> None:
    shown = page.session.maps.shown
    best = int(shown.scores.argmax())
    x, y = shown.grid.centers[best]
    page.session.viewer.cursor.position = tuple(level0_to_world((x, y), shown.grid.mpp))
    assert f"rank 1 of {len(shown.grid)}" in page.hover.text()
    assert f"patch {best} at" in page.hover.text()
    page.session.viewer.cursor.position = (-1000.0, -1000.0)
    assert "Move the mouse" in page.hover.text()


@pytest.mark.parametrize("suffix", [".png", ".csv", ".npz"])
def test_a_map_is_exported(
    page: Any, tmp_path: Path, until: Until, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"map{suffix}"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_a, **_k: (str(out), ""))
    click(page.export)
    until(lambda: "Map written to" in page.window().sentence.text())
    assert out.stat().st_size > 100


def test_a_map_older_than_its_model_is_made_anew(page: Any, until: Until) -> None:
    session = page.session
    run = session.models.run
    made = session.maps.shown.source.file.stat().st_mtime
    os.utime(run / "last.safetensors", (made + 100, made + 100))  # the training went on
    session.models.reload()
    assert session.maps.shown is None
    assert page.show_map.isEnabled()
    assert not is_made(source_of(run, session.stage.slide_id))


def test_features_of_another_encoder_are_refused(page: Any, until: Until) -> None:
    session = page.session
    run = session.models.run
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["provenance"]["features"]["encoder"] = "resnet50"
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    show(page, "validation", until)
    click(page.show_map)
    until(lambda: "encoder texture instead of resnet50" in page.window().sentence.text(), 60)
    assert session.maps.shown is None


def test_a_preview_is_called_one(page: Any, until: Until) -> None:
    session = page.session
    run = session.models.run
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["provenance"]["tile"]["max_patches"] = 500
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    session.models.reload()
    assert "Preview: it learned from a sample" in session.models.run_text
    show(page, "train", until)
    until(lambda: session.maps.shown is not None)
    assert session.maps.layer.name.startswith("Attention, preview")
    assert "preview" in page.prediction.text()


def test_a_saved_model_runs_on_the_slide_that_is_shown(
    page: Any, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = page.session
    shelf = tmp_path / "models"
    shelf.mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_a, **_k: str(shelf))
    click(page.save_model) if page.save_model.isVisible() else page._save_model()
    until(lambda: "Model saved in" in page.window().sentence.text())
    bundle = shelf / f"{session.models.run.name}-model"
    assert (bundle / "bundle.json").exists()
    slide_id = show(page, "validation", until)
    assert session.maps.shown is None
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_a, **_k: str(bundle))
    page._run_on("shown")
    until(lambda: session.maps.shown is not None, 60)
    shown = session.maps.shown
    assert (shown.slide_id, shown.source.run, shown.badge) == (slide_id, None, "VALIDATION")
    out = session.stage.slide.path.parent / f"{bundle.name}-maps"
    assert (out / "maps" / f"{slide_id}.png").exists()
    assert page.window().sentence.text() == f"1 slide done; predictions and maps are in {out}."
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_a, **_k: str(tmp_path))
    page._run_on("shown")  # no model there
    until(lambda: session.desk.running is not None)
    until(lambda: session.desk.running is None, 30)
    assert str(tmp_path) in page.window().sentence.text()


def test_all_test_slides_are_mapped(page: Any, until: Until) -> None:
    session = page.session
    click(page.map_all)
    until(lambda: session.desk.running is not None)
    until(lambda: session.desk.running is None, 60)
    maps = {p.stem for p in (session.models.run / "maps").glob("*.npz")}
    assert maps >= {r.slide_id for r in session.project.slides if r.role == "test"}


def test_the_map_is_back_with_its_look(page: Any, new_dock: Callable[[], MilDock], until: Until) -> None:
    page.session.maps.set_look(colormap="turbo", opacity=0.4, values="raw")
    until(lambda: page.session.maps.shown.map.normalisation == "raw")
    folder, run = page.session.project.folder, page.session.models.run
    page.session.close()
    dock = new_dock()
    dock.session.open_project(folder)
    until(lambda: dock.session.maps.shown is not None)
    layer = dock.session.maps.layer
    assert (layer.colormap.name, layer.opacity) == ("turbo", 0.4)
    assert "(raw)" in layer.name
    assert dock.session.models.run == run
    assert dock.page.title == "Maps"
    QTest.keyClick(dock.page, Qt.Key.Key_PageDown)
    until(lambda: dock.session.maps.shown is None)


def look_at(page: Any, values: str) -> None:
    """Choose what the map shows."""
    page.values.setCurrentIndex(page.values.findData(values))
    page.values.activated.emit(page.values.currentIndex())


def test_contribution_and_patch_probability_stand_beside_attention(page: Any, until: Until) -> None:
    from napari_mil.study import load_map_scores, save_map_scores

    maps = page.session.maps
    file = maps.shown.source.file
    saved = load_map_scores(file)
    probability = (saved.scores - saved.scores.min()) / (saved.scores.max() - saved.scores.min()) * 0.9
    saved = dataclasses.replace(saved, contribution=-2 * probability, instance_probability=probability)
    save_map_scores(file, saved)
    look_at(page, "instance_probability")
    until(lambda: maps.shown.title == "Patch probability")
    assert maps.layer.name == "Patch probability (raw) · TEST"
    assert tuple(maps.layer.contrast_limits) == (0.0, 1.0)
    assert np.nanmax(maps.layer.data) == pytest.approx(0.9, rel=0.2)
    assert page.hint.text().startswith("Bright is what the model takes for the class by itself")
    assert not page.values_note.text()
    look_at(page, "contribution")
    until(lambda: maps.shown.title == "Contribution")
    low, high = maps.layer.contrast_limits
    assert low == -high == pytest.approx(np.nanmin(maps.layer.data))
    assert "Contribution against your outlines: patch AUROC" in page.agreement.text() or not page.agreement.text()
    assert maps.shown.table["score"].max() <= 0  # what is read under the mouse is what is shown


def test_a_model_without_patch_probability_says_so_and_shows_attention(page: Any, until: Until) -> None:
    from napari_mil.study import load_map_scores, save_map_scores

    maps = page.session.maps
    save_map_scores(
        maps.shown.source.file, dataclasses.replace(load_map_scores(maps.shown.source.file), instance_probability=None)
    )
    look_at(page, "instance_probability")
    until(lambda: page.values_note.text())
    assert page.values_note.text().startswith("This model has no classifier of single patches")
    assert maps.layer.name == "Attention (softmax) · TEST"
