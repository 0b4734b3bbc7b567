"""The Shapes layer that lesions are seen in: making, filling, colouring, and the width of its lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QCoreApplication, QTimer

from napari_mil.geometry import Pair

from .outlines import Outline, outlines_of
from .tags import tag, units_of
from .triangulation import ensure_triangulation

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Shapes

    from napari_mil.lesion import Lesion

Color = tuple[int, int, int]
FACE_ALPHA = 0.2
LOCKED_FACE_ALPHA = 0.08
MAX_TEXTS = 100
LINE_PX = 2.0
"""Width of an outline on the screen; napari's widths are in the layer's pixels, so they follow the zoom."""


def make_layer(name: str, mpp: Sequence[float] | None, metadata: dict[str, Any]) -> Shapes:
    """An empty Shapes layer over a slide: data (y, x) in level-0 pixels."""
    from napari.layers import Shapes

    ensure_triangulation()
    layer = Shapes(
        ndim=2,
        name=name,
        features=_features([]),
        metadata=metadata,
        opacity=1.0,
        blending="translucent_no_depth",
    )
    layer.text = {"string": "{name}", "size": 10, "color": "dodgerblue", "anchor": "upper_left", "visible": False}
    place(layer, mpp)
    return layer


def place(layer: Shapes, mpp: Sequence[float] | None) -> None:
    """Put the layer over its slide."""
    layer.scale, layer.translate = transform(mpp)
    layer.units = units_of(mpp)


def transform(mpp: Sequence[float] | None) -> tuple[Pair, Pair]:
    """Scale and translate (y, x): level-0 pixel (0, 0) has its centre at 0 µm, while outlines count from its edge."""
    x, y = (1.0, 1.0) if mpp is None else (float(mpp[0]), float(mpp[1]))
    return (y, x), (-y / 2, -x / 2)


def as_layer_data(
    lesions: Iterable[Lesion], name: str, mpp: Sequence[float] | None, path: str
) -> tuple[list[npt.NDArray[np.float32]], dict[str, Any], str]:
    """Layer data tuple of lesions, for a layer that no slide of a project owns."""
    from napari_mil.lesion import LESION_CLASSES

    ensure_triangulation()
    pairs = [(lesion, outline) for lesion in lesions for outline in outlines_of(lesion.id, lesion.geometry)]
    edge, face = _colors([lesion for lesion, _ in pairs], LESION_CLASSES)
    scale, translate = transform(mpp)
    attributes: dict[str, Any] = {
        "name": name,
        "shape_type": "polygon",
        "scale": scale,
        "translate": translate,
        "units": units_of(mpp),
        "features": _features([lesion for lesion, _ in pairs]),
        "metadata": tag("lesions", None, mpp=mpp, path=path),
    }
    if pairs:
        attributes |= {"edge_color": edge, "face_color": face, "edge_width": 4.0}
    else:
        attributes["ndim"] = 2
    return [outline.vertices for _, outline in pairs], attributes, "shapes"


def render(layer: Shapes, target: Sequence[Outline]) -> tuple[Outline, ...]:
    """Make the layer show these outlines; shapes that it shows already stay. The outlines, in the layer's order."""
    wanted: dict[tuple[str, bytes], list[Outline]] = {}
    for outline in target:
        wanted.setdefault(_key(outline.shape_type, outline.vertices), []).append(outline)
    kept: list[Outline] = []
    stale: list[int] = []
    for index, (kind, data) in enumerate(zip(layer.shape_type, layer.data, strict=True)):
        same = wanted.get(_key(str(kind), data))
        if same:
            kept.append(same.pop(0))
        else:
            stale.append(index)
    new = [outline for outlines in wanted.values() for outline in outlines]
    if stale:
        layer.remove(stale)
    if new:
        layer.add([outline.vertices for outline in new], shape_type=[outline.shape_type for outline in new])
    return (*kept, *new)


def _key(shape_type: str, vertices: npt.NDArray[Any]) -> tuple[str, bytes]:
    return shape_type, np.ascontiguousarray(vertices, dtype=np.float32).tobytes()


def color_of(lesion: Lesion, classes: Mapping[str, Color]) -> Color:
    """The lesion's own colour, else its class's."""
    from napari_mil.lesion import class_color

    return lesion.color or class_color(lesion.label, dict(classes))


