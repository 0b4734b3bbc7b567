"""Where one is on the slide and how near: magnification, position, scale bar, minimap, camera.

The world is in µm, so the camera's zoom is canvas pixels per µm and the seen µm per pixel is its inverse. Objectives
follow the scanner makers' rule of thumb of 10 µm/px at 1x: 40x is 0.25 µm/px, 20x is 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.geometry import raster_transform, world_to_level0

from .tags import find_layers, tag_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from .slide_layer import SlideLayers

UM_PER_PX_AT_1X = 10.0
OBJECTIVES = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0)
"""Objectives of the jump buttons."""


def mpp_of(objective: float) -> float:
    """µm per canvas pixel at an objective's magnification (40x → 0.25)."""
    return UM_PER_PX_AT_1X / objective


def current_mpp(viewer: ViewerModel) -> float:
    """µm (pixels where the slide's scale is unknown) that one canvas pixel shows."""
    return 1.0 / float(viewer.scene.camera.zoom)


def magnification(viewer: ViewerModel) -> float:
    """The objective that the present zoom corresponds to (20.0 for 0.5 µm per canvas pixel)."""
    return UM_PER_PX_AT_1X / current_mpp(viewer)


def set_magnification(viewer: ViewerModel, objective: float) -> None:
    """Zoom to an objective's magnification, keeping the centre."""
    viewer.scene.camera.zoom = 1.0 / mpp_of(objective)


def go_to(viewer: ViewerModel, position: Sequence[float], objective: float | None = None) -> None:
    """Centre the view on a world position (y, x) in µm, at an objective's magnification where given."""
    viewer.scene.camera.center = (0.0, float(position[0]), float(position[1]))
    if objective is not None:
        set_magnification(viewer, objective)


def fit(viewer: ViewerModel) -> None:
    """Show the whole slide (or, without one, everything)."""
    layers = find_layers(viewer, "overview") or None
    viewer.fit_to_view(layers=layers)


def position_um(viewer: ViewerModel) -> tuple[float, float]:
    """The cursor's world position (x, y) in µm."""
    y, x = viewer.cursor.position[-2:]
    return float(x), float(y)


def readout_text(viewer: ViewerModel) -> str:
    """Magnification, scale and cursor position in one line; honest where the slide's scale is unknown."""
    x, y = position_um(viewer)
    if not scale_known(viewer):
        return f"scale unknown · x {x:,.0f} px, y {y:,.0f} px"
    nominal = magnification(viewer)
    shown = f"{nominal:.0f}x" if nominal >= 9.95 else f"{nominal:.2g}x"
    return f"{shown} · {current_mpp(viewer):.3g} µm/px · x {x:,.0f} µm, y {y:,.0f} µm"


def scale_known(viewer: ViewerModel) -> bool:
    """Whether the shown slide's µm per pixel is known."""
    slides = find_layers(viewer, "slide")
    return bool(slides) and tag_of(slides[-1]).get("mpp") is not None


def show_scale_bar(viewer: ViewerModel, visible: bool = True) -> None:
    """The scale bar; it speaks µm because every layer of ours has units."""
    viewer.canvas.overlays.scale_bar.visible = visible


def camera_state(viewer: ViewerModel) -> dict[str, Any]:
    """Centre (y, x) and zoom, as plain numbers that JSON can hold."""
    camera = viewer.scene.camera
    return {"center": [float(v) for v in camera.center[-2:]], "zoom": float(camera.zoom)}


def restore_camera(viewer: ViewerModel, state: dict[str, Any] | None) -> bool:
    """Go back to a state of `camera_state`; False (and nothing done) when it makes no sense."""
    if not isinstance(state, dict):
        return False
    try:
        y, x = (float(v) for v in state["center"])
        zoom = float(state["zoom"])
    except (KeyError, TypeError, ValueError):
        return False
    if not (np.isfinite([y, x, zoom]).all() and zoom > 0):
        return False
    viewer.scene.camera.center = (0.0, y, x)
    viewer.scene.camera.zoom = zoom
    return True


def view_rectangle(viewer: ViewerModel) -> tuple[float, float, float, float]:
    """What the canvas shows: y_min, x_min, y_max, x_max in the world (µm)."""
    height, width = viewer.canvas.size
    half_y, half_x = height * current_mpp(viewer) / 2, width * current_mpp(viewer) / 2
    y, x = viewer.scene.camera.center[-2:]
    return y - half_y, x - half_x, y + half_y, x + half_x


@dataclass(frozen=True)
class MinimapState:
    """What a minimap paints.

    Attributes
    ----------
    thumbnail : (h, w, 3) uint8
    view : (left, top, right, bottom) in thumbnail pixels, not clipped to it.
    """

    thumbnail: npt.NDArray[np.uint8]
    view: tuple[float, float, float, float]


def minimap_state(viewer: ViewerModel, shown: SlideLayers) -> MinimapState:
    """The slide's thumbnail and the rectangle of it that the canvas shows."""
    thumbnail = shown.overview.data
    y0, x0, y1, x1 = view_rectangle(viewer)
    mpp = shown.slide.mpp or (1.0, 1.0)
    size = np.asarray(shown.slide.dimensions, dtype=float)
    pixels = np.array([thumbnail.shape[1], thumbnail.shape[0]])
    corners = world_to_level0([(y0, x0), (y1, x1)], mpp) / size * pixels
    return MinimapState(thumbnail, (*corners[0].tolist(), *corners[1].tolist()))


def minimap_to_world(shown: SlideLayers, x: float, y: float) -> tuple[float, float]:
    """World position (y, x) of a point (x, y) of the minimap's thumbnail, for a click on it."""
    thumbnail = shown.overview.data
    width, height = shown.slide.dimensions
    cell = (width / thumbnail.shape[1], height / thumbnail.shape[0])
    scale, translate = raster_transform((0, 0), cell, shown.slide.mpp or (1.0, 1.0))
    return (y - 0.5) * scale[0] + translate[0], (x - 0.5) * scale[1] + translate[1]
