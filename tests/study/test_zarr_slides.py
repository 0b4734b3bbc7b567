"""OME-Zarr folders as slides of a project: named, found again, prepared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_mil.features import read_features
from napari_mil.study import Project, prepare_slide

from .conftest import drain, paint_slide

zarr = pytest.importorskip("zarr")


def write_zarr(path: Path) -> Path:
    """A picture of `paint_slide` as OME-Zarr of one level, 1 µm per pixel."""
    from PIL import Image

    paint_slide(path.parent / "picture.png", lesion=True)
    with Image.open(path.parent / "picture.png") as picture:
        pixels = np.asarray(picture).transpose(2, 0, 1)
    (path.parent / "picture.png").unlink()
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", shape=pixels.shape, chunks=(1, 64, 64), dtype="u1")[...] = pixels
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "yx")]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return path


def test_from_a_folder_to_features(tmp_path: Path) -> None:
    write_zarr(tmp_path / "slides" / "case 7.ome.zarr")
    (tmp_path / "slides" / "case 7.ome.zarr" / "picture.png").write_bytes(b"")
    project = Project.create(
        tmp_path / "project", tmp_path / "slides", encoder="texture", tile={"target_mpp": 1.0, "patch_px": 32}
    )
    assert project.slide_ids == ["case 7"]
    assert project.missing_slides() == []
    _, path = drain(prepare_slide(project, "case 7"))
    features = read_features(path)
    assert len(features) > 0
    assert features.attrs["mpp_source"] == "file"


@pytest.mark.parametrize("listed", ["slides/a.ome.zarr", "slides/a.svs"])
def test_a_moved_store_is_found_again_by_name_or_stem(tmp_path: Path, listed: str) -> None:
    store = write_zarr(tmp_path / "elsewhere" / "a.ome.zarr")
    (store / "0" / "a.svs.txt").write_bytes(b"")
    project = Project.create(tmp_path / "project", [tmp_path / listed])
    assert project.missing_slides() == ["a"]
    assert project.relocate(None, tmp_path / "elsewhere") == ["a"]
    assert project.slide_path("a") == store
