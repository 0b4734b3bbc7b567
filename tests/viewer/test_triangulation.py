"""Outlines on which the triangulation panics are shown all the same."""

from __future__ import annotations

import bermuda
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Shapes
from qtpy.QtTest import QTest

from napari_mil.viewer import LesionLayer, triangulation
from napari_mil.viewer.triangulation import ensure_triangulation

PANICS = np.array(  # a corner of a hole, dragged
    [
        [200, 200],
        [1000, 200],
        [1000, 1000],
        [200, 1000],
        [199.2694091796875, 201.7318420410156],
        [700, 700],
        [700, 400],
        [469.8687744140625, 461.5072631835938],
        [400, 700],
        [700, 700],
    ],
    dtype=np.float32,
)


def scribble(seed):
    """A freehand outline on the lattice of the screen's pixels."""
    rng = np.random.default_rng(seed)
    return np.round(np.cumsum(rng.normal(0, 5, (100, 2)), axis=0) + 500)


def test_panics_are_mended(capfd):
    original = getattr(bermuda.triangulate_polygons_with_edge, "__wrapped__", bermuda.triangulate_polygons_with_edge)
    with pytest.raises(BaseException, match=r".+") as caught:
        original([PANICS])
    assert not isinstance(caught.value, Exception)
    ensure_triangulation()
    ensure_triangulation()  # twice is once
    assert not hasattr(bermuda.triangulate_polygons_with_edge.__wrapped__, "__wrapped__")
    (triangles, vertices), (centers, _, edges) = bermuda.triangulate_polygons_with_edge([PANICS])
    assert len(triangles) > 4
    assert triangles.max() < len(vertices)
    assert edges.max() < len(centers)
    assert vertices.min() > 199
    assert vertices.max() < 1001


def test_scribbles_on_the_pixel_lattice_stay(qapp, capfd):
    layer = LesionLayer(ViewerModel(), None, mpp=(0.5, 0.5), slide_id="s")
    for seed in range(40):
        layer.layer.add(scribble(seed), shape_type="polygon")
        QTest.qWait(1)
        assert len(layer.lesions) == seed + 1
        assert layer.lesions[seed].geometry.area > 0
    layer.close()


def test_what_cannot_be_mended_has_an_edge_but_no_face(monkeypatch, capfd):
    ensure_triangulation()
    wild = np.array([[0, 0], [np.nan, 5], [5, 5], [5, 0]], dtype=np.float32)
    (triangles, vertices), (_, _, edges) = bermuda.triangulate_polygons_with_edge([wild])
    assert triangles.shape[1] == 3
    assert vertices.shape[1] == 2
    assert edges.shape[1] == 3
    monkeypatch.setattr(triangulation, "_insist", lambda *_: None)
    layer = Shapes([np.array([[0, 0], [0, 9], [9, 9]])], shape_type="polygon")
    assert layer.nshapes == 1


def test_a_person_who_interrupts_is_heard():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        triangulation._insist(interrupted, [PANICS])
