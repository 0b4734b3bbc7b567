"""Slides that were opened without the dock (File › Open): shown without waiting, closed with their layer."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QCoreApplication, QThread, QTimer

from .refresh import TileRefresher
from .settings import apply_cache_limit, read_settings
from .tags import tag_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mil.slide import Slide

GIVE_UP_MS = 60_000
"""A slide that no layer shows by then was opened in vain."""

_tokens = itertools.count(1)
_opened: dict[int, OpenedSlide] = {}


def can_follow() -> bool:
    """Whether this is the thread of a window that could be told of tiles that arrive."""
    app = QCoreApplication.instance()
    return app is not None and QThread.currentThread() == app.thread()


class OpenedSlide:
    """An open slide, its never-waiting levels, and whoever shows them.

    Attributes
    ----------
    levels : list of array-likes
        For a multiscale layer whose tag has `token`.
    token : int
        How the layers that show it are known; plain, so that a layer can be copied.
    """

    def __init__(self, slide: Slide) -> None:
        if (settings := read_settings()).tile_cache_mb:
            apply_cache_limit(settings)
        self.slide = slide
        self.token = next(_tokens)
        self._refresher = TileRefresher(self._redraw)
        self._view = slide.view(self._refresher.arrived)
        self._refresher.watch(self._view)
        self.levels = list(self._view.array_likes)
        self._viewer: ViewerModel | None = None
        _opened[self.token] = self
        QTimer.singleShot(0, self._look_for_layers)
        QTimer.singleShot(GIVE_UP_MS, self._give_up)

    def _layers(self) -> list[Layer]:
        viewer = self._viewer or _current_viewer()
        if viewer is None:
            return []
        return [layer for layer in viewer.layers if tag_of(layer).get("token") == self.token]

    def _look_for_layers(self) -> None:
        if self._viewer is None and self._layers():
            self._viewer = _current_viewer()
            assert self._viewer is not None
            self._viewer.layers.events.removed.connect(self._on_removed)

    def _give_up(self) -> None:
        if not self._layers():
            self.close()

    def _redraw(self) -> None:
        self._look_for_layers()
        for layer in self._layers():
            if layer.visible:
                layer.refresh(extent=False, thumbnail=False, highlight=False)

    def _on_removed(self, _: Any) -> None:
        if not self._layers():
            self.close()

    def close(self) -> None:
        """End the threads, close the file."""
        if _opened.pop(self.token, None) is None:
            return
        if self._viewer is not None:
            self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._refresher.close()
        self._view.close()
        self.slide.close()


def _current_viewer() -> ViewerModel | None:
    import napari

    viewer: ViewerModel | None = napari.current_viewer()
    return viewer
