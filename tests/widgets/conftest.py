"""A dock on a small sample project, without a window: pages are driven by real Qt events all the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton

from napari_mil.sample import create_sample
from napari_mil.widgets.dock import MilDock
from napari_mil.widgets.parts import Page


def click(button: QAbstractButton) -> None:
    """Click where a person would: on the box of a check box; a button that is off says why."""
    assert button.isEnabled(), f"“{button.text()}” is off: {button.toolTip()}"
    page = button.parent()
    while page is not None and not isinstance(page, Page):
        page = page.parent()
    if page is not None:
        page.ensureWidgetVisible(button)
    QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a sample cohort: eight small slides, outlines, a table, a project."""
    folder = tmp_path_factory.mktemp("cohort")
    create_sample(folder, n_slides=8, size=(2048, 1536))
    return folder


@pytest.fixture(scope="session")
def trained_cohort(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort with features of all its slides, and one short run."""
    from napari_mil.mil import Method
    from napari_mil.study import Project
    from napari_mil.study.prepare import prepare_all
    from napari_mil.study.train import train_project

    folder = tmp_path_factory.mktemp("trained") / "cohort"
    shutil.copytree(cohort, folder)
    project = Project.open(folder / "project")
    for _ in prepare_all(project, device="cpu"):
        pass
    method = Method.preset("rank_induction").with_settings({"training.epochs": 3})
    for _ in train_project(project, method, seed=1, device="cpu", out=project.new_run_folder("rank_induction")):
        pass
    return folder


@pytest.fixture
def project_folder(cohort: Path, tmp_path: Path) -> Path:
    """A copy of the cohort's project that a test may change."""
    copy = tmp_path / "cohort"
    shutil.copytree(cohort, copy)
    return copy / "project"


@pytest.fixture
def trained_folder(trained_cohort: Path, tmp_path: Path) -> Path:
    """A copy of the project with features and a run."""
    copy = tmp_path / "trained"
    shutil.copytree(trained_cohort, copy)
    return copy / "project"


@pytest.fixture
def new_dock(qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], MilDock]]:
    """Makes docks that share a cache of their own; all are closed in the end."""
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    docks: list[MilDock] = []

    def make() -> MilDock:
        widget = MilDock(ViewerModel())
        widget.resize(420, 860)
        qtbot.addWidget(widget)
        widget.show()
        docks.append(widget)
        return widget

    yield make
    for widget in docks:
        widget.session.close()


@pytest.fixture
def dock(new_dock: Callable[[], MilDock]) -> MilDock:
    """A dock without a project."""
    return new_dock()


@pytest.fixture
def opened(dock: MilDock, project_folder: Path) -> MilDock:
    """A dock with the sample project open."""
    dock.session.open_project(project_folder)
    assert dock.session.project is not None
    return dock


@pytest.fixture
def trained(dock: MilDock, trained_folder: Path) -> MilDock:
    """A dock with the prepared and trained project open."""
    dock.session.open_project(trained_folder)
    assert dock.session.project is not None
    return dock


@pytest.fixture
def until(qtbot: Any) -> Callable[..., None]:
    """Wait until something is so."""

    def wait(true: Callable[[], object], seconds: float = 30) -> None:
        qtbot.waitUntil(lambda: bool(true()), timeout=round(seconds * 1000))

    return wait
