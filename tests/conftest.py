"""Shared fixtures. Pure tests need no Qt; tests marked `canvas` need a display with OpenGL."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not os.environ.get("DISPLAY") and os.name == "posix":
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real slides and annotations (NAPARI_MIL_DATA, or ../shared/data beside the checkout)."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NAPARI_MIL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set NAPARI_MIL_DATA to test against it")
    return folder


@pytest.fixture(scope="session")
def scanner_profile() -> bytes:
    """An ICC profile with the primaries of sRGB and a gamma of 1: what is stored looks brighter in sRGB."""
    return (Path(__file__).parent / "data" / "linear_scanner.icc").read_bytes()
