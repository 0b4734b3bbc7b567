"""The slide on stage: opened behind the scenes, shown with its outlines and its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_mil.errors import MilError

from . import navigation
from .active_slide import ActiveSlide
from .background import sentence_of
from .patch_preview import PatchPreview
from .slide_outlines import SlideOutlines
from .tags import find_layers, tag_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mil.lesion import LesionSet
    from napari_mil.slide import Slide
    from napari_mil.study import SlideRow

    from .session import Session

FOLLOW_CAMERA_MS = 40


class Stage:
    """What is shown of the active slide.

    Attributes
    ----------
    outlines : SlideOutlines
        Its outlines, and those of slides shown before.
    patches : PatchPreview
        Its tissue and patches.

    Signals
    -------
    slide_changed()
        Another slide is shown, or none, or its scale was given.
    moved()
        The camera moved.
    pointed(str)
        Position of the cursor, as text.
    """

    slide_changed = Signal()
    moved = Signal()
    pointed = Signal(str)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.viewer = session.viewer
        self.active = ActiveSlide(self.viewer)
        self._asked = 0  # number of the latest wish to see a slide: an earlier one that arrives late is dropped
        self._problems_said = 0
        self.outlines = SlideOutlines(session, self)
        self.patches = PatchPreview(session, self)
        self._camera_moved = self._timer(FOLLOW_CAMERA_MS, self._camera_rests)
        self._cursor_moved = self._timer(FOLLOW_CAMERA_MS, self._say_position)
        camera = self.viewer.scene.camera.events
        self._connections = [
            (camera.center, self._on_camera),
            (camera.zoom, self._on_camera),
            (self.viewer.cursor.events.position, self._on_cursor),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)

    @staticmethod
    def _timer(interval_ms: int, callback: Any) -> QTimer:
        timer = QTimer()
        timer.setSingleShot(True)
        timer.setInterval(interval_ms)
        timer.timeout.connect(callback)
        return timer

    def _camera_rests(self) -> None:
        self.moved.emit()
        self._say_problems()

    def _say_problems(self) -> None:
        slide = self.slide
        if slide is not None and len(slide.problems) > self._problems_said:
            self._session.say(f"{self.slide_id}: {slide.problems[-1]}", "warning")
            self._problems_said = len(slide.problems)

    def _on_camera(self, _: Any = None) -> None:
        if not self._camera_moved.isActive():
            self._camera_moved.start()

    def _on_cursor(self, _: Any = None) -> None:
        if self.slide is not None and not self._cursor_moved.isActive():
            self._cursor_moved.start()

    def _say_position(self) -> None:
        x, y = navigation.position_um(self.viewer)
        unit = "µm" if navigation.scale_known(self.viewer) else "px"
        self.pointed.emit(f"x {x:,.0f} {unit}, y {y:,.0f} {unit}")

    # the slide

    @property
    def slide_id(self) -> str | None:
        """The slide that is shown."""
        return self.active.slide_id

    @property
    def slide(self) -> Slide | None:
        """The open slide that is shown."""
        return self.active.current.slide if self.active.current is not None else None

    @property
    def row(self) -> SlideRow | None:
        """Its row in the slide table."""
        return self._session.slides.row_of(self.slide_id)

    @property
    def picture(self) -> npt.NDArray[Any] | None:
        """(h, w, 3) uint8 overview of the slide."""
        return self.active.current.overview.data if self.active.current is not None else None

    def show(self, slide_id: str, *, restore: dict[str, Any] | None = None, again: bool = False) -> None:
        """Open a slide in the background and show it instead of the present one (`again`: also if it is this one)."""
        project = self._session.project
        self._asked += 1  # also where this slide is shown already: a wish for another one is taken back by it
        asked = self._asked
        if project is None or (slide_id == self.slide_id and not again):
            return

        def open_it() -> tuple[Slide, LesionSet]:
            from napari_mil.study.prepare import open_project_slide

            slide = open_project_slide(project, slide_id)
            try:
                slide.thumbnail(1024)  # read here, so that the window finds it in the cache
                return slide, project.lesions(slide_id)
            except BaseException:
                slide.close()
                raise

        def opened(result: tuple[Slide, LesionSet]) -> None:
            slide, lesions = result
            if asked != self._asked or self._session.project is not project:
                slide.close()
                return
            self._show(slide_id, slide, lesions, restore or {})

        def failed(error: Exception) -> None:
            if asked == self._asked and self._session.project is project:
                self._session.say(f"{slide_id} can't be shown. {sentence_of(error)}", "error")
                self._session.preparation.unreadable(slide_id, error)

        self._session.background.run(open_it, opened, failed)

    def _show(self, slide_id: str, slide: Slide, lesions: LesionSet, restore: dict[str, Any]) -> None:
        self.outlines.flush()
        self.patches.clear()
        assert self._session.project is not None
        cameras = self._session.project.config.view.get("cameras", {})
        self.active.show(slide_id, lambda: slide, name=slide_id, camera=cameras.get(slide_id), again=True)
        self.outlines.show(slide_id, slide, lesions)
        for problem in (*slide.problems, *lesions.problems):
            self._session.say(f"{slide_id}: {problem}", "warning")
        self._problems_said = len(slide.problems)
        assert self.active.current is not None
        self.active.current.redrawn.connect(self._say_problems)
        self._restore_layers(restore.get("layers", {}))
        self.patches.showing_tissue = bool(restore.get("tissue", self.patches.showing_tissue))
        self.patches.showing_patches = bool(restore.get("patches", self.patches.showing_patches))
        self.slide_changed.emit()
        self.outlines.changed.emit()
        self.patches.update()

    def set_mpp(self, mpp: float) -> None:
        """The slide's scale was given: layers and patches follow."""
        if self.active.current is None:
            return
        self.active.current.set_mpp(mpp)
        if self.outlines.layer is not None:
            self.outlines.layer.set_mpp((mpp, mpp))
        navigation.fit(self.viewer)
        self.slide_changed.emit()
        self.patches.update()

    def clear(self) -> None:
        """Save outlines and show no slide."""
        self.outlines.save_now()
        self._asked += 1
        self.patches.clear()
        self.active.close()
        self.active.forget_all()
        self.outlines.clear()
        self.slide_changed.emit()
        self.outlines.changed.emit()

    def close(self) -> None:
        """Save, and let go of the viewer."""
        self.outlines.close()
        self.patches.close()
        for timer in (self._camera_moved, self._cursor_moved):
            timer.stop()
        for emitter, callback in self._connections:
            emitter.disconnect(callback)

    # what a reopened window shows again

    def state(self) -> dict[str, Any]:
        """Slide, cameras, and which layers are visible, as JSON."""
        if self._session.project is None:
            return {}
        cameras = dict(self._session.project.config.view.get("cameras", {}))
        for row in self._session.project.slides:
            camera = self.active.camera_of(row.slide_id)
            if camera is not None:
                cameras[row.slide_id] = camera
        layers = {
            tag_of(layer)["kind"]: {"visible": bool(layer.visible), "opacity": float(layer.opacity)}
            for layer in find_layers(self.viewer, slide_id=self.slide_id)
            if tag_of(layer)["kind"] in {"slide", "lesions", "tissue", "patches"}
        }
        return {
            "slide": self.slide_id,
            "cameras": cameras,
            "layers": layers,
            "tissue": self.patches.showing_tissue,
            "patches": self.patches.showing_patches,
        }

    def _restore_layers(self, layers: dict[str, Any]) -> None:
        for layer in find_layers(self.viewer, slide_id=self.slide_id):
            wanted = layers.get(tag_of(layer)["kind"])
            if wanted and tag_of(layer)["kind"] != "associated":
                layer.visible = bool(wanted.get("visible", True))
                layer.opacity = float(wanted.get("opacity", layer.opacity))

    # what the person says of it

    def set_partial(self, partial: bool) -> None:
        """Say whether all lesions of the slide are outlined."""
        if self.slide_id is not None:
            self._session.slides.update([self.slide_id], partial_annotation=partial)

    # label and macro picture

    @property
    def has_label_picture(self) -> bool:
        """Whether the file holds a label or macro picture."""
        return self.active.current is not None and bool(self.active.current.associated)

    @property
    def showing_label_picture(self) -> bool:
        """Whether one of them is shown."""
        shown = self.active.current
        return shown is not None and any(layer.visible for layer in shown.associated)

    def show_label_picture(self, on: bool) -> None:
        """Show label and macro picture beside the slide, or hide them; they often carry a patient's name."""
        shown = self.active.current
        if shown is None:
            return
        try:
            for layer in shown.associated:
                layer.visible = on
        except (MilError, OSError) as error:
            self._session.failed(error)
        if on:
            self.viewer.fit_to_view(layers=[shown.image, *shown.associated])

    # where one is

    @property
    def magnification(self) -> float | None:
        """Objective that the zoom corresponds to; None where the scale is unknown."""
        return navigation.magnification(self.viewer) if navigation.scale_known(self.viewer) else None

    def set_magnification(self, objective: float) -> None:
        """Zoom as an objective would."""
        navigation.set_magnification(self.viewer, objective)

    def fit(self) -> None:
        """Show the whole slide."""
        navigation.fit(self.viewer)

    @property
    def view_fractions(self) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom of what is seen, as fractions of the slide."""
        if self.active.current is None:
            return None
        state = navigation.minimap_state(self.viewer, self.active.current)
        height, width = state.thumbnail.shape[:2]
        left, top, right, bottom = state.view
        return left / width, top / height, right / width, bottom / height

    def go_to_fraction(self, x: float, y: float) -> None:
        """Centre the view on a point given as fractions of the slide's width and height."""
        if self.active.current is not None:
            height, width = self.active.current.overview.data.shape[:2]
            navigation.go_to(self.viewer, navigation.minimap_to_world(self.active.current, x * width, y * height))
