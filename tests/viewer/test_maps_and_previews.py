"""Maps, previews and navigation: everything lies exactly where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel

from napari_mil.geometry import PatchGrid, level0_to_world
from napari_mil.maps import attention_map, patch_table
from napari_mil.slide import TissueMask
from napari_mil.viewer import (
    Hover,
    LesionLayer,
    MapToggle,
    camera_state,
    current_mpp,
    find_layers,
    fit,
    go_to,
    hover_text,
    magnification,
    minimap_state,
    position_um,
    readout_text,
    restore_camera,
    set_magnification,
    show_map,
    show_patches,
    show_slide,
    show_tissue,
    smooth_map,
)
from napari_mil.viewer.map_layer import BADGE_OVERLAY, RESEARCH_ONLY
from napari_mil.viewer.navigation import minimap_to_world, view_rectangle
from napari_mil.viewer.preview_layers import MAX_RASTER_PX, patch_picture

from .fakes import FakeSlide


@pytest.fixture
def viewer(qapp):
    return ViewerModel()


def grid_of(columns=6, rows=5, patch=448, stride=448, mpp=(0.25, 0.25), origin=(96, 32)):
    y, x = np.mgrid[:rows, :columns]
    return PatchGrid(np.column_stack([x.ravel(), y.ravel()]) * stride + origin, patch, stride, mpp)


def some_map(grid, normalisation="percentile"):
    scores = np.random.default_rng(0).normal(size=len(grid))
    return attention_map(grid, scores, normalisation=normalisation), patch_table(grid, scores)


def outer_corners(layer):
    shape = np.asarray(layer.data.shape[:2])
    return layer.data_to_world((-0.5, -0.5)), layer.data_to_world(shape - 0.5)


def test_a_map_lies_on_its_patches(viewer):
    grid = grid_of(mpp=(0.25, 0.5))
    drawn, _ = some_map(grid, "raw")
    layer = show_map(viewer, drawn, badge="TRAIN", slide_id="s")
    centers = level0_to_world(grid.centers, grid.mpp)
    for index, center in enumerate(centers):
        row, column = layer.world_to_data(center)
        assert (row, column) == pytest.approx((index // 6, index % 6), abs=1e-9)
    assert layer.name == "Attention (raw) · TRAIN"
    assert str(layer.interpolation2d) == "nearest"
    assert layer.colorbar.visible
    assert {str(unit) for unit in layer.units} == {"micrometer"}
    assert layer.data.dtype == np.float32
    assert layer.contrast_limits == pytest.approx([np.nanmin(drawn.data), np.nanmax(drawn.data)])


def test_showing_a_map_again_updates_its_layer(viewer):
    grid = grid_of()
    first, _ = some_map(grid)
    layer = show_map(viewer, first, badge="TEST", slide_id="s")
    layer.opacity, layer.colormap = 0.31, "viridis"
    assert layer.contrast_limits == [0, 100]
    second, _ = some_map(grid_of(3, 3), "raw")
    assert show_map(viewer, second, badge="TEST", slide_id="s", smooth=1.0) is layer
    assert layer.name == "Attention (raw, smoothed) · TEST"
    assert layer.data.shape == (3, 3)
    assert layer.opacity == 0.31
    assert layer.colormap.name == "viridis"
    other = show_map(viewer, first, slide_id="s", name="Contribution")
    assert other is not layer
    assert len(find_layers(viewer, "map")) == 2


def test_maps_lie_below_lesions_and_above_the_slide(viewer):
    slide = FakeSlide()
    shown = show_slide(viewer, slide, slide_id="s")
    lesions = LesionLayer(viewer, None, mpp=slide.mpp, slide_id="s")
    grid = grid_of(3, 3, mpp=(0.5, 0.5))
    patches = show_patches(viewer, grid, slide_id="s")
    tissue = show_tissue(viewer, TissueMask(np.ones((4, 5), bool), 400.0), slide.mpp, slide_id="s")
    drawn = show_map(viewer, some_map(grid)[0], slide_id="s")
    order = [viewer.layers.index(x) for x in (shown.overview, shown.image, tissue, patches, drawn, lesions.layer)]
    assert order == sorted(order)
    lesions.close()
    shown.close()


def test_badge_and_research_use_follow_the_maps(viewer):
    toggle = MapToggle(viewer)
    drawn, _ = some_map(grid_of())
    train = show_map(viewer, drawn, badge="TRAIN", key="a")
    overlay = viewer.canvas.overlays[BADGE_OVERLAY]
    assert overlay.visible
    assert "TRAIN" in overlay.text
    assert RESEARCH_ONLY in overlay.text
    test = show_map(viewer, drawn, badge="TEST", key="b")
    assert "TRAIN" in overlay.text
    assert "TEST" in overlay.text
    train.visible = False
    assert "TRAIN" not in overlay.text
    assert not toggle.toggle()
    assert not test.visible
    assert not overlay.visible
    assert toggle.toggle()
    assert test.visible
    assert not train.visible  # it was hidden before, by hand
    viewer.layers.remove(test)
    viewer.layers.remove(train)
    assert not overlay.visible
    toggle.close()


def test_smoothing_keeps_holes_and_level():
    data = np.full((20, 20), 5.0, dtype=np.float32)
    data[3, 4] = np.nan
    smoothed = smooth_map(data)
    assert np.isnan(smoothed[3, 4])
    assert np.nanmax(np.abs(smoothed - 5)) < 1e-5
    assert np.isnan(smoothed).sum() == 1


def test_hover_says_what_is_there(viewer):
    grid = grid_of()
    scores = np.arange(len(grid), dtype=float)
    scores[3] = np.nan
    drawn, table = attention_map(grid, scores), patch_table(grid, scores)
    where = level0_to_world(grid.centers, grid.mpp)
    text = hover_text(drawn, table, where[29], grid)
    assert "score 29" in text
    assert "rank 1 of 30" in text
    assert "percentile 100.0" in text
    left, top = grid.coords[29]
    assert f"x {left:,}, y {top:,}, 448 × 448 px" in text
    assert hover_text(drawn, table, where[3], grid).startswith("no score")
    assert hover_text(drawn, table, (-500.0, 3.0), grid) == ""
    assert hover_text(drawn, table, (np.nan, 3.0), grid) == ""
    hover = Hover(viewer)
    heard: list[str] = []
    hover.changed.connect(heard.append)
    hover.set_map(drawn, table, grid)
    viewer.cursor.position = tuple(where[29])
    assert viewer.status == text
    viewer.status = "napari's own words"
    assert viewer.status == text
    viewer.cursor.position = (-500.0, 3.0)
    viewer.status = "napari's own words"
    assert viewer.status == "napari's own words"
    assert heard[-2:] == [text, ""]
    hover.close()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 7),
    st.integers(1, 5),
    st.sampled_from([(448, 448), (448, 224), (300, 100), (64, 96), (7, 7), (256, 64)]),
    st.tuples(st.integers(0, 999), st.integers(0, 999)),
)
def test_patches_are_painted_where_they_lie(columns, rows, size, origin):
    patch, stride = size
    grid = grid_of(columns, rows, patch, stride, origin=origin)
    labels = (np.arange(len(grid)) % 3 - 1).astype(np.int8)
    picture, start, cell = patch_picture(grid, labels)
    ys, xs = np.nonzero(picture[..., 3])
    x = start[0] + (xs + 0.5) * cell[0]
    y = start[1] + (ys + 0.5) * cell[1]
    painted = shapely.points(x, y)
    truth = shapely.union_all(shapely.box(*grid.boxes.T))
    assert shapely.contains(truth, painted).all()
    assert len(xs) * cell[0] * cell[1] == pytest.approx(truth.area)
    for box, label in zip(grid.boxes, labels, strict=True):
        if stride < patch:
            break
        middle = ((box[:2] + box[2:]) / 2 - start) / cell
        color = picture[int(middle[1]), int(middle[0])]
        assert tuple(color[:3]) == {1: (200, 0, 0), 0: (40, 110, 220), -1: (150, 150, 150)}[label]
        assert color[3] < 255
        assert picture[int((box[1] - start[1]) / cell[1]), int(middle[0]), 3] == 255  # the border


def test_previews_follow_their_settings(viewer):
    grid = grid_of(141, 142)
    layer = show_patches(viewer, grid, np.zeros(len(grid), np.int8), slide_id="s")
    assert layer.name == "Patches (20,022)"
    assert max(layer.data.shape) <= MAX_RASTER_PX
    low, high = outer_corners(layer)
    assert high == pytest.approx(level0_to_world(grid.boxes[-1, 2:], grid.mpp), abs=1e-6)
    assert low == pytest.approx(level0_to_world(grid.boxes[0, :2], grid.mpp), abs=1e-6)
    assert show_patches(viewer, grid_of(2, 2), slide_id="s") is layer
    assert layer.name == "Patches (4)"
    empty = PatchGrid(np.empty((0, 2)), 448, 448, 0.25)
    assert show_patches(viewer, empty, slide_id="s").name == "Patches (0)"
    mask = TissueMask(np.eye(40, 50, dtype=bool), 32.5)
    tissue = show_tissue(viewer, mask, (0.25, 0.5), slide_id="s")
    low, high = outer_corners(tissue)
    assert low == pytest.approx(level0_to_world((0, 0), (0.25, 0.5)))
    assert high == pytest.approx(level0_to_world((50 * 32.5, 40 * 32.5), (0.25, 0.5)))
    assert tissue.data[3, 3, 3] == 255
    assert tissue.data[3, 4, 3] == 0


def test_magnification_and_position(viewer):
    shown = show_slide(viewer, FakeSlide(2000, 1600, mpp=(0.25, 0.25)), slide_id="s")
    for objective, mpp in ((40, 0.25), (20, 0.5), (2.5, 4.0), (1, 10.0)):
        set_magnification(viewer, objective)
        assert current_mpp(viewer) == pytest.approx(mpp)
        assert magnification(viewer) == pytest.approx(objective)
    go_to(viewer, (100, 50), 20)
    assert viewer.scene.camera.center[1:] == (100, 50)
    viewer.cursor.position = (12.0, 34.0)
    assert position_um(viewer) == (34.0, 12.0)
    assert readout_text(viewer) == "20x · 0.5 µm/px · x 34 µm, y 12 µm"
    state = camera_state(viewer)
    fit(viewer)
    assert camera_state(viewer) != state
    assert viewer.scene.camera.center[1:] == pytest.approx((199.875, 249.875))
    assert restore_camera(viewer, state)
    assert camera_state(viewer) == state
    for nonsense in (
        None,
        {},
        {"center": [1, 2]},
        {"center": "xy", "zoom": 1},
        {"center": [1, float("nan")], "zoom": 1},
    ):
        assert not restore_camera(viewer, nonsense)
    assert camera_state(viewer) == state
    shown.close()


def test_readout_does_not_pretend(viewer):
    shown = show_slide(viewer, FakeSlide(mpp=None), slide_id="s")
    assert "scale unknown" in readout_text(viewer)
    assert "µm" not in readout_text(viewer)
    shown.set_mpp(0.5)
    assert "µm/px" in readout_text(viewer)
    shown.close()


def test_minimap_and_back(viewer):
    shown = show_slide(viewer, FakeSlide(2000, 1600, mpp=(0.25, 0.5)))
    height, width = shown.overview.data.shape[:2]
    viewer.canvas.size = (400, 500)
    go_to(viewer, level0_to_world((1000, 800), (0.25, 0.5)), 20)
    state = minimap_state(viewer, shown)
    left, top, right, bottom = state.view
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((width / 2, height / 2))
    assert right - left == pytest.approx(500 * 0.5 / (2000 * 0.25) * width)
    assert bottom - top == pytest.approx(400 * 0.5 / (1600 * 0.5) * height)
    y0, x0, _, _ = view_rectangle(viewer)
    assert minimap_to_world(shown, left, top) == pytest.approx((y0, x0))
    shown.close()
