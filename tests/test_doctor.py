from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from napari_mil import doctor
from napari_mil.doctor import Finding, _computer, _graphics, _packages, examine
from napari_mil.doctor._finding import ProbeError, pip_install, probe


def test_it_looks_at_everything_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_graphics, "probe", lambda *_: (_ for _ in ()).throw(ProbeError("not in this test")))
    findings = list(examine(tmp_path))
    names = {finding.name for finding in findings}
    assert {"Python", "Packages", "OpenSlide", "Qt", "OpenGL", "Computing device", "Background jobs"} <= names
    assert {"Triangulation", "napari settings", "Encoder weights", "Caches", "Disk", "Memory"} <= names
    for finding in findings:
        assert finding.status in {"ok", "advice", "problem"}
        assert finding.found
        assert finding.todo or finding.status == "ok"
        json.dumps(finding.to_dict(), allow_nan=False)
    assert next(finding for finding in findings if finding.name == "Background jobs").status == "ok"


def test_a_check_that_faints_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faint() -> Finding:
        raise RuntimeError("dizzy")

    monkeypatch.setattr(_packages, "check_qt", faint)
    monkeypatch.setattr(_graphics, "probe", lambda *_: (_ for _ in ()).throw(ProbeError("no")))
    monkeypatch.setattr(doctor, "check_jobs", lambda _: Finding("Background jobs", "ok", "x"))
    (finding,) = [finding for finding in examine(tmp_path) if finding.name == "Qt"]
    assert finding.status == "problem"
    assert "RuntimeError: dizzy" in finding.found


# -- the graphics card ---------------------------------------------------------------------------------------

_CPU_TORCH = {"version": "2.9.0+cpu", "cuda": None, "available": False, "name": None, "mps": False}
_CARD = {"name": "NVIDIA RTX A4000", "driver": "570.1", "cuda": "12.8"}


def test_a_card_beside_a_cpu_only_torch_is_a_problem_with_the_command() -> None:
    finding = _graphics.judge_torch(_CPU_TORCH, _CARD)
    assert finding.status == "problem"
    assert "NVIDIA RTX A4000 is there" in finding.found
    assert "https://download.pytorch.org/whl/cu128" in finding.todo
    assert "torchvision" in finding.todo
    assert sys.executable in finding.todo


@pytest.mark.parametrize(
    ("driver", "wheel"), [("13.2", "cu130"), ("13.0", "cu130"), ("12.9", "cu128"), ("12.6", "cu126"), (None, "cu128")]
)
def test_the_command_fits_the_driver(driver: str | None, wheel: str) -> None:
    assert _graphics.cuda_command(driver).endswith(f"/whl/{wheel}")


def test_an_old_driver_is_to_be_updated() -> None:
    assert "Update the NVIDIA driver" in _graphics.cuda_command("11.4")
    cuda_torch = {**_CPU_TORCH, "version": "2.9.0+cu130", "cuda": "13.0"}
    finding = _graphics.judge_torch(cuda_torch, _CARD)
    assert finding.status == "problem"
    assert "built for CUDA 13.0, the driver offers 12.8" in finding.todo


@pytest.mark.parametrize(
    ("facts", "card", "words"),
    [
        ({**_CPU_TORCH, "available": True, "name": "NVIDIA RTX A4000"}, _CARD, "RTX A4000"),
        ({**_CPU_TORCH, "mps": True}, None, "Apple"),
        (_CPU_TORCH, None, "no NVIDIA card found"),
    ],
)
def test_devices_that_are_well(facts: dict[str, Any], card: dict[str, Any] | None, words: str) -> None:
    finding = _graphics.judge_torch(facts, card)
    assert finding.status == "ok"
    assert words in finding.found


def test_nvidia_smi_is_understood() -> None:
    table = "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |"
    listing = "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-1234)\n"
    expected = {"name": "NVIDIA GeForce RTX 4090", "driver": "550.54.15", "cuda": "12.4"}
    assert _graphics.parse_nvidia(table, listing) == expected
    assert _graphics.parse_nvidia("", "No devices were found") is None


