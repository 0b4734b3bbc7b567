from __future__ import annotations

from shapely.geometry import box

from napari_mil.lesion import Lesion, LesionSet, merge


def test_the_same_outlines_twice_add_nothing() -> None:
    mine = LesionSet([Lesion(box(0, 0, 10, 10), id="a"), Lesion(box(20, 0, 30, 10), id="b")])
    merged, new = merge(mine, mine)
    assert merged == mine
    assert new == []


def test_an_outline_drawn_from_another_corner_is_the_same() -> None:
    mine = LesionSet([Lesion(box(0, 0, 10, 10, ccw=True), id="a")])
    assert merge(mine, [Lesion(box(0, 0, 10, 10, ccw=False), id="z")])[1] == []


def test_a_taken_id_loses_neither_outline() -> None:
    mine = LesionSet([Lesion(box(0, 0, 10, 10), id="a")])
    merged, new = merge(mine, [Lesion(box(50, 50, 60, 60), id="a")])
    assert len(merged) == 2
    assert len({lesion.id for lesion in merged}) == 2
    assert new[0].geometry.equals(box(50, 50, 60, 60))


def test_another_class_is_another_outline() -> None:
    mine = LesionSet([Lesion(box(0, 0, 10, 10), label="Tumor", id="a")])
    assert len(merge(mine, [Lesion(box(0, 0, 10, 10), label="Stroma", id="b")])[0]) == 2
