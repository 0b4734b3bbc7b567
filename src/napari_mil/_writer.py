"""napari's writer: outlines of a Shapes layer as GeoJSON or ASAP XML, in level-0 pixels (x, y)."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_mil.lesion import Lesion


def write_shapes(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write the outlines of a Shapes layer; the file's suffix says the format.

    Our own layers give their lesions as they are (holes, parts, ids); outlines of any other Shapes layer are taken
    from its vertices. Returns the paths written, as napari wants them.

    Parameters
    ----------
    path : str
        `.geojson`, `.json`, `.geojson.gz` or `.xml` (ASAP).
    data : list of (n, 2) arrays
        Vertices (y, x).
    meta : dict
        The layer's attributes.

    Raises
    ------
    LesionError
        When the suffix is of no known format.
    """
    from napari_mil.lesion import LesionSet, write_lesions

    write_lesions(LesionSet(lesions_of(data, meta)), Path(path))
    return [path]


def lesions_of(data: Any, meta: dict[str, Any]) -> list[Lesion]:
    """Lesions of a Shapes layer's data and attributes: shapes of one id are parts of one lesion."""
    from napari_mil.lesion import Lesion
    from napari_mil.viewer.outlines import Outline, join, outline_from_vertices
    from napari_mil.viewer.tags import KEY

    ours = bool((meta.get("metadata") or {}).get(KEY))
    columns = _columns(meta)
    kinds = meta.get("shape_type", "polygon")
    outlines: dict[str, list[Outline]] = {}
    labels: dict[str, tuple[str, str]] = {}
    for index, vertices in enumerate(data):
        kind = str(kinds if isinstance(kinds, str) else kinds[index])
        points = np.asarray(vertices, dtype=float)[:, -2:]
        # napari's own Shapes count from pixel centres, ours and all files from the corner
        lesion_id = str(columns["id"][index]) if "id" in columns else ""
        lesion_id = lesion_id or str(uuid.uuid4())
        outline = outline_from_vertices(lesion_id, points if ours else points + 0.5, kind)
        if outline.geometry.is_empty:
            continue
        outlines.setdefault(lesion_id, []).append(outline)
        labels.setdefault(lesion_id, (_text(columns, "class", index, "Tumor"), _text(columns, "name", index, "")))
    return [Lesion(join(parts), label=labels[i][0], name=labels[i][1], id=i) for i, parts in outlines.items()]


def _columns(meta: dict[str, Any]) -> dict[str, list[Any]]:
    table = meta.get("features")
    if table is None:
        table = meta.get("properties") or {}
    return {re.sub(r"\s+", "", str(key)).lower(): list(table[key]) for key in table}


def _text(columns: dict[str, list[Any]], key: str, index: int, default: str) -> str:
    if key not in columns:
        return default
    value = columns[key][index]
    return default if value is None or value != value else str(value)
