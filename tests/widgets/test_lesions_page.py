from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog
from shapely.geometry import box

from napari_mil.errors import LesionError
from napari_mil.lesion import Lesion, LesionSet, read_lesions, write_lesions
from napari_mil.study import Project
from napari_mil.widgets.dock import MilDock

from .conftest import click

Until = Callable[..., None]
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def page(opened: MilDock, until: Until) -> Any:
    """The Lesions page with a tumour slide on stage."""
    slide_id = next(r.slide_id for r in opened.session.project.slides if r.label == "tumor")
    opened.session.stage.show(slide_id)
    until(lambda: opened.session.stage.outlines.layer is not None)
    opened.show_page("Lesions")
    until(lambda: opened.session.stage.patches.counts is not None)
    return opened.page


def test_without_a_slide_every_tool_is_off_and_says_why(opened: MilDock) -> None:
    opened.show_page("Lesions")
    page = opened.page
    assert not any(button.isEnabled() for button in page.buttons.values())
    assert page.import_button.reason == "Open a slide first (page Slides)."
    assert "Open a slide" in page.hint.text()


@pytest.mark.parametrize(
    ("tool", "mode"),
    [
        ("polygon", "add_polygon"),
        ("lasso", "add_polygon_lasso"),
        ("rectangle", "add_rectangle"),
        ("ellipse", "add_ellipse"),
        ("select", "select"),
        ("pan", "pan_zoom"),
    ],
)
def test_a_tool_is_taken_up_by_a_click(page: Any, tool: str, mode: str) -> None:
    QTest.mouseClick(page.buttons[tool], LEFT)
    assert page.session.stage.outlines.layer.layer.mode == mode
    assert page.buttons[tool].isChecked()


def test_an_outline_is_counted_saved_and_taken_back(page: Any, until: Until) -> None:
    stage = page.session.stage
    before = len(stage.outlines.layer.lesions)
    lesion_patches = stage.patches.counts[0]
    assert page.undo.reason == "Nothing to undo."
    stage.outlines.layer.add([Lesion(box(0, 0, 2048, 1536), label="Tumor")])
    until(lambda: stage.patches.counts is not None and stage.patches.counts[0] > lesion_patches)
    assert f"{before + 1} outlines" in page.counts.text()
    assert "pairs to rank" in page.counts.text()
    folder = page.session.project.folder
    until(lambda: len(Project.open(folder).lesions(stage.slide_id)) == before + 1, 6)
    assert page.saved.text() == "All outlines are saved."
    QTest.mouseClick(page.undo, LEFT)
    assert len(stage.outlines.layer.lesions) == before
    QTest.mouseClick(page.redo, LEFT)
    assert len(stage.outlines.layer.lesions) == before + 1
    until(lambda: not stage.outlines.autosave.dirty, 6)


def test_a_class_is_chosen_by_a_click(page: Any) -> None:
    item = page.classes.item(2)
    QTest.mouseClick(page.classes.viewport(), LEFT, pos=page.classes.visualItemRect(item).center())
    assert page.session.stage.outlines.layer.current_class == list(page.session.class_colours)[2]


