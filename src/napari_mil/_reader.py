"""napari's reader: slides and true pyramids as an overview under a multiscale image, outlines as Shapes, in µm."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mil.slide import Slide

LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[str | Sequence[str]], list[LayerData]]

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm")
TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
OUTLINE_SUFFIXES = (".geojson", ".geojson.gz")
GIANT_PX = 8192
"""A tiled TIFF with a longer side than this is ours even without smaller levels; others are any image reader's."""


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """A reader for slides and outlines; None for anything else, so that other readers get their files.

    Parameters
    ----------
    path : str or list of str
        File or files, as napari gives them.
    """
    paths = _paths(path)
    return read if paths and all(_is_slide(one) or _is_outline(one) for one in paths) else None


def _paths(path: str | os.PathLike[str] | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(one) for one in path]


def _is_outline(path: Path) -> bool:
    return path.name.lower().endswith(OUTLINE_SUFFIXES)


def _is_slide(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in SLIDE_SUFFIXES:
        return True
    if suffix in TIFF_SUFFIXES:
        return _is_pyramid(path)
    if not path.is_dir():
        return False
    from napari_mil.slide import is_ome_zarr

    return is_ome_zarr(path) or any(path.glob("*.dcm"))


def _is_pyramid(path: Path) -> bool:
    """Whether a TIFF has smaller copies of a tiled RGB picture, or is tiled and huge."""
    from tifffile import TiffFile, TiffFileError

    try:
        with TiffFile(path) as tiff:
            first: Any = tiff.pages.first
            if not first.is_tiled or first.samplesperpixel not in (3, 4):
                return False
            levels = tiff.series[0].levels
            pages: Any = tiff.pages
            smaller = any(getattr(p, "is_tiled", False) and p.imagewidth < first.imagewidth for p in pages)
            return len(levels) > 1 or smaller or max(first.imagewidth, first.imagelength) > GIANT_PX
    except (TiffFileError, OSError, ValueError, IndexError):
        return False


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Layers of slides (an overview, and the image over it) and of outlines.

    Raises
    ------
    MilError
        A sentence, when a file cannot be opened.
    """
    from napari_mil.slide import open_slide

    layers: list[LayerData] = []
    for one in _paths(path):
        layers += [outlines(one)] if _is_outline(one) else layers_of(open_slide(one))
    return layers


def layers_of(slide: Slide) -> list[LayerData]:
    """Layer data of an open slide, which stays open as long as they live.

    In a window the image never waits for pixels: tiles that are not there yet are seen coarser until they arrive.
    Without one it is read as it is asked for.
    """
    from napari_mil.geometry import raster_transform
    from napari_mil.viewer.opened import OpenedSlide, can_follow
    from napari_mil.viewer.slide_layer import OVERVIEW_PX
    from napari_mil.viewer.tags import tag, units_of

    name, slide_id, mpp = slide.path.name, slide.path.stem, slide.mpp
    common: dict[str, Any] = {"rgb": True, "units": units_of(mpp), "cache": False}
    more: dict[str, Any] = {"path": str(slide.path), "mpp": mpp}
    thumbnail = slide.thumbnail(OVERVIEW_PX)
    width, height = slide.dimensions
    cell = (width / thumbnail.shape[1], height / thumbnail.shape[0])
    scale, translate = raster_transform((0, 0), cell, mpp or (1.0, 1.0))
    overview = {
        **common,
        "name": f"{name} overview",
        "scale": scale,
        "translate": translate,
        "metadata": tag("overview", slide_id, **more),
    }
    if can_follow():
        opened = OpenedSlide(slide)
        levels, more["token"] = opened.levels, opened.token
    else:
        levels = slide.pyramid()
    image = {
        **common,
        "name": name,
        "multiscale": True,
        "scale": (1.0, 1.0) if mpp is None else (mpp[1], mpp[0]),
        "metadata": tag("slide", slide_id, **more),
    }
    return [(thumbnail, overview, "image"), (levels, image, "image")]


def outlines(path: Path) -> LayerData:
    """Shapes of a file of outlines, over the slide that is shown if there is one.

    Raises
    ------
    LesionError
        When the file holds no outlines.
    """
    from napari_mil.lesion import read_lesions
    from napari_mil.viewer.lesion_view import as_layer_data

    return as_layer_data(read_lesions(path), path.name.split(".")[0], _shown_mpp(), str(path))


def _shown_mpp() -> tuple[float, float] | None:
    import napari

    from napari_mil.viewer.tags import find_layers, tag_of

    viewer = napari.current_viewer()
    slides = find_layers(viewer, "slide") if viewer is not None else []
    return tag_of(slides[-1]).get("mpp") if slides else None
