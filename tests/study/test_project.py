"""A project on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import shapely

from napari_mil.errors import ProjectError
from napari_mil.lesion import Lesion, LesionSet
from napari_mil.study import Project

from .conftest import cohort


def touch(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"slide")
    return list(paths)


def table_text(project: Project) -> str:
    return (project.folder / "slides.csv").read_text(encoding="utf-8")


def test_from_a_folder_with_unicode_and_bracket_names(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    touch(slides / "Ärzte 1 [HE].svs", slides / "sub" / "b.ome.tif", slides / "notes.txt")
    project = Project.create(tmp_path / "my project", slides)
    assert project.config.name == "my project"
    assert {row.slide_id: row.path for row in project.slides} == {
        "Ärzte 1 [HE]": "../slides/Ärzte 1 [HE].svs",
        "b": "../slides/sub/b.ome.tif",
    }
    again = Project.open(tmp_path / "my project" / "project.json")
    assert again.slides == project.slides
    assert again.config == project.config
    assert again.slide_path("b") == slides / "sub" / "b.ome.tif"
    assert again.missing_slides() == []
    assert {p.name for p in project.folder.iterdir()} == {"project.json", "slides.csv"}


def test_from_a_table_beside_the_slides(tmp_path: Path) -> None:
    touch(tmp_path / "data" / "a.svs", tmp_path / "data" / "b.svs")
    csv = tmp_path / "data" / "t.csv"
    csv.write_text("file,case,truth,scanner\na.svs,P1,tumor,X\nb.svs,P2,normal,Y\n")
    project = Project.create(tmp_path / "p", csv, mapping={"path": "file", "patient_id": "case", "label": "truth"})
    assert project.slide_path("a") == tmp_path / "data" / "a.svs"
    assert project.label_names == ["normal", "tumor"]
    assert project.slide("a").extra == {"scanner": "X"}
    assert "scanner" in table_text(project).splitlines()[0]


def test_names_that_occur_twice_are_told_apart(tmp_path: Path) -> None:
    files = touch(*(tmp_path / d / n for d in ("x", "y") for n in ("s.svs", "S2.svs")), tmp_path / "z" / "s2.svs")
    project = Project.create(tmp_path / "p", files)
    assert project.slide_ids == ["x_s", "x_S2", "y_s", "y_S2", "z_s2"]
    assert [row.patient_id for row in project.slides] == project.slide_ids
    assert project.add_slides(files) == []  # the same files again
    assert project.add_slides(touch(tmp_path / "w" / "x_s.svs")) == ["w_x_s"]


def test_a_project_is_not_made_over_another_nor_of_nothing(tmp_path: Path) -> None:
    Project.create(tmp_path / "p")
    with pytest.raises(ProjectError, match="holds a project already"):
        Project.create(tmp_path / "p")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProjectError, match="holds no slides"):
        Project.create(tmp_path / "q", tmp_path / "empty")
    with pytest.raises(ProjectError, match="does not exist"):
        Project.create(tmp_path / "q", tmp_path / "nowhere")
    with pytest.raises(ProjectError, match="colour"):
        Project.create(tmp_path / "q", colour="red")
    assert not (tmp_path / "q").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ProjectError, match="cannot be saved"):
        Project.create(tmp_path / "file" / "p")


def test_paths_are_relative_whatever_the_folders_share(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", touch(tmp_path / "slides" / "a.svs"))
    assert project.slide("a").path == "../slides/a.svs"
    far = Path(tmp_path.anchor) / "elsewhere" / "b.svs"  # nothing in common but the root
    project.add_slides([far])
    row = Project.open(project.folder).slide("b")
    assert row.path.startswith("../")
    assert row.path.endswith("/elsewhere/b.svs")
    assert project.slide_path("b") == far


def test_the_scale_of_a_folder_is_found_under_its_whole_path_too(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", touch(tmp_path / "slides" / "a.svs"))
    project.config.mpp[(tmp_path / "slides").as_posix() + "/"] = (0.5, 0.5)  # as older projects keep it
    assert project.mpp_of("a") == (0.5, 0.5)
    project.set_mpp("a", 0.25, folder=True)
    assert project.mpp_of("a") == (0.25, 0.25)
    project.set_mpp("a", None, folder=True)
    assert project.mpp_of("a") is None


def test_a_dicom_slide_has_the_name_of_its_folder(tmp_path: Path) -> None:
    uid = "1.2.840.113619.2.55"
    one, *two = touch(
        tmp_path / "case 7" / f"{uid}.1.dcm", tmp_path / "both" / f"{uid}.2.dcm", tmp_path / "both" / f"{uid}.3.dcm"
    )
    project = Project.create(tmp_path / "p", [one, *two])
    assert project.slide_ids == ["case 7", f"{uid}.2", f"{uid}.3"]


def test_newer_damaged_and_missing_projects(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"holds no project\.json"):
        Project.open(tmp_path)
    project = Project.create(tmp_path / "p")
    path = project.folder / "project.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"schema_version": 99, "new_thing": 1}))
    with pytest.raises(ProjectError, match=r"newer napari-mil \(schema version 99, this one knows 1\); update with"):
        Project.open(project.folder)
    path.write_text(json.dumps(content | {"colour": "red"}))
    with pytest.raises(ProjectError, match="colour"):
        Project.open(project.folder)
    path.write_text(path.read_text()[:40])
    with pytest.raises(ProjectError, match="is not valid JSON"):
        Project.open(project.folder)
    path.write_text("[]")
    with pytest.raises(ProjectError, match="is not a project"):
        Project.open(project.folder)


def test_hundreds_of_slides(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / f"s{k:03d}.svs" for k in range(500)])
    project.update_slides({s: {"label": "tumor" if k % 2 else "normal"} for k, s in enumerate(project.slide_ids)})
    project.set_roles(project.propose_split())
    again = Project.open(project.folder)
    assert len(again) == 500
    again.update_slide("s007", label="normal")
    again.check_trainable()


def test_changes_are_all_or_none_and_saved(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / "a.svs", tmp_path / "b.svs"])
    project.update_slide("a", label=" tumor ", partial_annotation=False, time=3, event=True)
    assert Project.open(project.folder).slide("a") == project.slide("a")
    assert project.slide("a").label == "tumor"
    before = table_text(project)
    for changes, sentence in (
        ({"a": {"label": "x"}, "nix": {"label": "y"}}, "has no slide 'nix'; it has a, b"),
        ({"a": {"colour": 1}}, "has no field colour"),
        ({"a": {"slide_id": "c"}}, "has no field slide_id"),
        ({"a": {"role": "exam"}}, "role"),
        ({"a": {"mpp": (300, 300)}}, "expected between 0.05 and 20"),
    ):
        with pytest.raises(ProjectError, match=sentence):
            project.update_slides(changes)
    assert table_text(project) == before
    assert project.label_names == ["tumor"]


def test_a_patient_in_two_roles_is_refused_and_patients_can_move_whole(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / "a.svs", tmp_path / "b.svs"])
    project.update_slides({i: {"patient_id": "P", "role": "train"} for i in "ab"})
    with pytest.raises(ProjectError, match=r"patient P is in test \(a\) and in train \(b\)"):
        project.update_slide("a", role="test")
    project.set_roles({"a": "test", "b": "test"})
    assert [row.role for row in Project.open(project.folder).slides] == ["test", "test"]
    (tmp_path / "t.csv").write_text("slide_id,path,patient_id,split\nc,c.svs,P,train\n")
    with pytest.raises(ProjectError, match="patient P"):
        project.add_slides(tmp_path / "t.csv")
    assert project.slide_ids == ["a", "b"]
    # a table mended by hand opens, is told of, and can be put right one patient at a time
    path = project.folder / "slides.csv"
    path.write_text(path.read_text().replace("b,../b.svs,P,,test", "b,../b.svs,P,,train"))
    broken = Project.open(project.folder)
    broken.update_slides({"a": {"label": "x"}, "b": {"label": "y"}})
    assert any("Patient P is in test (a) and train (b)" in finding for finding in broken.check_trainable())
    broken.update_slide("b", role="test")
    assert not any("Patient P" in finding for finding in broken.check_trainable())


def test_labels_are_learnt_in_order_and_a_mistyped_one_is_forgotten(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / f"{c}.svs" for c in "abc"])
    project.update_slide("a", label="tumor")
    project.update_slide("b", label="normal")
    assert project.label_names == ["normal", "tumor"]
    project.update_slide("c", label="tumro")
    assert project.label_names == ["normal", "tumor", "tumro"]
    project.update_slide("c", label="tumor")
    assert project.label_names == ["normal", "tumor"]
    project.update_slides({"a": {"label": "normal"}, "c": {"label": "normal"}})
    assert project.label_names == ["normal", "tumor"]  # the pair stays for the keys
    project.set_label_names(["tumor", "normal"])
    project.update_slide("c", label="tumor")
    assert project.label_index("c") == 0
    assert Project.open(project.folder).label_names == ["tumor", "normal"]
    with pytest.raises(ProjectError, match="slides have the label normal"):
        project.set_label_names(["x", "tumor"])


def test_labels_from_a_table_matched_by_name_or_file(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", touch(tmp_path / "Tumor_001.svs", tmp_path / "n1.svs"))
    (tmp_path / "t.csv").write_text("image,label,set,age\ntumor_001.tif,tumor,train,70\nN1,normal,,60\nx,normal,,1\n")
    sentence = project.merge_table(tmp_path / "t.csv")
    assert sentence == "Read labels and roles of 2 of 2 slides. 1 name is not in the project (x)."
    row = Project.open(project.folder).slide("Tumor_001")
    assert (row.label, row.role, row.extra) == ("tumor", "train", {"age": "70"})


def test_broken_paths_are_repaired_by_asking_once(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "elsewhere"
    files = touch(old / "a.svs", old / "sub" / "b.svs", old / "c.svs", old / "d.svs")
    project = Project.create(tmp_path / "p", files)
    os.rename(old, new)
    assert project.missing_slides() == ["a", "b", "c", "d"]
    (new / "c.svs").rename(new / "c.tiff")  # converted: found by its stem
    touch(new / "twin1" / "d.svs")
    (new / "d.svs").rename(new / "sub" / "d.svs")  # two of that name: not guessed at
    assert project.relocate(old, new) == ["a", "b", "c"]
    again = Project.open(project.folder)
    assert again.missing_slides() == ["d"]
    assert again.slide_path("b") == new / "sub" / "b.svs"
    assert again.slide_path("c") == new / "c.tiff"
    with pytest.raises(ProjectError, match="is no folder"):
        project.relocate(None, tmp_path / "nowhere")


def test_a_table_without_paths_finds_its_slides(tmp_path: Path) -> None:
    (tmp_path / "clam.csv").write_text("case_id,slide_id,label\nP,a,tumor\n")
    project = Project.create(tmp_path / "p", tmp_path / "clam.csv")
    touch(tmp_path / "wsi" / "a.ndpi")
    assert project.relocate(None, tmp_path / "wsi") == ["a"]
    assert project.slide_path("a").name == "a.ndpi"


def test_tables_of_windows_and_odd_names(tmp_path: Path) -> None:
    files = touch(tmp_path / "sub" / "a.svs", tmp_path / "~$b.svs")
    (tmp_path / "t.csv").write_text("slide_id,path\na,sub\\a.svs\nb,~$b.svs\nc,D:\\slides\\c.svs\n")
    project = Project.create(tmp_path / "p", tmp_path / "t.csv")
    assert [project.slide_path(i) for i in "ab"] == files
    assert project.missing_slides() == ["c"]
    touch(tmp_path / "new" / "c.svs")
    assert project.relocate(None, tmp_path / "new") == ["c"]
    listed = Project.create(tmp_path / "q", [tmp_path / "~$b.svs", "~/somewhere/x.svs"])
    assert listed.slide_path("x") == Path.home() / "somewhere" / "x.svs"


def test_moving_the_whole_folder_keeps_the_paths(tmp_path: Path) -> None:
    touch(tmp_path / "study" / "slides" / "a.svs")
    Project.create(tmp_path / "study" / "project", tmp_path / "study" / "slides")
    os.rename(tmp_path / "study", tmp_path / "moved")
    assert Project.open(tmp_path / "moved" / "project").missing_slides() == []


def test_mpp_given_for_a_slide_a_folder_and_a_scanner(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / "x" / "a.svs", tmp_path / "x" / "b.svs", tmp_path / "c.svs"])
    assert project.mpp_of("a") is None
    project.set_mpp("a", 0.25, folder=True)
    project.set_mpp("b", (0.5, 0.4))
    project.set_mpp("c", 0.46, scanner="hamamatsu")
    again = Project.open(project.folder)
    assert again.mpp_of("a") == (0.25, 0.25)
    assert again.mpp_of("b") == (0.5, 0.4)
    assert again.mpp_of("c") is None
    assert again.mpp_of("c", scanner="hamamatsu") == (0.46, 0.46)
    again.set_mpp("a", None, folder=True)
    again.set_mpp("b", None)
    assert again.mpp_of("a") is again.mpp_of("b") is None
    for mpp in (0.0, 350, float("nan")):
        with pytest.raises(ProjectError):
            again.set_mpp("a", mpp)
        with pytest.raises(ProjectError, match="not plausible"):
            again.set_mpp("a", mpp, folder=True)


def test_view_runs_and_features(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / "a.svs"])
    project.save_view({"slide": "a", "camera": [1.5, 2]})
    assert Project.open(project.folder).config.view == {"slide": "a", "camera": [1.5, 2]}
    first, second = project.new_run_folder("rank induction/x"), project.new_run_folder("rank induction/x")
    assert first != second
    assert first.name.endswith("-rank-induction-x")
    assert project.runs() == []
    (first / "run.json").write_text("{}")
    assert project.runs() == [first]
    assert project.feature_path("a").parent.parent == project.folder / "features"
    assert not project.has_features("a")
    before = project.feature_set
    project.config.tile = project.config.tile.model_copy(update={"patch_px": 256})
    assert project.feature_set != before
    project.config.encoder = "../enc/net.pt2"
    assert project.encoder == str(tmp_path / "enc" / "net.pt2")


def test_lesions_are_kept_with_their_history(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / "a.svs"])
    assert len(project.lesions("a")) == 0
    one = LesionSet([Lesion(shapely.box(0, 0, 10, 10), label="Tumor")])
    assert project.save_lesions("a", one) == project.folder / "lesions" / "a.geojson"
    project.save_lesions("a", LesionSet())
    assert len(project.lesions("a")) == 0
    assert len(list((project.lesion_folder / "history" / "a").iterdir())) == 1
    with pytest.raises(ProjectError, match="has no slide 'b'"):
        project.save_lesions("b", one)


def test_slides_are_taken_out_but_their_files_stay(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", touch(tmp_path / "a.svs", tmp_path / "b.svs"))
    project.remove_slides(["a"])
    assert Project.open(project.folder).slide_ids == ["b"]
    assert (tmp_path / "a.svs").exists()


def test_an_interrupted_save_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.create(tmp_path / "p", [tmp_path / "a.svs"])
    before = table_text(project)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ProjectError, match=r"cannot be saved \(disk full\); what was there before is kept"):
        project.update_slide("a", label="tumor")
    monkeypatch.undo()
    assert table_text(project) == before
    assert list(project.folder.glob("*.part")) == []


def test_findings_say_what_to_do(tmp_path: Path) -> None:
    empty = Project.create(tmp_path / "empty")
    assert [str(f) for f in empty.check_trainable()] == [
        "The project has no slides yet. Add a folder of slides, or a table."
    ]
    project = Project.create(tmp_path / "p", [tmp_path / f"{c}.svs" for c in "abcd"])
    assert any("No slide has a label yet" in f and f.blocking for f in project.check_trainable())
    project.update_slides({i: {"label": "tumor", "role": "train"} for i in "ab"} | {"c": {"role": "test"}})
    found = project.check_trainable()
    assert "1 slide has a role but no label (c). Label it first." in found
    assert any("No labelled slide has the role validation" in f for f in found)
    assert any(f.startswith("All 2 train slides have the label tumor.") for f in found)
    assert any("2 of 2 training and validation slides have no features yet (a, b)" in f for f in found)
    assert any("Prepare them on the Features page (or napari-mil extract)." in f for f in found)
    assert any("no slide has the role test" in f.lower() and not f.blocking for f in found)
    assert [f.blocking for f in found] == sorted((f.blocking for f in found), reverse=True)


def test_slides_that_failed_are_left_out_and_said(made_up: Project) -> None:
    from napari_mil.study.prepare import record_failure

    train = [r.slide_id for r in made_up.slides if r.role == "train"]
    made_up.feature_path(train[0]).unlink()
    assert any(f.blocking and f"has no features yet ({train[0]})" in f for f in made_up.check_trainable())
    record_failure(made_up, train[0], "cannot be read.")
    found = made_up.check_trainable()
    assert not any(f.blocking for f in found)
    assert any(f"could not be prepared and is left out ({train[0]})" in f for f in found)


def test_advice_about_validation_and_outlines(made_up: Project) -> None:
    found = made_up.check_trainable()
    assert all(not f.blocking for f in found)
    assert any("validation slides are positive, fewer than 10" in f for f in found)
    train = [r for r in made_up.slides if r.role == "train"]
    positive = next(r.slide_id for r in train if r.label == "tumor")
    negative = next(r.slide_id for r in train if r.label == "normal")
    made_up.update_slide(positive, partial_annotation=None)
    made_up.save_lesions(negative, made_up.lesions(positive))
    found = made_up.check_trainable()
    assert any(f"nobody has said whether all lesions are outlined ({positive})" in f for f in found)
    assert any(f"labelled normal but has lesions outlined ({negative})" in f for f in found)


def test_window_and_process_may_hold_the_same_project(tmp_path: Path) -> None:
    window = cohort(tmp_path / "p", patients=3)
    process = Project.open(window.folder)
    window.update_slide("p00_a", label="tumor")
    from napari_mil.study.prepare import record_failure

    record_failure(process, "p01_a", "cannot be read.")
    window.save()
    assert window.failures() == {"p01_a": "cannot be read."}
    assert Project.open(window.folder).slide("p00_a").label == "tumor"
    record_failure(process, "p01_a", None)
    assert window.failures() == {}
