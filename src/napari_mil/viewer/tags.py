"""How our layers are known again: by a tag in their metadata, never by name or order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

KEY = "napari_mil"
"""Where a layer's metadata hold our tag."""

UM = ("µm", "µm")
PIXEL = ("pixel", "pixel")


def tag(kind: str, slide_id: str | None = None, **more: Any) -> dict[str, Any]:
    """Metadata of one of our layers.

    Parameters
    ----------
    kind : str
        "slide", "overview", "associated", "lesions", "map", "patches" or "tissue".
    slide_id : str, optional
        The slide that the layer belongs to; layers of one slide come and go together.
    """
    return {KEY: {"kind": kind, "slide_id": slide_id, **more}}


def tag_of(layer: Layer) -> dict[str, Any]:
    """Our tag on a layer; empty when the layer is not ours."""
    value = layer.metadata.get(KEY)
    return value if isinstance(value, dict) else {}


def is_ours(layer: Layer) -> bool:
    """Whether a layer carries our tag."""
    return bool(tag_of(layer))


def find_layers(viewer: ViewerModel, kind: str | None = None, slide_id: str | None = None) -> list[Layer]:
    """Our layers in the viewer, bottom first, of one kind or one slide where asked."""
    return [
        layer
        for layer in viewer.layers
        if (own := tag_of(layer))
        and (kind is None or own.get("kind") == kind)
        and (slide_id is None or own.get("slide_id") == slide_id)
    ]


def units_of(mpp: Sequence[float] | None) -> tuple[str, str]:
    """Units of a layer: µm where the slide's scale is known, else pixels."""
    return PIXEL if mpp is None else UM


def top_index(viewer: ViewerModel, kinds: Sequence[str], slide_id: str | None) -> int:
    """Where to insert a layer so that it lies just above the slide's layers of these kinds."""
    wanted = [i for i, layer in enumerate(viewer.layers) if tag_of(layer).get("kind") in kinds]
    own = [i for i in wanted if slide_id is None or tag_of(viewer.layers[i]).get("slide_id") == slide_id]
    return own[-1] + 1 if own else len(viewer.layers)
