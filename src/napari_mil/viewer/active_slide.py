"""One slide at a time: switching swaps its layers and keeps its camera, outlines, undo and maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from .navigation import camera_state, fit, restore_camera
from .slide_layer import SlideLayers, show_slide
from .tags import find_layers, tag_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mil.slide import Slide

OF_THE_SLIDE = ("overview", "slide", "associated")


@dataclass
class _Stash:
    """What a slide leaves behind when another one is shown."""

    layers: list[Layer] = field(default_factory=list)
    camera: dict[str, Any] | None = None


class ActiveSlide:
    """Shows one slide of many. Layers without our tag, or of no slide, are left alone.

    Signals
    -------
    changing(str | None)
        The slide that is about to be left: save what belongs to it.
    changed(SlideLayers | None)
        The slide that is shown now.
    """

    changing = Signal(object)
    changed = Signal(object)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.current: SlideLayers | None = None
        self._stashes: dict[str, _Stash] = {}

    @property
    def slide_id(self) -> str | None:
        """The slide that is shown."""
        return None if self.current is None else self.current.slide_id

    def show(
        self,
        slide_id: str,
        open_slide: Callable[[], Slide],
        *,
        name: str | None = None,
        camera: dict[str, Any] | None = None,
        again: bool = False,
    ) -> SlideLayers:
        """Show a slide instead of the present one.

        Parameters
        ----------
        slide_id : str
        open_slide : callable
            Opens it; called before anything is taken away, so that a slide which can't be opened changes nothing.
            The slide is closed when another one is shown.
        name : str, optional
            Name of its image layer.
        camera : dict, optional
            A `camera_state` to start from where this slide was not shown before.
        again : bool
            Also when it is shown already: it is opened otherwise now.

        Raises
        ------
        SlideError
            From `open_slide`.
        """
        if self.current is not None and self.current.slide_id == slide_id and not again:
            return self.current
        slide = open_slide()
        old = self._leave()
        self.current = show_slide(self.viewer, slide, slide_id=slide_id, name=name, instead_of=old)
        if old is not None:
            old.slide.close()
        stash = self._stashes.pop(slide_id, _Stash())
        for layer in stash.layers:
            if layer not in self.viewer.layers:
                self.viewer.layers.append(layer)
        if not restore_camera(self.viewer, stash.camera or camera):
            fit(self.viewer)
        self.changed.emit(self.current)
        return self.current

    def close(self) -> None:
        """Show no slide; layers of the last one are put away with it."""
        old = self._leave()
        if old is not None:
            old.remove()
            old.slide.close()
            self.changed.emit(None)

    def forget(self, slide_id: str) -> None:
        """Drop what was put away for a slide (its file moved, its project closed)."""
        self._stashes.pop(slide_id, None)

    def forget_all(self) -> None:
        """Drop everything that was put away."""
        self._stashes.clear()

    def camera_of(self, slide_id: str) -> dict[str, Any] | None:
        """Where the camera stands, or stood when the slide was left; for saving a session."""
        if slide_id == self.slide_id:
            return camera_state(self.viewer)
        stash = self._stashes.get(slide_id)
        return None if stash is None else stash.camera

    def stashed_layers(self, slide_id: str) -> list[Layer]:
        """Layers put away with a slide that is not shown now."""
        stash = self._stashes.get(slide_id)
        return [] if stash is None else list(stash.layers)

    def _leave(self) -> SlideLayers | None:
        """Put away what belongs to the slide, its own layers excepted."""
        shown = self.current
        if shown is None:
            return None
        self.changing.emit(shown.slide_id)
        stash = _Stash(camera=camera_state(self.viewer))
        for layer in find_layers(self.viewer, slide_id=shown.slide_id):
            if tag_of(layer)["kind"] not in OF_THE_SLIDE:
                stash.layers.append(layer)
                self.viewer.layers.remove(layer)
        self._stashes[shown.slide_id] = stash
        self.current = None
        return shown
