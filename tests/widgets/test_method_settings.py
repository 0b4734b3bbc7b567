"""Choosing a method and filling in its settings, with real keys and clicks; no slide is needed for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QWidget

from napari_mil.mil import Method
from napari_mil.mil.described import Setting, describe_method
from napari_mil.widgets.dock import MilDock
from napari_mil.widgets.editors import editor_of
from napari_mil.widgets.settings_form import SettingRow

from .conftest import click

Until = Callable[..., None]
EVERY_SETTING = [setting for part in describe_method() for kind in part.kinds for setting in kind.settings]


@pytest.fixture
def page(opened: MilDock) -> Iterator[Any]:
    """The Train page of a project, its settings unfolded."""
    opened.show_page("Train")
    page = opened.page
    click(page.settings.title)
    click(page.all_settings.title)
    for part in page.parts.values():
        click(part.section.title)
    yield page
    page.preset.list.hide()


def row_of(page: Any, key: str) -> SettingRow:
    """The row that is shown for a setting."""
    rows = [row for row in page.findChildren(SettingRow) if row.setting.key == key and row.isVisibleTo(page)]
    assert len(rows) == 1, f"{key} has {len(rows)} rows"
    return rows[0]


def type_into(box: QWidget, text: str) -> None:
    """Replace what stands in a field, and press Enter."""
    box.setFocus()
    box.selectAll()
    QTest.keyClicks(box, text)
    QTest.keyClick(box, Qt.Key.Key_Return)


def choose_kind(page: Any, part: str, kind: str) -> None:
    """Choose a part's kind in its list."""
    box = page.parts[part].kind
    box.setCurrentIndex(box.findData(kind))
    box.activated.emit(box.currentIndex())


# -- which method ------------------------------------------------------------------------------------------


def test_a_method_is_found_by_typing(page: Any) -> None:
    chooser = page.preset
    assert chooser.text().startswith("Rank induction (recommended)")
    chooser.setFocus()
    QTest.keyClicks(chooser, "t")  # whoever types means to look for something
    assert chooser.list.isVisible()
    QTest.keyClicks(chooser.list.search, "ransmil c16")
    assert chooser.list.search.text() == "transmil c16"
    found = [item.text(0) for item in chooser.list.found]
    assert found
    assert all("TransMIL" in title for title in found)
    QTest.keyClick(chooser.list.search, Qt.Key.Key_Down)
    QTest.keyClick(chooser.list.search, Qt.Key.Key_Up)
    QTest.keyClick(chooser.list.search, Qt.Key.Key_Return)
    assert not chooser.list.isVisible()
    assert page.session.method.form.preset == "transmil_c16"
    assert "ICCV 2023" in page.preset_note.text()
    assert "Table 1" in page.preset_note.text()


def test_methods_stand_in_families_and_the_recommended_one_first(page: Any) -> None:
    click(page.preset)
    tree = page.preset.list.tree
    families = [tree.topLevelItem(i).text(0) for i in range(tree.topLevelItemCount())]
    assert len(set(families)) == len(families)
    assert set(families) == {info.family for info in Method.presets().values()}
    assert page.preset.list.found[0].text(0) == "Rank induction (recommended)"
    assert tree.currentItem() is page.preset.list.found[0]
    QTest.keyClicks(page.preset.list.search, "no such thing")
    assert page.preset.list.found == []
    QTest.keyClick(page.preset.list.search, Qt.Key.Key_Return)
    assert page.session.method.form.preset == "rank_induction"


def test_a_click_chooses(page: Any) -> None:
    click(page.preset)
    listed = page.preset.list
    item = next(item for item in listed.found if item.text(0) == "Attention induction")
    QTest.mouseClick(listed.tree.viewport(), Qt.MouseButton.LeftButton, pos=listed.tree.visualItemRect(item).center())
    assert page.preset.text().startswith("Attention induction")
    assert "Needs outlines of lesions" in page.preset_note.text()


