"""Aperio ImageScope XML, DSA / HistomicsUI JSON and NCRF JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring, tostring

import numpy as np
import pytest
import shapely
from hypothesis import given, settings

from napari_mil.errors import LesionError
from napari_mil.lesion import Lesion, LesionSet, aperio, dsa, ncrf, read_lesions

from .strategies import lesion_sets, same_geometry


def region(points: list[tuple[float, float]], kind: int = 0, negative: int = 0, text: str = "") -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
    head = f'<Region Id="1" Type="{kind}" Text="{text}" NegativeROA="{negative}">'
    return f"{head}<Vertices>{vertices}</Vertices></Region>"


def layers(*regions: str, name: str = "Tumor", color: int = 255) -> LesionSet:
    inside = f'<Annotation Id="1" Name="{name}" LineColor="{color}"><Regions>{"".join(regions)}</Regions></Annotation>'
    return aperio.from_xml(fromstring(f'<Annotations MicronsPerPixel="0.25">{inside}</Annotations>'), "x")


def square(x: float, size: float = 10) -> list[tuple[float, float]]:
    return [(x, 0), (x + size, 0), (x + size, size), (x, size)]


class TestAperio:
    def test_layer_gives_class_and_color(self) -> None:
        lesions = layers(region(square(0), text="one"), color=65280 + 10)
        assert (lesions[0].label, lesions[0].name, lesions[0].color) == ("Tumor", "one", (10, 255, 0))
        assert lesions.meta["aperio_mpp"] == "0.25"

    def test_negative_regions_are_holes(self) -> None:
        inner = [(2.0, 2.0), (8.0, 2.0), (8.0, 8.0), (2.0, 8.0)]
        island = [(4.0, 4.0), (6.0, 4.0), (6.0, 6.0), (4.0, 6.0)]
        lesions = layers(region(square(0)), region(inner, negative=1), region(island))
        assert [lesion.geometry.area for lesion in lesions] == [100 - 36, 4]
        assert len(lesions[0].geometry.interiors) == 1

    def test_negative_regions_across_the_border(self) -> None:
        lesions = layers(region(square(0)), region(square(5), negative=1))
        assert lesions[0].geometry.equals(shapely.box(0, 0, 5, 10))
        assert lesions.problems == ()

    def test_negative_regions_of_nothing_are_kept(self) -> None:
        lesions = layers(region(square(0)), region(square(50), negative=1))
        assert [lesion.label for lesion in lesions] == ["Tumor", "Exclusion"]
        assert len(lesions.problems) == 1

    def test_rectangles_ellipses_and_lines(self) -> None:
        lesions = layers(
            region([(0, 0), (10, 4)], 1),
            region([(0, 0), (20, 10)], 2),
            region([(0, 0), (5, 5)], 4),
            region([(3, 4)], 5),
        )
        assert lesions[0].geometry.area == 40
        assert lesions[1].geometry.area == pytest.approx(np.pi * 50, rel=1e-3)
        assert lesions[1].geometry.bounds == pytest.approx((0, 0, 20, 10))
        assert [lesion.geometry.geom_type for lesion in lesions[2:]] == ["LineString", "Point"]

    def test_bad_regions_are_listed(self) -> None:
        lesions = layers(region([]), region([(0, 0), (1, 1), (0, 0)]), region([(0, 0), (float("nan"), 1), (2, 2)]))
        assert len(lesions) == 0
        assert len(lesions.problems) == 3

    def test_attribute_names_the_layer(self, shared_data: Path) -> None:
        lesions = read_lesions(shared_data / "annotations" / "aperio_xml" / "TCGA-EJ-5519-01Z-00-DX1.xml")
        assert lesions.labels == {"CaP": 1, "": 2}
        # the region's own figure, of the outline as it was drawn
        assert lesions[0].geometry.area == pytest.approx(3050322256.4, rel=1e-3)

    @settings(max_examples=40, deadline=None)
    @given(lesion_sets())
    def test_round_trip(self, lesions: LesionSet) -> None:
        root, problems = aperio.to_xml(lesions)
        again = aperio.from_xml(fromstring(tostring(root)), "x")
        assert problems == []
        assert again.problems == ()
        assert set(again.by_id) == set(lesions.by_id)
        for old in lesions:
            new = again.by_id[old.id]
            assert (new.label, new.name) == (old.label, old.name)
            assert same_geometry(new.geometry, old.geometry)


def elements(*items: dict[str, Any]) -> dict[str, Any]:
    return {"name": "tumor regions", "description": "", "elements": list(items)}


POLYLINE = {
    "type": "polyline",
    "closed": True,
    "points": [[0, 0, 0], [10, 0, 0], [10, 10, 0], [0, 10, 0]],
    "holes": [[[2, 2, 0], [4, 2, 0], [4, 4, 0]]],
    "group": "Tumor",
    "label": {"value": "first"},
    "lineColor": "rgb(255, 128, 0)",
    "fillColor": "rgba(0,0,0,0)",
    "id": "667c7bd58ca8074b3194fa17",
}


class TestDsa:
    @pytest.mark.parametrize(
        "wrap", [lambda d: d, lambda d: {"annotation": d, "_id": "x"}, lambda d: [d], lambda d: [{"annotation": d}]]
    )
    def test_wrapped_or_not(self, tmp_path: Path, wrap: Any) -> None:
        path = tmp_path / "a.json"
        path.write_text(json.dumps(wrap(elements(POLYLINE))))
        (lesion,) = read_lesions(path)
        assert (lesion.id, lesion.label, lesion.name) == (POLYLINE["id"], "Tumor", "first")
        assert lesion.color == (255, 128, 0)
        assert lesion.geometry.area == 98

    def test_rectangle_turns_with_the_y_axis_down(self) -> None:
        box = {"type": "rectangle", "center": [100, 50, 0], "width": 40, "height": 10, "rotation": np.pi / 6}
        (lesion,) = dsa.from_json(elements(box), "x")
        assert lesion.geometry.area == pytest.approx(400)
        right_middle = (100 + 20 * np.cos(np.pi / 6), 50 + 20 * np.sin(np.pi / 6))
        assert lesion.geometry.exterior.distance(shapely.Point(right_middle)) < 1e-9
        upright = {**box, "rotation": 0}
        assert dsa.from_json(elements(upright), "x")[0].geometry.bounds == (80, 45, 120, 55)

    def test_curves_points_and_lines(self) -> None:
        lesions = dsa.from_json(
            elements(
                {"type": "circle", "center": [0, 0, 0], "radius": 10},
                {"type": "ellipse", "center": [0, 0, 0], "width": 40, "height": 10, "rotation": np.pi / 2},
                {"type": "point", "center": [1, 2, 0]},
                {"type": "polyline", "closed": False, "points": [[0, 0, 0], [1, 1, 0]]},
                {"type": "arrow", "points": [[0, 0, 0], [1, 1, 0]]},
            ),
            "x",
        )
        assert lesions[0].geometry.area == pytest.approx(np.pi * 100, rel=1e-3)
        assert lesions[1].geometry.bounds == pytest.approx((-5, -20, 5, 20))
        assert [lesion.geometry.geom_type for lesion in lesions[2:]] == ["Point", "LineString", "LineString"]
        assert lesions[0].label == "tumor regions"  # nothing else names a class

    def test_what_is_no_outline_is_listed(self) -> None:
        bad = [
            {"type": "heatmap", "points": []},
            {"type": "rectangle", "center": [0, 0, 0], "width": 0, "height": 10},
            {"type": "rectangle", "width": 3, "height": 10},
            {"type": "circle", "center": [0, 0, 0], "radius": "wide"},
            {**POLYLINE, "points": [[0, 0, 0]]},
        ]
        lesions = dsa.from_json(elements(*bad), "x")
        assert len(lesions) == 0
        assert len(lesions.problems) == len(bad)
        with pytest.raises(LesionError, match="is no object"):
            dsa.from_json({"elements": ["x"]}, "x")

    @settings(max_examples=40, deadline=None)
    @given(lesion_sets())
    def test_round_trip(self, lesions: LesionSet) -> None:
        document, _ = dsa.to_json(lesions)
        again = dsa.from_json(json.loads(json.dumps(document)), "x")
        assert [(x.id, x.label, x.name, x.color) for x in again] == [
            (x.id, x.label, x.name, x.shown_color) for x in lesions
        ]
        for new, old in zip(again, lesions, strict=True):
            assert same_geometry(new.geometry, old.geometry)


class TestNcrf:
    def test_negatives_are_exclusions(self) -> None:
        def entry(x: float, size: float) -> dict[str, Any]:
            return {"name": "n", "vertices": [list(p) for p in square(x, size)]}

        lesions = ncrf.from_json({"positive": [entry(0, 10)], "negative": [entry(0, 5), {"name": "bad"}]}, "x")
        assert lesions.labels == {"Tumor": 1, "Exclusion": 1}
        assert lesions.region().area == 75
        assert len(lesions.problems) == 1
        assert "negative, bad" in lesions.problems[0]

    def test_repaired_outlines_stay_valid(self, shared_data: Path, tmp_path: Path) -> None:
        for path in (shared_data / "annotations" / "ncrf_json").glob("Tumor*.json"):
            raw = json.loads(path.read_text())
            lesions = read_lesions(path)
            assert len(lesions) == len(raw["positive"]) + len(raw["negative"])
            assert all(lesion.geometry.is_valid for lesion in lesions)


def test_objects_of_one_id_are_parts_of_one() -> None:
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 0, 6, 1)])
    mixed = shapely.GeometryCollection([shapely.box(0, 0, 1, 1), shapely.Point(3, 3)])
    lesions = LesionSet([Lesion(parts), Lesion(mixed)])
    for again in (
        dsa.from_json(dsa.to_json(lesions)[0], "x"),
        aperio.from_xml(aperio.to_xml(lesions)[0], "x"),
    ):
        assert [lesion.geometry.geom_type for lesion in again] == ["MultiPolygon", "GeometryCollection"]
