"""Maps as files: a picture, arrays, a table, tiles for QuPath, a float image with its place in µm."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from napari_mil.errors import MilError
from napari_mil.geometry import PatchGrid
from napari_mil.whole import written_whole

from .compare import cells_of
from .figure import draw_figure
from .raster import AttentionMap
from .table import patch_table

RESEARCH_ONLY = "Research use only"
_SUFFIXES = {
    ".ome.tif": "ome-tiff",
    ".ome.tiff": "ome-tiff",
    ".tif": "ome-tiff",
    ".tiff": "ome-tiff",
    ".png": "png",
    ".npz": "npz",
    ".csv": "csv",
    ".geojson": "geojson",
}
FORMATS = (*dict.fromkeys(_SUFFIXES.values()), "png+world")


@dataclass(frozen=True, eq=False)
class _Content:
    """A map with what is told about it."""

    amap: AttentionMap
    grid: PatchGrid
    scores: npt.NDArray[np.float64]
    badge: str
    title: str

    @property
    def caption(self) -> str:
        return f"{self.amap.normalisation} · {self.badge} · {RESEARCH_ONLY}"


def export_map(
    path: Path | str,
    amap: AttentionMap,
    *,
    badge: str,
    grid: PatchGrid | None = None,
    scores: npt.ArrayLike | None = None,
    title: str = "",
    thumbnail: npt.NDArray[np.uint8] | None = None,
    slide_dimensions: Sequence[int] | None = None,
    colormap: str = "inferno",
    format: str | None = None,
) -> Path:
    """Write a map; every format names the normalisation, carries the badge, and says "Research use only".

    Parameters
    ----------
    path : path
        Its suffix says the format: .png (a figure with colour bar), .npz (see `load_map`), .csv (x, y, score, rank,
        percentile of each patch), .geojson (tiles with measurements, for QuPath), .ome.tif (float32, physical size
        and position).
    badge : str
        TRAIN, VALIDATION, TEST or NEW: what the slide was to the model.
    grid, scores : PatchGrid and (N,) array, optional
        The patches of tables and tiles; the map's cells where not given.
    title : str
        Slide and model, over the figure.
    thumbnail : (h, w, 3) array of uint8, optional
        Of the whole slide, drawn under the map in the figure; needs `slide_dimensions`.
    slide_dimensions : (width, height), optional
        In level-0 pixels.
    colormap : str
        matplotlib's name.
    format : str, optional
        One of `FORMATS`, where the suffix does not say. "png+world" is one pixel per cell without a figure around
        it, and a world file (.pgw, level-0 pixels) beside it.

    Raises
    ------
    MilError
        When the format is unknown or scores do not fit the grid.
    """
    path = Path(path)
    kind = format or next((kind for suffix, kind in _SUFFIXES.items() if path.name.lower().endswith(suffix)), None)
    if kind not in FORMATS:
        raise MilError(
            f"{path.name}: maps cannot be written as {kind or path.suffix!r}; expected {', '.join(_SUFFIXES)}."
        )
    if grid is None or scores is None:
        grid = cells_of(amap)
        scores = amap.data[~np.isnan(amap.data)]
    content = _Content(amap, grid, np.asarray(scores, dtype=np.float64), badge, title)
    if kind == "png":
        with written_whole(path) as part:
            draw_figure(part, amap, f"{title}\n{content.caption}".strip(), thumbnail, slide_dimensions, colormap)
    elif kind == "png+world":
        _write_world(path, content, colormap)
    else:
        with written_whole(path) as part:
            _WRITERS[kind](part, content)
    return path


def load_map(path: Path | str) -> AttentionMap:
    """Read a map that `export_map` wrote as .npz."""
    try:
        with np.load(Path(path), allow_pickle=False) as a:
            return AttentionMap(
                data=a["data"].astype(np.float32),
                scale=(float(a["scale"][0]), float(a["scale"][1])),
                translate=(float(a["translate"][0]), float(a["translate"][1])),
                normalisation=str(a["normalisation"]),
                cell_px_level0=(int(a["cell_px_level0"][0]), int(a["cell_px_level0"][1])),
                origin_px_level0=(int(a["origin_px_level0"][0]), int(a["origin_px_level0"][1])),
                bound_um=float(a["bound_um"]),
                mpp=(float(a["mpp"][0]), float(a["mpp"][1])),
            )
    except (OSError, KeyError, ValueError, IndexError, EOFError, BadZipFile) as error:
        raise MilError(f"{path}: is no map of napari-mil ({error}); export it again.") from error


def _write_npz(part: Path, content: _Content) -> None:
    amap, grid = content.amap, content.grid
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            data=amap.data,
            scale=np.array(amap.scale),
            translate=np.array(amap.translate),
            normalisation=np.array(amap.normalisation),
            cell_px_level0=np.array(amap.cell_px_level0),
            origin_px_level0=np.array(amap.origin_px_level0),
            bound_um=np.array(amap.bound_um),
            mpp=np.array(amap.mpp),
            coords=grid.coords,
            scores=content.scores,
            patch_px_level0=np.array(grid.patch_px_level0),
            stride_px_level0=np.array(grid.stride_px_level0),
            title=np.array(content.title),
            badge=np.array(content.badge),
            use=np.array(RESEARCH_ONLY),
        )


def _write_csv(part: Path, content: _Content) -> None:
    table = patch_table(content.grid, content.scores)
    table["badge"], table["use"] = content.badge, RESEARCH_ONLY
    table.to_csv(part, index=False, lineterminator="\n")


def _write_geojson(part: Path, content: _Content) -> None:
    table = patch_table(content.grid, content.scores)
    columns = {f"MIL {name}": table[name].to_numpy() for name in ("score", "rank", "percentile")}
    head = {"type": "FeatureCollection", "napari_mil": {"badge": content.badge, "use": RESEARCH_ONLY}}
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [\n')
        for k, box in enumerate(content.grid.boxes.tolist()):
            file.write(",\n" if k else "")
            file.write(json.dumps(_tile(box, {name: float(values[k]) for name, values in columns.items()})))
        file.write("\n]}\n")


def _tile(box: list[int], measurements: dict[str, float]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"napari-mil {box}")),
        "geometry": {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]},
        "properties": {
            "objectType": "tile",
            "measurements": {name: value for name, value in measurements.items() if np.isfinite(value)},
        },
    }


def _write_ome(part: Path, content: _Content) -> None:
    import tifffile

    amap = content.amap
    (scale_y, scale_x), (y, x) = amap.scale, amap.translate
    rows, cols = amap.data.shape
    with tifffile.TiffWriter(part, ome=True) as file:
        file.write(
            amap.data,
            tile=(256, 256) if min(rows, cols) > 256 else None,
            compression="zlib",
            metadata={
                "axes": "YX",
                "Name": f"{content.title} {content.caption}".strip(),
                "Description": f"{content.caption}. Position: centre of the first pixel from that of the slide.",
                "PhysicalSizeX": scale_x,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": scale_y,
                "PhysicalSizeYUnit": "µm",
                "Plane": {
                    "PositionX": [x],
                    "PositionXUnit": ["µm"],
                    "PositionY": [y],
                    "PositionYUnit": ["µm"],
                },
            },
        )


_WRITERS = {"npz": _write_npz, "csv": _write_csv, "geojson": _write_geojson, "ome-tiff": _write_ome}


def _write_world(path: Path, content: _Content, colormap: str) -> None:
    from matplotlib import colormaps
    from matplotlib.image import imsave

    amap = content.amap
    colours = colormaps[colormap].with_extremes(bad=(0, 0, 0, 0))
    known = amap.data[~np.isnan(amap.data)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    about = {"Description": content.caption, "Title": content.title}
    with written_whole(path) as part:
        shown = np.ma.masked_invalid(amap.data)
        imsave(part, shown, cmap=colours, vmin=low, vmax=max(high, low + 1e-12), format="png", metadata=about)
    (x, y), (width, height) = amap.origin_px_level0, amap.cell_px_level0
    lines = (width, 0, 0, height, x + width / 2, y + height / 2)
    with written_whole(path.with_suffix(".pgw")) as part:
        part.write_text("".join(f"{value:.6f}\n" for value in lines), encoding="ascii", newline="\n")