def test_unanswered_counts_as_partial(page: Any, until: Until) -> None:
    stage = page.session.stage
    QTest.mouseClick(page.partial, LEFT, pos=QPoint(8, page.partial.height() // 2))
    until(lambda: stage.patches.counts is not None and stage.patches.counts[1] == 0 and stage.patches.counts[2] > 0)
    QTest.mouseClick(page.complete, LEFT, pos=QPoint(8, page.complete.height() // 2))
    until(lambda: stage.patches.counts is not None and stage.patches.counts[1] > 0 and stage.patches.counts[2] == 0)


def test_files_in_and_out(page: Any, cohort: Path, tmp_path: Path, until: Until) -> None:
    stage = page.session.stage
    before = len(stage.outlines.layer.lesions)
    out = tmp_path / "out.geojson"
    stage.outlines.export(out)
    assert len(read_lesions(out)) == before
    stage.outlines.import_file(out)
    until(
        lambda: f"0 outlines imported from out.geojson. {before} were there already." in page.window().sentence.text()
    )
    assert len(stage.outlines.layer.lesions) == before
    stage.outlines.import_file(tmp_path / "nowhere.geojson")
    until(lambda: "nowhere.geojson" in page.window().sentence.text())


def test_a_folder_of_outlines_is_matched_by_name_and_reported(page: Any, cohort: Path, until: Until) -> None:
    session = page.session
    for slide_id in session.project.slide_ids:
        session.project.save_lesions(slide_id, LesionSet())
    session.stage.outlines.layer.set_lesions(LesionSet(), "clear")
    reports: list[list[str]] = []
    session.stage.outlines.import_folder(cohort / "annotations", then=reports.append)
    until(lambda: reports)
    assert len(session.stage.outlines.layer.lesions) > 0
    expected = {p.stem for p in (cohort / "annotations").iterdir()}
    with_outlines = {s for s in session.project.slide_ids if len(session.project.lesions(s))}
    assert with_outlines == expected


def test_switching_slides_keeps_outlines_and_undo(page: Any, until: Until) -> None:
    stage = page.session.stage
    first, count = stage.slide_id, len(stage.outlines.layer.lesions)
    stage.outlines.layer.add([Lesion(box(10, 10, 400, 400))])
    page.session.slides.step(1)
    until(lambda: stage.slide_id != first)
    assert len(page.session.project.lesions(first)) == count + 1  # saved on leaving
    stage.show(first)
    until(lambda: stage.slide_id == first)
    assert len(stage.outlines.layer.lesions) == count + 1
    stage.outlines.undo()
    assert len(stage.outlines.layer.lesions) == count


def test_a_write_that_fails_is_told_and_tried_again(page: Any, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    session, stage = page.session, page.session.stage
    before = len(session.project.lesions(stage.slide_id))
    save = type(session.project).save_lesions
    full = [True]

    def saving(project: Project, slide_id: str, lesions: LesionSet) -> Path:
        if full[0]:
            raise LesionError("the disk is full; free some space.")
        return save(project, slide_id, lesions)

    monkeypatch.setattr(type(session.project), "save_lesions", saving)
    stage.outlines.layer.add([Lesion(box(3, 3, 40, 40))])
    until(lambda: "Not saved yet, trying again: the disk is full" in page.window().sentence.text(), 6)
    assert page.saved.text() == "Saving…"
    full[0] = False
    until(lambda: len(session.project.lesions(stage.slide_id)) == before + 1, 8)
    until(lambda: page.saved.text() == "All outlines are saved.")


def test_what_a_thread_has_not_written_yet_is_written_at_the_end(page: Any, until: Until) -> None:
    session, stage = page.session, page.session.stage
    folder, slide_id = session.project.folder, stage.slide_id
    before = len(session.project.lesions(slide_id))
    session.background.run = lambda *_a, **_k: None  # all threads are taken
    stage.outlines.layer.add([Lesion(box(3, 3, 40, 40))])
    until(lambda: stage.outlines._behind, 6)
    assert page.saved.text() == "Saving…"
    session.close()
    assert len(Project.open(folder).lesions(slide_id)) == before + 1


def test_qupath_counts_from_the_scanned_part(
    page: Any, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = page.session.stage
    assert not page.from_origin.isVisible()
    stage.slide.bounds = (100, 50, 1800, 1400)
    page.refresh()
    assert page.from_origin.isVisible()
    assert "counted from x 100, y 50 px" in page.from_origin.text()
    page.from_origin.setChecked(True)
    out = tmp_path / "qupath.geojson"
    write_lesions(LesionSet([Lesion(box(0, 0, 10, 10), name="from QuPath")]), out)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_a, **_k: (str(out), ""))
    click(page.import_button)
    until(lambda: "1 outline imported" in page.window().sentence.text())
    new = next(lesion for lesion in stage.outlines.layer.lesions if lesion.name == "from QuPath")
    assert new.geometry.bounds == (100, 50, 110, 60)
