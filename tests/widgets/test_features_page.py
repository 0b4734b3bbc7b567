from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_mil.features import published, published_encoder
from napari_mil.features.licences import is_accepted
from napari_mil.study import Project
from napari_mil.viewer.background import Background
from napari_mil.viewer.tags import find_layers
from napari_mil.widgets.dock import MilDock
from napari_mil.widgets.encoder_section import PUBLISHED, RECOMMENDED
from napari_mil.widgets.slides_model import FEATURES

from .conftest import click

Until = Callable[..., None]


def test_all_slides_are_prepared_by_a_child_process_and_a_bad_one_is_told_shown_and_retried(
    opened: MilDock, until: Until
) -> None:
    session, project = opened.session, opened.session.project
    bad = project.slide_ids[1]
    path = project.slide_path(bad)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    opened.show_page("Features")
    page = opened.page
    assert not page.retry.isVisible()
    click(page.prepare_all)
    until(opened.jobs.bar.isVisible)
    assert page.prepare_all.reason == "A job is running; stop it or wait."
    assert "being prepared" in page.hint.text()
    until(lambda: session.desk.running is None, 90)
    assert session.preparation.ready == set(project.slide_ids) - {bad}
    assert bad in session.preparation.failures
    assert session.preparation.failures[bad] in page.state.text()
    assert page.prepare_all.reason == "The slides that are left failed: try them again."
    assert page.hint.text().startswith("1 slide failed")
    model = opened.pages[0].model
    assert model.index(1, FEATURES).data() == "failed"
    assert model.index(0, FEATURES).data() == "ready"
    assert bad in model.index(1, FEATURES).data(Qt.ItemDataRole.ToolTipRole)
    assert not opened.jobs.isVisible()
    path.write_bytes(whole)
    click(page.retry)
    until(lambda: session.preparation.ready == set(project.slide_ids), 60)
    until(lambda: session.desk.running is None)
    assert page.prepare_all.reason == "Every slide is ready with these settings."
    assert page.hint.text() == "All slides are ready. Go on to Train."
    assert not page.retry.isVisible()


def test_one_setting_changes_that_one_only_and_empties_what_is_ready(trained: MilDock, until: Until) -> None:
    session, project = trained.session, trained.session.project
    project.config.tissue = type(project.config.tissue)(min_area_um2=12.3)  # less than the page can show
    project.save()
    session.preparation.look()
    trained.show_page("Features")
    page = trained.page
    assert session.preparation.ready == set()
    session.preparation.configure(tissue={"min_area_um2": 0.0})
    assert session.preparation.ready == set(project.slide_ids)
    session.preparation.configure(tissue={"min_area_um2": 12.3})
    page.patch_size.setValue(256)
    page.patch_size.setValue(224)
    click(page.jpeg)
    assert project.config.tile.jpeg_filter_kb == 10.0
    assert project.config.tissue.min_area_um2 == 12.3
    assert Project.open(project.folder).config.tile.jpeg_filter_kb == 10.0
    click(page.jpeg)
    until(lambda: "8 slides to do: about" in page.estimate.text())
    assert "on disk" in page.estimate.text()
    assert page.state.text() == "0 of 8 slides ready."


def test_numbers_are_taken_when_they_are_whole(trained: MilDock) -> None:
    trained.show_page("Features")
    spin = trained.page.patch_size
    spin.setFocus()
    spin.selectAll()
    QTest.keyClicks(spin, "25")
    assert trained.session.project.config.tile.patch_px == 224
    QTest.keyClicks(spin, "6")
    QTest.keyClick(spin, Qt.Key.Key_Return)
    assert trained.session.project.config.tile.patch_px == 256


def test_buttons_say_why_they_are_off(trained: MilDock, until: Until) -> None:
    trained.show_page("Features")
    page = trained.page
    assert page.prepare_one.reason == "Open a slide first."
    assert page.prepare_all.reason == "Every slide is ready with these settings."
    trained.session.slides.step(1)
    until(lambda: trained.session.stage.slide_id is not None)
    assert page.prepare_one.reason == "This slide is ready with these settings."


def test_tissue_and_patches_are_shown_and_hidden(trained: MilDock, until: Until) -> None:
    session = trained.session
    session.slides.step(1)
    until(lambda: session.stage.patches.grid is not None)
    trained.show_page("Features")
    page = trained.page
    click(page.show_tissue)
    click(page.show_patches)
    layers = [*find_layers(session.viewer, "tissue"), *find_layers(session.viewer, "patches")]
    assert len(layers) == 2
    assert all(layer.visible for layer in layers)
    assert session.viewer.layers.selection.active is session.stage.outlines.layer.layer
    patches = len(session.stage.patches.grid)
    page.stride.setValue(112)
    until(lambda: session.stage.patches.grid is not None and len(session.stage.patches.grid) > 2 * patches)
    click(page.show_patches)
    assert [layer.visible for layer in layers] == [True, False]
    page.method.setCurrentIndex(2)
    page.method.activated.emit(2)
    assert page.threshold_row.isVisible()
    assert session.project.config.tissue.threshold == page.threshold.value()


def test_only_labels_are_counted_anew_when_only_outlines_change(trained: MilDock, until: Until) -> None:
    stage = trained.session.stage
    trained.session.slides.step(1)
    until(lambda: stage.patches.labels is not None)
    tissue, labels = stage.patches.tissue, stage.patches.labels
    stage.set_partial(True)
    until(lambda: stage.patches.labels is not labels)
    assert stage.patches.tissue is tissue


