"""A slide's layers: placed in µm, never waiting for pixels, threads ended with them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.settings import get_settings
from qtpy.QtTest import QTest

from napari_mil.errors import SlideError
from napari_mil.viewer import ActiveSlide, LesionLayer, find_layers, is_ours, show_slide
from napari_mil.viewer.refresh import TileRefresher
from napari_mil.viewer.tags import tag_of

from .fakes import FakeSlide


@pytest.fixture
def viewer(qapp):
    return ViewerModel()


def test_layers_lie_exactly_over_each_other_in_um(viewer):
    slide = FakeSlide(2000, 1600, mpp=(0.5, 0.25))
    shown = show_slide(viewer, slide)
    assert [layer.name for layer in viewer.layers] == ["fake.svs overview", "fake.svs"]
    assert all(str(unit) == "micrometer" for layer in viewer.layers for unit in layer.units)
    assert viewer.canvas.overlays.scale_bar.visible
    assert shown.image.scale == pytest.approx((0.25, 0.5))
    assert shown.image.multiscale
    assert shown.mpp_known
    outer = [np.asarray(layer.data[0].shape if layer.multiscale else layer.data.shape)[:2] for layer in viewer.layers]
    corners = []
    for layer, shape in zip(viewer.layers, outer, strict=True):
        first = np.asarray(layer.data_to_world((-0.5, -0.5)))
        last = np.asarray(layer.data_to_world(shape - 0.5))
        corners.append((first, last))
    assert corners[0][0] == pytest.approx(corners[1][0], abs=1e-9)
    assert corners[0][1] == pytest.approx(corners[1][1], abs=1e-9)
    assert corners[1][0] == pytest.approx((-0.125, -0.25))
    shown.close()


def test_unknown_scale_is_pixels_until_it_is_given(viewer):
    slide = FakeSlide(mpp=None)
    shown = show_slide(viewer, slide)
    assert not shown.mpp_known
    assert {str(unit) for unit in shown.image.units} == {"pixel"}
    assert tag_of(shown.image)["mpp"] is None
    shown.set_mpp(0.5)
    assert shown.mpp_known
    assert {str(unit) for layer in shown.layers for unit in layer.units} == {"micrometer"}
    assert shown.image.scale == pytest.approx((0.5, 0.5))
    assert tag_of(shown.image)["mpp"] == (0.5, 0.5)
    shown.close()


def test_label_and_macro_stay_unread_until_someone_shows_them(viewer):
    class Jealous(dict):
        read = ()

        def __getitem__(self, key):
            self.read = (*self.read, key)
            return super().__getitem__(key)

        def __contains__(self, key):
            raise AssertionError("asking whether a picture is there reads it")

    pictures = Jealous(label=np.full((30, 40, 3), 9, np.uint8), macro=np.full((30, 90, 3), 7, np.uint8))
    shown = show_slide(viewer, FakeSlide(associated=pictures))
    assert [layer.name for layer in shown.associated] == ["fake.svs label", "fake.svs macro"]
    assert not any(layer.visible for layer in shown.associated)
    assert pictures.read == ()
    shown.show_associated("label")
    assert pictures.read == ("label",)
    assert shown.associated[0].visible
    assert shown.associated[0].data.shape == (30, 40, 3)
    shown.hide()
    assert not any(layer.visible for layer in shown.layers)
    with pytest.raises(SlideError, match="no map picture"):
        shown.show_associated("map")
    shown.close()


def test_missing_tiles_never_wait_and_arrive_later(viewer):
    slide = FakeSlide(4000, 4000, delay_s=0.3)
    started = time.perf_counter()
    shown = show_slide(viewer, slide)
    view = np.asarray(shown.image.data[0][:1024, :1024])
    assert time.perf_counter() - started < 2.0
    assert not np.array_equal(view, slide.chain[0][:1024, :1024])
    deadline = time.monotonic() + 5
    while slide.views[0].loaded < 4 and time.monotonic() < deadline:
        QTest.qWait(20)
    assert np.array_equal(np.asarray(shown.image.data[0][:1024, :1024]), slide.chain[0][:1024, :1024])
    shown.close()


def test_arrivals_refresh_in_this_thread_and_seldom(qapp):
    calls: list[int] = []
    refresher = TileRefresher(lambda: calls.append(threading.get_ident()))
    refresher.arrived()
    QTest.qWait(80)
    assert len(calls) == 1  # one tile is shown soon
    stop = time.monotonic() + 0.9

    def arrive():
        while time.monotonic() < stop:
            refresher.arrived()
            time.sleep(0.001)

    threads = [threading.Thread(target=arrive) for _ in range(4)]
    for thread in threads:
        thread.start()
    QTest.qWait(1100)
    for thread in threads:
        thread.join()
    assert set(calls) == {threading.get_ident()}
    assert 3 <= len(calls) <= 8  # a stream is shown every 200 ms
    refresher.close()
    refresher.arrived()
    QTest.qWait(60)
    assert len(calls) <= 8


def test_a_problem_is_told_of_when_it_is_met(viewer):
    slide = FakeSlide(2000, 2000)
    shown = show_slide(viewer, slide)
    told: list[list[str]] = []
    shown.redrawn.connect(lambda: told.append(shown.problems))
    slide.problems.append("fake.svs was moved or removed while it was open.")
    np.asarray(shown.image.data[0][:512, :512])
    deadline = time.monotonic() + 5
    while not told and time.monotonic() < deadline:
        QTest.qWait(20)
    assert told[-1] == ["fake.svs was moved or removed while it was open."]
    shown.close()


def test_one_redraw_when_all_has_come_and_none_for_what_was_seen_again(qapp):
    class View:
        settled = False
        outdated = True

        def drawing(self):
            drawn.append(1)

    drawn: list[int] = []
    calls: list[int] = []
    view = View()
    refresher = TileRefresher(lambda: calls.append(1), rest_ms=5000, longest_ms=5000)
    refresher.watch(view)
    for _ in range(10):
        refresher.arrived()
    QTest.qWait(30)
    assert calls == []
    view.settled = True
    refresher.arrived()
    QTest.qWait(30)
    assert calls == drawn == [1]
    view.outdated = False  # the window moved, and asked again
    refresher.arrived()
    QTest.qWait(30)
    assert calls == [1]
    refresher.close()


def test_a_duplicated_layer_shows_the_same_slide(viewer):
    from copy import deepcopy

    from napari_mil.slide.levels import Level

    level = Level((100, 80), 0, lambda index, box: np.full(box.shape, 7, np.uint8), "a.svs")
    assert deepcopy([level])[0] is level


def test_removing_the_image_layer_ends_the_view(viewer):
    slide = FakeSlide()
    shown = show_slide(viewer, slide)
    viewer.layers.remove(shown.image)
    assert slide.views[0].closed
    shown.close()
    shown.remove()
    assert len(viewer.layers) == 0


def test_the_overview_is_drawn_only_where_it_could_be_seen(viewer):
    setting = get_settings().experimental
    before = setting.async_
    try:
        setting.async_ = False
        shown = show_slide(viewer, FakeSlide())
        assert not shown.overview.visible
        setting.async_ = True
        assert shown.overview.visible
        shown.hide()
        assert not shown.overview.visible
        shown.show()
        assert shown.overview.visible
        shown.close()
    finally:
        setting.async_ = before


def test_switching_slides_keeps_camera_outlines_and_other_layers(viewer):
    slides = {"a": FakeSlide(name="a.svs"), "b": FakeSlide(1000, 900, name="b.svs")}
    active = ActiveSlide(viewer)
    left: list[object] = []
    active.changing.connect(left.append)
    other = viewer.add_points(np.zeros((1, 2)), name="someone else's", units=("µm", "µm"))
    shown = active.show("a", lambda: slides["a"])
    lesions = LesionLayer(viewer, None, mpp=shown.slide.mpp, slide_id="a")
    lesions.layer.add(np.array([[0, 0], [0, 90], [90, 90]]), shape_type="polygon")
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 123.0, 45.0), 3.5
    active.show("b", lambda: slides["b"])
    assert left == ["a"]
    assert slides["a"].closed
    assert slides["a"].views[0].closed
    assert not find_layers(viewer, slide_id="a")
    assert len(find_layers(viewer, slide_id="b")) == 2
    assert other in viewer.layers
    assert not is_ours(other)
    assert viewer.scene.camera.zoom != 3.5
    assert active.camera_of("a") == {"center": [123.0, 45.0], "zoom": 3.5}
    slides["a"].closed = False
    active.show("a", lambda: slides["a"])
    assert viewer.scene.camera.zoom == 3.5
    assert tuple(viewer.scene.camera.center[1:]) == (123.0, 45.0)
    assert lesions.layer in viewer.layers
    assert len(lesions.lesions) == 1
    lesions.undo()
    assert len(lesions.lesions) == 0
    lesions.redo()
    assert lesions.layer.nshapes == 1
    active.close()
    assert list(viewer.layers) == [other]


def test_a_slide_that_cannot_be_opened_changes_nothing(viewer):
    active = ActiveSlide(viewer)
    active.show("a", FakeSlide)

    def refuse():
        raise SlideError("broken.svs is cut short.")

    before = list(viewer.layers)
    with pytest.raises(SlideError):
        active.show("b", refuse)
    assert list(viewer.layers) == before
    assert active.slide_id == "a"
    active.close()


def test_switching_reuses_layers_and_drops_pictures_the_next_slide_has_not(viewer):
    pictures = {"label": np.full((30, 40, 3), 9, np.uint8), "macro": np.full((30, 90, 3), 7, np.uint8)}
    first, second = FakeSlide(name="a.svs", associated=pictures), FakeSlide(700, 5000, (1.0, 2.0), "b.svs")
    active = ActiveSlide(viewer)
    shown = active.show("a", lambda: first)
    shown.show_associated("label")
    image = shown.image
    again = active.show("b", lambda: second)
    assert again.image is image
    assert [layer.name for layer in viewer.layers] == ["b.svs overview", "b.svs"]
    assert image.data.shape == (5000, 700, 3)
    assert image.scale == pytest.approx((2.0, 1.0))
    assert np.array_equal(again.overview.data, second.thumbnail(1024))
    third = active.show("a2", lambda: FakeSlide(mpp=None, name="c.svs", associated=pictures))
    assert len(viewer.layers) == 4
    assert not any(layer.visible for layer in third.associated)
    assert third.associated[0].data.shape == (1, 1, 3)
    third.show_associated("label")
    assert third.associated[0].data.shape == (30, 40, 3)
    assert {str(unit) for layer in viewer.layers for unit in layer.units} == {"pixel"}
    viewer.layers.remove(third.image)  # by hand; the next slide makes a new one
    last = active.show("d", lambda: FakeSlide(name="d.svs"))
    assert last.image in viewer.layers
    assert len(viewer.layers) == 2
    active.close()
