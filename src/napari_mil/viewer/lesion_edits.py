"""What an event of the Shapes layer did to the outlines."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .outlines import Outline, outline_from_vertices

if TYPE_CHECKING:
    from napari.layers import Shapes

NO_AREA = "The outline encloses no area and was not kept."


@dataclass(frozen=True)
class Edit:
    """An edit of the layer, in terms of outlines.

    Attributes
    ----------
    outlines : tuple of Outline
        One per shape that the layer should now show, in its order.
    label : str or None
        What to call the step ("draw", "move", "delete"); None when nothing came of it.
    touched_ids : set of str
        Lesions whose geometry changed or went.
    new_ids : tuple of str
        Lesions that came.
    labels : dict
        Class of new lesions where it is not the current one (pasted shapes keep theirs).
    off : bool
        Whether the layer shows something else now and must be drawn anew.
    note : str
        What a person should know.
    """

    outlines: tuple[Outline, ...]
    label: str | None
    touched_ids: frozenset[str] = frozenset()
    new_ids: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    off: bool = False
    note: str = ""


def apply_event(layer: Shapes, outlines: Sequence[Outline], action: str, event: Any) -> Edit:
    """Outlines after an event of the layer ("added", "removed" or "changed")."""
    if action == "added":
        return _added(layer, outlines)
    indices = sorted({int(i) % max(len(outlines), 1) for i in event.data_indices})
    if action == "removed":
        return _removed(layer, outlines, indices)
    return _changed(layer, outlines, indices, event)


def _added(layer: Shapes, outlines: Sequence[Outline]) -> Edit:
    if layer.nshapes <= len(outlines):  # a drawing given up before it was an outline
        return Edit(tuple(outlines), None, off=True)
    kept = list(outlines)
    new_ids: list[str] = []
    labels: dict[str, str] = {}
    off, note, pasted = False, "", False
    for index in range(len(outlines), layer.nshapes):
        outline = outline_from_vertices(str(uuid.uuid4()), layer.data[index], str(layer.shape_type[index]))
        geometry = outline.geometry
        if geometry.is_empty:
            off, note = True, NO_AREA
            continue
        shown = layer.shape_type[index] == outline.shape_type and len(outline.vertices) == len(layer.data[index])
        off |= not shown or geometry.geom_type != "Polygon" or _crossing(outline)
        new_ids.append(outline.lesion_id)
        kept.append(outline)
        source, label = _copied_from(layer, index, outlines)
        if source:
            pasted = True
            labels[outline.lesion_id] = label
    if not new_ids:
        return Edit(tuple(outlines), None, off=True, note=note)
    return Edit(tuple(kept), "paste" if pasted else "draw", new_ids=tuple(new_ids), labels=labels, off=off, note=note)


def _crossing(outline: Outline) -> bool:
    """Whether the outline's run is not what its geometry's outline is."""
    from shapely.geometry import Polygon

    return outline.shape_type == "polygon" and not Polygon(outline.rings[0], outline.rings[1:]).is_valid


def _copied_from(layer: Shapes, index: int, outlines: Sequence[Outline]) -> tuple[str, str]:
    """Id and class that a pasted shape brought along; empty strings for a drawn one."""
    features = layer.features
    if "id" not in features or index >= len(features):
        return "", ""
    source = str(features["id"].iloc[index])
    if source not in {outline.lesion_id for outline in outlines}:
        return "", ""
    return source, str(features["class"].iloc[index])


def _removed(layer: Shapes, outlines: Sequence[Outline], indices: Sequence[int]) -> Edit:
    gone = {outlines[i].lesion_id for i in indices}
    kept = tuple(outline for i, outline in enumerate(outlines) if i not in set(indices))
    return Edit(kept, "delete", touched_ids=frozenset(gone), off=len(kept) != layer.nshapes)


def _changed(layer: Shapes, outlines: Sequence[Outline], indices: Sequence[int], event: Any) -> Edit:
    if layer.nshapes < len(outlines):  # its last vertices were taken away
        return _removed(layer, outlines, indices)
    changed: dict[int, Outline | None] = {}
    off, label = False, "move"
    for index in indices:
        old, data = outlines[index], np.asarray(layer.data[index])
        new: Outline | None
        difference = len(data) - len(old.slots)
        if difference == 0:
            new = old.moved(data)
            if old.shape_type != layer.shape_type[index]:
                new = Outline(new.lesion_id, new.rings, str(layer.shape_type[index]))
        elif difference in (1, -1) and len(indices) == 1:
            place = int(event.vertex_indices[0][0])
            new = old.inserted(place, data[place]) if difference == 1 else old.removed(place)
            label = "add a vertex" if difference == 1 else "remove a vertex"
        else:
            new = outline_from_vertices(old.lesion_id, data, str(layer.shape_type[index]))
            label = "edit"
        if new is not None and new.geometry.is_empty:
            return Edit(tuple(outlines), None, off=True, note=NO_AREA)
        off |= new is None or len(new.vertices) != len(data) or not np.array_equal(new.vertices, data) or _crossing(new)
        if new is not old:
            changed[index] = new
    if not changed:
        return Edit(tuple(outlines), None, off=off)
    result = tuple(o for i, old in enumerate(outlines) if (o := changed.get(i, old)) is not None)
    touched = frozenset(outlines[i].lesion_id for i in changed)
    return Edit(result, label, touched_ids=touched, off=off)