def test_every_method_can_be_chosen_and_its_form_shows_it(page: Any) -> None:
    method = page.session.method
    listed = [item.data(0, Qt.ItemDataRole.UserRole) for item in page.preset.list.found]
    assert sorted(listed) == sorted(Method.presets())
    for name in listed:
        page.preset.choose(name)
        wanted = Method.preset(name).settings()
        if "task.classes" in wanted:
            wanted["task.classes"] = ("normal", "tumor")  # those of the slides
        assert method.form.values() == wanted
        assert method.obstacle == ""
        shown = {row.setting.key: row.editor.value() for row in page.findChildren(SettingRow) if row.isVisibleTo(page)}
        shown |= {part.part.key: part.kind.currentData() for part in page.parts.values() if part.part.key}
        assert shown == wanted, name
        assert not page.changed_row.isVisible()


# -- its settings ------------------------------------------------------------------------------------------


def test_a_changed_value_is_marked_and_put_back(page: Any) -> None:
    form = page.session.method.form
    row = row_of(page, "training.weight_decay")
    type_into(row.editor.box.lineEdit(), "3e-4")
    assert form.value("training.weight_decay") == 3e-4
    assert row.label.text().endswith(" •")
    assert page.changed_note.text() == "1 setting changed."
    patience = row_of(page, "training.patience")
    QTest.mouseClick(patience.editor.on, Qt.MouseButton.LeftButton, pos=QPoint(8, 8))
    assert form.value("training.patience") is None
    assert patience.editor.without.text() == "never"
    assert page.changed_note.text() == "2 settings changed."
    click(row.reset)
    assert form.value("training.weight_decay") == 1e-5
    assert not row.reset.isVisible()
    click(page.back)
    assert form.changes == {}
    assert patience.editor.value() == 7
    assert not page.changed_row.isVisible()


def test_another_kind_brings_its_own_settings_and_a_senseless_one_stops_training(page: Any) -> None:
    choose_kind(page, "aggregator", "trans_mil")
    assert row_of(page, "aggregator.landmarks").editor.without.text() == "half the stem's width"
    assert page.session.method.obstacle == ""
    choose_kind(page, "aggregator", "mean")
    sentence = "Rank induction needs a score for each patch, and mean pooling has none"
    assert page.session.method.obstacle.startswith(sentence)
    assert page.help_line.text().startswith(sentence)
    assert not page.train.isEnabled()
    choose_kind(page, "supervision", "none")
    assert page.session.method.obstacle == ""
    assert not page.help_line.text().startswith(sentence)
    assert not page.rows["supervision.weight"].isVisible()
    click(page.parts["aggregator"].reset)
    assert page.session.method.form.kind("aggregator") == "ab_mil_rank"


def test_training_is_off_with_the_reason(trained: MilDock, until: Until) -> None:
    trained.show_page("Train")
    page = trained.page
    until(page.train.isEnabled)
    page.session.method.form.put("aggregator.name", "max")
    assert page.train.reason == page.hint.text()
    assert "max pooling has none" in page.hint.text()
    page.session.method.form.reset_all()
    assert page.train.isEnabled()
    page.session.method.form.put("task.kind", "multiclass")
    page.session.method.form.put("task.classes", ("a", "b", "c"))
    assert page.train.reason == "The slides have 2 labels; this task has three classes or more."


def test_what_a_setting_does_is_read_by_pointing_at_it(page: Any) -> None:
    assert page.help_line.isVisible()
    row = row_of(page, "training.sampler")
    assert row.toolTip() == row.setting.help
    page.ensureWidgetVisible(row)
    row.editor.box.setFocus(Qt.FocusReason.TabFocusReason)
    QApplication.processEvents()
    assert page.help_line.text() == row.setting.help
    row_of(page, "training.weight_decay").enterEvent(None)
    assert page.help_line.text() == "Pulls the weights towards zero."
    click(page.settings.title)
    assert not page.help_line.isVisible()


