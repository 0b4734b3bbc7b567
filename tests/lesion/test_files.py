"""Recognising, refusing, writing and converting annotation files."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_mil.errors import LesionError
from napari_mil.lesion import Lesion, LesionSet, convert, read_lesions, write_lesions

LESIONS = LesionSet([Lesion(shapely.box(0, 0, 10, 10)), Lesion(shapely.box(20, 0, 30, 10), label="Normal")])


@pytest.mark.parametrize(
    ("name", "format"), [("a.xml", "asap"), ("a.xml", "aperio"), ("a.txt", "dsa"), ("a", "geojson")]
)
def test_content_not_suffix_says_what_it_is(tmp_path: Path, name: str, format: str) -> None:
    path = tmp_path / "ünï [1]" / name
    write_lesions(LESIONS, path, format)
    again = read_lesions(path)
    assert again.meta["format"] == format
    assert again.labels == LESIONS.labels


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"type": "FeatureCollection", "features": [', "not valid JSON at line 1"),
        (b'{"type": "FeatureCollection"}', "no list of features"),
        (b'{"hello": 1}', "an object with 'hello'"),
        (b"[1, 2]", "a list"),
        (b"3", "expected one of"),
        (b"<ASAP_Annotations><Annotations>", "not well-formed XML at line 1"),
        (b"<html></html>", "first element is <html>"),
        (b"\xff\xd8\xff\xe0 jpeg", "neither text nor XML"),
        (b"slide_id,path\ns1,s1.svs\n", "neither XML nor JSON"),
        (b"\x1f\x8b\x08\x00 not gzip", "gzip"),
        (gzip.compress(b"[]" * 100, mtime=0)[:-9], "gzip"),
        (b"[" * 100_000, "JSON"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><ASAP_Annotations>&b;</ASAP_Annotations>', "entities"),
    ],
)
def test_unusable_files_are_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(LesionError, match=words) as error:
        read_lesions(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(LesionError, match="no such file"):
        read_lesions(tmp_path / "none.xml")
    with pytest.raises(LesionError, match="cannot be read"):
        read_lesions(tmp_path)


def test_marks_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([]).encode())
    assert len(read_lesions(path)) == 0
    xml = '<?xml version="1.0" encoding="UTF-16"?><ASAP_Annotations/>'
    path.write_bytes(xml.encode("utf-16"))
    assert read_lesions(path).meta["format"] == "asap"


def test_writing_asks_for_a_format(tmp_path: Path) -> None:
    with pytest.raises(LesionError, match=r"ending in '\.csv'.*format="):
        write_lesions(LESIONS, tmp_path / "a.csv")
    with pytest.raises(LesionError, match="'ncrf'"):
        write_lesions(LESIONS, tmp_path / "a.json", "ncrf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions bind ordinary users only")
def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LesionError, match="cannot be written"):
        write_lesions(LESIONS, tmp_path / "a.geojson")
    tmp_path.chmod(0o700)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.geojson"
    write_lesions(LESIONS, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LesionError, match="No space left"):
        write_lesions(LesionSet(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.geojson"]


def test_a_file_held_open_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = os.replace

    def busy(*paths: object) -> None:
        calls.append(paths)
        if len(calls) < 3:
            raise PermissionError(13, "held")
        real(*paths)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", busy)
    write_lesions(LESIONS, tmp_path / "a.geojson")
    assert len(calls) == 3
    assert len(read_lesions(tmp_path / "a.geojson")) == 2


def test_convert_tells_all(tmp_path: Path) -> None:
    bow_tie = Lesion(shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]))
    line = Lesion(shapely.LineString([(0, 0), (1, 1), (2, 0)]))
    write_lesions(LESIONS.add(bow_tie, line), tmp_path / "a.geojson")
    summary = convert(tmp_path / "a.geojson", tmp_path / "b.xml")
    assert summary.source_format == "geojson"
    assert summary.target_format == "asap"
    assert summary.objects == 4
    assert summary.classes == {"Tumor": 3, "Normal": 1}
    assert len(summary.problems) == 2
    assert json.loads(json.dumps(summary.to_dict()))["problems"] == list(summary.problems)
    assert len(read_lesions(tmp_path / "b.xml")) == 3


def test_thousands_of_outlines(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 50, endpoint=False)
    circle = np.column_stack([np.cos(angle), np.sin(angle)]) * 20.5
    many = LesionSet([Lesion(shapely.Polygon(circle + (i % 100 * 50, i // 100 * 50))) for i in range(3000)])
    write_lesions(many, tmp_path / "many.geojson")
    assert len(read_lesions(tmp_path / "many.geojson")) == 3000
