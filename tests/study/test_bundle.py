"""A model handed on, and used on slides."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import shapely

import napari_mil.features as features
from napari_mil.errors import FeatureError, MilError, TrainingError
from napari_mil.features import read_features
from napari_mil.lesion import Lesion, LesionSet
from napari_mil.study import (
    Project,
    apply_bundle,
    bundle_of_run,
    export_bundle,
    load_bundle,
    load_map_scores,
    load_run,
    prepare_all,
    train_project,
)

from .conftest import drain, grid_of, paint_slide, quick_method, write_features


def test_a_bundle_holds_the_model_and_no_names(trained: tuple[Project, Path], tmp_path: Path) -> None:
    import torch

    project, folder = trained
    out = export_bundle(folder, tmp_path / "model", licence="Ours, for research.")
    assert {p.name for p in out.iterdir()} == {"bundle.json", "run.json", "best.safetensors", "LICENCE.txt"}
    for path in out.glob("*.json"):
        text = re.sub(r"print-of-\w+", "", path.read_text(encoding="utf-8"))  # what is left after the fingerprints
        assert not re.search(r"p0\d", text), path  # names no slide and no patient
        assert str(project.folder) not in text
    bundle = load_bundle(out)
    run = load_run(folder)
    assert all(torch.equal(bundle.run.weights[k], run.weights[k]) for k in run.weights)
    assert bundle.run.method == run.method
    assert (bundle.encoder, bundle.target_mpp, bundle.patch_px) == ("texture", 0.5, 100)
    assert (bundle.classes, bundle.licence) == (("normal", "tumor"), "Ours, for research.\n")
    assert bundle.tile == project.config.tile
    train = next(r.slide_id for r in project.slides if r.role == "train")
    test = next(r.slide_id for r in project.slides if r.role == "test")
    assert bundle.badge(f"print-of-{train}") == "TRAIN"
    assert bundle.badge(f"print-of-{test}") == "TEST"
    assert bundle.badge("another") == "NEW"


def test_features_of_another_encoder_or_scale_are_refused(trained: tuple[Project, Path], tmp_path: Path) -> None:
    bundle = bundle_of_run(trained[1])
    for name, options, sentence in (
        ("a", {"encoder": "resnet50"}, "encoder resnet50 instead of texture"),
        ("b", {"target_mpp": 0.25}, r"0\.25 µm per pixel instead of 0\.5"),
        ("c", {"px": 224}, "patch size in px 224 instead of 100"),
    ):
        path = write_features(tmp_path / f"{name}.h5", np.zeros((20, 6)), grid_of(), **options)  # type: ignore[arg-type]
        with pytest.raises(FeatureError, match=sentence):
            bundle.check_features(read_features(path))


def test_weights_of_a_published_encoder_are_not_handed_on(trained: tuple[Project, Path], tmp_path: Path) -> None:
    weights = tmp_path / "pytorch_model.bin"
    weights.write_bytes(b"not ours")
    record = trained[1] / "run.json"
    before = record.read_text(encoding="utf-8")
    content = json.loads(before)
    content["provenance"]["features"]["encoder"] = "uni"
    content["provenance"]["encoder_source"] = {"encoder": "uni", "weights": str(weights)}
    try:
        record.write_text(json.dumps(content), encoding="utf-8")
        out = export_bundle(trained[1], tmp_path / "model", licence="Ours.")
    finally:
        record.write_text(before, encoding="utf-8")
    assert "pytorch_model.bin" not in {p.name for p in out.iterdir()}
    bundle = load_bundle(out)
    assert (bundle.encoder, bundle.encoder_weights) == ("uni", None)
    assert bundle.licence.startswith("Ours.\n\nIt reads the features of an encoder that is not in this folder.")
    assert "https://creativecommons.org/licenses/by-nc-nd/4.0/" in bundle.licence


@pytest.mark.parametrize(
    ("recorded", "asked"), [("bf16", "bf16"), ("fp32", "fp32"), ("unknown", "fp32"), ("", "fp32"), (None, "fp32")]
)
def test_new_slides_are_computed_in_the_precision_of_the_training(
    trained: tuple[Project, Path], monkeypatch: pytest.MonkeyPatch, recorded: str | None, asked: str
) -> None:
    """Imported features do not know theirs, runs of earlier versions do not say it."""
    bundle = bundle_of_run(trained[1])
    bundle.features.pop("precision")
    if recorded is not None:
        bundle.features["precision"] = recorded
    found: list[str] = []
    monkeypatch.setattr(features, "in_precision", lambda encoder, precision: found.append(precision))
    bundle.encoder_on("cpu")
    assert found == [asked]


def test_bad_bundles_are_refused(trained: tuple[Project, Path], tmp_path: Path) -> None:
    out = export_bundle(trained[1], tmp_path / "model")
    with pytest.raises(MilError, match="is not empty"):
        export_bundle(trained[1], out)
    with pytest.raises(MilError, match=r"holds no bundle\.json"):
        load_bundle(tmp_path)
    path = out / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"schema_version": 9}))
    with pytest.raises(MilError, match="made by a newer napari-mil"):
        load_bundle(out)
    path.write_text(json.dumps({k: v for k, v in content.items() if k != "tile"}))
    with pytest.raises(MilError, match="is damaged"):
        load_bundle(out)
    run = load_run(trained[1])
    run.provenance = {}
    with pytest.raises(TrainingError, match="does not say what features"):
        bundle_of_run(run)


def test_a_program_travels_with_its_model(trained: tuple[Project, Path], tmp_path: Path) -> None:
    encoder = tmp_path / "net.pt2"
    encoder.write_bytes(b"program")
    encoder.with_suffix(".json").write_text('{"name": "net"}')
    run = load_run(trained[1])
    run.provenance["encoder_source"] = {"encoder": str(encoder), "weights": None}
    out = export_bundle(run, tmp_path / "model")
    encoder.unlink()
    bundle = load_bundle(out)
    assert Path(bundle.encoder) == out / "net.pt2"
    assert (out / "net.json").is_file()
    with pytest.raises(MilError, match="the encoder's file is not there any more"):
        export_bundle(run, tmp_path / "other")


@pytest.fixture(scope="module")
def painted_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle trained on pictures, and their folder."""
    folder = tmp_path_factory.mktemp("painted")
    for k in range(6):
        paint_slide(folder / "slides" / f"s{k}.png", lesion=k % 2 == 1, seed=k)
    project = Project.create(
        folder / "p", folder / "slides", encoder="texture", tile={"target_mpp": 1.0, "patch_px": 32}
    )
    project.set_mpp("s0", 1.0, folder=True)
    project.update_slides(
        {
            f"s{k}": {
                "label": "sick" if k % 2 else "healthy",
                "role": "train" if k < 4 else "validation",
                "partial_annotation": False,
            }
            for k in range(6)
        }
    )
    for k in (1, 3, 5):
        project.save_lesions(f"s{k}", LesionSet([Lesion(shapely.box(64, 64, 192, 192), label="Tumor")]))
    drain(prepare_all(project))
    _, run = drain(train_project(project, quick_method(epochs=30), seed=1))
    return export_bundle(run.folder, folder / "model"), folder / "slides"


