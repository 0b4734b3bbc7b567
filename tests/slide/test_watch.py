"""A slide's file that is replaced or removed while it is open; many slides open at once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest

from napari_mil.errors import SlideError
from napari_mil.slide import open_slide, set_cache_limit, tile_cache, watch
from napari_mil.slide.blocks import FAILED_GREY
from napari_mil.slide.watch import FileWatch

from .conftest import pattern, write_pyramid


@pytest.fixture
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)


def test_a_file_is_looked_at_seldom_and_at_once_when_reading_failed(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(b"one")
    seen = FileWatch(path)
    path.write_bytes(b"three")
    assert not seen.look()
    assert seen.sentence is None
    assert not seen.look(now=True)
    assert seen.sentence is not None
    assert seen.sentence.startswith("a.svs was changed or replaced while it was open")
    assert FileWatch(tmp_path / "never there").look(now=True)


@pytest.mark.usefixtures("always_looking")
@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no open file")
def test_nothing_of_another_file_is_mixed_with_what_was_read(tmp_path: Path) -> None:
    old, new = pattern(1600, 1600, 1), pattern(1600, 1600, 2)
    path = write_pyramid(tmp_path / "a.tif", [old])
    other = write_pyramid(tmp_path / "b.tif", [new])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 256, 256), old[:256, :256])
        os.replace(other, path)
        with pytest.raises(SlideError, match="was changed or replaced while it was open"):
            slide.read(512, 512, 256, 256)
        np.testing.assert_array_equal(slide.read(0, 0, 256, 256), old[:256, :256])
        shown = slide.levels[0][:]
        same = (shown == old).all(axis=-1) | (shown == FAILED_GREY).all(axis=-1)
        assert same.all(), "pixels of the old file, or grey"
        assert (shown == FAILED_GREY).all(axis=-1).mean() > 0.5
        assert len(slide.problems) == 1
        assert "Open it again" in slide.problems[0]
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 256, 256), new[:256, :256])


def test_what_was_read_since_the_last_look_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = pattern(1600, 1600, 1), pattern(1600, 1600, 2)
    path = write_pyramid(tmp_path / "a.tif", [old])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 256, 256), old[:256, :256])
        write_pyramid(path, [new])  # into the same file: handles that are open see it
        slide.read(512, 512, 256, 256)
        slide.levels[1][300:400, 300:400]
        monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
        with pytest.raises(SlideError, match="was changed or replaced"):
            slide.read(1280, 1280, 256, 256)
        with pytest.raises(SlideError, match="was changed or replaced"):
            slide.read(512, 512, 256, 256)
        assert (slide.levels[1][300:400, 300:400] == FAILED_GREY).all()


@pytest.mark.usefixtures("always_looking")
@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_removed_file_is_a_sentence(tmp_path: Path) -> None:
    base = pattern(2500, 2500, 1)
    path = write_pyramid(tmp_path / "a.tif", [base, base[::4, ::4]])
    calls: list[int] = []
    with open_slide(path) as slide, slide.view(lambda: calls.append(1)) as view:
        path.unlink()
        for _ in range(3):
            view.array_likes[0][:]
            assert view.wait(20)
        assert len(slide.problems) == 1
        assert "a.tif was moved or removed while it was open" in slide.problems[0]
        assert calls


def test_fifty_slides_stay_within_the_limit(tmp_path: Path) -> None:
    files = [write_pyramid(tmp_path / f"{i}.tif", [pattern(1100, 1300, i)], compression=None) for i in range(5)]
    limit = 12 * 1024**2
    tile_cache().clear()
    set_cache_limit(limit)
    process = psutil.Process()
    handles = len(process.open_files())
    slides = [open_slide(files[i % 5]) for i in range(50)]
    try:
        for _ in range(2):
            for i, slide in enumerate(slides):
                got = slide.levels[0][256:900, 256:1100]
                np.testing.assert_array_equal(got, pattern(1100, 1300, i % 5)[256:900, 256:1100])
                assert tile_cache().used_bytes <= limit
        assert len(process.open_files()) - handles <= 3 * 50
    finally:
        for slide in slides:
            slide.close()
    assert len(process.open_files()) <= handles
    assert len(tile_cache()) == 0
