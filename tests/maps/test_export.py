"""Maps as files, and maps that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_mil.errors import MilError
from napari_mil.geometry import PatchGrid
from napari_mil.maps import attention_map, check_geometry, export_map, load_map


@pytest.fixture
def painted() -> tuple[PatchGrid, np.ndarray]:
    y, x = np.mgrid[:5, :7]
    grid = PatchGrid(
        np.stack([x.ravel(), y.ravel()], 1)[3:] * (200, 100) + (40, 60), (200, 100), (200, 100), (0.25, 0.5)
    )
    return grid, np.random.default_rng(0).normal(size=32)


def png_text(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return str(image.info.get("Description"))


def test_figure_carries_badge_normalisation_and_warning(tmp_path, painted) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image

    grid, scores = painted
    amap = attention_map(grid, scores, normalisation="percentile")
    plain = export_map(tmp_path / "map.png", amap, badge="TRAIN", title="slide_1 · run", grid=grid, scores=scores)
    assert png_text(plain) == "slide_1 · run\npercentile · TRAIN · Research use only"
    thumbnail = np.full((60, 160, 3), (255, 0, 255), dtype=np.uint8)
    under = export_map(tmp_path / "under.png", amap, badge="NEW", thumbnail=thumbnail, slide_dimensions=(1600, 600))
    with Image.open(under) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (pixels == (255, 0, 255)).all(axis=1).mean() > 0.1  # the thumbnail shows where no patch lies
    assert list(tmp_path.glob("*.part")) == []


def test_arrays_come_back(tmp_path, painted) -> None:  # type: ignore[no-untyped-def]
    grid, scores = painted
    amap = attention_map(grid, scores)
    path = export_map(tmp_path / "map.npz", amap, badge="TEST", grid=grid, scores=scores)
    again = load_map(path)
    np.testing.assert_array_equal(again.data, amap.data)
    for name in ("scale", "translate", "normalisation", "cell_px_level0", "origin_px_level0", "bound_um", "mpp"):
        assert getattr(again, name) == getattr(amap, name)
    with np.load(path) as arrays:
        assert str(arrays["badge"]) == "TEST"
        assert str(arrays["use"]) == "Research use only"
        np.testing.assert_array_equal(arrays["coords"], grid.coords)
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(MilError, match="is no map"):
        load_map(tmp_path / "no.npz")


def test_table_and_tiles(tmp_path, painted) -> None:  # type: ignore[no-untyped-def]
    grid, scores = painted
    scores = scores.copy()
    scores[0] = np.nan
    amap = attention_map(grid, scores)
    table = pd.read_csv(export_map(tmp_path / "m.csv", amap, badge="NEW", grid=grid, scores=scores))
    assert list(table.columns) == ["x", "y", "score", "rank", "percentile", "badge", "use"]
    np.testing.assert_allclose(table["score"], scores)
    content = json.loads(
        export_map(tmp_path / "m.geojson", amap, badge="NEW", grid=grid, scores=scores).read_text("utf-8")
    )
    assert content["napari_mil"] == {"badge": "NEW", "use": "Research use only"}
    assert len(content["features"]) == 32
    assert content["features"][0]["properties"]["measurements"] == {}
    tile = content["features"][5]
    ring = np.array(tile["geometry"]["coordinates"][0])
    np.testing.assert_array_equal([*ring.min(axis=0), *ring.max(axis=0)], grid.boxes[5])
    assert tile["properties"]["objectType"] == "tile"
    assert tile["properties"]["measurements"]["MIL score"] == scores[5]
    cells = pd.read_csv(export_map(tmp_path / "cells.csv", amap, badge="NEW"))
    assert len(cells) == 31  # without the patches, the cells that have a value


def test_ome_tiff_has_values_size_and_place(tmp_path, painted) -> None:  # type: ignore[no-untyped-def]
    import tifffile

    grid, scores = painted
    amap = attention_map(grid, scores)
    with tifffile.TiffFile(export_map(tmp_path / "m.ome.tif", amap, badge="TEST", title="s")) as file:
        np.testing.assert_array_equal(file.asarray(), amap.data)
        image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
    pixels = image["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"]) == pytest.approx((50, 50))
    assert pixels["PhysicalSizeXUnit"] == "µm"
    position = (pixels["Plane"]["PositionY"], pixels["Plane"]["PositionX"])
    assert position == pytest.approx(amap.translate)
    assert "TEST · Research use only" in image["Name"]


def test_world_file_gives_the_centre_of_the_first_pixel(tmp_path, painted) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image

    grid, scores = painted
    path = export_map(tmp_path / "m.png", attention_map(grid, scores), badge="NEW", format="png+world")
    with Image.open(path) as image:
        assert image.size == (7, 5)
        assert image.getpixel((0, 0))[3] == 0
    assert "NEW · Research use only" in png_text(path)
    numbers = [float(line) for line in path.with_suffix(".pgw").read_text().split()]
    assert numbers == [200, 0, 0, 100, 140, 110]


def test_unknown_formats_are_refused_and_failures_leave_nothing(tmp_path, painted) -> None:  # type: ignore[no-untyped-def]
    grid, scores = painted
    amap = attention_map(grid, scores)
    with pytest.raises(MilError, match=r"expected \.ome\.tif"):
        export_map(tmp_path / "m.jpg", amap, badge="NEW")
    with pytest.raises(MilError, match="one for each patch"):
        export_map(tmp_path / "m.csv", amap, badge="NEW", grid=grid, scores=scores[:-1])
    assert list(tmp_path.iterdir()) == []


def test_foreign_geometry_is_refused(painted) -> None:  # type: ignore[no-untyped-def]
    grid, scores = painted
    amap = attention_map(grid, scores)
    for what in (grid, amap):
        check_geometry(what, (1440, 560), (0.25, 0.5))
        check_geometry(what, (1400, 540))  # last patches hang over by less than themselves
        with pytest.raises(MilError, match=r"outside slide_9 of 1000 × 500: they are of another slide"):
            check_geometry(what, (1000, 500), name="slide_9")
        with pytest.raises(MilError, match=r"made at 0\.25 × 0\.5 µm per pixel, this slide has 0\.5 × 0\.5"):
            check_geometry(what, (1440, 560), (0.5, 0.5))
        with pytest.raises(MilError, match="another file than this slide"):
            check_geometry(what, (1440, 560), fingerprint="aa", slide_fingerprint="bb")
        check_geometry(what, (1440, 560), fingerprint="aa", slide_fingerprint="aa")
    check_geometry(PatchGrid([], 5, 5, 1), (10, 10))
    with pytest.raises(MilError, match="outside"):
        check_geometry(PatchGrid([[-3, 0]], 5, 5, 1), (10, 10))


def test_maps_import_no_torch() -> None:
    import subprocess
    import sys

    code = "import napari_mil.maps, sys; assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
