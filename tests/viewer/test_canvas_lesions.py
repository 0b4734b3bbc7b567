"""Outlines drawn, moved, deleted and coloured by hand on a real canvas."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_mil.lesion import Lesion, LesionSet
from napari_mil.viewer import LesionLayer, show_slide

from .fakes import FakeSlide

pytestmark = pytest.mark.canvas

SHIFT = Qt.KeyboardModifier.ShiftModifier
CONTROL = Qt.KeyboardModifier.ControlModifier


@pytest.fixture
def desk(make_napari_viewer, hand):
    viewer = make_napari_viewer(show=True)
    slide = FakeSlide()
    shown = show_slide(viewer, slide)
    layer = LesionLayer(viewer, LesionSet(), mpp=slide.mpp, slide_id="fake")
    viewer.window.resize(750, 550)
    touch = hand(viewer)
    touch.settle(100)
    viewer.fit_to_view()
    touch.settle(50)
    yield viewer, layer, touch
    layer.close()
    shown.close()


def draw_polygon(layer, touch, corners):
    layer.set_tool("polygon")
    touch.settle()
    for corner in corners:
        touch.click(corner)
    touch.double_click(corners[-1])


def test_drawing_a_polygon(desk):
    viewer, layer, touch = desk
    draw_polygon(layer, touch, [(100, 100), (100, 400), (300, 400), (300, 100)])
    assert len(layer.lesions) == 1
    lesion = layer.lesions[0]
    assert lesion.label == "Tumor"
    um = 1 / viewer.scene.camera.zoom
    assert lesion.geometry.bounds == pytest.approx((200.5, 200.5, 800.5, 600.5), abs=4 * um)
    assert layer.layer.nshapes == 1
    assert layer.undo_label == "draw"
    touch.key(Qt.Key.Key_Z, CONTROL)
    assert len(layer.lesions) == 0
    assert layer.layer.nshapes == 0
    touch.key(Qt.Key.Key_Z, CONTROL | SHIFT)
    assert len(layer.lesions) == 1
    assert layer.layer.nshapes == 1
    touch.key(Qt.Key.Key_Z, CONTROL)
    touch.key(Qt.Key.Key_Y, CONTROL)
    assert layer.lesions[0].id == lesion.id


def test_drawing_by_dragging(desk):
    _, layer, touch = desk
    angle = np.linspace(0, 2 * np.pi, 24)
    circle = np.c_[300 + 150 * np.sin(angle), 400 + 150 * np.cos(angle)]
    box = [(150, 200), (450, 700)]
    drags = {"lasso": (circle, 1, np.pi * 300**2), "rectangle": (box, 6, 600e3), "ellipse": (box, 6, 150e3 * np.pi)}
    for tool, (path, steps, area) in drags.items():
        layer.set_tool(tool)
        touch.settle()
        touch.drag(path, steps)
        assert len(layer.lesions) == 1
        assert layer.lesions[0].geometry.area == pytest.approx(area, rel=0.06)
        touch.key(Qt.Key.Key_Z, CONTROL)
        assert len(layer.lesions) == layer.layer.nshapes == 0
        touch.key(Qt.Key.Key_Z, CONTROL | SHIFT)
        assert len(layer.lesions) == layer.layer.nshapes == 1
        layer.undo()
    layer.set_tool("lasso")  # one that crosses itself stays
    touch.settle()
    touch.drag([(150, 150), (450, 700), (150, 700), (450, 150)], steps=12)
    touch.settle(60)
    assert len(layer.lesions) == 1
    geometry = layer.lesions[0].geometry
    assert geometry.is_valid
    assert geometry.area > 0.3 * 600 * 1100
    assert layer.layer.nshapes == len(getattr(geometry, "geoms", [geometry]))


def test_a_drawing_given_up_leaves_nothing(desk):
    _, layer, touch = desk
    layer.set_tool("polygon")
    touch.settle()
    touch.click((100, 100))
    touch.click((100, 300))
    touch.key(Qt.Key.Key_Escape)
    layer.set_tool("pan")
    touch.settle(60)
    assert len(layer.lesions) == 0
    assert layer.layer.nshapes == 0
    assert len(layer.layer.features) == 0
    assert layer.undo_label is None
    draw_polygon(layer, touch, [(100, 100), (100, 400), (300, 400)])
    assert len(layer.lesions) == layer.layer.nshapes == len(layer.layer.features) == 1


def test_class_keys_never_delete(desk):
    _, layer, touch = desk
    draw_polygon(layer, touch, [(100, 100), (100, 400), (300, 400), (300, 100)])
    layer.set_tool("select")
    touch.settle()
    touch.click((200, 200))
    assert layer.selected_ids == [layer.lesions[0].id]
    names = list(layer.classes)
    for number, key in enumerate((Qt.Key.Key_3, Qt.Key.Key_2, Qt.Key.Key_9, Qt.Key.Key_1)):
        touch.key(key)
        assert layer.layer.nshapes == 1, f"key {number}"
    assert layer.lesions[0].label == names[0]
    touch.key(Qt.Key.Key_3)
    assert layer.lesions[0].label == names[2]
    color = np.array(layer.classes[names[2]]) / 255
    assert layer.layer.edge_color[0][:3] == pytest.approx(color, abs=1e-3)
    assert str(layer.layer.mode) == "select"
    assert layer.undo_label == "class"
    touch.key(Qt.Key.Key_Z, CONTROL)
    assert layer.lesions[0].label == names[0]
    # while drawing a key colours what is drawn, and the outline goes on
    layer.set_tool("polygon")
    touch.settle()
    touch.click((400, 500))
    touch.click((400, 700))
    touch.key(Qt.Key.Key_3)
    touch.click((600, 700))
    touch.double_click((600, 700))
    assert [lesion.label for lesion in layer.lesions] == [names[0], names[2]]


def test_moving_and_deleting_by_hand(desk):
    _, layer, touch = desk
    draw_polygon(layer, touch, [(100, 100), (100, 400), (300, 400), (300, 100)])
    before = layer.lesions[0].geometry
    layer.set_tool("select")
    touch.settle()
    touch.click((200, 250))
    touch.drag([(200, 250), (300, 350)])
    moved = layer.lesions[0].geometry
    assert layer.undo_label == "move"
    assert moved.centroid.x - before.centroid.x == pytest.approx(200, abs=8)
    assert moved.centroid.y - before.centroid.y == pytest.approx(200, abs=8)
    assert moved.area == pytest.approx(before.area, rel=1e-4)
    touch.key(Qt.Key.Key_Z, CONTROL)
    assert layer.lesions[0].geometry.equals(before)
    touch.click((200, 250))
    touch.key(Qt.Key.Key_Delete)
    assert len(layer.lesions) == layer.layer.nshapes == 0
    assert layer.undo_label == "delete"
    touch.key(Qt.Key.Key_Z, CONTROL)
    assert layer.lesions[0].geometry.equals(before)


def test_moving_a_vertex(desk):
    _, layer, touch = desk
    draw_polygon(layer, touch, [(100, 100), (100, 400), (300, 400), (300, 100)])
    layer.set_tool("vertices")
    touch.settle()
    touch.click((200, 250))
    touch.drag([(100, 100), (50, 60)])
    x0, y0, *_ = layer.lesions[0].geometry.bounds
    assert (x0, y0) == pytest.approx((120.5, 100.5), abs=8)
    touch.key(Qt.Key.Key_Z, CONTROL)
    x0, y0, *_ = layer.lesions[0].geometry.bounds
    assert (x0, y0) == pytest.approx((200.5, 200.5), abs=8)


def test_a_locked_lesion_is_not_moved_nor_deleted(desk):
    import shapely

    _, layer, touch = desk
    layer.reset(LesionSet([Lesion(shapely.box(200, 200, 800, 600), name="A", locked=True)]))
    said = []
    layer.message.connect(said.append)
    layer.set_tool("select")
    touch.settle()
    touch.click((200, 250))
    touch.drag([(200, 250), (300, 350)])
    touch.key(Qt.Key.Key_A, CONTROL)
    touch.key(Qt.Key.Key_Delete)
    touch.settle(60)
    assert layer.lesions[0].geometry.bounds == (200, 200, 800, 600)
    assert layer.layer.nshapes == 1
    assert layer.layer.data[0].min(axis=0) == pytest.approx((200, 200))
    assert any("locked" in text for text in said)
    assert layer.undo_label is None


def test_vertices_of_a_lesion_with_a_hole(desk):
    import shapely

    _, layer, touch = desk
    ring = shapely.box(200, 200, 1000, 1000).difference(shapely.box(400, 400, 700, 700))
    layer.reset(LesionSet([Lesion(ring)]))
    shapes = layer.layer

    def world(x, y):
        return ((y - 0.5) * 0.5, (x - 0.5) * 0.5)

    layer.set_tool("select")
    touch.settle()
    touch.click(world(300, 300))
    layer.set_tool("vertices")
    touch.settle()
    touch.drag([world(400, 400), world(460, 470)])  # a corner of the hole
    touch.settle(60)
    hole = layer.lesions[0].geometry.interiors[0]
    assert shapely.Point(460, 470).distance(hole) < 8
    assert layer.lesions[0].geometry.is_valid
    assert layer.undo_label == "move"
    corner = next(p for p in ring.exterior.coords if p == (200, 200))
    touch.drag([world(*corner), world(150, 120)])  # a corner of the shell, wherever it stands in the run
    touch.settle(60)
    assert layer.lesions[0].geometry.bounds[:2] == pytest.approx((150, 120), abs=8)
    assert len(layer.lesions[0].geometry.interiors) == 1
    assert shapes.nshapes == 1
    shapes.mode = "vertex_insert"
    touch.settle()
    before = len(layer.lesions[0].geometry.exterior.coords)
    touch.click(world(600, 1005))
    touch.settle(60)
    assert len(layer.lesions[0].geometry.exterior.coords) == before + 1
    assert layer.undo_label == "add a vertex"
    shapes.mode = "vertex_remove"
    touch.settle()
    touch.click(world(600, 1005))
    touch.settle(60)
    assert len(layer.lesions[0].geometry.exterior.coords) == before
    assert layer.undo_label == "remove a vertex"
    for _ in range(4):
        touch.key(Qt.Key.Key_Z, CONTROL)
    assert layer.lesions[0].geometry.equals(ring)
    assert layer.undo_label is None