def test_a_network_of_ones_own_is_chosen_by_its_file(
    trained: MilDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.show_page("Features")
    page = trained.page
    chosen = tmp_path / "mine.pt2"
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_a, **_k: ("", ""))
    page.encoder.choice.activated.emit(page.encoder.choice.count() - 1)
    assert trained.session.project.config.encoder == "texture"
    assert page.encoder.choice.currentText() == "texture"
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_a, **_k: (str(chosen), ""))
    page.encoder.choice.activated.emit(page.encoder.choice.count() - 1)
    assert trained.session.project.config.encoder == str(chosen)
    assert page.encoder.choice.currentText() == "mine.pt2"
    assert "texture" in [page.encoder.choice.itemText(i) for i in range(page.encoder.choice.count())]
    assert trained.session.preparation.ready == set()


def choose(page: Any, name: str) -> None:
    index = page.encoder.choice.findData(name)
    page.encoder.choice.activated.emit(index)


def test_a_published_encoder_shows_its_licence_once_before_anything_is_downloaded(
    trained: MilDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    trained.show_page("Features")
    page, session = trained.page, trained.session
    section, config = page.encoder, session.project.config
    headings = [section.choice.itemText(i) for i in range(section.choice.count()) if not section.choice.itemData(i)]
    assert headings == [RECOMMENDED, PUBLISHED]
    names = [section.choice.itemData(i) for i in range(section.choice.count())]
    assert names.index("resnet50") < names.index(None, 1) < names.index("uni") < names.index("dinov2-large")
    assert not section.licence.isVisible()
    choose(page, "uni")
    assert config.encoder == "uni"
    assert section.choice.currentText().startswith("UNI (1024 numbers, 1.2 GB")
    assert 'href="https://creativecommons.org/licenses/by-nc-nd/4.0/"' in section.licence.text()
    assert 'href="https://huggingface.co/MahmoodLab/UNI"' in section.licence.text()
    assert page.prepare_all.reason == "Read the licence of UNI under Encoder and accept it first."
    assert page.hint.text() == page.prepare_all.reason
    click(section.accept)
    assert is_accepted(published.PUBLISHED["uni"])
    assert page.prepare_all.reason == ""
    assert not section.accept.isVisible()
    assert section.licence.isVisible()
    choose(page, "texture")
    choose(page, "uni")
    assert page.prepare_all.reason == ""
    choose(page, "")  # a heading
    assert config.encoder == "uni"


def test_a_published_encoder_with_a_file_of_its_weights_and_its_own_scale(
    trained: MilDock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    file = tmp_path / "mine.bin"
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_a, **_k: (str(file), ""))
    trained.show_page("Features")
    page, config = trained.page, trained.session.project.config
    section = page.encoder
    choose(page, "conch")
    assert "Here they are 224 px" in section.scale_note.text()
    click(section.use_scale)
    assert (config.tile.target_mpp, config.tile.patch_px, config.tile.stride_px) == (0.5, 512, None)
    assert page.patch_size.value() == 512
    assert not section.scale_row.isVisible()
    click(section.weights_file)
    assert config.encoder_weights == str(file)
    assert "Weights of your file mine.bin" in section.licence.text()
    assert page.prepare_all.reason == ""  # nothing will be downloaded
    click(section.no_file)
    assert config.encoder_weights is None
    assert page.prepare_all.reason != ""
    click(section.weights_file)
    choose(page, "uni")
    assert config.encoder_weights is None  # they were CONCH's


def test_what_is_not_installed_is_named(trained: MilDock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_encoder, "find_spec", lambda name: None)
    monkeypatch.setattr(trained.session.preparation, "_encoders", None)
    trained.show_page("Features")
    choose(trained.page, "virchow2")
    assert trained.page.encoder.problem.text().startswith("Not installed: timm and huggingface_hub.")
    assert trained.page.prepare_all.reason == "Virchow2 needs timm and huggingface_hub: see Encoder."


def test_jobs_that_are_followed_take_no_thread_from_the_window(qtbot: object, until: Until) -> None:
    background = Background()
    stop = threading.Event()

    def events() -> Iterator[int]:
        stop.wait(20)
        yield 1

    for _ in range(12):
        background.follow(events, lambda _: None)
    got: list[int] = []
    background.run(lambda: 7, got.append, lambda _: None)
    until(lambda: got == [7], 10)  # the followed ones end after twenty
    stop.set()
    until(lambda: background.busy == 0, 5)
    failed: list[Exception] = []
    background.run(lambda: 1 // 0, got.append, failed.append)
    until(lambda: failed, 5)
    assert isinstance(failed[0], ZeroDivisionError)
    background.close()
    background.run(lambda: 8, got.append, lambda _: None)
    assert got == [7]


def test_the_precision_is_chosen_where_the_encoder_has_weights(trained: MilDock) -> None:
    project = trained.session.project
    trained.show_page("Features")
    section = trained.page.encoder
    assert not section.precision_row.isVisible()  # the texture encoder computes as it does
    trained.session.preparation.configure(encoder="resnet18")
    assert section.precision_row.isVisible()
    assert section.precision.currentData() == "auto"
    before = project.feature_set
    section.precision.setCurrentIndex(section.precision.findData("fp32"))
    section.precision.activated.emit(section.precision.currentIndex())
    assert Project.open(project.folder).config.precision == "fp32"
    assert project.feature_set != before
