"""Outlines of the open project's slides: drawn, imported, exported, and always on disk a moment later."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from .autosave import Autosave
from .background import sentence_of
from .lesion_layer import LesionLayer
from .words import count

if TYPE_CHECKING:
    from napari_mil.lesion import LesionSet
    from napari_mil.slide import Slide
    from napari_mil.study import Project

    from .session import Session
    from .stage import Stage


class SlideOutlines:
    """A drawing layer for each slide that was shown; the one on stage is worked on.

    Attributes
    ----------
    autosave : Autosave

    Signals
    -------
    changed()
        Outlines, tool or class changed, or they were saved.
    """

    changed = Signal()

    def __init__(self, session: Session, stage: Stage) -> None:
        self._session, self._stage = session, stage
        self._layers: dict[str, LesionLayer] = {}
        self._unsaved: set[str] = set()  # slides whose outlines are not on disk yet
        self._at_once = False
        self._writing = threading.Lock()
        self._behind: set[str] = set()  # slides whose outlines are being written in a thread
        self._importing = 0  # folders that are being read: until then nothing is written over them
        self.autosave = Autosave(self._save, session.settings.autosave_seconds)
        self.autosave.saved.connect(self._saved)
        self.autosave.failed.connect(lambda sentence: session.say(sentence, "error"))

    @property
    def layer(self) -> LesionLayer | None:
        """Outlines of the slide that is shown."""
        return self._layers.get(self._stage.slide_id) if self._stage.slide_id is not None else None

    def show(self, slide_id: str, slide: Slide, lesions: LesionSet) -> None:
        """A slide is shown: make its layer, unless it was shown before."""
        if slide_id in self._layers:
            return
        assert self._session.project is not None
        layer = LesionLayer(
            self._session.viewer,
            lesions,
            mpp=slide.mpp,
            slide_id=slide_id,
            classes=self._session.project.config.class_colors,
        )
        layer.changed.connect(lambda _: self._edited(slide_id))
        layer.class_changed.connect(lambda _: self.changed.emit())
        layer.layer.events.mode.connect(lambda _: self.changed.emit())
        layer.message.connect(self._session.say)
        self._layers[slide_id] = layer

    def clear(self) -> None:
        """Let go of all layers."""
        for layer in self._layers.values():
            layer.close()
        self._layers.clear()
        self._unsaved.clear()
        self._behind.clear()

    def close(self) -> None:
        """Save what is left and stop."""
        self._at_once = True
        self.autosave.close()

    # saving

    @property
    def saved_text(self) -> str:
        """Whether the outlines are on disk."""
        if self.layer is None:
            return ""
        if self.autosave.error:
            return self.autosave.error
        return "Saving…" if self.autosave.dirty or self._unsaved or self._behind else "All outlines are saved."

    def flush(self) -> bool:
        """Write what is not on disk yet, here and now; True when everything is."""
        self._at_once = True
        try:
            if self._behind:
                self.autosave.touch()
            return self.autosave.flush() and not self._unsaved
        finally:
            self._at_once = False

    def save_now(self) -> None:
        """Write what is not on disk yet; an import that is still under way is not waited for."""
        self._importing = 0
        if self._unsaved:
            self.autosave.touch()
        self.flush()

    def _edited(self, slide_id: str) -> None:
        self._unsaved.add(slide_id)
        self.autosave.touch()
        if slide_id == self._stage.slide_id:
            self._stage.patches.update()
            self.changed.emit()

    def _save(self) -> None:
        """Write all that changed; in a thread, since hundreds of outlines take longer than a frame."""
        project = self._session.project
        if project is None or self._importing:
            return
        for slide_id in sorted(self._unsaved | self._behind if self._at_once else self._unsaved):
            if self._at_once:
                self._write(project, self._layers[slide_id])
                self._behind.discard(slide_id)
            else:
                self._write_behind(project, self._layers[slide_id])
            self._unsaved.discard(slide_id)

    def _write(self, project: Project, layer: LesionLayer) -> None:
        with self._writing:  # one after the other; each writes what is true when its turn comes
            if self._layers.get(layer.slide_id) is layer:
                project.save_lesions(layer.slide_id, layer.lesions)

    def _write_behind(self, project: Project, layer: LesionLayer) -> None:
        slide_id = layer.slide_id
        self._behind.add(slide_id)

        def done(_: None) -> None:
            self._behind.discard(slide_id)
            self._saved()

        def failed(error: Exception) -> None:
            self._behind.discard(slide_id)
            if self._layers.get(slide_id) is layer:
                self._unsaved.add(slide_id)
                self.autosave.touch()
                self._session.say(f"Not saved yet, trying again: {sentence_of(error)}", "error")

        self._session.background.run(lambda: self._write(project, layer), done, failed)

    def _saved(self) -> None:
        self.changed.emit()
        self._session.obstacles.outdate()

    # drawing

    def use_tool(self, tool: str) -> None:
        """Draw with a tool: pan, select, polygon, lasso, rectangle, ellipse."""
        if self.layer is not None:
            self.layer.set_tool(tool)
            self.changed.emit()

    def use_class(self, name: str) -> None:
        """Class of what is drawn next, and of the selected outlines."""
        if self.layer is not None:
            self.layer.set_class(name)
            self.changed.emit()

    def undo(self) -> None:
        """Take back the last change of the outlines."""
        if self.layer is not None:
            self.layer.undo()

    def redo(self) -> None:
        """Make the change that was taken back."""
        if self.layer is not None:
            self.layer.redo()

    # files

    @property
    def origin_px(self) -> tuple[int, int]:
        """Where the scanned part of the slide begins, (x, y) level-0 px: QuPath counts from there."""
        return (
            (0, 0)
            if self._stage.slide is None
            else (int(self._stage.slide.bounds[0]), int(self._stage.slide.bounds[1]))
        )

    def import_file(self, path: Path, *, from_origin: bool = False) -> None:
        """Add the outlines of a file to the slide's.

        Parameters
        ----------
        path : Path
        from_origin : bool
            The file counts from where the scanned part begins (`origin_px`), as QuPath does.
        """
        layer = self.layer
        if layer is None:
            return
        origin = self.origin_px if from_origin else (0, 0)

        def read() -> LesionSet:
            from napari_mil.lesion import read_lesions
            from napari_mil.lesion.change import shift

            lesions = read_lesions(path)
            return shift(lesions, *origin) if any(origin) else lesions

        def add(lesions: LesionSet) -> None:
            from napari_mil.lesion import merge

            if layer is not self._layers.get(layer.slide_id):
                return  # the project was closed meanwhile
            new = merge(layer.lesions, lesions)[1]
            if new:
                layer.add(new)
            known = f" {len(lesions) - len(new)} were there already." if len(new) < len(lesions) else ""
            problems = f" {len(lesions.problems)} needed mending: {lesions.problems[0]}" if lesions.problems else ""
            self._session.say(f"{count(len(new), 'outline')} imported from {path.name}.{known}{problems}")

        self._session.background.run(read, add, self._session.failed)

    def import_folder(self, folder: Path, then: Any = None) -> None:
        """Add a folder of files to the slides they belong to, and report what fitted."""
        project = self._session.project
        if project is None:
            return
        from napari_mil.study.annotations import import_annotations

        self.flush()
        self._importing += 1

        def ended() -> bool:
            if self._session.project is not project:
                return False
            self._importing -= 1
            if self._unsaved:
                self.autosave.touch()
            return True

        def done(report: Any) -> None:
            if not ended():
                return
            from napari_mil.lesion import merge

            for slide_id in report.added:
                layer = self._layers.get(slide_id)
                if layer is not None:  # what was drawn meanwhile stays
                    merged, new = merge(layer.lesions, project.lesions(slide_id))
                    if new:
                        layer.set_lesions(merged, "import")
            self._session.slides.changed.emit(set(report.added))
            self._session.say(report.sentences[0])
            if then is not None:
                then(list(report.sentences))

        def failed(error: Exception) -> None:
            if ended():
                self._session.failed(error)

        self._session.background.run(lambda: import_annotations(project, folder), done, failed)

    def export(self, path: Path) -> None:
        """Write the slide's outlines to a file."""
        if self.layer is None:
            return
        from napari_mil.lesion import write_lesions

        try:
            write_lesions(self.layer.lesions, path)
        except (MilError, OSError) as error:
            self._session.failed(error)
            return
        self._session.say(f"{count(len(self.layer.lesions), 'outline')} written to {path}.")
