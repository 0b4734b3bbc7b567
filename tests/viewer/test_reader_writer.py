"""What napari's File menu opens and saves."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import shapely
import tifffile
from napari.components import ViewerModel
from napari.layers import Shapes

from napari_mil._reader import get_reader
from napari_mil._writer import write_shapes
from napari_mil.lesion import Lesion, LesionSet, read_lesions, write_lesions
from napari_mil.viewer import LesionLayer


def pyramid(path, side=1600, **options):
    picture = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            picture, tile=(256, 256), subifds=1, photometric="rgb", resolution=(40_000, 40_000), resolutionunit=3
        )
        writer.write(picture[::2, ::2], tile=(256, 256), subfiletype=1, photometric="rgb")
    return picture


def test_claims_slides_and_leaves_the_rest(tmp_path):
    for name in ("a.svs", "b.NDPI", "c (387).mrxs", "d.dcm", "é.scn", "f.geojson", "g.geojson.gz"):
        assert get_reader(str(tmp_path / name)) is not None
    for name in ("a.png", "b.jpg", "c.xml", "d.txt", "none.tif"):
        assert get_reader(str(tmp_path / name)) is None
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, np.zeros((50, 60, 3), np.uint8))
    assert get_reader(str(plain)) is None
    (tmp_path / "text.tif").write_text("no TIFF")
    assert get_reader(str(tmp_path / "text.tif")) is None
    pyramid(tmp_path / "p.tif")
    assert get_reader(str(tmp_path / "p.tif")) is not None
    assert get_reader([str(tmp_path / "p.tif"), str(tmp_path / "a.svs")]) is not None
    assert get_reader([str(tmp_path / "p.tif"), str(plain)]) is None
    assert get_reader([]) is None
    assert get_reader(str(tmp_path)) is None


def test_layers_of_a_slide_without_a_window(tmp_path):
    """In a script, with no Qt application, the image has the exact pixels."""
    path = tmp_path / "p.tif"
    pyramid(path)
    code = (
        "import sys, numpy as np, tifffile\n"
        "from napari_mil._reader import get_reader\n"
        f"path = {str(path)!r}\n"
        "(thumbnail, overview, kind), (levels, image, kind2) = get_reader(path)(path)\n"
        "assert kind == kind2 == 'image' and image['multiscale'] and not image['cache']\n"
        "assert image['units'] == ('µm', 'µm') and np.allclose(image['scale'], 0.25), image\n"
        "assert image['metadata']['napari_mil']['kind'] == 'slide'\n"
        "assert np.array_equal(np.asarray(levels[0][100:300, 400:900]), tifffile.imread(path)[100:300, 400:900])\n"
        "assert len({w.shape[2] for w in levels}) == 1 and thumbnail.ndim == 3\n"
        "bad = {'torch', 'sklearn', 'napari._qt'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})


def test_opening_layers_imports_no_torch(tmp_path):
    path = tmp_path / "p.tif"
    pyramid(path)
    code = (
        "import sys\n"
        "from qtpy.QtWidgets import QApplication\n"
        "app = QApplication([])\n"
        "from napari.components import ViewerModel\n"
        "from napari_mil.slide import open_slide\n"
        "from napari_mil.viewer import LesionLayer, show_slide\n"
        f"slide = open_slide({str(path)!r})\n"
        "viewer = ViewerModel()\n"
        "shown = show_slide(viewer, slide)\n"
        "lesions = LesionLayer(viewer, None, mpp=slide.mpp, slide_id='p')\n"
        "assert len(viewer.layers) == 3\n"
        "bad = {'torch', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "shown.close(); slide.close()\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})


@pytest.mark.canvas
def test_file_open_shows_a_slide_and_closes_it(tmp_path, make_napari_viewer, qtbot):
    from napari_mil.viewer import opened

    path = tmp_path / "sl [1].tif"
    picture = pyramid(path)
    viewer = make_napari_viewer()
    before = set(opened._opened)
    overview, image = viewer.layers.extend(_layers(path)) or viewer.layers[-2:]
    assert image.multiscale
    assert overview.name == "sl [1].tif overview"
    (token,) = set(opened._opened) - before
    qtbot.waitUntil(lambda: np.array_equal(np.asarray(image.data[0][:256, :256]), picture[:256, :256]), timeout=5000)
    qtbot.wait(20)
    slide = opened._opened[token].slide
    viewer.layers.selection = {image}
    from napari.layers._layer_actions import _duplicate_layer

    _duplicate_layer(viewer.layers)
    viewer.layers.remove(image)
    assert token in opened._opened  # its copy is still there
    viewer.layers.clear()
    assert token not in opened._opened
    assert slide.tiles.closed


def _layers(path):
    from napari.layers import Layer

    return [Layer.create(*data) for data in get_reader(str(path))(str(path))]


@pytest.mark.parametrize("suffix", [".geojson", ".geojson.gz", ".xml"])
def test_outlines_go_out_and_come_back(tmp_path, qapp, suffix):
    viewer = ViewerModel()
    holed = shapely.box(0, 0, 100, 100).difference(shapely.box(20, 20, 40, 40))
    two = shapely.MultiPolygon([shapely.box(200, 0, 250, 50), shapely.box(300, 0, 350, 50)])
    lesions = LesionLayer(
        viewer, LesionSet([Lesion(holed, name="h"), Lesion(two, label="Stroma")]), mpp=(0.5, 0.5), slide_id="s"
    )
    data, meta, _ = lesions.layer.as_layer_data_tuple()
    path = tmp_path / f"out{suffix}"
    assert write_shapes(str(path), data, meta) == [str(path)]
    back = read_lesions(path)
    assert shapely.union_all([x.geometry for x in back]).equals(shapely.union_all([holed, two]))
    assert {x.label for x in back} == {"Tumor", "Stroma"}
    if suffix != ".xml":
        assert len(back) == 2
        (shapes, attributes, kind) = get_reader(str(path))(str(path))[0]
        assert kind == "shapes"
        layer = Shapes(shapes, **attributes)
        assert layer.nshapes == 3
        again = tmp_path / "again.geojson"
        write_shapes(str(again), *layer.as_layer_data_tuple()[:2])
        assert [x.geometry.equals(y.geometry) for x, y in zip(read_lesions(again), back, strict=True)] == [True, True]
    lesions.close()


def test_shapes_of_other_plugins_are_written_from_pixel_centres(tmp_path):
    layer = Shapes([np.array([[0, 0], [0, 9], [9, 9], [9, 0]])], shape_type="rectangle")
    path = tmp_path / "o.geojson"
    write_shapes(str(path), *layer.as_layer_data_tuple()[:2])
    assert read_lesions(path)[0].geometry.bounds == (0.5, 0.5, 9.5, 9.5)
    assert read_lesions(path)[0].label == "Tumor"


def test_no_outlines_make_an_empty_layer(tmp_path):
    path = tmp_path / "e.geojson"
    write_lesions(LesionSet(), path)
    shapes, attributes, _ = get_reader(str(path))(str(path))[0]
    assert Shapes(shapes, **attributes).nshapes == 0