def test_one_click_from_slide_to_map(painted_model: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, slides = painted_model
    paint_slide(tmp_path / "new.png", lesion=True, seed=50)
    reports, applied = drain(apply_bundle(bundle, tmp_path / "new.png", tmp_path / "out", mpp=1.0))
    assert reports[-1].done == reports[-1].total > 0
    assert applied.badge == "NEW"
    assert sum(applied.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert list(applied.probabilities) == ["healthy", "sick"]
    scores = load_map_scores(applied.scores)
    inside = ((scores.grid.coords >= 64) & (scores.grid.coords < 192)).all(axis=1)
    assert scores.scores[inside].mean() > scores.scores[~inside].mean()  # it looks where the lesion is
    assert Path(applied.picture).read_bytes()[:4] == b"\x89PNG"
    json.dumps(applied.to_dict())
    drain(apply_bundle(bundle, slides / "s1.png", tmp_path / "out", mpp=1.0))
    drain(apply_bundle(bundle, tmp_path / "new.png", tmp_path / "out", mpp=1.0))
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["slide_id"], r["badge"], r["use"]) for r in rows] == [
        ("s1", "TRAIN", "Research use only"),
        ("new", "NEW", "Research use only"),
    ]


def test_a_slide_too_coarse_for_the_model_is_refused_at_once(painted_model: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="2 µm per pixel instead of 1"):
        drain(apply_bundle(painted_model[0], painted_model[1] / "s0.png", tmp_path / "out", mpp=2.0))
    assert not (tmp_path / "out" / "features").exists()


def test_a_slide_without_scale_is_asked_for(painted_model: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MilError, match="µm per pixel"):
        drain(apply_bundle(painted_model[0], painted_model[1] / "s0.png", tmp_path / "out"))
    assert not (tmp_path / "out" / "predictions.csv").exists()
