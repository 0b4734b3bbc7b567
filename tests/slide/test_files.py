"""Slides of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_mil.errors import SlideError
from napari_mil.slide import IMAGE_SUFFIXES, SLIDE_SUFFIXES, find_slides, is_slide_file


def test_by_suffix() -> None:
    for name in ("a.svs", "A.SVS", "x.ome.tif", "b.mrxs", "c [1].JPEG", "/far/d.dcm"):
        assert is_slide_file(name)
    for name in ("a.txt", "svs", ".hidden.svs", "a.svs.part", "a.geojson", "a.h5"):
        assert not is_slide_file(name)
    assert not SLIDE_SUFFIXES & IMAGE_SUFFIXES


def test_folders_below_but_no_projects_and_nothing_hidden(tmp_path: Path) -> None:
    wanted = ["a.svs", "case 1/b.ndpi", "case 1/deep/c.png", "mrxs/d.mrxs", "vms/e.vms"]
    others = ["a.txt", ".x.svs", ".git/f.svs", "mrxs/d/Data0001.dat", "vms/e-tile.jpg", "proj/map.png", "a.svs.part"]
    for name in wanted + others + ["proj/project.json"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_slides(tmp_path) == sorted(tmp_path / name for name in wanted)
    assert find_slides(str(tmp_path), recursive=False) == [tmp_path / "a.svs"]
    assert find_slides(tmp_path / "proj") == [tmp_path / "proj" / "map.png"], "unless it is the folder itself"


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="is not a folder"):
        find_slides(tmp_path / "none")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_folders_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir(mode=0)
    try:
        assert find_slides(tmp_path) == find_slides(tmp_path, recursive=False) == [tmp_path / "a.svs"]
        with pytest.raises(SlideError, match="cannot be read"):
            find_slides(forbidden)
    finally:
        forbidden.chmod(0o700)


def test_one_path_per_dicom_slide(shared_data: Path) -> None:
    found = find_slides(shared_data / "wsi")
    dicom = [p for p in found if p.suffix == ".dcm"]
    assert len([p for p in dicom if p.parent.name == "CMU-1-Small-Region-dicom"]) == 1
    assert len(dicom) == 2
    largest = max((shared_data / "wsi" / "CMU-1-Small-Region-dicom").glob("*.dcm"), key=lambda p: p.stat().st_size)
    assert largest in dicom
    assert {"CMU-1-Small-Region.svs", "slide.jpeg", "kidney-48-5.tif", "boxes.tiff"} <= {p.name for p in found}
