"""QuPath GeoJSON: all its forms, and everything in it survives a round trip."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given, settings

from napari_mil.lesion import Lesion, LesionSet, read_lesions, write_lesions
from napari_mil.lesion.geojson import color_of, from_json, signed_rgb, to_json

from .strategies import lesion_sets, same_geometry

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]
FEATURE: dict[str, Any] = {
    "type": "Feature",
    "id": "6423a977-ffff-48db-affc-cd11632010f0",
    "geometry": {"type": "Polygon", "coordinates": [SQUARE, HOLE], "plane": {"c": -1, "z": 0, "t": 0}},
    "properties": {
        "objectType": "annotation",
        "name": "left lobe",
        "color": [1, 2, 3],
        "classification": {"name": "Tumor", "color": [200, 0, 0], "something": 7},
        "isLocked": True,
        "measurements": {"Area µm^2": 12.5},
        "metadata": {"ANNOTATION_DESCRIPTION": "seen twice"},
    },
    "nucleusGeometry": {"type": "Point", "coordinates": [1, 1]},
}


def save(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": [FEATURE]},
        [FEATURE],
        FEATURE,
        FEATURE["geometry"],
        [FEATURE["geometry"]],
    ],
    ids=["collection", "bare list", "one feature", "one geometry", "list of geometries"],
)
def test_all_forms(tmp_path: Path, document: Any) -> None:
    lesions = read_lesions(save(tmp_path / "a.geojson", document))
    assert len(lesions) == 1
    assert lesions[0].geometry.equals_exact(shapely.Polygon(SQUARE, [HOLE]))
    assert lesions.problems == ()


def test_fields_are_read() -> None:
    (lesion,) = from_json(FEATURE, "x")
    assert lesion.id == FEATURE["id"]
    assert (lesion.label, lesion.name, lesion.color, lesion.locked) == ("Tumor", "left lobe", (1, 2, 3), True)
    assert lesion.properties["measurements"] == {"Area µm^2": 12.5}


def test_what_is_read_is_written_unchanged(tmp_path: Path) -> None:
    document = {"type": "FeatureCollection", "features": [FEATURE], "crs": {"name": "none"}}
    for name in ("a.geojson", "b.geojson.gz"):
        path = tmp_path / name
        assert write_lesions(from_json(document, "x"), path) == ()
        data = path.read_bytes()
        assert json.loads(gzip.decompress(data) if name.endswith("gz") else data) == document
        assert len(read_lesions(path)) == 1
    assert not list(tmp_path.glob("*.part"))


def test_changes_are_written_over_it() -> None:
    (lesion,) = from_json(FEATURE, "x")
    changed = lesion.with_label("Stroma").with_geometry(shapely.box(0, 0, 1, 1))
    feature = to_json(LesionSet([changed]))["features"][0]
    assert feature["properties"]["classification"] == {"name": "Stroma", "color": [150, 200, 150]}
    assert "color" not in feature["properties"]
    assert feature["properties"]["metadata"] == FEATURE["properties"]["metadata"]
    assert feature["geometry"]["type"] == "Polygon"
    (again,) = from_json(feature, "x")
    assert (again.label, again.color) == ("Stroma", (150, 200, 150))
    unclassified = to_json(LesionSet([lesion.with_label("")]))["features"][0]
    assert "classification" not in unclassified["properties"]
    assert FEATURE["properties"]["classification"]["name"] == "Tumor"  # what was read is never written to


def test_old_qupath() -> None:
    old = {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": {"type": "MultiPolygon", "coordinates": [[SQUARE], [[[20, 0], [30, 0], [30, 9], [20, 0]]]]},
        "properties": {
            "classification": {"name": "Tumor", "colorRGB": -3670016},
            "isLocked": False,
            "measurements": [{"name": "n", "value": 3}],
        },
    }
    lesions = from_json([old, {**old, "id": "PathDetectionObject"}], "x")
    assert lesions.problems == ()
    assert len({lesion.id for lesion in lesions} | {"PathAnnotationObject"}) == 3
    assert lesions[0].color == (200, 0, 0)
    assert len(lesions[0].geometry.geoms) == 2
    first, second = to_json(lesions)["features"]
    assert first["properties"] == {"objectType": "annotation", **old["properties"]}
    assert second["properties"]["objectType"] == "detection"


def test_colors() -> None:
    assert color_of(-3670016) == (200, 0, 0)
    assert signed_rgb((200, 0, 0)) == -3670016
    assert color_of(signed_rgb((1, 2, 3))) == (1, 2, 3)
    assert color_of([1, 2, 3]) == (1, 2, 3)
    assert [color_of(x) for x in (None, True, "red", [1, 2], [1, "x", 3])] == [None] * 5
    (lesion,) = from_json({**FEATURE, "properties": {"classification": {"name": "A", "colorRGB": -16711936}}}, "x")
    assert lesion.color == (0, 255, 0)
    (derived,) = from_json({**FEATURE, "properties": {"classification": {"names": ["Tumor", "Positive"]}}}, "x")
    assert derived.label == "Tumor: Positive"


def test_ids_of_other_kinds() -> None:
    features = [{**FEATURE, "id": 7}, {**FEATURE, "id": "seven"}, {**FEATURE, "id": "seven"}, {**FEATURE, "id": None}]
    lesions = from_json(features, "x")
    assert lesions[0].id == "7"
    assert lesions[1].id == "seven"
    assert lesions[2].id != "seven"
    assert len(lesions.problems) == 1
    assert "same id" in lesions.problems[0]
    assert to_json(lesions)["features"][0]["id"] == 7


def test_bad_outlines_are_listed_and_the_rest_loads(tmp_path: Path) -> None:
    def polygon(*rings: Any) -> dict[str, Any]:
        return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": list(rings)}, "properties": {}}

    features = [
        FEATURE,
        polygon([[0, 0], [1, 1], [0, 0]]),
        polygon([[0, 0], [float("nan"), 1], [1, 1], [0, 0]]),
        polygon([[0, 0], [None, 1], [1, 1], [0, 0]]),
        polygon(),
        polygon([]),
        polygon([["a", "b"]]),
        polygon([[0, 0], [5, 5], [10, 10], [0, 0]]),
        {"type": "Feature", "geometry": None, "properties": None},
        {"type": "Feature", "geometry": {"type": "Circle", "coordinates": [1, 2]}},
        {"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[1, 2]]}},
        "nonsense",
        polygon([[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]),
        polygon(SQUARE, [[2, 2], [3, 3]]),
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[SQUARE], [[[1, 1]]]]}},
    ]
    path = tmp_path / "bad.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    lesions = read_lesions(path)
    assert len(lesions) == 4
    assert all(lesion.geometry.is_valid for lesion in lesions)
    assert lesions.problems[0] == "1 outline crossed or touched itself and was repaired."
    assert len(lesions.problems) == 1 + 11 + 2
    assert sum("left out" in problem for problem in lesions.problems) == 13
    assert "Outline 3" in lesions.problems[2]
    assert "not a finite number" in lesions.problems[2]


def test_repaired_outlines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "bowties.geojson"
    rings = [[[x, 0], [x + 10, 10], [x + 10, 0], [x, 10], [x, 0]] for x in (0, 20, 40)]
    path.write_text(json.dumps([{"type": "Polygon", "coordinates": [ring]} for ring in rings]))
    assert read_lesions(path).problems == ("3 outlines crossed or touched themselves and were repaired.",)


def test_lines_points_and_heights() -> None:
    features = [
        {"type": "LineString", "coordinates": [[0, 0, 0], [5, 5, 0]]},
        {"type": "Point", "coordinates": [3, 4]},
        {"type": "MultiPoint", "coordinates": [[3, 4], [5, 6]]},
        {"type": "MultiLineString", "coordinates": [[[0, 0], [1, 1]], [[2, 2], [3, 3]]]},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [3, 4]}]},
    ]
    lesions = from_json(features, "x")
    assert [lesion.has_area for lesion in lesions] == [False] * 5
    assert not lesions[0].geometry.has_z
    kinds = [feature["geometry"]["type"] for feature in to_json(lesions)["features"]]
    assert kinds == [feature["type"] for feature in features]


def test_what_belongs_to_the_set_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    write_lesions(LesionSet([Lesion(shapely.box(0, 0, 1, 1))], meta={"shift": [3.0, 4.0], "format": "asap"}), path)
    assert read_lesions(path).meta == {"shift": [3.0, 4.0], "format": "geojson"}


@settings(max_examples=60, deadline=None)
@given(lesion_sets())
def test_round_trip(lesions: LesionSet) -> None:
    again = from_json(json.loads(json.dumps(to_json(lesions))), "x")
    assert again.problems == ()
    assert [(x.id, x.label.strip(), x.name, x.locked) for x in again] == [
        (x.id, x.label.strip(), x.name, x.locked) for x in lesions
    ]
    for new, old in zip(again, lesions, strict=True):
        assert same_geometry(new.geometry, old.geometry, 0)
        assert new.color == (old.color or (old.shown_color if old.label else None))


def test_real_files(shared_data: Path) -> None:
    folder = shared_data / "annotations"
    assert read_lesions(folder / "geojson" / "qupath05.geojson")[0].id == "6423a977-ffff-48db-affc-cd11632010f0"
    holed = read_lesions(folder / "histoqc" / "holed.geojson")
    assert len(holed[0].geometry.interiors) == 1
    old = read_lesions(folder / "aperio_xml" / "TCGA-EJ-5519-01Z-00-DX1.json")
    assert old.labels == {"Tumor": 1, "Other": 1, "Negative": 1}
