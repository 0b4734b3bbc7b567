"""Annotation files matched to slides by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import shapely

from napari_mil.errors import LesionError
from napari_mil.lesion import Lesion, LesionSet, import_folder, match_files, write_lesions


@pytest.mark.parametrize(
    ("file", "slides", "expected"),
    [
        ("slide.xml", ["slide", "other"], "slide"),
        ("slide.svs.geojson", ["slide"], "slide"),
        ("SLIDE.GEOJSON.GZ", ["slide"], "slide"),
        ("slide_annotations.json", ["slide"], "slide"),
        ("annotations-of-slide.json", ["slide"], "slide"),
        ("tumor_001.xml", ["tumor_001", "tumor_0010"], "tumor_001"),
        ("Tumor_010.xml", ["tumor_01", "tumor_010"], "tumor_010"),
        ("s1_b.xml", ["s1", "s1_b"], "s1_b"),
        ("s1_b_final.xml", ["s1", "s1_b"], "s1_b"),
        ("slide.xml", ["slide.svs"], "slide.svs"),
        ("a.ome.tif.xml", ["a"], "a"),
        (
            "TCGA-EJ-5519-01Z-00-DX1.xml",
            ["TCGA-EJ-5519-01Z-00-DX1.A1B2-C3", "TCGA-EJ-9999"],
            "TCGA-EJ-5519-01Z-00-DX1.A1B2-C3",
        ),
        ("CMU-1 [x].geojson", ["CMU-1 [x]"], "CMU-1 [x]"),
    ],
)
def test_one_slide(file: str, slides: list[str], expected: str) -> None:
    report = match_files([file], slides)
    assert report.matched == {expected: Path(file)}
    assert not report.unmatched
    assert not report.ambiguous


@pytest.mark.parametrize("file", ["tumor_0011.xml", "other.xml", "slide1.json", ".xml"])
def test_no_slide(file: str) -> None:
    report = match_files([file], ["tumor_001", "slide10", "slide"])
    assert report.matched == {}
    assert report.unmatched == [Path(file)]


def test_ambiguous() -> None:
    two_slides = match_files(["a1_vs_b1.xml"], ["a1", "b1"])
    assert two_slides.matched == {}
    assert two_slides.ambiguous == {Path("a1_vs_b1.xml"): ["a1", "b1"]}
    prefix = match_files(["case-1.xml"], ["case-1-A", "case-1-B"])
    assert set(prefix.ambiguous) == {Path("case-1.xml")}
    two_files = match_files(["s.xml", "s.geojson"], ["s"])
    assert two_files.matched == {}
    assert set(two_files.ambiguous) == {Path("s.xml"), Path("s.geojson")}
    exact_first = match_files(["s.xml", "s_old.xml"], ["s"])
    assert exact_first.matched == {"s": Path("s.xml")}
    assert exact_first.ambiguous == {Path("s_old.xml"): ["s"]}


def test_import_folder(tmp_path: Path) -> None:
    square = LesionSet([Lesion(shapely.box(0, 0, 1, 1))])
    bow_tie = LesionSet([Lesion(shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]))])
    write_lesions(square, tmp_path / "S1.xml")
    write_lesions(bow_tie, tmp_path / "deep" / "s2.svs.geojson")
    write_lesions(square, tmp_path / "S3.xml")
    write_lesions(square, tmp_path / "S3.json")
    write_lesions(square, tmp_path / "else.xml")
    write_lesions(square, tmp_path / ".hidden" / "S5.xml")
    (tmp_path / "S4.xml").write_text("<broken")
    (tmp_path / "notes.txt").write_text("S5")
    report = import_folder(tmp_path, ["S1", "S2", "S3", "S4", "S5"])
    assert set(report.lesions) == set(report.matched) == {"S1", "S2"}
    assert report.slides_without == ["S3", "S4", "S5"]
    assert report.unmatched_files == [tmp_path / "else.xml"]
    assert set(report.ambiguous) == {tmp_path / "S3.xml", tmp_path / "S3.json"}
    text = " ".join(report.problems)
    assert "S4.xml: not well-formed" in text
    assert "s2.svs.geojson: 1 outline crossed" in text
    assert len(report.problems) == 4
    assert "2 outlines for 2 slides; 3 slides without, 1 files of no slide, 2 ambiguous" in report.summary()
    with pytest.raises(LesionError, match="no such folder"):
        import_folder(tmp_path / "none", [])
