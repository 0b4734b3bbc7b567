from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QInputDialog, QLabel
from shapely.geometry import box

from napari_mil.lesion import Lesion
from napari_mil.study import Project
from napari_mil.viewer.recent import recent_file, recent_projects
from napari_mil.viewer.tags import find_layers
from napari_mil.widgets.dock import MilDock

from .conftest import click

Until = Callable[..., None]


def drop(dock: MilDock, path: Path) -> None:
    """Drop a path on the start page."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(
        QPointF(50, 50),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    dock.start.dropEvent(event)
    assert event.isAccepted()


# the start page


def test_a_project_is_opened_by_dropping_it_and_is_recent_then(
    new_dock: Callable[[], MilDock], project_folder: Path, until: Until
) -> None:
    dock = new_dock()
    assert not dock.start.section.isVisible()
    drop(dock, project_folder)
    assert dock.session.project.folder == project_folder
    dock.session.close_project()
    assert dock.page is dock.start
    assert dock.start.recent.count() == 1
    item = dock.start.recent.item(0)
    place = dock.start.recent.visualItemRect(item).center()
    QTest.mouseClick(dock.start.recent.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert dock.session.project.folder == project_folder


def test_a_project_that_is_gone_leaves_the_list(opened: MilDock, project_folder: Path) -> None:
    opened.session.close_project()
    moved = project_folder.with_name("moved")
    item = opened.start.recent.item(0)
    project_folder.rename(moved)
    opened.start.recent.itemClicked.emit(item)
    assert "holds no project.json" in opened.sentence.text()
    assert opened.start.recent.count() == 0
    assert recent_projects() == []
    recent_file().write_text("no list", encoding="utf-8")
    assert recent_projects() == []


def test_what_is_no_project_is_a_sentence(dock: MilDock, tmp_path: Path, until: Until) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    drop(dock, empty)
    until(lambda: "holds no slides that can be read" in dock.sentence.text())
    picture = tmp_path / "picture.gif"
    picture.write_bytes(b"GIF")
    drop(dock, picture)
    assert dock.sentence.text().startswith("picture.gif: expected a project")
    assert dock.session.project is None
    QTest.mouseClick(dock.sentence, Qt.MouseButton.LeftButton)
    assert not dock.sentence.isVisible()


def test_the_sample_is_one_click(
    dock: MilDock, until: Until, monkeypatch: pytest.MonkeyPatch, project_folder: Path
) -> None:
    monkeypatch.setattr("napari_mil.sample.create_sample", lambda _folder: project_folder)
    click(dock.start.sample)
    until(lambda: dock.session.project is not None)
    assert dock.name.text() == "Synthetic cohort"


def test_a_project_is_made_of_a_folder_by_its_button(
    dock: MilDock, until: Until, project_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = project_folder.parent / "slides"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_a, **_k: str(slides))
    click(dock.start.from_folder)
    until(lambda: dock.session.project is not None)
    assert "New project with 8 slides" in dock.sentence.text()
    dock.session.close_project()
    click(dock.start.from_folder)  # a second time opens what is there
    until(lambda: dock.session.project is not None)
    assert "is a project already" in dock.sentence.text()


# the window


def test_a_project_is_renamed(opened: MilDock, project_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QInputDialog, "getText", lambda *_a, **_k: ("  Breast, 2026 ", True))
    next(a for a in opened.menu_button.menu().actions() if "Rename" in a.text()).trigger()
    assert opened.name.text() == "Breast, 2026"
    assert Project.open(project_folder).config.name == "Breast, 2026"


def test_research_use_is_always_seen(opened: MilDock) -> None:
    labels = [label for label in opened.findChildren(QLabel) if "research use only" in label.text().lower()]
    for page in opened.pages:
        opened.show_page(page.title)
        assert any(label.isVisible() for label in labels)


def test_the_navigator_shows_where_one_is_and_goes_there(opened: MilDock, until: Until) -> None:
    nav, viewer = opened.navigator, opened.session.viewer
    assert not nav.isVisible()
    opened.session.slides.step(1)
    until(nav.isVisible)
    click(nav.buttons[20])
    until(lambda: nav.magnification.text() == "20x · 0.5 µm per screen pixel")
    assert viewer.scene.camera.zoom == 2.0
    area = nav.minimap._area()
    QTest.mouseClick(nav.minimap, Qt.MouseButton.LeftButton, pos=QPoint(round(area.left()) + 3, round(area.top()) + 3))
    y, x = viewer.scene.camera.center[-2:]
    width, height = opened.session.stage.slide.dimensions
    assert 0 < x < 0.1 * width * 0.5
    assert 0 < y < 0.1 * height * 0.5
    viewer.cursor.position = (100.0, 250.0)
    until(lambda: nav.position.text() == "x 250 µm, y 100 µm")
    click(nav.fit)
    assert viewer.scene.camera.center[-1] == pytest.approx(width * 0.5 / 2, rel=0.01)


def test_label_pictures_are_offered_where_there_are_any(opened: MilDock, until: Until) -> None:
    opened.session.slides.step(1)
    page = opened.pages[0]
    until(lambda: opened.session.stage.slide is not None)
    page.scale.set_folded(False)
    assert not page.label_picture.isEnabled()
    assert page.label_picture.toolTip() == "This file holds no such picture."


def test_the_negative_label_is_chosen(opened: MilDock, project_folder: Path) -> None:
    page = opened.pages[0]
    assert page.negative.currentText() == "normal"
    page.negative.textActivated.emit("tumor")
    assert opened.session.slides.label_names == ["tumor", "normal"]
    assert page.negative.currentText() == "tumor"
    assert Project.open(project_folder).label_names == ["tumor", "normal"]


def test_the_scale_is_given_for_a_scanner(dock: MilDock, tmp_path: Path, until: Until) -> None:
    import numpy as np
    from PIL import Image

    for folder in ("a", "b"):
        (tmp_path / "slides" / folder).mkdir(parents=True)
        Image.fromarray(np.full((300, 400, 3), 200, np.uint8)).save(tmp_path / "slides" / folder / f"{folder}.png")
    dock.session.open_or_create(tmp_path / "slides")
    until(lambda: dock.session.project is not None)
    dock.session.stage.show("a")
    until(lambda: dock.session.stage.slide is not None)
    dock.pages[0].mpp.setValue(0.25)
    click(dock.pages[0].mpp_scanner)
    dock.session.stage.show("b")
    until(lambda: dock.session.stage.slide_id == "b")
    assert dock.session.stage.slide.mpp == (0.25, 0.25)


# races


def test_the_last_wish_to_see_a_slide_counts(opened: MilDock, until: Until) -> None:
    stage, ids = opened.session.stage, opened.session.project.slide_ids
    stage.show(ids[0])
    until(lambda: stage.slide_id == ids[0])
    stage.show(ids[1])
    stage.show(ids[0])  # back before it was opened
    opened.session.background.run(lambda: None, lambda _: None, lambda _: None)
    until(lambda: opened.session.background.busy == 0)
    assert stage.slide_id == ids[0]
    for slide_id in ids[1:5]:
        stage.show(slide_id)
    until(lambda: stage.slide_id == ids[4])
    until(lambda: opened.session.background.busy == 0)
    assert stage.slide_id == ids[4]
    assert {layer.metadata["napari_mil"]["slide_id"] for layer in opened.session.viewer.layers} == {ids[4]}


def test_outlines_imported_into_a_slide_that_was_left_are_saved_there(
    opened: MilDock, tmp_path: Path, until: Until
) -> None:
    from napari_mil.lesion import LesionSet, write_lesions

    session, ids = opened.session, opened.session.project.slide_ids
    session.stage.show(ids[0])
    until(lambda: session.stage.slide_id == ids[0])
    before = len(session.project.lesions(ids[0]))
    there = {i: len(session.project.lesions(i)) for i in ids}
    write_lesions(LesionSet([Lesion(box(5, 5, 99, 99))]), tmp_path / "more.geojson")
    held = threading.Event()
    work = session.background.run
    session.background.run = lambda w, *a, **k: work(lambda: (held.wait(10), w())[1], *a, **k)
    session.stage.outlines.import_file(tmp_path / "more.geojson")
    session.background.run = work
    session.stage.show(ids[1])
    until(lambda: session.stage.slide_id == ids[1])
    held.set()
    until(lambda: len(session.project.lesions(ids[0])) == before + 1, 8)
    assert len(session.project.lesions(ids[1])) == there[ids[1]]


def test_what_is_drawn_while_a_folder_is_imported_is_kept(opened: MilDock, cohort: Path, until: Until) -> None:
    session = opened.session
    slide_id = next(p.stem for p in sorted((cohort / "annotations").glob("*.geojson")))
    session.project.save_lesions(slide_id, session.project.lesions(slide_id).with_lesions([]))
    session.stage.show(slide_id)
    until(lambda: session.stage.slide_id == slide_id)
    done: list[Any] = []
    session.stage.outlines.import_folder(cohort / "annotations", then=done.append)
    mine = Lesion(box(1, 1, 77, 77), name="mine")
    session.stage.outlines.layer.add([mine])
    session.stage.outlines.autosave.flush()  # must not write over the import
    until(lambda: done)
    until(lambda: session.stage.outlines.saved_text == "All outlines are saved.", 8)
    saved = session.project.lesions(slide_id)
    assert len(saved) > 1
    assert "mine" in {lesion.name for lesion in saved}


def test_keys_follow_the_table_as_it_is_sorted(opened: MilDock, until: Until) -> None:
    page, stage = opened.pages[0], opened.session.stage
    page.search.setText("tumor")
    shown = opened.session.slides.order()
    assert 0 < len(shown) < 8
    opened.session.slides.step(1)
    until(lambda: stage.slide_id == shown[0])
    opened.show_page("Lesions")
    QTest.keyClick(opened.page, Qt.Key.Key_PageDown)
    until(lambda: stage.slide_id == shown[1])


# the end


def test_everything_is_back_when_it_is_opened_again(
    trained: MilDock, new_dock: Callable[[], MilDock], until: Until
) -> None:
    session, folder = trained.session, trained.session.project.folder
    ids = session.project.slide_ids
    session.stage.show(ids[3])
    until(lambda: session.stage.patches.grid is not None)
    session.viewer.scene.camera.center = (0, 120.0, 340.0)
    session.viewer.scene.camera.zoom = 1.7
    session.stage.patches.show_patches(True)
    find_layers(session.viewer, "lesions")[0].opacity = 0.35
    session.stage.show(ids[2])
    until(lambda: session.stage.slide_id == ids[2])
    session.viewer.scene.camera.zoom = 0.9
    trained.show_page("Features")
    run = session.models.run
    session.close()
    dock = new_dock()
    dock.session.open_project(folder)
    until(lambda: dock.session.stage.slide_id == ids[2])
    assert dock.page.title == "Features"
    assert dock.session.models.run == run
    assert dock.session.viewer.scene.camera.zoom == 0.9
    until(lambda: find_layers(dock.session.viewer, "patches"))
    assert dock.page.show_patches.isChecked()
    dock.session.stage.show(ids[3])
    until(lambda: dock.session.stage.slide_id == ids[3])
    assert dock.session.viewer.scene.camera.zoom == 1.7  # of a slide that was not on stage at the end, too
    assert tuple(dock.session.viewer.scene.camera.center[-2:]) == (120.0, 340.0)


def test_closing_leaves_no_thread_and_no_child_behind(
    qtbot: Any, trained_folder: Path, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    before = {thread.ident for thread in threading.enumerate()}
    dock = MilDock(ViewerModel())
    qtbot.addWidget(dock)
    session = dock.session
    session.open_project(trained_folder)
    session.slides.step(1)
    until(lambda: session.stage.patches.grid is not None)
    session.maps.map_slides("test")
    until(lambda: session.desk.runner.child_pid is not None)
    child = session.desk.runner.child_pid
    session.stage.outlines.layer.add([Lesion(box(0, 0, 50, 50))])
    slide_id, outlines = session.stage.slide_id, len(session.stage.outlines.layer.lesions)
    session.close()
    assert not psutil.pid_exists(child)
    assert len(Project.open(trained_folder).lesions(slide_id)) == outlines  # saved, though nobody waited
    until(lambda: not [t for t in threading.enumerate() if t.ident not in before and "napari-mil" in t.name], 5)
    assert not session.viewer.layers
    session.close()  # a second time does nothing
