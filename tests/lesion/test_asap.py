"""ASAP XML: groups of CAMELYON16 and 17, every type, and a round trip with holes and parts."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, fromstring, tostring

import numpy as np
import pytest
import shapely
from hypothesis import given, settings

from napari_mil.geometry import PatchGrid
from napari_mil.lesion import Lesion, LesionSet, patch_labels, read_lesions, write_lesions
from napari_mil.lesion.asap import from_xml, to_xml

from .strategies import lesion_sets, same_geometry


def annotation(group: str, points: list[tuple[object, object]], kind: str = "Polygon", **more: str) -> str:
    rows = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(points))
    extra = "".join(f' {key}="{value}"' for key, value in {"Name": "n", "Color": "#F4FA58", **more}.items())
    return f'<Annotation Type="{kind}" PartOfGroup="{group}"{extra}><Coordinates>{rows}</Coordinates></Annotation>'


def document(*annotations: str, groups: str = "") -> Element:
    return fromstring(
        f"<ASAP_Annotations><Annotations>{''.join(annotations)}</Annotations>"
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def square(x: float, size: float = 10) -> list[tuple[object, object]]:
    return [(x, 0), (x + size, 0), (x + size, size), (x, size)]


def test_camelyon16_groups_and_exclusions() -> None:
    root = document(
        annotation("_0", square(0, 100)),
        annotation("_2", square(0, 97)),
        annotation("_1", square(200)),
        annotation("Tumor", square(300)),
        annotation("Exclusion", square(400)),
        groups='<Group Name="_0" PartOfGroup="None" Color="#00ff00"/><Group Name="_2" PartOfGroup="None"/>',
    )
    lesions = from_xml(root, "x")
    assert [lesion.label for lesion in lesions] == ["Tumor", "Exclusion", "Tumor", "Tumor", "Exclusion"]
    assert lesions[0].color == (0, 255, 0)
    assert lesions.region().area == pytest.approx(100**2 - 97**2 + 200)
    grid = PatchGrid([(0, 0), (0, 90), (90, 0)], 10, 10, 0.25)
    assert patch_labels(lesions, grid).tolist() == [0, 1, 1]
    groups = [a.get("PartOfGroup") for a in to_xml(lesions)[0].iter("Annotation")]
    assert groups == ["_0", "_2", "_1", "Tumor", "Exclusion"]


def test_the_name_is_not_the_group() -> None:
    lesions = from_xml(document(annotation("benign", square(0), Name="_2"), annotation("None", square(20))), "x")
    assert [(lesion.label, lesion.name) for lesion in lesions] == [("benign", "_2"), ("", "n")]


def test_camelyon17_and_nested_groups() -> None:
    groups = (
        '<Group Name="metastases" PartOfGroup="None" Color="#ff0000"/>'
        '<Group Name="micro" PartOfGroup="metastases" Color="#0000ff"/>'
        '<Group Name="loop" PartOfGroup="loop"/>'
    )
    root = document(
        *(annotation(g, square(20 * i)) for i, g in enumerate(["metastases", "normal", "micro", "loop"])), groups=groups
    )
    lesions = from_xml(root, "x")
    assert [lesion.label for lesion in lesions] == ["Tumor", "Normal", "Tumor", "loop"]
    assert lesions[2].color == (0, 0, 255)
    written = to_xml(lesions)[0]
    assert [a.get("PartOfGroup") for a in written.iter("Annotation")] == ["metastases", "normal", "micro", "loop"]
    parents = {g.get("Name"): g.get("PartOfGroup") for g in written.iter("Group")}
    assert parents["micro"] == "metastases"


def test_every_type() -> None:
    root = document(
        annotation("a", [(0, 0), (10, 5)], "Rectangle"),
        annotation("a", square(0), "Rectangle"),
        annotation("a", square(0), "Spline"),
        annotation("a", [(1, 2)], "Dot"),
        annotation("a", [(1, 2), (3, 4)], "PointSet"),
        annotation("a", [(1, 2), (3, 4)], "Measurement"),
        annotation("a", square(0), "Cloud"),
    )
    lesions = from_xml(root, "x")
    kinds = ["Polygon", "Polygon", "Polygon", "Point", "MultiPoint", "LineString", "Polygon"]
    assert [lesion.geometry.geom_type for lesion in lesions] == kinds
    assert lesions[0].geometry.area == 50
    assert len(lesions.problems) == 1
    assert "Cloud" in lesions.problems[0]
    types = [a.get("Type") for a in to_xml(lesions)[0].iter("Annotation")]
    assert types == ["Rectangle", "Rectangle", "Spline", "Dot", "PointSet", "Measurement", "Polygon"]


def test_order_and_decimal_comma() -> None:
    root = document(annotation("a", [("0,5", 0), (10, 10), (10, 0)]))
    for coordinate, order in zip(root.iter("Coordinate"), "021", strict=True):
        coordinate.set("Order", order)
    ring = shapely.get_coordinates(from_xml(root, "x")[0].geometry)
    assert ring.tolist() == [[0.5, 0], [10, 0], [10, 10], [0.5, 0]]


def test_bad_annotations_are_listed() -> None:
    root = document(
        annotation("a", square(0)),
        annotation("a", []),
        annotation("a", [(0, 0), (1, 1)]),
        annotation("a", [(0, 0), ("nan", 1), (5, 5)]),
        annotation("a", [(0, 0), ("x", 1), (5, 5)]),
        annotation("a", [(0, 0), (10, 10), (10, 0), (0, 10)]),
    )
    lesions = from_xml(root, "x")
    assert len(lesions) == 2
    assert len(lesions.problems) == 5
    assert "repaired" in lesions.problems[0]
    assert lesions[1].geometry.area == pytest.approx(50)


def test_holes_are_exclusions_to_other_programs() -> None:
    holed = shapely.box(0, 0, 100, 100).difference(shapely.box(10, 10, 40, 40))
    lesions = LesionSet([Lesion(holed), Lesion(shapely.box(15, 15, 20, 20)), Lesion(holed, label="Normal")])
    root, problems = to_xml(lesions)
    assert problems == []
    groups = [a.get("PartOfGroup") for a in root.iter("Annotation")]
    assert groups == ["Tumor", "Exclusion", "Tumor", "Normal", "Normal (hole)"]
    for element in root.iter("Annotation"):  # as it is after ASAP saved it
        for ours in ("LesionId", "Part", "Ring"):
            del element.attrib[ours]
    foreign = from_xml(root, "x")
    assert foreign.region().area == pytest.approx(holed.area)
    assert from_xml(to_xml(lesions)[0], "x").region().area == pytest.approx(holed.area + 25)


def test_a_hole_whose_outline_was_deleted() -> None:
    holed = shapely.box(0, 0, 100, 100).difference(shapely.box(10, 10, 40, 40))
    root, _ = to_xml(LesionSet([Lesion(holed)]))
    annotations = root.find("Annotations")
    assert annotations is not None
    annotations.remove(annotations[0])
    (left,) = from_xml(root, "x")
    assert left.label == "Exclusion"
    assert left.geometry.area == 900


def test_copies_with_our_attributes_stay_apart() -> None:
    root, _ = to_xml(LesionSet([Lesion(shapely.box(0, 0, 1, 1))]))
    annotations = root.find("Annotations")
    assert annotations is not None
    annotations.append(annotations[0])
    assert len(from_xml(root, "x")) == 2


def test_long_lines_are_named_as_lost(tmp_path: Path) -> None:
    lesions = LesionSet([Lesion(shapely.LineString([(0, 0), (1, 1), (2, 0)]), name="fold")])
    problems = write_lesions(lesions, tmp_path / "a.xml")
    assert len(problems) == 1
    assert "fold" in problems[0]
    assert "GeoJSON" in problems[0]


@settings(max_examples=60, deadline=None)
@given(lesion_sets(areas_only=True))
def test_round_trip(lesions: LesionSet) -> None:
    again = from_xml(fromstring(tostring(to_xml(lesions)[0])), "x")
    assert again.problems == ()
    assert [(x.id, x.name) for x in again] == [(x.id, x.name) for x in lesions]
    for new, old in zip(again, lesions, strict=True):
        assert same_geometry(new.geometry, old.geometry)
        if old.label.lower() not in ("_0", "_1", "_2", "none"):  # names of groups, not of classes
            assert new.label == old.label


def test_real_files(shared_data: Path) -> None:
    lesions = read_lesions(shared_data / "annotations" / "asap_xml" / "A01.xml")
    assert lesions.labels == {"benign": 27, "newmeta": 42, "metastases_org": 9}
    assert lesions.problems == ()
    first = shapely.get_coordinates(lesions[0].geometry)
    np.testing.assert_array_equal(first[0], [7398, 21614])
