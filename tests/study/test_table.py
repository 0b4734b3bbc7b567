"""Slide tables of ours and of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import ProjectError
from napari_mil.study import SlideRow, order_labels, preview_table, read_table, write_table
from napari_mil.study.table import guess_columns, patient_of, slide_id_of


def table(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_our_own_table_with_unknown_columns(tmp_path: Path) -> None:
    rows, mapping = read_table(
        table(
            tmp_path,
            "slide_id,path,patient_id,label,split,partial_annotation,time,event,stain\n"
            "a,slides/a.svs,p1,tumor,train,1,12.5,0,HE\nb,slides/b [1].svs,,normal,,,,,\n",
        )
    )
    first, second = rows
    assert (first.role, first.partial_annotation, first.time, first.event) == ("train", True, 12.5, False)
    assert first.extra == {"stain": "HE"}
    assert (second.patient_id, second.role, second.partial_annotation, second.label) == ("b", None, None, "normal")
    assert mapping["split"] == "split"
    assert "stain" not in mapping.values()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("﻿Slide ID;Case;Diagnosis;Set\nA;P;malignant;Training\n", "utf-8"),
        ("case_id,slide_id,label,set\nP,A,malignant,TRAIN\n", "utf-8"),
        ("image\tpatient\tclass\tsubset\nA\tP\tmalignant\ttrain\n\n\t\t\t\n", "utf-8"),
        ("slide_id,patient_id,label,split,naïve\nA,P,malignant,train,é\n", "latin-1"),
    ],
)
def test_tables_of_others_are_guessed(tmp_path: Path, text: str, encoding: str) -> None:
    rows, _ = read_table(table(tmp_path, text, encoding))
    assert [(r.slide_id, r.patient_id, r.label, r.role) for r in rows] == [("A", "P", "malignant", "train")]


def test_a_mapping_goes_before_the_guess(tmp_path: Path) -> None:
    path = table(tmp_path, "name,grade,truth\nx,1,yes\n")
    assert guess_columns(["name", "grade", "truth"]) == {"slide_id": "name", "label": "grade"}
    rows, used = read_table(path, {"slide_id": "name", "label": "truth"})
    assert rows[0].label == "yes"
    assert rows[0].extra == {"grade": "1"}
    assert used == {"slide_id": "name", "label": "truth"}
    columns, first, guess = preview_table(path)
    assert (columns, first, guess["label"]) == (["name", "grade", "truth"], [["x", "1", "yes"]], "grade")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "found no table"),
        ("colour,size\nred,3\n", "no column names the slides; found colour, size"),
        ("slide_id,label,label\na,1,2\n", "'label' stands there twice"),
        ("slide_id,label\na,1,2\n", "row 2 has 3 values, its header 2"),
        ("slide_id,path\na,1.svs\nA,2.svs\n", "slide A stands there twice"),
        ("slide_id,split\na,tuesday\n", "line 2: split is 'tuesday'; expected train"),
        ("slide_id,time\na,soon\n", "time is 'soon'; expected a number"),
        ("slide_id,partial_annotation\na,maybe\n", "partial_annotation is 'maybe'"),
        ("slide_id\n../a\n", "cannot name a file"),
        ("slide_id,mpp_x\na,350\n", "expected between 0.05 and 20"),
    ],
)
def test_bad_tables_are_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ProjectError, match=sentence):
        read_table(table(tmp_path, text))


def test_missing_file_and_column(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ProjectError, match="no column truth; found slide_id"):
        read_table(table(tmp_path, "slide_id\na\n"), {"slide_id": "slide_id", "label": "truth"})


words = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12).map(str.strip)
names = words.map(lambda s: "n" + "".join(c if c not in '<>:"/\\|?*' else "_" for c in s) + "x")


@given(
    st.lists(
        st.builds(
            SlideRow,
            slide_id=names,
            path=words.filter(bool),
            patient_id=words.filter(bool),
            label=st.none() | words.filter(bool),
            role=st.sampled_from([None, "train", "validation", "test"]),
            partial_annotation=st.sampled_from([None, True, False]),
            time=st.none() | st.floats(0, 1e6),
            event=st.sampled_from([None, True, False]),
            mpp=st.none() | st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)),
            extra=st.just({}) | st.fixed_dictionaries({"stain of it": words}),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row.slide_id.lower(),
    )
)
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[SlideRow]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.csv"
    write_table(path, rows)
    again, _ = read_table(path)
    if any(row.extra for row in rows):
        rows = [row.model_copy(update={"extra": row.extra or {"stain of it": ""}}) for row in rows]
    assert again == rows


def test_names_from_files() -> None:
    assert slide_id_of("/a/b/slide 1.ome.tif") == "slide 1"
    assert slide_id_of("C:\\x\\S-1.2.svs") == "S-1.2"
    assert slide_id_of("x/a:b?.tif") == "a_b_"
    assert patient_of("TCGA-EJ-5519-01Z-00-DX1") == "TCGA-EJ-5519"
    assert patient_of("tumor_001") == "tumor_001"


@pytest.mark.parametrize(
    ("given_names", "ordered"),
    [
        (["tumor", "normal"], ["normal", "tumor"]),
        (["malignant", "benign"], ["benign", "malignant"]),
        (["1", "0"], ["0", "1"]),
        (["positive", "negative", "positive"], ["negative", "positive"]),
        (["yes", "no"], ["no", "yes"]),
        (["grade 10", "grade 2", "normal tissue"], ["normal tissue", "grade 2", "grade 10"]),
        (["LUSC", "LUAD"], ["LUAD", "LUSC"]),
        (["tumor", "non-tumor"], ["non-tumor", "tumor"]),
        (["abnormal", "zero"], ["abnormal", "zero"]),
    ],
)
def test_the_negative_label_comes_first(given_names: list[str], ordered: list[str]) -> None:
    assert order_labels(given_names) == ordered
