"""Attention maps as image layers: one pixel per patch cell, exactly over its patch, with colour bar and badge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .tags import UM, find_layers, tag, tag_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_mil.maps import AttentionMap

COLORMAPS = ("inferno", "viridis", "magma", "turbo")
RESEARCH_ONLY = "Research use only"
BADGE_OVERLAY = "mil_badge"
BADGE_COLORS = {"TRAIN": "#e6550d", "VALIDATION": "#e6ab02", "TEST": "#1b9e77", "NEW": "#7570b3"}
"""Maps of training slides look right by construction: the badge says where the slide stood."""


def layer_name(title: str, normalisation: str, badge: str | None, smoothed: bool = False) -> str:
    """Name of a map's layer: "Attention (percentile) · TRAIN"."""
    words = f"{normalisation}, smoothed" if smoothed else normalisation
    return f"{title} ({words})" + (f" · {badge}" if badge else "")


def contrast_limits(data: npt.NDArray[Any], normalisation: str) -> tuple[float, float]:
    """Ends of the colour bar: 0–100 for percentiles, else the finite range (never empty)."""
    if normalisation == "percentile":
        return 0.0, 100.0
    finite = data[np.isfinite(data)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low, low + max(abs(low), 1.0) * 1e-6)


def smooth_map(data: npt.NDArray[np.float32], sigma_cells: float = 1.0) -> npt.NDArray[np.float32]:
    """Gaussian smoothing of a map that ignores NaN cells and leaves them NaN; opt-in, and said in the name."""
    from scipy.ndimage import gaussian_filter

    known = np.isfinite(data)
    weight = gaussian_filter(known.astype(np.float64), sigma_cells)
    total = gaussian_filter(np.where(known, data, 0.0).astype(np.float64), sigma_cells)
    smoothed = np.full(data.shape, np.nan)
    np.divide(total, weight, out=smoothed, where=known)
    return smoothed.astype(np.float32)


def show_map(
    viewer: ViewerModel,
    attention_map: AttentionMap,
    *,
    badge: str | None = None,
    name: str = "Attention",
    slide_id: str | None = None,
    colormap: str = "inferno",
    opacity: float = 0.6,
    smooth: float | None = None,
    key: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Image:
    """Show an attention map over its slide; the same map again (by `key`) updates its layer.

    Parameters
    ----------
    viewer : napari viewer
    attention_map : AttentionMap
        Its `data` (rows, cols), `scale` and `translate` place one pixel on each cell, in µm; NaN is transparent.
    badge : str, optional
        TRAIN, VALIDATION, TEST or NEW: the role of the slide in the training of the model.
    name, slide_id, key : str, optional
        What the layer is called, whose it is, and what it is known by when shown again (the name otherwise).
    colormap : str
    opacity : float
    smooth : float, optional
        Width of a smoothing in cells; off by default and said in the layer's name.
    limits : (low, high), optional
        Ends of the colour bar; `contrast_limits` where not given.
    """
    from napari.layers import Image

    data = attention_map.data if smooth is None else smooth_map(attention_map.data, smooth)
    key = key or name
    shown: dict[str, Any] = {
        "name": layer_name(name, attention_map.normalisation, badge, smooth is not None),
        "scale": attention_map.scale,
        "translate": attention_map.translate,
        "contrast_limits": limits or contrast_limits(data, attention_map.normalisation),
    }
    metadata = tag("map", slide_id, key=key, badge=badge, normalisation=attention_map.normalisation)
    old = [layer for layer in find_layers(viewer, "map", slide_id) if tag_of(layer).get("key") == key]
    if old:
        layer: Image = old[-1]
        layer.data = data
        for attribute, value in shown.items():
            setattr(layer, attribute, value)
        layer.metadata = metadata
    else:
        layer = Image(
            data,
            rgb=False,
            units=UM,
            colormap=colormap,
            opacity=opacity,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            metadata=metadata,
            **shown,
        )
        layer.colorbar.visible = True
        viewer.layers.insert(_index_above_slide(viewer), layer)
    update_badge(viewer)
    return layer


def _index_above_slide(viewer: ViewerModel) -> int:
    """Above slide, tissue, patches and maps; below lesions and other plugins' layers that lie higher."""
    below = ("overview", "slide", "associated", "tissue", "patches", "map")
    ours = [i for i, layer in enumerate(viewer.layers) if tag_of(layer).get("kind") in below]
    return ours[-1] + 1 if ours else len(viewer.layers)


def update_badge(viewer: ViewerModel) -> None:
    """Paint the badges of the visible maps and "Research use only" on the canvas; nothing without a map."""
    from napari.components.overlays import TextOverlay

    overlays = viewer.canvas.overlays
    visible = [layer for layer in find_layers(viewer, "map") if layer.visible]
    badges = list(dict.fromkeys(str(tag_of(layer).get("badge") or "NEW") for layer in visible))
    if BADGE_OVERLAY not in overlays:
        overlays[BADGE_OVERLAY] = TextOverlay(position="top_left", font_size=12)
    overlay = overlays[BADGE_OVERLAY]
    overlay.text = " · ".join([*badges, RESEARCH_ONLY])
    overlay.color = BADGE_COLORS.get(badges[0], "white") if badges else "white"
    overlay.visible = bool(visible)


class MapToggle:
    """Key C hides all maps, and shows again those it hid; badge and colour bars follow their maps."""

    def __init__(self, viewer: ViewerModel, key: str = "C") -> None:
        self._viewer = viewer
        self._key = key
        self._hidden: list[Layer] = []
        viewer.bind_key(key, self._pressed, overwrite=True)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        for layer in find_layers(viewer):
            self._take(layer)

    def _pressed(self, _: Any) -> None:
        self.toggle()

    def toggle(self) -> bool:
        """Hide the visible maps, or show again the ones hidden last; True when maps are shown now."""
        visible = [layer for layer in find_layers(self._viewer, "map") if layer.visible]
        if visible:
            self._hidden = visible
            for layer in visible:
                layer.visible = False
            return False
        again = [layer for layer in self._hidden if layer in self._viewer.layers]
        for layer in again or find_layers(self._viewer, "map"):
            layer.visible = True
        return True

    def _take(self, layer: Layer) -> None:
        # on an image of its own, C means something else to napari; on ours it is the maps
        layer.bind_key(self._key, self._pressed, overwrite=True)
        if tag_of(layer).get("kind") == "map":
            layer.events.visible.connect(self._follow)
            update_badge(self._viewer)

    def _give_back(self, layer: Layer) -> None:
        layer.bind_key(self._key, None)
        if tag_of(layer).get("kind") == "map":
            layer.events.visible.disconnect(self._follow)

    def _on_inserted(self, event: Any) -> None:
        if tag_of(event.value):
            self._take(event.value)

    def _on_removed(self, event: Any) -> None:
        if tag_of(event.value):
            self._give_back(event.value)
            update_badge(self._viewer)

    def _follow(self, _: Any = None) -> None:
        update_badge(self._viewer)

    def close(self) -> None:
        """Give the key back."""
        self._viewer.bind_key(self._key, None)
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        for layer in find_layers(self._viewer):
            self._give_back(layer)