# -- OpenGL and napari ---------------------------------------------------------------------------------------

_GL = {"ok": True, "vendor": "NVIDIA", "renderer": "RTX A4000", "version": "4.6", "max_texture": 32768}


def test_opengl_in_software_is_noticed() -> None:
    assert _graphics.judge_opengl(_GL).status == "ok"
    finding = _graphics.judge_opengl({**_GL, "vendor": "Mesa", "renderer": "llvmpipe (LLVM 15)"})
    assert finding.status == "advice"
    assert "in software" in finding.found
    assert _graphics.judge_opengl({**_GL, "renderer": "GDI Generic"}).status == "advice"


def test_opengl_that_fails_is_a_problem() -> None:
    assert _graphics.judge_opengl({"ok": False}).status == "problem"
    assert _graphics.judge_opengl({**_GL, "max_texture": 2048}).status == "problem"


def test_opengl_without_a_display_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert _graphics.check_opengl(0.001).status == "advice"


@pytest.mark.canvas
def test_opengl_on_a_real_display() -> None:
    finding = _graphics.check_opengl(60)
    assert finding.status in {"ok", "advice"}
    assert finding.details["max_texture"] >= 4096


def test_napari_settings() -> None:
    on = {"async": True, "triangulation": "Fastest available"}
    assert [finding.status for finding in _graphics.judge_napari(on)] == ["ok"]
    off = _graphics.judge_napari({"async": False, "triangulation": "pure python"})
    assert [finding.status for finding in off] == ["advice", "advice"]
    assert "Render Images Asynchronously" in off[0].todo


# -- packages and places -------------------------------------------------------------------------------------


def test_missing_and_old_packages_come_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _packages.check_packages().status == "ok"
    requirements = ["numpy>=99", "no-such-package-at-all", 'imagined; extra == "test"', "typer"]
    monkeypatch.setattr(metadata, "requires", lambda _: requirements)
    finding = _packages.check_packages()
    assert finding.status == "problem"
    assert set(finding.details["wrong"]) == {"numpy>=99", "no-such-package-at-all"}
    assert '"numpy>=99"' in finding.todo


def test_no_qt_and_a_wrong_wish_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QT_API", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "PySide6" else None)
    assert _packages.check_qt().status == "ok"
    monkeypatch.setenv("QT_API", "pyqt5")
    assert "QT_API asks for pyqt5" in _packages.check_qt().found
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    finding = _packages.check_qt()
    assert finding.status == "problem"
    assert '"napari-mil[all]"' in finding.todo
    assert _packages.check_triangulation().status == "problem"


def test_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, status in ((5e8, "problem"), (5e9, "advice"), (5e11, "ok")):
        usage = type("usage", (), {"free": free, "total": 1e12})
        monkeypatch.setattr("shutil.disk_usage", lambda _, usage=usage: usage)
        assert _computer.check_disk(tmp_path / "not" / "yet" / "there").status == status


def test_caches_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_MIL_CACHE", str(tmp_path / "cache"))
    assert "nothing yet" in _computer.check_caches().found
    weights = _computer.check_weights()
    assert weights.status == "advice"
    assert "texture" in weights.details["ready"]
    assert "resnet50" in weights.details["to_download"]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file").write_bytes(bytes(3_000_000))
    assert _computer.check_caches().found.startswith("3 MB")
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: (_ for _ in ()).throw(PermissionError()))
    assert _computer.check_caches().status == "problem"


def test_probes_survive_crashes_hangs_and_chatter() -> None:
    assert probe("print('chatter'); print('{\"a\": 1}')", 30) == {"a": 1}
    with pytest.raises(ProbeError, match="no answer within"):
        probe("import time; time.sleep(30)", 0.5)
    with pytest.raises(ProbeError, match="ValueError: broken"):
        probe("raise ValueError('broken')", 30)
    with pytest.raises(ProbeError, match="ended with code"):
        probe("import os; os._exit(3)", 30)


def test_commands_are_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", r"C:\Program Files\Python\python.exe")
    assert pip_install("numpy>=2") == r'"C:\Program Files\Python\python.exe" -m pip install "numpy>=2"'