def test_the_wheel_scrolls_the_page_and_changes_nothing(page: Any) -> None:
    box = row_of(page, "training.epochs").editor.box
    page.setFocus()
    before = box.value()
    at = QPointF(box.rect().center())
    turn = QWheelEvent(
        at,
        QPointF(box.mapToGlobal(box.rect().center())),
        QPoint(0, 120),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(box, turn)
    assert box.value() == before


def test_settings_of_the_form_are_made_when_they_are_looked_at(opened: MilDock) -> None:
    opened.show_page("Train")
    assert len(opened.page.findChildren(SettingRow)) == 3  # the common ones


def test_other_labels_of_the_slides_are_other_classes(page: Any) -> None:
    session, form = page.session, page.session.method.form
    form.put("training.epochs", 7)
    session.slides.update(session.project.slide_ids[:1], label="grade 2")
    assert form.kind("task") == "multiclass"
    assert form.value("task.classes") == ("normal", "grade 2", "tumor")
    assert form.changes == {"training.epochs": 7}
    page.preset.choose("patch_classifier")
    assert page.session.method.obstacle.startswith("The slides have 3 labels (normal, grade 2, tumor)")
    assert not page.train.isEnabled()


# -- editors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", EVERY_SETTING, ids=lambda s: s.key)
def test_every_setting_has_an_editor_that_keeps_its_values(qtbot: Any, setting: Setting) -> None:
    editor = editor_of(setting)
    qtbot.addWidget(editor)
    handed_on: list[Any] = []
    editor.edited.connect(handed_on.append)
    values = [setting.default, *setting.choices, setting.start, *([None] if setting.optional else [])]
    values += {"int": [3], "float": [0.25, 1e-7], "bool": [True, False]}.get(setting.type, [])
    if setting.type == "list":
        values = [("a", "b", "c") if setting.items == "text" else (1.0, 2.5, 3e-4), *setting.choices]
    if setting.type == "table":
        values = [{"depth": 3, "name": "x"}, {}]
    for value in values:
        if value is None and not setting.optional:
            continue
        editor.show_value(value)
        assert editor.value() == value
        assert type(editor.value()) is type(value) or isinstance(value, float | int)
    assert handed_on == []  # only what a person changes is handed on


def setting_of(key: str, kind: str = "") -> Setting:
    """A setting by its key, of a kind where several have it."""
    part = next(part for part in describe_method() if part.name == key.partition(".")[0])
    return next(setting for setting in part.kind(kind).settings if setting.key == key)


def test_numbers_are_typed_in_any_notation_and_stepped_by_their_size(qtbot: Any) -> None:
    editor = editor_of(setting_of("training.learning_rate"))
    qtbot.addWidget(editor)
    got: list[float] = []
    editor.edited.connect(got.append)
    editor.show_value(2e-4)
    type_into(editor.box.lineEdit(), "1e-3")
    QTest.keyClick(editor.box, Qt.Key.Key_Up)
    type_into(editor.box.lineEdit(), "0,05")
    assert got == pytest.approx([1e-3, 1.1e-3, 0.05])
    editor.show_value(0.0)
    QTest.keyClick(editor.box, Qt.Key.Key_Up)
    assert got[-1] == 0.1
    type_into(editor.box.lineEdit(), "abc")  # letters but e do not get in
    assert editor.box.value() == 0.1


def test_a_word_or_a_number(qtbot: Any) -> None:
    editor = editor_of(setting_of("task.class_weight", "binary"))
    qtbot.addWidget(editor)
    editor.show()
    got: list[Any] = []
    editor.edited.connect(got.append)
    assert not editor.inner.isVisible()
    editor.words.setCurrentIndex(editor.words.count() - 1)
    editor.words.activated.emit(editor.words.currentIndex())
    type_into(editor.inner.box.lineEdit(), "4")
    editor.words.setCurrentIndex(0)
    editor.words.activated.emit(0)
    assert got == [1.0, 4.0, "none"]


def test_a_teacher_may_be_a_folder(qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    editor = editor_of(setting_of("mining.teacher", "mhim"))
    qtbot.addWidget(editor)
    got: list[Any] = []
    editor.edited.connect(got.append)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    QTest.mouseClick(editor.browse, Qt.MouseButton.LeftButton)
    assert got == [str(tmp_path)]
    assert editor.value() == str(tmp_path)


def test_options_that_cannot_be_read_are_handed_on_to_be_refused(qtbot: Any) -> None:
    table = Setting("aggregator.custom_options", "Custom options", "Handed on.", "table", {})
    editor = editor_of(table)
    qtbot.addWidget(editor)
    got: list[Any] = []
    editor.edited.connect(got.append)
    type_into(editor.box, '{"depth": 3}')
    type_into(editor.box, "{depth")
    assert got == [{"depth": 3}, "{depth"]
