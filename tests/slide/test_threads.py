"""Many threads on one slide under a small cache: right pixels only."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from napari_mil.geometry import PatchGrid
from napari_mil.slide import open_slide, read_patches, set_cache_limit

from .conftest import Pixels, in_threads, pattern, write_pyramid

SECONDS = 1.0


@pytest.mark.parametrize("kind", ["openslide", "tifffile", "plain"])
def test_hammering_one_slide(tmp_path: Path, pyramid_file: tuple[Path, list[Pixels]], kind: str) -> None:
    path, levels = pyramid_file
    if kind == "tifffile":
        path = write_pyramid(tmp_path / "a.ome.tif", levels, subifds=True, ome={"axes": "YXS"}, tile=128)
    elif kind == "plain":
        from PIL import Image

        path, levels = tmp_path / "a.png", levels[:1]
        Image.fromarray(levels[0]).save(path, compress_level=1)
    set_cache_limit(4 * 512 * 512 * 3)
    wrong: list[str] = []
    done = [0]
    end = time.monotonic() + SECONDS
    with open_slide(path) as slide, slide.view() as view:
        assert slide.source.name == kind
        chain = [level[:].copy() for level in slide.levels]
        np.testing.assert_array_equal(chain[0], levels[0])

        def hammer(seed: int) -> None:
            rng = np.random.default_rng(seed)
            try:
                while time.monotonic() < end and not wrong:
                    level = int(rng.integers(len(levels)))
                    h, w = levels[level].shape[:2]
                    x, y = int(rng.integers(max(1, w - 60))), int(rng.integers(max(1, h - 60)))
                    if not np.array_equal(
                        slide.read_native(level, x, y, 50, 40), levels[level][y : y + 40, x : x + 50]
                    ):
                        wrong.append(f"read {level} {x} {y}")
                    i = int(rng.integers(len(chain)))
                    h, w = chain[i].shape[:2]
                    x, y = int(rng.integers(w)), int(rng.integers(h))
                    if not np.array_equal(
                        slide.levels[i][y : y + 700, x : x + 300], chain[i][y : y + 700, x : x + 300]
                    ):
                        wrong.append(f"level {i} {x} {y}")
                    view.array_likes[i][y : y + 300, x : x + 300]
                    grid = PatchGrid([[x, y]], 32, 32, 0.5)
                    if i == 0 and x < w - 32 and y < h - 32:
                        patch = read_patches(slide, grid, [0], 32)[0]
                        if not np.array_equal(patch, levels[0][y : y + 32, x : x + 32]):
                            wrong.append(f"patch {x} {y}")
                    done[0] += 1
            except Exception as error:  # a thread's failure must fail the test
                wrong.append(repr(error))

        in_threads(hammer)
        assert wrong == []
        assert done[0] >= 8  # each thread at least once, however busy the machine
        assert slide.problems == []


def test_closing_under_readers_ends_in_sentences(pyramid_file: tuple[Path, list[Pixels]]) -> None:
    from napari_mil.errors import SlideError

    path, levels = pyramid_file
    for _ in range(5):
        slide = open_slide(path)
        ends: list[BaseException | None] = []

        def read(slide=slide, ends=ends) -> None:  # type: ignore[no-untyped-def]
            try:
                while True:
                    np.testing.assert_array_equal(slide.read(0, 0, 300, 300), levels[0][:300, :300])
            except BaseException as error:
                ends.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.03)
        slide.close()
        for thread in threads:
            thread.join(10)
        assert len(ends) == 4
        assert all(isinstance(end, SlideError) and "was closed" in str(end) for end in ends)


def test_one_fresh_handle_serves_all_who_failed(tmp_path: Path) -> None:
    """A bad tile read by many threads at once leaves the good ones readable for all."""
    import tifffile

    pixels = np.kron(pattern(64, 64), np.ones((16, 16, 1), np.uint8))
    path = write_pyramid(tmp_path / "bad.tiff", [pixels], compression="jpeg", tile=256)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = b"\0" * count
    path.write_bytes(data)
    from napari_mil.errors import SlideError

    with open_slide(path) as slide:
        good = slide.read(600, 600, 100, 100)
        wrong: list[str] = []

        def read(seed: int) -> None:
            for turn in range(12):
                if (seed + turn) % 2:
                    try:
                        slide.read(0, 0, 50, 50)
                        wrong.append("a bad tile was read")
                    except SlideError:
                        pass
                else:
                    try:
                        if not np.array_equal(slide.read(600, 600, 100, 100), good):
                            wrong.append("wrong pixels")
                    except SlideError as error:
                        wrong.append(str(error))

        in_threads(read, 6)
        assert wrong == []
