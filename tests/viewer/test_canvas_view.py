"""Maps, keys, hovering and slow slides on a real canvas."""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest

from napari_mil.geometry import PatchGrid, level0_to_world
from napari_mil.maps import attention_map, patch_table
from napari_mil.slide import open_slide
from napari_mil.viewer import ActiveSlide, Hover, LesionLayer, MapToggle, go_to, magnification, show_map, show_slide
from napari_mil.viewer.map_layer import BADGE_OVERLAY

from .fakes import FakeSlide

pytestmark = pytest.mark.canvas


@pytest.fixture
def stage(make_napari_viewer, hand):
    viewer = make_napari_viewer(show=True)
    slide = FakeSlide()
    shown = show_slide(viewer, slide, slide_id="s")
    y, x = np.mgrid[:6, :8]
    grid = PatchGrid(np.column_stack([x.ravel(), y.ravel()]) * 224 + 32, 224, 224, (0.5, 0.5))
    scores = np.linspace(0, 1, len(grid))
    viewer.window.resize(700, 550)
    touch = hand(viewer)
    touch.settle(100)
    viewer.fit_to_view()
    touch.settle(30)
    yield viewer, shown, grid, scores, touch
    shown.close()


def test_key_c_hides_and_shows_maps(stage):
    viewer, shown, grid, scores, touch = stage
    toggle = MapToggle(viewer)
    lesions = LesionLayer(viewer, None, mpp=shown.slide.mpp, slide_id="s")
    layer = show_map(viewer, attention_map(grid, scores), badge="TRAIN", slide_id="s")
    for active in (lesions.layer, shown.image, layer):
        viewer.layers.selection.active = active
        touch.key(Qt.Key.Key_C)
        assert not layer.visible
        assert not viewer.canvas.overlays[BADGE_OVERLAY].visible
        touch.key(Qt.Key.Key_C)
        assert layer.visible
        assert viewer.canvas.overlays[BADGE_OVERLAY].visible
    toggle.close()
    lesions.close()


def test_the_picture_shows_the_map_and_the_badge(stage):
    viewer, _, grid, scores, touch = stage
    viewer.fit_to_view()
    touch.settle(60)
    plain = viewer.screenshot(flash=False)[..., :3].astype(int)
    show_map(viewer, attention_map(grid, scores), badge="TRAIN", opacity=1.0, colormap="viridis")
    touch.settle(60)
    mapped = viewer.screenshot(flash=False)[..., :3].astype(int)
    low = touch.point(level0_to_world(grid.centers[0], grid.mpp))
    high = touch.point(level0_to_world(grid.centers[-1], grid.mpp))
    assert mapped[low.y(), low.x()] == pytest.approx((68, 1, 84), abs=12)
    assert mapped[high.y(), high.x()] == pytest.approx((253, 231, 37), abs=12)
    corner = np.abs(mapped - plain)[:40, :300].max(axis=-1)
    assert (corner > 60).sum() > 50  # the badge


def test_hovering_by_mouse_is_read_out(stage):
    viewer, _, grid, scores, touch = stage
    hover = Hover(viewer)
    drawn = attention_map(grid, scores)
    show_map(viewer, drawn, slide_id="s")
    hover.set_map(drawn, patch_table(grid, scores), grid)
    touch.move(level0_to_world(grid.centers[47], grid.mpp))
    touch.settle(150)
    assert "rank 1 of 48" in hover.text
    assert viewer.status == hover.text
    touch.move((-20.0, -20.0))
    touch.settle(150)
    assert hover.text == ""
    assert "rank" not in str(viewer.status)
    hover.close()


def test_wheel_and_pan_move_the_picture(stage):
    viewer, _, _, _, touch = stage
    go_to(viewer, (400, 500), 20)
    touch.settle()
    assert magnification(viewer) == pytest.approx(20)
    touch.drag([(400, 500), (350, 400)])
    assert viewer.scene.camera.center[1:] == pytest.approx((450, 600), abs=4)
    touch.wheel((450, 600), 3)
    assert magnification(viewer) > 20


def test_real_slides_switch(make_napari_viewer, hand, shared_data):
    viewer = make_napari_viewer(show=True)
    touch = hand(viewer)
    active = ActiveSlide(viewer)
    files = {"a": shared_data / "wsi" / "CMU-1-Small-Region.svs", "b": shared_data / "wsi" / "test3-DAPI-2-(387).ndpi"}
    slides = {}

    def show(slide_id):
        slides[slide_id] = open_slide(files[slide_id])
        shown = active.show(slide_id, lambda: slides[slide_id])
        touch.settle(1)
        return shown

    show("a")
    show("b")
    go_to(viewer, (300, 300), 20)
    shown = show("a")
    go_to(viewer, level0_to_world((1100, 1400), shown.slide.mpp), 10 / shown.slide.mpp[0])
    truth = shown.slide.read(1100, 1400, 1, 1)[0, 0].astype(int)
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        touch.settle(50)
        seen = viewer.screenshot(flash=False)
        around = seen[seen.shape[0] // 2 - 1 :, seen.shape[1] // 2 - 1 :][:3, :3, :3].astype(int)
        if np.abs(around - truth).max(axis=-1).min() <= 3:
            break
    else:
        raise AssertionError("the exact pixels never came")
    active.close()
    assert all(slide.tiles.closed for slide in slides.values())


def test_a_slow_slide_never_holds_up_the_window(make_napari_viewer, hand):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(600, 450)
    slide = FakeSlide(3000, 3000, delay_s=0.25)
    shown = show_slide(viewer, slide)
    touch = hand(viewer)
    touch.settle(100)
    gaps: list[float] = []
    last = time.perf_counter()

    def beat():
        nonlocal last
        gaps.append(time.perf_counter() - last)
        last = time.perf_counter()

    timer = QTimer()
    timer.timeout.connect(beat)
    timer.start(5)
    go_to(viewer, (300, 300), 20)
    for step in range(15):
        viewer.scene.camera.center = (0, 300 + 40 * step, 300 + 40 * step)
        QTest.qWait(20)
    timer.stop()
    assert slide.views[0].loaded < 30  # they were not waited for: each takes 0.25 s
    assert np.percentile(gaps, 90) < 0.25
    center = go_to(viewer, (1000, 1000), 20) or np.array([2000, 2000])
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        QTest.qWait(50)
        seen = viewer.screenshot(flash=False)
        truth = slide.chain[0][center[1], center[0]]
        if np.abs(seen[seen.shape[0] // 2, seen.shape[1] // 2, :3].astype(int) - truth).max() < 12:
            break
    else:
        raise AssertionError("the exact pixels never came")
    shown.close()
