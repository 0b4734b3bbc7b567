"""Lesion and LesionSet: edits give new sets, areas are valid, the lesion region leaves out exclusions."""

from __future__ import annotations

import copy
import pickle

import pytest
import shapely

from napari_mil.errors import LesionError
from napari_mil.lesion import ClassRoles, Lesion, LesionSet, Role

SQUARE = shapely.box(0, 0, 10, 10)


def test_edits_leave_the_old_set_alone() -> None:
    a, b = Lesion(SQUARE, name="a"), Lesion(shapely.box(20, 0, 30, 10), name="b")
    first = LesionSet([a], problems=["one was repaired."], meta={"format": "asap"})
    both = first.add(b)
    renamed = both.replace(a.with_label("Stroma"))
    assert [x.name for x in both] == ["a", "b"]
    assert len(first) == 1
    assert renamed[0].label == "Stroma"
    assert both[0].label == "Tumor"
    assert [x.name for x in both.remove(a.id)] == ["b"]
    assert [x.name for x in both.remove([a.id, b.id])] == []
    assert both.problems == first.problems
    assert both.meta == first.meta
    assert both.by_id[b.id] is b
    assert a in both
    assert isinstance(both[:1], LesionSet)
    assert both.labels == {"Tumor": 2}
    assert "2 Tumor" in repr(both)


def test_ids_are_unique_and_known() -> None:
    a = Lesion(SQUARE)
    with pytest.raises(LesionError, match=a.id):
        LesionSet([a, a])
    with pytest.raises(LesionError, match="nobody"):
        LesionSet([a]).remove("nobody")
    with pytest.raises(LesionError, match="1 lesions"):
        LesionSet([a]).replace(Lesion(SQUARE))


def test_a_crossing_outline_covers_both_its_loops() -> None:
    bow_tie = Lesion(shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]))
    assert bow_tie.area_geometry.is_valid
    assert bow_tie.area_geometry.area == pytest.approx(50)
    # an outline whose end overlaps its beginning stays filled there
    lap = shapely.Polygon([(0, 0), (10, 0), (10, 10), (-2, 10), (-2, 2), (4, 2), (4, 4), (0, 4)])
    assert Lesion(lap).area_geometry.contains(shapely.Point(2, 3))


def test_lines_and_points_cover_nothing() -> None:
    line = Lesion(shapely.LineString([(0, 0), (5, 5)]))
    mixed = Lesion(shapely.GeometryCollection([SQUARE, shapely.Point(50, 50)]))
    assert not line.has_area
    assert mixed.area_geometry.equals(SQUARE)
    assert LesionSet([line]).region().is_empty
    assert LesionSet().region().geom_type == "Polygon"


def test_region_is_lesions_less_exclusions_and_holes() -> None:
    outlines = LesionSet(
        [
            Lesion(shapely.Polygon(SQUARE.exterior, [shapely.box(1, 1, 2, 2).exterior])),
            Lesion(shapely.box(5, 0, 15, 10), label=""),
            Lesion(shapely.box(8, 0, 20, 5), label="Exclusion"),
            Lesion(shapely.box(0, 0, 100, 100), label="Stroma"),
        ]
    )
    assert outlines.region().area == pytest.approx(150 - 1 - 7 * 5)
    assert outlines.union().equals(outlines.region())
    assert outlines.union("stroma").area == 10_000
    assert outlines.union(["EXCLUSION", "nothing"]).area == 60
    assert outlines.region(Role.LESION, ClassRoles(lesion=("Stroma",))).area == pytest.approx(10_000 - 60)


def test_sets_travel_between_processes() -> None:
    outlines = LesionSet([Lesion(SQUARE, color=(1, 2, 3))], meta={"shift": [1, 2]})
    assert outlines.region().area == 100  # fills the caches
    assert pickle.loads(pickle.dumps(outlines)) == outlines
    assert copy.deepcopy(outlines) == outlines
    assert outlines != LesionSet()


def test_colors_follow_the_class() -> None:
    lesion = Lesion(SQUARE, color=(1, 2, 3))
    assert lesion.shown_color == (1, 2, 3)
    assert lesion.with_label("Stroma").shown_color == (150, 200, 150)
    assert lesion.with_label("Stroma", (9, 9, 9)).shown_color == (9, 9, 9)
