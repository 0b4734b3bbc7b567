"""A project's outlines on disk, with the versions before."""

from __future__ import annotations

from pathlib import Path

import pytest
import shapely

from napari_mil.errors import LesionError
from napari_mil.lesion import Lesion, LesionSet, lesion_history, load_lesions, save_lesions
from napari_mil.lesion.store import KEPT


def one(size: float) -> LesionSet:
    return LesionSet([Lesion(shapely.box(0, 0, size, size), id="a")])


def test_saved_and_loaded(tmp_path: Path) -> None:
    assert len(load_lesions(tmp_path / "lesions", "S 1 [x]")) == 0
    path = save_lesions(tmp_path / "lesions", "S 1 [x]", one(5))
    assert path == tmp_path / "lesions" / "S 1 [x].geojson"
    assert load_lesions(tmp_path / "lesions", "S 1 [x]")[0].geometry.area == 25
    assert lesion_history(tmp_path / "lesions", "S 1 [x]") == []


def test_history_keeps_changed_versions_only(tmp_path: Path) -> None:
    for size in (1, 2, 2, 2, 3):
        save_lesions(tmp_path, "s", one(size))
    history = lesion_history(tmp_path, "s")
    assert len(history) == 2
    assert [load_lesions(file.parent, file.stem)[0].geometry.area for file in history] == [4, 1]
    assert history[0].parent == tmp_path / "history" / "s"
    assert lesion_history(tmp_path, "another") == []


def test_history_has_an_end(tmp_path: Path) -> None:
    for size in range(1, KEPT + 5):
        save_lesions(tmp_path, "s", one(size))
    history = lesion_history(tmp_path, "s")
    assert len(history) == KEPT
    assert load_lesions(history[0].parent, history[0].stem)[0].geometry.area == (KEPT + 3) ** 2
    assert load_lesions(tmp_path, "s")[0].geometry.area == (KEPT + 4) ** 2


def test_a_broken_file_names_the_version_before(tmp_path: Path) -> None:
    save_lesions(tmp_path, "s", one(1))
    path = save_lesions(tmp_path, "s", one(2))
    path.write_text('{"type": "Feat')
    with pytest.raises(LesionError, match="version before it is") as error:
        load_lesions(tmp_path, "s")
    assert str(lesion_history(tmp_path, "s")[0]) in str(error.value)


@pytest.mark.parametrize("slide_id", ["", "..", "a/b", "a\\b", "C:x", "a*"])
def test_ids_that_are_no_file_names(tmp_path: Path, slide_id: str) -> None:
    with pytest.raises(LesionError, match="slide id"):
        save_lesions(tmp_path, slide_id, LesionSet())
