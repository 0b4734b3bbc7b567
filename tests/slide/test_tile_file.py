"""Many places of a file at once: the right bytes, few requests, and a close that hurts nobody."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import SlideClosed
from napari_mil.slide.tile_file import TileFile, _runs

from .conftest import in_threads

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "bytes"
    path.write_bytes(CONTENT)
    return path


@given(spans=st.lists(st.tuples(st.integers(0, 310_000), st.integers(0, 90_000)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_spans_are_the_files_bytes(path: Path, spans: list[tuple[int, int]]) -> None:
    file = TileFile(path)
    assert file.size == len(CONTENT)
    assert [bytes(part) for part in file.read(spans)] == [CONTENT[at : at + count] for at, count in spans]
    file.close()


def test_spans_close_together_are_one_request() -> None:
    assert _runs([(200_000, 10), (0, 100), (100, 50), (150 + 60_000, 50), (5, 0)]) == [[1, 2, 3], [0]]
    assert _runs([(0, 7 * 1024**2), (7 * 1024**2, 2 * 1024**2)]) == [[0], [1]]


@pytest.mark.parametrize("positional", [True, False])
def test_threads_read_their_own_places(path: Path, positional: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system knows no positional reads, as Windows."""
    if not positional:
        monkeypatch.delattr(os, "pread", raising=False)
    file = TileFile(path)
    wrong: list[int] = []

    def read(seed: int) -> None:
        places = np.random.default_rng(seed).integers(0, 299_000, 300).tolist()
        wrong.extend(at for at in places if bytes(file.read([(at, 1000)])[0]) != CONTENT[at : at + 1000])

    in_threads(read, 6)
    assert wrong == []
    file.close()
    with pytest.raises(SlideClosed, match="bytes was closed"):
        file.read([(0, 1)])
