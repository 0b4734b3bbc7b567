"""`napari-mil` without a command: napari with the dock, on a project if one is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

    from .dock import MilDock


def make_window(project: Path | str | None = None, *, show: bool = True) -> tuple[napari.Viewer, MilDock]:
    """A napari window with the dock; the project is opened if given."""
    import napari

    from .dock import MilDock

    viewer = napari.Viewer(title="napari-mil", show=show)
    dock = MilDock(viewer)
    viewer.window.add_dock_widget(dock, name="MIL", area="right", add_vertical_stretch=False)
    if project is not None:
        dock.session.open_or_create(Path(project))
    return viewer, dock


def launch(project: Path | str | None = None) -> None:
    """Open the window and stay until it is closed."""
    import napari

    make_window(project)
    napari.run()
