"""The slide table of the open project: rows that a person changes, adds, reads from a table, and walks through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from .thumbnails import slide_thumbnail
from .words import count

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mil.study import Project, SlideRow

    from .session import Session


class SlideTable:
    """Slides of the project.

    Attributes
    ----------
    order : callable () -> list of slide ids
        The slides as the person sees them; empty: the project's order.

    Signals
    -------
    changed(set of slide ids or None)
        Rows changed, None: any of them.
    """

    changed = Signal(object)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.order: Callable[[], list[str]] = list

    @property
    def _project(self) -> Project | None:
        return self._session.project

    @property
    def label_names(self) -> list[str]:
        """Labels of the slides, the negative one first."""
        return list(self._project.config.label_names) if self._project else []

    @property
    def survival(self) -> bool:
        """Whether the slides have times and events in place of labels."""
        rows = self._project.slides if self._project else []
        return any(r.known(survival=True) for r in rows) and not any(r.label for r in rows)

    def row_of(self, slide_id: str | None) -> SlideRow | None:
        """Row of a slide in the table."""
        if self._project is None or slide_id is None:
            return None
        return self._project.slide(slide_id) if slide_id in self._project.slide_ids else None

    def update(self, slide_ids: Sequence[str], **fields: Any) -> bool:
        """Change fields of slides; False, and a sentence, when a change makes no sense."""
        if self._project is None:
            return False
        try:
            self._project.update_slides(dict.fromkeys(slide_ids, fields))
        except (MilError, ValueError, OSError) as error:
            self._session.say(str(error), "warning")
            return False
        self.changed.emit(set(slide_ids))
        if self._session.stage.slide_id in slide_ids:
            self._session.stage.patches.update()  # label and completeness say what its patches count as
        return True

    def step(self, step: int) -> None:
        """Show the next (1) or the previous (-1) slide."""
        if self._project is None or not self._project.slides:
            return
        ids = self.order() or self._project.slide_ids
        here = ids.index(self._session.stage.slide_id) if self._session.stage.slide_id in ids else -1 if step > 0 else 0
        self._session.stage.show(ids[(here + step) % len(ids)])

    def set_negative_label(self, name: str) -> None:
        """Say which label is the negative one; models count their classes from it."""
        if self._project is None or self.label_names[:1] == [name]:
            return
        try:
            self._project.set_label_names([name, *(n for n in self.label_names if n != name)])
        except (MilError, OSError) as error:
            self._session.failed(error)
            return
        self._session.say(f"“{name}” is the negative label now: its slides count as free of lesions.")
        self.changed.emit(None)
        self._session.stage.patches.update()

    def propose_split(self) -> None:
        """Give every slide a role: 60 % train, 20 % validation, 20 % test, patients kept together."""
        if self._project is None:
            return
        try:
            self._project.set_roles(self._project.propose_split())
        except (MilError, OSError) as error:
            self._session.failed(error)
            return
        self.changed.emit(None)

    def add(self, folder: Path) -> None:
        """Add the slides of a folder."""
        project = self._project
        if project is None:
            return

        def added(new: list[str]) -> None:
            if self._project is project:
                self._session.say(f"{count(len(new), 'slide')} added from {folder.name}.")
                self.look_again()

        self._session.background.run(lambda: project.add_slides(folder), added, self._session.failed)

    def look_again(self) -> None:
        """Any row may be another now, and what is prepared."""
        self._session.preparation.look()
        self.changed.emit(None)

    def read_table(self, path: Path, mapping: dict[str, str]) -> None:
        """Take labels, patients and roles from a table."""
        if self._project is None:
            return
        try:
            sentence = self._project.merge_table(path, mapping)
        except (MilError, OSError) as error:
            self._session.failed(error)
            return
        self._session.say(sentence)
        self.look_again()
        self._session.stage.patches.update()

    def set_mpp(self, mpp: float, scope: str = "slide") -> None:
        """Say how many µm a pixel of the shown slide is: for the slide alone, its "folder" or its "scanner"."""
        stage = self._session.stage
        if self._project is None or stage.slide_id is None or stage.slide is None:
            return
        if not 0.05 <= mpp <= 20:
            self._session.say(
                f"{mpp} µm per pixel is not plausible; expected 0.05 to 20 (20x: about 0.5, 40x: about 0.25)."
            )
            return
        try:
            scanner = stage.slide.vendor if scope == "scanner" else None
            self._project.set_mpp(stage.slide_id, mpp, folder=scope == "folder", scanner=scanner)
        except (MilError, OSError) as error:
            self._session.failed(error)
            return
        stage.set_mpp(mpp)
        self._session.preparation.look()
        self.changed.emit(None)

    def thumbnail(self, slide_id: str, then: Callable[[npt.NDArray[Any]], object]) -> None:
        """Hand over a slide's small picture when it is there; a slide that can't be read gets none."""
        if self._project is None:
            return
        project, path = self._project, self._project.slide_path(slide_id)

        def arrived(picture: npt.NDArray[Any]) -> None:
            if self._project is project:
                then(picture)

        def failed(error: Exception) -> None:
            if self._project is project:
                self._session.preparation.unreadable(slide_id, error)

        def read() -> npt.NDArray[Any]:
            return slide_thumbnail(path, srgb=project.config.color == "srgb")

        self._session.background.run(read, arrived, failed, patient=True)
