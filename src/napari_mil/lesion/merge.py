"""Outlines of a file put to those that are there, so that importing twice adds nothing and loses nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .model import Lesion, LesionSet, new_id


def merge(mine: LesionSet, others: Iterable[Lesion]) -> tuple[LesionSet, list[Lesion]]:
    """`mine` with those of `others` that are not there yet.

    An outline that is there already (same class, same geometry) is left out. One whose id is taken by another outline
    gets an id of its own.

    Returns
    -------
    LesionSet, list of Lesion
        All of them, and the ones that came new.
    """
    ids = {lesion.id for lesion in mine}
    there = {(lesion.label, lesion.geometry.normalize().wkb) for lesion in mine}
    new: list[Lesion] = []
    for lesion in others:
        key = (lesion.label, lesion.geometry.normalize().wkb)
        if key in there:
            continue
        if lesion.id in ids:
            lesion = replace(lesion, id=new_id())
        there.add(key)
        ids.add(lesion.id)
        new.append(lesion)
    return mine.add(*new), new
