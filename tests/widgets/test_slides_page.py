from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QComboBox

from napari_mil.study import Project
from napari_mil.widgets import table_dialog
from napari_mil.widgets.dock import MilDock
from napari_mil.widgets.slides_model import EVENT, LABEL, OUTLINED, PICTURE, ROLE, SLIDE, TIME

Until = Callable[..., None]


def click_row(dock: MilDock, row: int, column: int = SLIDE) -> None:
    table = dock.pages[0].table
    index = dock.pages[0].shown.index(row, column)
    table.scrollTo(index)
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualRect(index).center())


def test_without_a_project_the_start_page_says_what_to_do(dock: MilDock) -> None:
    assert dock.page is dock.start
    assert dock.start.sample.isEnabled()
    assert not dock.tabs.isVisible()


def test_a_dropped_folder_of_slides_becomes_a_project_beside_it(dock: MilDock, cohort: Path, until: Until) -> None:
    dock.session.open_or_create(cohort / "slides")
    until(lambda: dock.session.project is not None)
    assert dock.session.project.folder == cohort / "slides-mil"
    assert len(dock.session.project.slides) == 8
    assert dock.page is dock.pages[0]
    assert "8 slides have no label" in dock.pages[0].hint.text()


def test_a_click_opens_a_slide_and_keys_go_on(opened: MilDock, until: Until) -> None:
    stage = opened.session.stage
    click_row(opened, 1)
    until(lambda: stage.slide_id == opened.session.project.slide_ids[1])
    assert {layer.metadata["napari_mil"]["kind"] for layer in opened.session.viewer.layers} >= {"slide", "lesions"}
    QTest.keyClick(opened.pages[0].table, Qt.Key.Key_PageDown)
    until(lambda: stage.slide_id == opened.session.project.slide_ids[2])
    assert opened.pages[0].table.currentIndex().row() == 2
    QTest.keyClick(opened.pages[0].table, Qt.Key.Key_PageUp)
    until(lambda: stage.slide_id == opened.session.project.slide_ids[1])


def test_digits_label_the_selected_slides(opened: MilDock, project_folder: Path) -> None:
    page = opened.pages[0]
    page.table.selectRow(0)
    QTest.keyClick(page.table, Qt.Key.Key_0)
    assert page.model.index(0, LABEL).data() == ""
    assert page.split_button.reason == "1 slide has no label yet: label it first."
    QTest.keyClick(page.table, Qt.Key.Key_2)
    assert page.model.index(0, LABEL).data() == "tumor"
    QTest.keyClick(page.table, Qt.Key.Key_9)
    assert "Key 9 has no label" in opened.sentence.text()
    assert Project.open(project_folder).slides[0].label == "tumor"


def test_a_patient_in_two_roles_is_refused_with_a_sentence(opened: MilDock) -> None:
    project = opened.session.project
    patients: dict[str, list[str]] = {}
    for slide in project.slides:
        patients.setdefault(slide.patient, []).append(slide.slide_id)
    two = next(slides for slides in patients.values() if len(slides) > 1)
    model = opened.pages[0].model
    row = model.row_of(two[0])
    before = model.index(row, ROLE).data()
    other = next(role for role in ("train", "test") if role != before)
    assert not model.setData(model.index(row, ROLE), other)
    assert model.index(row, ROLE).data() == before
    assert project.slide(two[0]).patient in opened.sentence.text()


def test_cells_are_edited_with_lists(opened: MilDock, qtbot: object) -> None:
    page = opened.pages[0]
    index = page.shown.index(0, OUTLINED)
    page.table.edit(index)
    editor = page.table.viewport().findChild(QComboBox)
    assert [editor.itemText(i) for i in range(editor.count())] == ["", "yes", "no"]
    editor.setCurrentText("no")
    page.table.commitData(editor)
    assert opened.session.project.slides[0].partial_annotation is True


def test_thumbnails_arrive_behind(opened: MilDock, until: Until) -> None:
    model = opened.pages[0].model
    until(lambda: model.index(0, PICTURE).data(Qt.ItemDataRole.DecorationRole) is not None)