def _features(lesions: Sequence[Lesion]) -> dict[str, npt.NDArray[Any]]:
    return {
        "id": np.array([lesion.id for lesion in lesions], dtype=object),
        "class": np.array([lesion.label for lesion in lesions], dtype=object),
        "name": np.array([lesion.name for lesion in lesions], dtype=object),
    }


def _colors(lesions: Sequence[Lesion], classes: Mapping[str, Color]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(N, 4) edge and face colours, 0 to 1."""
    colors = np.array([color_of(lesion, classes) for lesion in lesions], dtype=float).reshape(-1, 3) / 255
    alpha = np.array([LOCKED_FACE_ALPHA if lesion.locked else FACE_ALPHA for lesion in lesions])
    return np.column_stack([colors, np.ones(len(lesions))]), np.column_stack([colors, alpha])


def decorate(layer: Shapes, lesions: Sequence[Lesion], classes: Mapping[str, Color]) -> None:
    """Colours, features and texts of the shapes; `lesions` has one entry per shape."""
    layer.features = _features(lesions)
    layer.feature_defaults = {"id": "", "class": "", "name": ""}  # napari's own would repeat the last row
    edge, face = _colors(lesions, classes)
    # a drawing given up leaves its colours behind in napari, so lengths are compared, too
    if edge.shape != np.shape(layer.edge_color) or not np.allclose(edge, layer.edge_color):
        layer.edge_color = edge
    if face.shape != np.shape(layer.face_color) or not np.allclose(face, layer.face_color):
        layer.face_color = face
    layer.text.visible = 0 < len(lesions) <= MAX_TEXTS and any(lesion.name for lesion in lesions)


def set_current_colors(layer: Shapes, color: Color, update_selected: bool) -> None:
    """Colours of the next shape, and of the selected ones where asked."""
    edge = (*(channel / 255 for channel in color), 1.0)
    face = (*edge[:3], FACE_ALPHA)
    if update_selected:
        layer.current_edge_color, layer.current_face_color = edge, face
    else:
        with layer.block_update_properties():
            layer.current_edge_color, layer.current_face_color = edge, face


class Later:
    """Calls something once the present event is over; at once where no event loop runs."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function: Callable[[], object] | None = function
        self._timer: QTimer | None = None

    def call(self) -> None:
        """Call soon, once, however often asked."""
        if QCoreApplication.instance() is None:
            self._run()
            return
        if self._timer is None:
            self._timer = QTimer()
            self._timer.setSingleShot(True)
            self._timer.timeout.connect(self._run)
        self._timer.start(0)

    @property
    def waiting(self) -> bool:
        """Whether a call is to come."""
        return self._timer is not None and self._timer.isActive()

    def _run(self) -> None:
        if self._function is not None:
            self._function()

    def close(self) -> None:
        """Never call again."""
        self._function = None
        if self._timer is not None:
            self._timer.stop()


class WidthFollower:
    """Keeps outlines two pixels wide on the screen, a moment after the zoom came to rest."""

    def __init__(self, viewer: ViewerModel, layer: Shapes, rest_ms: int = 80) -> None:
        self._viewer, self._layer, self._rest_ms = viewer, layer, rest_ms
        self._later = Later(self.update)
        viewer.scene.camera.events.zoom.connect(self._zoomed)
        viewer.layers.events.inserted.connect(self._zoomed)

    def _zoomed(self, _: Any = None) -> None:
        if self._layer not in self._viewer.layers:  # put away with its slide
            return
        if abs(np.log2(self.width / max(self._layer.current_edge_width, 1e-9))) > 0.4:
            self._later.call()

    @property
    def width(self) -> float:
        """Line width in layer pixels that is `LINE_PX` on the screen now."""
        return float(LINE_PX / self._viewer.scene.camera.zoom / self._layer.scale[-1])

    def update(self) -> None:
        """Set the width of all lines now."""
        width = self.width
        with self._layer.block_update_properties():
            self._layer.current_edge_width = width
        if any(abs(w - width) > 0.05 * width for w in self._layer.edge_width):
            self._layer.edge_width = width

    def close(self) -> None:
        """Follow no more."""
        self._later.close()
        self._viewer.scene.camera.events.zoom.disconnect(self._zoomed)
        self._viewer.layers.events.inserted.disconnect(self._zoomed)
