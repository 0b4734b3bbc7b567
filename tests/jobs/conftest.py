from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_mil.jobs import JobRunner


@pytest.fixture(scope="module", autouse=True)
def _demo_work_importable() -> Iterator[None]:
    # the child is given this sys.path
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    yield
    sys.path.remove(here)


@pytest.fixture(autouse=True)
def _logs_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_log_path", lambda *_, **__: tmp_path / "logs")


@pytest.fixture(scope="module")
def runner() -> Iterator[JobRunner]:
    """One warm runner for all tests of a module."""
    with JobRunner() as runner:
        yield runner


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty folder that stands for a project."""
    folder = tmp_path / "a project [ä]"
    folder.mkdir()
    return folder
