"""Importing the room costs milliseconds and loads none of the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

import napari_mil.slide as room


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("openslide", "tifffile", "skimage", "torch", "napari", "scipy", "PIL", "dask")
    code = (
        "import sys, napari_mil.slide as s; s.open_slide; s.tissue_mask; s.tile; s.read_patches; s.find_slides;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    for name in room.__all__:
        value = getattr(room, name)
        if callable(value):
            assert value.__doc__, name
    assert "open_slide" in dir(room)
    with pytest.raises(AttributeError, match="nothing"):
        room.nothing  # noqa: B018
