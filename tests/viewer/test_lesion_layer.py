"""The LesionSet is the truth; the layer follows, in every way shapes can change without a mouse."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from napari.components import ViewerModel
from qtpy.QtTest import QTest

from napari_mil.lesion import LESION_CLASSES, Lesion, LesionSet, class_color
from napari_mil.viewer import LesionLayer
from napari_mil.viewer.lesion_view import LINE_PX

SQUARE = np.array([[10, 10], [10, 60], [60, 60], [60, 10]], dtype=float)


@pytest.fixture
def viewer(qapp):
    return ViewerModel()


@pytest.fixture
def layer(viewer):
    made = LesionLayer(viewer, LesionSet(), mpp=(0.5, 0.25), slide_id="s")
    yield made
    made.close()


def settle():
    QTest.qWait(5)


def check(layer: LesionLayer) -> None:
    """What must hold between truth and view at any time."""
    settle()
    shapes = layer.layer
    ids = [str(x) for x in shapes.features["id"]]
    assert len(shapes.data) == len(ids) <= len(shapes.edge_color)  # napari keeps colours of drawings given up
    assert set(ids) == {lesion.id for lesion in layer.lesions}
    by_id = layer.lesions.by_id
    assert [str(c) for c in shapes.features["class"]] == [by_id[i].label for i in ids]
    for index, lesion_id in enumerate(ids):
        shape = shapely.Polygon(shapes.data[index][:, ::-1]) if shapes.shape_type[index] != "ellipse" else None
        assert shape is None or not shape.is_valid or by_id[lesion_id].geometry.intersects(shape)
        lesion = by_id[lesion_id]
        expected = np.array(lesion.color or class_color(lesion.label, layer.classes)) / 255
        assert shapes.edge_color[index][:3] == pytest.approx(expected, abs=2e-3)


def test_placed_in_um_on_pixel_edges(layer):
    assert layer.layer.scale == pytest.approx((0.25, 0.5))
    assert layer.layer.translate == pytest.approx((-0.125, -0.25))
    assert {str(unit) for unit in layer.layer.units} == {"micrometer"}
    layer.add([Lesion(shapely.box(0, 0, 100, 200))])
    low, high = layer.layer.extent.world
    assert low == pytest.approx((-0.125, -0.25))
    assert high == pytest.approx((49.875, 49.75))
    assert layer.center_of(layer.lesions[0].id) == pytest.approx((24.875, 24.75))
    layer.set_mpp((1.0, 1.0))
    assert layer.layer.extent.world[1] == pytest.approx((199.5, 99.5))


def test_holes_and_parts_are_shown_and_kept(layer):
    ring = shapely.box(0, 0, 100, 100).difference(shapely.box(20, 20, 40, 40))
    two = shapely.MultiPolygon([shapely.box(200, 0, 250, 50), shapely.box(300, 0, 350, 50)])
    layer.add([Lesion(ring), Lesion(two, label="Stroma")])
    check(layer)
    assert layer.layer.nshapes == 3
    assert layer.lesions[0].geometry.equals(ring)
    layer.layer.selected_data = {2}
    layer.set_class("Necrosis")
    assert layer.lesions[1].label == "Necrosis"
    check(layer)  # both parts are recoloured
    layer.layer.remove([1])
    assert layer.lesions[1].geometry.equals(two.geoms[1])
    check(layer)
    layer.undo()
    assert layer.lesions[1].geometry.equals(two)
    assert layer.lesions[0].geometry.equals(ring)
    check(layer)


def test_undo_and_redo_of_everything(layer):
    seen: list[LesionSet] = []
    layer.changed.connect(seen.append)
    layer.layer.add(SQUARE, shape_type="polygon")
    layer.layer.add(SQUARE + 100, shape_type="ellipse")
    check(layer)
    layer.layer.selected_data = {0}
    layer.set_class("Stroma")
    layer.add([Lesion(shapely.box(500, 500, 600, 600), name="x")])
    layer.update(layer.lesions[2].id, "rename", name="y")
    layer.delete([layer.lesions[1].id])
    assert [layer.lesions[i].label for i in range(2)] == ["Stroma", "Tumor"]
    labels = []
    states = [layer.lesions]
    while (label := layer.undo()) is not None:
        labels.append(label)
        states.append(layer.lesions)
        check(layer)
    assert labels == ["delete", "rename", "import", "class", "draw", "draw"]
    assert len(layer.lesions) == 0
    for state in reversed(states[:-1]):
        assert layer.redo() is not None
        assert list(layer.lesions) == list(state)
        check(layer)
    assert layer.redo() is None
    assert len(seen) == 6 + 6 + 6


def test_a_new_edit_forgets_the_future(layer):
    layer.layer.add(SQUARE, shape_type="polygon")
    layer.undo()
    layer.layer.add(SQUARE + 7, shape_type="polygon")
    assert layer.redo_label is None
    assert len(layer.lesions) == 1


def test_shapes_without_area_do_not_stay_and_say_so(layer):
    said: list[str] = []
    layer.message.connect(said.append)
    layer.layer.add(np.array([[0, 0], [5, 5], [9, 9]]), shape_type="polygon")
    layer.layer.add(np.array([[0, 0], [5, 5]]), shape_type="line")
    check(layer)
    assert len(layer.lesions) == layer.layer.nshapes == 0
    assert any("no area" in text for text in said)
    layer.layer.add(np.array([[0, 0], [0, 50], [50, 50]]), shape_type="path")  # an open path is closed
    check(layer)
    assert layer.lesions[0].geometry.area == pytest.approx(1250)
    assert layer.layer.shape_type == ["polygon"]


def test_random_scribbles_never_raise_and_never_vanish(layer):
    rng = np.random.default_rng(3)
    for number in range(20):
        layer.layer.add(rng.uniform(0, 5000, (40, 2)), shape_type="polygon")
        settle()
        assert len(layer.lesions) == number + 1
    assert all(lesion.geometry.is_valid and lesion.geometry.area > 0 for lesion in layer.lesions)
    check(layer)


def test_pasted_shapes_are_new_lesions_of_the_same_class(layer):
    layer.add([Lesion(shapely.box(0, 0, 50, 50), label="Stroma")])
    shapes = layer.layer
    shapes.mode = "select"
    shapes.selected_data = {0}
    shapes._copy_data()  # what Ctrl+C and Ctrl+V do
    shapes._paste_data()
    check(layer)
    assert [lesion.label for lesion in layer.lesions] == ["Stroma", "Stroma"]
    assert layer.undo_label == "paste"
    layer.undo()
    check(layer)
    assert len(layer.lesions) == 1


def test_vertices_taken_away_until_nothing_is_left(layer):
    layer.layer.add(SQUARE, shape_type="polygon")
    shapes = layer.layer

    class Click:
        position = (0.0, 0.0)

    from napari.layers.shapes._shapes_mouse_bindings import vertex_remove

    for left in (3, 0):
        shapes.selected_data = {0}
        shapes.get_value = lambda *_, **__: (0, 1)  # a click on the second vertex
        vertex_remove(shapes, Click())
        del shapes.get_value
        check(layer)
        assert (len(shapes.data[0]) if left else shapes.nshapes) == left
    assert len(layer.lesions) == 0
    layer.undo()
    layer.undo()
    check(layer)
    assert len(shapes.data[0]) == 4


def test_locked_lesions_cannot_be_selected_nor_changed(layer):
    said: list[str] = []
    layer.message.connect(said.append)
    layer.add([Lesion(shapely.box(0, 0, 50, 50), name="A"), Lesion(shapely.box(100, 0, 150, 50))])
    first, second = (lesion.id for lesion in layer.lesions)
    layer.set_locked([first])
    layer.select([first, second])
    assert layer.selected_ids == [second]
    assert "A is locked" in said[-1]
    layer.layer.remove([0])
    check(layer)
    assert len(layer.lesions) == layer.layer.nshapes == 2
    layer.delete([first, second])
    assert [lesion.id for lesion in layer.lesions] == [first]
    layer.set_locked([first], False)
    layer.delete([first])
    assert len(layer.lesions) == 0
    check(layer)


def test_three_hundred_polygons_at_once(layer):
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    many = [
        Lesion(shapely.Polygon(rng.uniform(0, 50_000, 2) + ring * rng.uniform(50, 150, (100, 1))), name=f"n{i}")
        for i in range(300)
    ]
    layer.add(many[:50])
    assert layer.layer.text.visible
    layer.undo()
    layer.add(many)
    assert not layer.layer.text.visible
    check(layer)
    layer.undo()
    layer.redo()
    check(layer)


def test_triangulation_is_the_fast_one(layer):
    from napari.utils.triangulation_backend import get_backend

    assert str(get_backend()) in ("bermuda", "Fastest available", "PartSegCore")


def test_lines_keep_their_width_on_the_screen(viewer, layer):
    layer.add([Lesion(shapely.box(0, 0, 100, 200))])
    for zoom in (0.1, 4.0):
        viewer.scene.camera.zoom = zoom
        QTest.qWait(120)
        assert layer.layer.edge_width[0] * 0.5 * zoom == pytest.approx(LINE_PX)


def test_classes_come_from_outside_too(viewer):
    classes = {"Gland": (1, 2, 3), "Other": (200, 100, 0)}
    layer = LesionLayer(
        viewer, LesionSet([Lesion(shapely.box(0, 0, 9, 9), label="Strange")]), mpp=None, slide_id="s", classes=classes
    )
    assert layer.current_class == "Gland"
    assert list(LESION_CLASSES) != list(layer.classes)
    check(layer)
    layer.layer.add(SQUARE, shape_type="polygon")
    assert layer.lesions[1].label == "Gland"
    layer.set_classes({"Gland": (9, 9, 9)})
    check(layer)
    assert {str(unit) for unit in layer.layer.units} == {"pixel"}
    layer.close()


def test_problems_of_the_file_are_kept(viewer):
    layer = LesionLayer(viewer, LesionSet([], ["one was repaired"], {"format": "geojson"}), mpp=None, slide_id="s")
    layer.layer.add(SQUARE, shape_type="polygon")
    assert layer.lesions.problems == ("one was repaired",)
    assert layer.lesions.meta == {"format": "geojson"}
    layer.close()


def test_own_colours_of_a_file_are_kept_until_the_class_changes(layer):
    layer.add([Lesion(shapely.box(0, 0, 9, 9), color=(1, 2, 3))])
    check(layer)
    layer.layer.selected_data = {0}
    layer.set_class("Stroma")
    assert layer.lesions[0].color is None
    check(layer)


def test_a_tool_brings_back_a_layer_that_was_taken_out_of_the_list(viewer, layer):
    layer.layer.add(SQUARE, shape_type="polygon")
    viewer.layers.remove(layer.layer)
    layer.set_tool("lasso")
    QTest.qWait(120)
    assert viewer.layers.selection.active is layer.layer
    assert layer.tool == "lasso"
    assert layer.layer.nshapes == len(layer.lesions) == 1
    assert layer.layer.edge_width[0] * 0.5 * viewer.scene.camera.zoom == pytest.approx(LINE_PX)
