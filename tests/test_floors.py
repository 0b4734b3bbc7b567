"""The floors of the house: who may import whom, and what an import may cost."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ("slide", "lesion", "features", "mil", "maps", "study", "jobs", "sample")
GUI = ("napari", "qtpy", "magicgui", "superqt", "PyQt6", "PySide6")


def fresh(code: str) -> dict[str, object]:
    """What a new Python prints as JSON after running `code`; `loaded` names its top-level modules."""
    tail = "\nimport sys, json; print(json.dumps({**found, 'loaded': sorted({n.split('.')[0] for n in sys.modules})}))"
    done = subprocess.run(
        [sys.executable, "-c", "found = {}\n" + code + tail], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_contracts_of_the_floors_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports.exe" if sys.platform == "win32" else "lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed (it comes with the extra `test`)")
    done = subprocess.run(
        [str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_brings_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "openslide", "numpy", "pandas", "sklearn", "matplotlib", *GUI}
    assert not heavy & set(fresh("import napari_mil")["loaded"])


@pytest.mark.parametrize("room", CORE)
def test_the_core_brings_no_window(room: str) -> None:
    loaded = set(
        fresh(
            f"import napari_mil.{room}\nfor name in napari_mil.{room}.__dict__.get('__all__', ()):\n"
            f"    getattr(napari_mil.{room}, name)"
        )["loaded"]
    )
    assert not loaded & set(GUI)


@pytest.mark.parametrize("room", ["slide", "lesion", "maps"])
def test_slides_lesions_and_maps_bring_no_torch(room: str) -> None:
    loaded = set(
        fresh(
            f"import napari_mil.{room}\nfor name in napari_mil.{room}.__dict__.get('__all__', ()):\n"
            f"    getattr(napari_mil.{room}, name)"
        )["loaded"]
    )
    assert not loaded & {"torch", "torchvision"}


@pytest.mark.parametrize("room", ["features", "study", "jobs", "sample"])
def test_only_training_and_encoding_bring_torch(room: str) -> None:
    assert "torch" not in fresh(f"import napari_mil.{room}")["loaded"]


@pytest.mark.parametrize("module", ["viewer", "widgets", "cli"])
def test_the_window_and_the_command_line_bring_no_torch(module: str) -> None:
    if importlib.util.find_spec(f"napari_mil.{module}") is None:
        pytest.skip(f"napari_mil.{module} is not there yet")
    loaded = set(fresh(f"import os; os.environ['QT_QPA_PLATFORM'] = 'offscreen'\nimport napari_mil.{module}")["loaded"])
    assert not loaded & {"torch", "torchvision", "openslide"}


def test_every_public_name_exists() -> None:
    import napari_mil

    missing = []
    for name in napari_mil.__all__:
        try:
            getattr(napari_mil, name)
        except AttributeError:
            missing.append(name)
    assert not missing
    assert set(napari_mil.__all__) <= set(dir(napari_mil))
    with pytest.raises(AttributeError, match="attribute nothing"):
        napari_mil.nothing  # noqa: B018
