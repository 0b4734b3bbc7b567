"""Tissue, patches and patch labels of the slide on stage, worked out behind and shown as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal
from qtpy.QtCore import QTimer

from .background import sentence_of
from .preview_layers import show_patches, show_tissue
from .tags import find_layers

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mil.geometry import PatchGrid
    from napari_mil.slide import TissueMask
    from napari_mil.study.prepare import Patches

    from .session import Session
    from .stage import Stage

SOON_MS = 300


class PatchPreview:
    """What would be cut from the slide, and what its outlines make of it.

    Attributes
    ----------
    tissue : TissueMask or None
    grid : PatchGrid or None
    labels : (N,) int8 or None
        1 lesion, 0 not, −1 unknown.
    note : str
        What a person should know about them.
    pending : bool
        Whether they are being worked out.
    showing_tissue, showing_patches : bool
        Whether their layers are shown.

    Signals
    -------
    changed()
        They were worked out anew, or are shown or hidden.
    """

    changed = Signal()

    def __init__(self, session: Session, stage: Stage) -> None:
        self._session, self._stage = session, stage
        self.tissue: TissueMask | None = None
        self.grid: PatchGrid | None = None
        self.labels: npt.NDArray[np.int8] | None = None
        self.note = ""
        self.pending = False
        self.showing_tissue = False
        self.showing_patches = False
        self._asked = 0  # number of the latest question; answers to earlier ones are dropped
        self._working = False
        self._of: object = None  # what tissue and grid were worked out from
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(SOON_MS)
        self._soon.timeout.connect(self._work_out)

    def update(self) -> None:
        """Work them out anew, soon."""
        self.pending = self._stage.slide is not None
        self._soon.start()

    def clear(self) -> None:
        """There is no slide, or another one: nothing is known of it yet."""
        self._asked += 1
        self._soon.stop()
        self.tissue = self.grid = self.labels = None
        self.note, self.pending, self._of = "", False, None

    def close(self) -> None:
        """Work out nothing more."""
        self._asked += 1
        self._soon.stop()

    @property
    def counts(self) -> tuple[int, int, int] | None:
        """Patches in lesions, outside, unknown; None while they are counted."""
        if self.labels is None:
            return None
        return tuple(int((self.labels == v).sum()) for v in (1, 0, -1))  # type: ignore[return-value]

    def _work_out(self) -> None:
        project, slide, slide_id = self._session.project, self._stage.slide, self._stage.slide_id
        if project is None or slide is None or slide_id is None or slide.mpp is None:
            self.clear()
            self.note = "" if slide is None else "The slide's scale is unknown: no patches yet."
            self.changed.emit()
            return
        if self._working:  # one at a time: asked again when it is done
            self._asked += 1
            return
        layer = self._stage.outlines.layer
        lesions = layer.lesions if layer is not None else project.lesions(slide_id)
        config = project.config.model_copy(deep=True)
        mpp = slide.mpp
        known, of = self._known(), self._of
        self._asked += 1
        asked = self._asked
        self._working = self.pending = True

        def work() -> tuple[object, Patches]:
            from napari_mil.lesion import Role
            from napari_mil.study import preview_patches
            from napari_mil.study.bags import labels_of
            from napari_mil.study.prepare import Patches

            ignored = lesions.region(Role.IGNORE, config.classes)
            basis = (slide_id, mpp, config.tissue, config.tile, ignored.wkb)
            if basis == of and known is not None:  # only outlines changed
                labels = labels_of(project, slide_id, known.grid, lesions, config.classes)
                return basis, Patches(known.tissue, known.grid, labels, known.note)
            return basis, preview_patches(project, slide_id, slide, config, lesions)

        def done(result: tuple[object, Patches]) -> None:
            if self._is_stale(asked):
                return
            self._of, found = result
            self.tissue, self.grid, self.labels, self.note = found.tissue, found.grid, found.labels, found.note
            self._show()
            self.changed.emit()

        def failed(error: Exception) -> None:
            if self._is_stale(asked):
                return
            self.tissue = self.grid = self.labels = self._of = None
            self.note = sentence_of(error)
            self._show()
            self.changed.emit()

        self._session.background.run(work, done, failed)

    def _known(self) -> Patches | None:
        if self.tissue is None or self.grid is None or self.labels is None:
            return None
        from napari_mil.study.prepare import Patches

        return Patches(self.tissue, self.grid, self.labels, self.note)

    def _is_stale(self, asked: int) -> bool:
        """The work is over; whether its answer is no longer wanted (then the newest question is asked again)."""
        self._working = False
        if asked == self._asked:
            self.pending = False
            return False
        if self._stage.slide is not None:
            self._soon.start()
        return True

    # on the canvas

    def show_tissue(self, on: bool) -> None:
        """Show or hide the tissue."""
        self.showing_tissue = on
        self._show()
        self.changed.emit()

    def show_patches(self, on: bool) -> None:
        """Show or hide the patches."""
        self.showing_patches = on
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        slide, slide_id, viewer = self._stage.slide, self._stage.slide_id, self._session.viewer
        if slide is None:
            return
        tissue = self.tissue if self.showing_tissue else None
        grid = self.grid if self.showing_patches and self.grid is not None and len(self.grid) else None
        active = viewer.layers.selection.active
        if tissue is not None:
            show_tissue(viewer, tissue, slide.mpp, slide_id=slide_id)
        if grid is not None:
            show_patches(viewer, grid, self.labels, slide_id=slide_id)
        for kind, shown in (("tissue", tissue), ("patches", grid)):
            for layer in find_layers(viewer, kind, slide_id):
                layer.visible = shown is not None
        if active is not None and active in viewer.layers:  # a new layer must not take the drawing tool away
            viewer.layers.selection.active = active
