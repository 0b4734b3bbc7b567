"""The first ten minutes on a small cohort, played as a person would, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_mil.sample import create_sample

SCRIPT = Path(__file__).parent / "first_ten_minutes.py"
DISPLAY = sys.platform in {"win32", "darwin"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
STEPS = [
    "start",
    "new-project",
    "label-by-key",
    "labels",
    "split",
    "slide",
    "tissue",
    "prepare",
    "outline",
    "import",
    "train",
    "cancel",
    "resume",
    "map",
    "hover",
    "reopen",
]


@pytest.mark.canvas
@pytest.mark.skipif(not DISPLAY, reason="needs a display")
@pytest.mark.timeout(280)
def test_the_first_ten_minutes(tmp_path: Path) -> None:
    create_sample(tmp_path / "sample", n_slides=12, size=(2048, 1536))
    out = tmp_path / "out"
    environment = {**os.environ, "NAPARI_MIL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    if environment.get("QT_QPA_PLATFORM") == "offscreen":
        del environment["QT_QPA_PLATFORM"]  # the canvas wants the display
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--sample", str(tmp_path / "sample"), "--epochs", "250"]
    played = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=270, check=False)
    assert played.returncode == 0, played.stdout[-2000:] + played.stderr[-4000:]
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert [step["step"] for step in figures["steps"]] == STEPS
    assert len(list(out.glob("*.png"))) >= len(STEPS)
    assert figures["cancel_seconds"] <= 2.5
    assert figures["epochs"] == 250
    assert "Exceptions caught" not in played.stderr
    assert "Traceback" not in played.stderr
