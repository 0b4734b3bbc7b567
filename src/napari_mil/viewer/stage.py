"""The slide on stage: opened behind the scenes, shown with its outlines, its tissue and its patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_mil.errors import MilError

from . import navigation
from .active_slide import ActiveSlide
from .autosave import Autosave
from .lesion_layer import LesionLayer
from .preview_layers import show_patches, show_tissue
from .tags import find_layers, tag_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mil.geometry import PatchGrid
    from napari_mil.lesion import LesionSet
    from napari_mil.slide import Slide, TissueMask
    from napari_mil.study import SlideRow

    from .session import Session

PATCHES_SOON_MS = 300
FOLLOW_CAMERA_MS = 40


class Stage:
    """What is shown of the active slide.

    Signals
    -------
    slide_changed()
        Another slide is shown, or none, or its scale was given.
    lesions_changed()
        Outlines, tool or class changed.
    patches_changed()
        Tissue, grid or patch labels were worked out anew.
    moved()
        The camera moved.
    pointed(str)
        Position of the cursor, as text.
    """

    slide_changed = Signal()
    lesions_changed = Signal()
    patches_changed = Signal()
    moved = Signal()
    pointed = Signal(str)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.viewer = session.viewer
        self.active = ActiveSlide(self.viewer)
        self._lesion_layers: dict[str, LesionLayer] = {}
        self._asked = 0  # number of the latest wish to see a slide: an earlier one that arrives late is dropped
        self._patches_asked = 0
        self.tissue: TissueMask | None = None
        self.grid: PatchGrid | None = None
        self.labels: npt.NDArray[np.int8] | None = None
        self.patches_note = ""
        self.patches_pending = False
        self.showing_tissue = False
        self.showing_patches = False
        self._problems_said = 0
        self.autosave = Autosave(self._save_lesions, session.settings.autosave_seconds)
        self.autosave.saved.connect(self._lesions_saved)
        self.autosave.failed.connect(lambda sentence: session.say(sentence, "error"))
        self._patches_soon = self._timer(PATCHES_SOON_MS, self._work_out_patches)
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
        return self._session.row_of(self.slide_id)

    @property
    def picture(self) -> npt.NDArray[Any] | None:
        """(h, w, 3) uint8 overview of the slide."""
        return self.active.current.overview.data if self.active.current is not None else None

    def show(self, slide_id: str, *, restore: dict[str, Any] | None = None) -> None:
        """Open a slide in the background and show it instead of the present one."""
        project = self._session.project
        if project is None or slide_id == self.slide_id:
            return
        self._asked += 1
        asked = self._asked

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

        self._session.background.run(open_it, opened, lambda error: self._not_opened(slide_id, error))

    def _not_opened(self, slide_id: str, error: Exception) -> None:
        self._session.say(f"{slide_id} can't be shown. {error}", "error")

    def _show(self, slide_id: str, slide: Slide, lesions: LesionSet, restore: dict[str, Any]) -> None:
        self.autosave.flush()
        self.tissue = self.grid = self.labels = None
        cameras = restore.get("cameras", {})
        self.active.show(slide_id, lambda: slide, name=slide_id, camera=cameras.get(slide_id))
        if slide_id not in self._lesion_layers:
            assert self._session.project is not None
            layer = LesionLayer(
                self.viewer,
                lesions,
                mpp=slide.mpp,
                slide_id=slide_id,
                classes=self._session.project.config.class_colors,
            )
            layer.changed.connect(self._lesions_edited)
            layer.class_changed.connect(lambda _: self.lesions_changed.emit())
            layer.layer.events.mode.connect(lambda _: self.lesions_changed.emit())
            layer.message.connect(self._session.say)
            self._lesion_layers[slide_id] = layer
        for problem in (*slide.problems, *lesions.problems):
            self._session.say(f"{slide_id}: {problem}", "warning")
        self._problems_said = len(slide.problems)
        self._restore_layers(restore.get("layers", {}))
        self.slide_changed.emit()
        self.lesions_changed.emit()
        self.update_patches()

    def set_mpp(self, mpp: float) -> None:
        """The slide's scale was given: layers and patches follow."""
        if self.active.current is None:
            return
        self.active.current.set_mpp(mpp)
        if self.lesion_layer is not None:
            self.lesion_layer.set_mpp((mpp, mpp))
        navigation.fit(self.viewer)
        self.slide_changed.emit()
        self.update_patches()

    def clear(self) -> None:
        """Save outlines and show no slide."""
        self.autosave.flush()
        self._asked += 1
        self.active.close()
        self.active.forget_all()
        for layer in self._lesion_layers.values():
            layer.close()
        self._lesion_layers.clear()
        self.tissue = self.grid = self.labels = None
        self.slide_changed.emit()
        self.lesions_changed.emit()

    def close(self) -> None:
        """Save, and let go of the viewer."""
        self.autosave.close()
        for timer in (self._patches_soon, self._camera_moved, self._cursor_moved):
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
            "tissue": self.showing_tissue,
            "patches": self.showing_patches,
        }

    def _restore_layers(self, layers: dict[str, Any]) -> None:
        for layer in find_layers(self.viewer, slide_id=self.slide_id):
            wanted = layers.get(tag_of(layer)["kind"])
            if wanted and tag_of(layer)["kind"] != "associated":
                layer.visible = bool(wanted.get("visible", True))
                layer.opacity = float(wanted.get("opacity", layer.opacity))

    # outlines

    @property
    def lesion_layer(self) -> LesionLayer | None:
        """Outlines of the slide that is shown."""
        return self._lesion_layers.get(self.slide_id) if self.slide_id is not None else None

    @property
    def saved_text(self) -> str:
        """Whether the outlines are on disk."""
        if self.lesion_layer is None:
            return ""
        if self.autosave.error:
            return self.autosave.error
        return "Saving…" if self.autosave.dirty else "All outlines are saved."

    def use_tool(self, tool: str) -> None:
        """Draw with a tool: pan, select, polygon, lasso, rectangle, ellipse."""
        if self.lesion_layer is not None:
            self.lesion_layer.set_tool(tool)
            self.lesions_changed.emit()

    def use_class(self, name: str) -> None:
        """Class of what is drawn next, and of the selected outlines."""
        if self.lesion_layer is not None:
            self.lesion_layer.set_class(name)
            self.lesions_changed.emit()

    def undo(self) -> None:
        """Take back the last change of the outlines."""
        if self.lesion_layer is not None:
            self.lesion_layer.undo()

    def redo(self) -> None:
        """Make the change that was taken back."""
        if self.lesion_layer is not None:
            self.lesion_layer.redo()

    def _lesions_edited(self, *_: Any) -> None:
        self.autosave.touch()
        self._patches_soon.start()
        self.lesions_changed.emit()

    def _save_lesions(self) -> None:
        if self._session.project is not None and self.slide_id is not None and self.lesion_layer is not None:
            self._session.project.save_lesions(self.slide_id, self.lesion_layer.lesions)

    def _lesions_saved(self) -> None:
        self.lesions_changed.emit()

    def import_lesions(self, path: Path) -> None:
        """Add the outlines of a file to the slide's."""
        layer = self.lesion_layer
        if layer is None:
            return
        from napari_mil.lesion import read_lesions

        def add(lesions: LesionSet) -> None:
            from napari_mil.lesion.merge import merge

            new = merge(layer.lesions, lesions)[1]
            if new:
                layer.add(new)
            known = f" {len(lesions) - len(new)} were there already." if len(new) < len(lesions) else ""
            problems = f" {len(lesions.problems)} needed mending: {lesions.problems[0]}" if lesions.problems else ""
            self._session.say(f"{len(new)} outlines imported from {path.name}.{known}{problems}")

        self._session.background.run(lambda: read_lesions(path), add, self._session.failed)

    def import_lesion_folder(self, folder: Path, then: Any = None) -> None:
        """Add a folder of files to the slides they belong to, and report what fitted."""
        project = self._session.project
        if project is None:
            return
        from napari_mil.study.annotations import import_annotations

        self.autosave.flush()

        def done(report: Any) -> None:
            for slide_id in report.added:
                layer = self._lesion_layers.get(slide_id)
                if layer is not None:
                    layer.set_lesions(project.lesions(slide_id), "import")
            self._session.slides_changed.emit(set(report.added))
            self._patches_soon.start()
            self._session.say(report.sentences[0])
            if then is not None:
                then(list(report.sentences))

        self._session.background.run(lambda: import_annotations(project, folder), done, self._session.failed)

    def export_lesions(self, path: Path) -> None:
        """Write the slide's outlines to a file."""
        if self.lesion_layer is None:
            return
        from napari_mil.lesion import write_lesions

        try:
            write_lesions(self.lesion_layer.lesions, path)
        except (MilError, OSError) as error:
            self._session.failed(error)
            return
        self._session.say(f"{len(self.lesion_layer.lesions)} outlines written to {path}.")

    def set_partial(self, partial: bool) -> None:
        """Say whether all lesions of the slide are outlined."""
        if self.slide_id is not None and self._session.set_slides([self.slide_id], partial_annotation=partial):
            self._patches_soon.start()

    # tissue and patches

    def update_patches(self) -> None:
        """Work out tissue, grid and labels anew, soon."""
        self._patches_soon.start()

    def _work_out_patches(self) -> None:
        project, slide, slide_id = self._session.project, self.slide, self.slide_id
        if project is None or slide is None or slide_id is None or slide.mpp is None:
            self.tissue = self.grid = self.labels = None
            self.patches_note = "" if slide is None else "The slide's scale is unknown: no patches yet."
            self.patches_changed.emit()
            return
        lesions = self.lesion_layer.lesions if self.lesion_layer is not None else None
        self._patches_asked += 1
        asked = self._patches_asked
        self.patches_pending = True
        config = project.config.model_copy(deep=True)

        def work() -> Any:
            from napari_mil.study import preview_patches

            return preview_patches(project, slide_id, slide, config, lesions)

        def done(preview: Any) -> None:
            if asked != self._patches_asked or slide_id != self.slide_id:
                return
            self.patches_pending = False
            self.tissue, self.grid, self.labels = preview.tissue, preview.grid, preview.labels
            self.patches_note = preview.note
            self._show_previews()
            self.patches_changed.emit()

        def failed(error: Exception) -> None:
            if asked == self._patches_asked:
                self.patches_pending = False
                self.tissue = self.grid = self.labels = None
                self.patches_note = str(error)
                self.patches_changed.emit()

        self._session.background.run(work, done, failed)

    @property
    def patch_counts(self) -> tuple[int, int, int] | None:
        """Patches in lesions, outside, unknown; None while they are counted."""
        if self.labels is None:
            return None
        return tuple(int((self.labels == v).sum()) for v in (1, 0, -1))  # type: ignore[return-value]

    def preview_tissue(self, on: bool) -> None:
        """Show or hide the tissue."""
        self.showing_tissue = on
        self._show_previews()
        self.patches_changed.emit()

    def preview_patches(self, on: bool) -> None:
        """Show or hide the patches."""
        self.showing_patches = on
        self._show_previews()
        self.patches_changed.emit()

    def _show_previews(self) -> None:
        slide = self.slide
        if slide is None:
            return
        if self.showing_tissue and self.tissue is not None:
            show_tissue(self.viewer, self.tissue, slide.mpp, slide_id=self.slide_id)
        if self.showing_patches and self.grid is not None and len(self.grid):
            show_patches(self.viewer, self.grid, self.labels, slide_id=self.slide_id)
        for kind, showing in (("tissue", self.showing_tissue), ("patches", self.showing_patches)):
            for layer in find_layers(self.viewer, kind, self.slide_id):
                layer.visible = showing

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
