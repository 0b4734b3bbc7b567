"""The switch for colours in sRGB: what is shown, what is kept, and what is said of a slide without a profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_mil.lesion import Lesion
from napari_mil.study import Project
from napari_mil.widgets.dock import MilDock

from .conftest import click

Until = Callable[..., None]


@pytest.fixture
def two_slides(new_dock: Callable[[], MilDock], tmp_path: Path, scanner_profile: bytes, until: Until) -> MilDock:
    """A dock on a project of two pictures, the first of which has a scanner's profile; the first is shown."""
    import shapely

    from napari_mil.lesion import LesionSet

    picture = Image.new("RGB", (900, 700), (150, 70, 140))
    picture.paste((240, 240, 240), (0, 0, 900, 100))
    picture.save(tmp_path / "a.png", icc_profile=scanner_profile)
    picture.save(tmp_path / "b.png")
    project = Project.create(tmp_path / "project", [tmp_path / "a.png", tmp_path / "b.png"])
    project.set_mpp("a", 0.5, folder=True)
    project.save_lesions("a", LesionSet([Lesion(shapely.box(100, 200, 300, 400), label="Tumor")]))
    dock = new_dock()
    dock.session.open_project(project.folder)
    dock.session.stage.show("a")
    until(lambda: dock.session.stage.slide_id == "a")
    return dock


def shown(dock: MilDock) -> Any:
    """Colour in the middle of the slide, as the layer gives it."""
    slide = dock.session.stage.active.current
    assert slide is not None
    return np.asarray(slide.image.data[-1])[350, 450]


def test_the_switch_changes_what_is_shown_and_is_remembered(two_slides: MilDock, until: Until) -> None:
    session, page = two_slides.session, two_slides.pages[0]
    stage, project = session.stage, session.project
    assert project is not None
    assert not page.srgb.isChecked()
    assert page.color_note.text() == ""
    before = project.feature_set
    np.testing.assert_array_equal(shown(two_slides), (150, 70, 140))
    session.viewer.scene.camera.zoom = 3.3
    outlines = stage.outlines.layer
    click(page.srgb)
    until(lambda: stage.slide is not None and stage.slide.color != "as stored")
    assert (shown(two_slides) > (170, 100, 160)).all()
    assert session.viewer.scene.camera.zoom == pytest.approx(3.3)
    assert stage.outlines.layer is outlines
    assert outlines is not None
    assert outlines.layer in session.viewer.layers
    assert len(outlines.lesions) == 1
    assert page.color_note.text().startswith("This slide: sRGB by the profile “Test scanner”")
    assert project.feature_set != before
    assert Project.open(project.folder).config.color == "srgb"
    stage.show("b")
    until(lambda: stage.slide_id == "b")
    np.testing.assert_array_equal(shown(two_slides), (150, 70, 140))
    assert page.color_note.text() == "This slide: sRGB assumed: the file has no colour profile."
    click(page.srgb)
    until(lambda: stage.slide is not None and stage.slide.color == "as stored")
    assert project.feature_set == before
    assert page.color_note.text() == ""


def test_pictures_in_the_table_follow(two_slides: MilDock, until: Until) -> None:
    page = two_slides.pages[0]

    def middle() -> Any:
        picture = page.model._picture("a")
        return None if picture is None else picture.toImage().pixelColor(20, 25).red()

    until(lambda: middle() is not None)
    assert middle() == pytest.approx(150, abs=3)
    click(page.srgb)
    until(lambda: (middle() or 0) > 190)