def test_a_table_is_read_with_its_columns_by_eye(
    opened: MilDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "labels.csv"
    ids = opened.session.project.slide_ids
    table.write_text("name;what it is\n" + "\n".join(f"{i};strange" for i in ids[:2]), encoding="utf-8")

    def person(dialog: table_dialog.TableDialog) -> int:
        assert dialog.choices["slide_id"].currentText() == "name"
        dialog.choices["label"].setCurrentText("what it is")
        return 1

    monkeypatch.setattr(table_dialog.TableDialog, "exec", person)
    mapping = table_dialog.choose_table_columns(table)
    assert mapping == {"slide_id": "name", "label": "what it is"}
    opened.session.slides.read_table(table, mapping)
    assert [r.label for r in opened.session.project.slides[:2]] == ["strange", "strange"]
    assert "strange" in opened.session.slides.label_names


def test_times_and_events_are_read_shown_and_edited(opened: MilDock, tmp_path: Path) -> None:
    page, session = opened.pages[0], opened.session
    assert page.table.isColumnHidden(TIME)
    assert page.table.isColumnHidden(EVENT)
    ids = session.project.slide_ids
    table = tmp_path / "survival.csv"
    lines = [f"{i},{10 + k},{k % 2}" for k, i in enumerate(ids[1:])]
    table.write_text("slide,months,vital_status\n" + "\n".join(lines), encoding="utf-8")
    session.slides.read_table(table, {"slide_id": "slide", "time": "months", "event": "vital_status"})
    assert not page.table.isColumnHidden(TIME)
    row = page.model.row_of(ids[1])
    assert (page.model.index(row, TIME).data(), page.model.index(row, EVENT).data()) == ("10", "no")
    session.slides.update(ids, label=None)  # now it is times that count
    assert session.slides.survival
    assert page.hint.text().startswith("1 slide has no time or event")
    assert page.split_button.reason == "1 slide has no time or event yet: read a table first."
    first = page.model.row_of(ids[0])
    assert not page.model.setData(page.model.index(first, TIME), "soon")
    assert "time" in opened.sentence.text()
    assert page.model.setData(page.model.index(first, TIME), "7.5")
    assert page.model.setData(page.model.index(first, EVENT), "yes")
    assert (session.project.slides[0].time, session.project.slides[0].event) == (7.5, True)
    assert page.split_button.isEnabled()
    session.slides.propose_split()
    assert page.hint.text().startswith("Slides are ready")


def test_an_unknown_scale_is_asked_for_and_recorded(
    dock: MilDock, tmp_path: Path, until: Until, project_folder: Path
) -> None:
    import numpy as np
    from PIL import Image

    slides = tmp_path / "plain"
    slides.mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((600, 800, 3), 200, np.uint8)).save(slides / f"{name}.png")
    dock.session.open_or_create(slides)
    until(lambda: dock.session.project is not None)
    dock.session.stage.show("a")
    until(lambda: dock.session.stage.slide is not None)
    page = dock.pages[0]
    assert "does not say how large a pixel is" in page.hint.text()
    page.mpp.setValue(0.5)
    QTest.mouseClick(page.mpp_folder, Qt.MouseButton.LeftButton)
    assert dock.session.stage.slide.mpp == (0.5, 0.5)
    assert "does not say" not in page.hint.text()
    reopened = Project.open(dock.session.project.folder)
    assert reopened.mpp_of("b") == (0.5, 0.5)


def test_hundreds_of_rows_show_without_delay(dock: MilDock, tmp_path: Path, until: Until) -> None:
    table = tmp_path / "many.csv"
    rows = "\n".join(f"s{i:04d},slides/s{i:04d}.svs,p{i // 2},{'tumor' if i % 3 else 'normal'}" for i in range(800))
    table.write_text("slide_id,path,patient_id,label\n" + rows, encoding="utf-8")
    dock.session.new_project(table)
    until(lambda: dock.session.project is not None)
    page = dock.pages[0]
    assert page.model.rowCount() == 800
    QTest.mouseClick(page.split_button, Qt.MouseButton.LeftButton)
    assert all(slide.role for slide in dock.session.project.slides)
    page.search.setText("s0799")
    assert page.shown.rowCount() == 1
