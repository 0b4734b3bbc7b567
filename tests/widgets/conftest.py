"""A dock on a small sample project, without a window: pages are driven by real Qt events all the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel

from napari_mil.sample import create_sample
from napari_mil.widgets.dock import MilDock


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a sample cohort: six small slides, outlines, a table, a project."""
    folder = tmp_path_factory.mktemp("cohort")
    create_sample(folder, n_slides=8, size=(2048, 1536))
    return folder


@pytest.fixture
def project_folder(cohort: Path, tmp_path: Path) -> Path:
    """A copy of the cohort's project that a test may change."""
    copy = tmp_path / "cohort"
    shutil.copytree(cohort, copy)
    return copy / "project"


@pytest.fixture
def dock(qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MilDock]:
    """A dock without a project."""
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    widget = MilDock(ViewerModel())
    widget.resize(420, 860)
    qtbot.addWidget(widget)
    widget.show()
    yield widget
    widget.session.close()


@pytest.fixture
def opened(dock: MilDock, project_folder: Path, until: Callable[..., None]) -> MilDock:
    """A dock with the sample project open."""
    dock.session.open_project(project_folder)
    assert dock.session.project is not None
    return dock


@pytest.fixture
def until(qtbot: Any) -> Callable[..., None]:
    """Wait until something is so."""

    def wait(true: Callable[[], object], seconds: float = 30) -> None:
        qtbot.waitUntil(lambda: bool(true()), timeout=round(seconds * 1000))

    return wait
