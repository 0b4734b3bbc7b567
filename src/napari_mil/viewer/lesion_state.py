"""The state that undo goes back to: lesions, and the outlines that show them. Never changed in place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .lesion_edits import Edit
from .outlines import Outline, join, outlines_of

if TYPE_CHECKING:
    from napari_mil.lesion import Lesion, LesionSet


@dataclass(frozen=True, eq=False)
class State:
    """Lesions of a slide, and one outline for each shape of the layer, in its order."""

    lesions: LesionSet
    outlines: tuple[Outline, ...]


def outlines_for(lesions: Iterable[Lesion], known: State | None = None) -> tuple[Outline, ...]:
    """Outlines of all lesions; those of lesions whose geometry did not change are kept."""
    old: dict[str, list[Outline]] = {}
    unchanged: set[int] = set()
    if known is not None:
        unchanged = {id(lesion.geometry) for lesion in known.lesions}
        for outline in known.outlines:
            old.setdefault(outline.lesion_id, []).append(outline)
    found: list[Outline] = []
    for lesion in lesions:
        same = id(lesion.geometry) in unchanged and lesion.id in old
        found += old[lesion.id] if same else outlines_of(lesion.id, lesion.geometry)
    return tuple(found)


def redrawn(state: State, ids: set[str]) -> tuple[Outline, ...]:
    """The state's outlines, those of some lesions made anew from their geometry."""
    if not ids:
        return state.outlines
    anew = [o for lesion in state.lesions if lesion.id in ids for o in outlines_of(lesion.id, lesion.geometry)]
    return (*(outline for outline in state.outlines if outline.lesion_id not in ids), *anew)


def absorbed(state: State, edit: Edit, label: str) -> State:
    """The state after an edit of the layer; new lesions are of class `label` unless they brought one along."""
    from napari_mil.lesion import Lesion

    of: dict[str, list[Outline]] = {}
    for outline in edit.outlines:
        of.setdefault(outline.lesion_id, []).append(outline)
    lesions: list[Lesion] = []
    for lesion in state.lesions:
        if lesion.id not in edit.touched_ids:
            lesions.append(lesion)
        elif lesion.id in of:
            lesions.append(replace(lesion, geometry=join(of[lesion.id])))
    lesions += [Lesion(join(of[i]), label=edit.labels.get(i, label), id=i) for i in edit.new_ids]
    return State(state.lesions.with_lesions(lesions), edit.outlines)
