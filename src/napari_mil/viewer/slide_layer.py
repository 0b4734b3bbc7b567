"""A slide in the viewer: an overview under a multiscale image, in µm, and its label and macro pictures, hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_mil.errors import SlideError
from napari_mil.geometry import Pair, raster_transform

from .refresh import TileRefresher
from .tags import tag, tag_of, units_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_mil.slide import Slide, SlideView

OVERVIEW_PX = 1024
LABEL_NAMES = ("label", "macro")
"""Associated pictures offered as layers; they carry names, so they start hidden and unread."""


class SlideLayers:
    """The layers of one shown slide.

    What the image layer's `data` give is for the eye: a tile that is not there yet is answered from a coarser level,
    so that the window never waits. For exact pixels ask `slide.read` or `slide.pyramid()`.

    Parameters
    ----------
    viewer, slide, slide_id, name
        As for `show_slide`.
    instead_of : SlideLayers, optional
        A slide that is shown now: its layers are taken over (adding and removing layers is slow in napari) and its
        view is closed.

    Attributes
    ----------
    slide : Slide
    slide_id : str
    image, overview : Image
        The multiscale image, and the thumbnail that lies under it.
    associated : list of Image
        Label and macro, hidden until asked for.

    Signals
    -------
    redrawn()
        Tiles have arrived and are shown; there may be new `problems`.
    """

    redrawn = Signal()

    def __init__(
        self, viewer: ViewerModel, slide: Slide, slide_id: str, name: str, instead_of: SlideLayers | None = None
    ) -> None:
        from napari.settings import get_settings

        self.viewer, self.slide, self.slide_id, self.name = viewer, slide, slide_id, name
        self._refresher = TileRefresher(self._redraw)
        self._view: SlideView = slide.view(self._refresher.arrived)
        self._refresher.watch(self._view)
        self._closed = False
        self._shown = True
        self.image: Image
        self.overview: Image
        self.associated: list[Image] = []
        self._make_layers(instead_of)
        viewer.layers.events.removed.connect(self._on_removed)
        get_settings().experimental.events.async_.connect(self._on_async)
        self._on_async()

    def _make_layers(self, old: SlideLayers | None) -> None:
        spare: dict[str, Image] = {}
        if old is not None:
            old.close()
            spare = {which: layer for which, layer in old._by_kind().items() if layer in self.viewer.layers}
        thumbnail = self.slide.thumbnail(OVERVIEW_PX)
        scale, translate = self._overview_transform(thumbnail)
        self.overview = self._layer(spare.pop("overview", None), thumbnail, "overview", scale, translate)
        self.image = self._layer(spare.pop("slide", None), list(self._view.array_likes), "slide", self._scale())
        there = set(self.slide.associated)  # names only: asking whether one is in it would read it
        for which in LABEL_NAMES:
            if which in there:
                # the picture is read when it is made visible for the first time
                blank = np.full((1, 1, 3), 255, dtype=np.uint8)
                layer = self._layer(spare.pop(which, None), blank, "associated", (1.0, 1.0), which=which, read=False)
                layer.events.visible.connect(self._on_label_visible)
                self.associated.append(layer)
        for layer in spare.values():
            self.viewer.layers.remove(layer)
        for index, layer in enumerate(self.layers):
            if layer not in self.viewer.layers:
                self.viewer.layers.insert(index, layer)

    def _layer(
        self, old: Image | None, data: Any, kind: str, scale: Pair, translate: Pair = (0.0, 0.0), **more: Any
    ) -> Image:
        """A layer of ours; an old one is told what it shows from now on."""
        from napari.layers import Image

        mpp = self.slide.mpp
        name = {"slide": self.name}.get(kind, f"{self.name} {more.get('which', kind)}")
        metadata = tag(kind, self.slide_id, path=str(self.slide.path), mpp=mpp, **more)
        placed: dict[str, Any] = {"name": name, "scale": scale, "translate": translate, "units": units_of(mpp)}
        if old is None:
            image: Image = Image(
                data,
                rgb=True,
                multiscale=kind == "slide",
                cache=False,
                interpolation2d="linear" if kind == "overview" else "nearest",
                visible=kind == "slide",
                metadata=metadata,
                **placed,
            )
            return image
        old.visible = False  # nothing is sliced while it is neither the old nor the new
        old.metadata = metadata
        old.data = data
        for attribute, value in placed.items():
            setattr(old, attribute, value)
        old.visible = kind == "slide"
        return old

    def _by_kind(self) -> dict[str, Image]:
        labels = {tag_of(layer)["which"]: layer for layer in self.associated}
        return {"overview": self.overview, "slide": self.image, **labels}

    def _scale(self) -> Pair:
        mpp = self.slide.mpp
        return (1.0, 1.0) if mpp is None else (mpp[1], mpp[0])

    def _overview_transform(self, thumbnail: npt.NDArray[np.uint8]) -> tuple[Pair, Pair]:
        width, height = self.slide.dimensions
        cell = (width / thumbnail.shape[1], height / thumbnail.shape[0])
        return raster_transform((0, 0), cell, self.slide.mpp or (1.0, 1.0))

    def _on_label_visible(self, event: Any) -> None:
        layer: Image = event.source
        own = tag_of(layer)
        if own.get("read") or not layer.visible:
            return
        own["read"] = True
        layer.data = np.asarray(self.slide.associated[own["which"]])[..., :3]
        self._place_label(layer)

    def _place_label(self, layer: Image) -> None:
        """To the right of the slide, a quarter of its height."""
        width, height = self.slide.dimensions
        scale = self._scale()
        row = self.associated.index(layer)
        size = 0.25 * height * scale[0] / layer.data.shape[0]
        layer.scale = (size, size)
        layer.translate = (row * 0.27 * height * scale[0], 1.03 * width * scale[1])

    @property
    def layers(self) -> list[Layer]:
        """All our layers of the slide, bottom first."""
        return [self.overview, self.image, *self.associated]

    @property
    def settled(self) -> bool:
        """Whether every tile that the window asked for is there and drawn."""
        return self._view.settled and not self._view.outdated

    @property
    def mpp_known(self) -> bool:
        """Whether the slide says, or was told, how many µm a pixel is; until then everything is in pixels."""
        return self.slide.mpp is not None

    @property
    def problems(self) -> list[str]:
        """What could not be read so far, each a sentence."""
        return list(self.slide.problems)

    def set_mpp(self, mpp: float | Sequence[float]) -> None:
        """Give the slide its scale, µm per level-0 pixel, one number or (x, y); its layers follow."""
        pair = np.broadcast_to(np.asarray(mpp, dtype=float), (2,))
        self.slide.set_mpp((float(pair[0]), float(pair[1])))
        units = units_of(self.slide.mpp)
        for layer in self.layers:
            tag_of(layer)["mpp"] = self.slide.mpp
            layer.units = units
        self.image.scale = self._scale()
        self.overview.scale, self.overview.translate = self._overview_transform(self.overview.data)
        for layer in self.associated:
            if tag_of(layer)["read"]:
                self._place_label(layer)

    def show(self, visible: bool = True) -> None:
        """Show or hide image and overview; label and macro only ever hide with them."""
        self._shown = visible
        self.image.visible = visible
        self._on_async()
        if not visible:
            for layer in self.associated:
                layer.visible = False

    def hide(self) -> None:
        """Hide all layers of the slide."""
        self.show(False)

    def show_associated(self, which: str, visible: bool = True) -> None:
        """Show "label" or "macro" beside the slide; they often carry a patient's name."""
        for layer in self.associated:
            if tag_of(layer)["which"] == which:
                layer.visible = visible
                return
        raise SlideError(f"{self.slide.path.name}: this slide has no {which} picture.")

    def remove(self) -> None:
        """Take the layers out of the viewer and end the view's threads; the slide itself stays open."""
        self.close()
        for layer in self.layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def close(self) -> None:
        """End the threads that load tiles. Done by itself when the image layer is removed."""
        from napari.settings import get_settings

        if self._closed:
            return
        self._closed = True
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        get_settings().experimental.events.async_.disconnect(self._on_async)
        for layer in self.associated:
            layer.events.visible.disconnect(self._on_label_visible)
        self._refresher.close()
        self._view.close()

    def _on_removed(self, event: Any) -> None:
        if event.value is self.image:
            self.close()

    def _on_async(self, _: Any = None) -> None:
        """The overview is drawn only where something could be black: in napari's asynchronous slicing.

        Without it the image layer always covers the canvas, and a layer beneath it costs software OpenGL a quarter
        of each frame.
        """
        from napari.settings import get_settings

        self.overview.visible = self._shown and bool(get_settings().experimental.async_)

    def _redraw(self) -> None:
        if not self._closed and self.image.visible:
            self.image.refresh(extent=False, thumbnail=False, highlight=False)
            self.redrawn.emit()


def show_slide(
    viewer: ViewerModel,
    slide: Slide,
    *,
    name: str | None = None,
    slide_id: str | None = None,
    instead_of: SlideLayers | None = None,
) -> SlideLayers:
    """Show a slide: overview layer under a multiscale image, in µm, below all other layers.

    Parameters
    ----------
    viewer : napari viewer
    slide : Slide
        An open slide; it must stay open as long as its layers are shown.
    name : str, optional
        Name of the image layer; the file's name otherwise.
    slide_id : str, optional
        What ties other layers to this slide; the file's stem otherwise.
    instead_of : SlideLayers, optional
        A shown slide whose layers are taken over.

    Returns
    -------
    SlideLayers
        `mpp_known` is False where the file says nothing of µm: then the units are pixels until `set_mpp`.
    """
    from .navigation import show_scale_bar

    shown = SlideLayers(viewer, slide, slide_id or slide.path.stem, name or slide.path.name, instead_of)
    show_scale_bar(viewer)
    return shown
