"""A patient's slides as one bag: what is put together, what is refused, and each slide's part of the prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mil import PatchGrid
from napari_mil.errors import TrainingError
from napari_mil.mil import Bag, Method, fit, patient_bags, predict

from .conftest import finish, make_bags, quick
from .test_bag import OnDisk


def slide(name: str, n: int = 3, patient: str | None = "P", seed: int = 0, dtype: type = np.float16, **fields) -> Bag:
    x = np.random.default_rng([seed, n]).normal(size=(n, 4)).astype(dtype)
    grid = PatchGrid([[i, 0] for i in range(n)], 1, 1, 0.5)
    return Bag(name, x, grid, patient_id=patient, **fields)


def paired(bags: list[Bag], prefix: str) -> list[Bag]:
    """Patients of two slides, of one label."""
    return [
        Bag(b.slide_id, b.features, None, b.label, b.patch_labels, f"{prefix}{k // 4}-{b.label}")
        for k, b in enumerate(bags)
    ]


TRAIN, VALIDATION = paired(make_bags(16, seed=1, prefix="t"), "tp"), paired(make_bags(8, seed=2, prefix="v"), "vp")


def test_slides_one_after_the_other() -> None:
    a = slide("a", 3, label=0, tissue_pixels=np.array([1, 2, 3]))
    b = slide("b", 2, seed=1, label=1, patch_labels=np.array([1, 0]), tissue_pixels=np.array([4, 5]))
    other = slide("c", 5, "Q", label=0)
    alone = slide("d", 4, None, label=1)
    bag, second, third = patient_bags([a, other, b, alone])
    assert (bag.slide_id, bag.patient_id, bag.label, len(bag), bag.grid) == ("P", "P", 1, 5, None)
    assert bag.slides == (("a", 3), ("b", 2))
    assert bag.slide_ids == ("a", "b")
    assert bag.patch_labels.tolist() == [-1, -1, -1, 1, 0]
    assert bag.tissue_pixels.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(bag.tensor(), np.concatenate([a.features, b.features]))
    assert bag.tensor().dtype == torch.float32
    assert bag.features.dtype == np.float16
    np.testing.assert_array_equal(bag.rows(np.array([4, 0, 4])), np.asarray(bag.features)[[4, 0, 4]])
    np.testing.assert_array_equal(bag.rows(np.array([1])), a.features[[1]])
    assert (second.slide_id, second.slides) == ("Q", (("c", 5),))
    assert third is alone
    assert patient_bags([bag, second, third]) == [bag, second, third]  # once is enough


def test_slides_on_disk_stay_there_and_tensors_too() -> None:
    disk = OnDisk(np.ones((3, 4), np.float16))
    (bag,) = patient_bags([Bag("a", disk, patient_id="P"), Bag("b", torch.zeros(2, 4), patient_id="P")])
    assert disk.reads == 0
    np.testing.assert_array_equal(bag.tensor(), [[1] * 4] * 3 + [[0] * 4] * 2)
    np.testing.assert_array_equal(bag.rows(np.array([2, 4])), [[1] * 4, [0] * 4])
    disk.array[1, 1] = np.nan
    with pytest.raises(TrainingError, match="Slide P: the features of 1 of 5 patches are NaN"):
        bag.tensor()


@pytest.mark.parametrize(
    ("one", "other", "task", "sentence"),
    [
        (
            {"label": 1},
            {"label": 2},
            "multiclass",
            r"patient P have different labels \(a 1, b 2\).*task.bags",
        ),
        ({"time": 3.0, "event": True}, {"time": 4.0, "event": True}, "survival", r"time a 3.0, b 4.0; event a True, b"),
        ({"time": 3.0, "event": True}, {}, "survival", "b unknown"),
    ],
)
def test_slides_that_disagree(one: dict, other: dict, task: str, sentence: str) -> None:
    bags = [slide("a", **one), slide("b", **other)]
    with pytest.raises(TrainingError, match=sentence):
        patient_bags(bags, task)
    (bag,) = patient_bags(bags)  # nothing to the task of two classes
    assert bag.time is None


def test_slides_of_other_sizes_are_refused() -> None:
    with pytest.raises(TrainingError, match="Patient P has slides of 4 and 5 numbers per patch"):
        patient_bags([slide("a"), Bag("b", np.zeros((2, 5), np.float16), patient_id="P")])


def test_training_and_prediction_of_patients() -> None:
    method = quick(training__epochs=2).with_settings({"task.bags": "patient"})
    _, run = finish(fit(method, TRAIN, VALIDATION))
    _, by_hand = finish(fit(method, patient_bags(TRAIN), patient_bags(VALIDATION)))
    assert all(torch.equal(run.weights[key], value) for key, value in by_hand.weights.items())
    bag = patient_bags(VALIDATION)[1]
    assert len(bag.slides) == 2
    whole = predict(run, bag)
    parts = whole.of_slides(bag)
    assert [part.slide_id for part in parts] == ["v1", "v3"]
    for name in ("scores", "attention", "contribution"):
        pieces = [getattr(part, name) for part in parts]
        assert [len(piece) for piece in pieces] == [n for _, n in bag.slides]
        np.testing.assert_array_equal(np.concatenate(pieces), getattr(whole, name))
    assert sum(part.attention.sum() for part in parts) == pytest.approx(1, abs=1e-5)
    assert all((part.probabilities == whole.probabilities).all() for part in parts)
    alone = predict(run, VALIDATION[0])
    assert alone.of_slides(VALIDATION[0]) == [alone]


def test_a_slide_without_label_makes_no_patient_negative() -> None:
    def label(*labels: int | None) -> int | None:
        return patient_bags([slide(f"s{k}", label=label) for k, label in enumerate(labels)])[0].label

    assert [label(0, None), label(None, 1), label(0, 0), label(0, 1)] == [None, 1, 0, 1]


def test_other_patients_are_other_bags_to_a_resumed_training(tmp_path: Path) -> None:
    method = quick(training__epochs=3).with_settings({"task.bags": "patient"})
    training = fit(method, TRAIN, VALIDATION, out=tmp_path)
    next(training)
    training.close()
    assert TRAIN[-2].patient_id != TRAIN[-1].patient_id
    moved = [*TRAIN[:-1], replace(TRAIN[-1], patient_id=None)]
    moved = [bag for patient in patient_bags(TRAIN) for bag in moved if bag.slide_id in patient.slide_ids]
    assert [i for bag in patient_bags(moved) for i in bag.slide_ids] == [
        i for bag in patient_bags(TRAIN) for i in bag.slide_ids
    ]
    with pytest.raises(TrainingError, match="other training or validation slides"):
        next(fit(method, moved, VALIDATION, out=tmp_path, resume=True))


def test_sentences_speak_of_patients() -> None:
    method = quick(training__epochs=1).with_settings({"task.bags": "patient"})
    report = next(fit(method, TRAIN, VALIDATION))
    assert any("only 2 patients of class positive" in note for note in report.notes)
    positive = [bag for bag in TRAIN if bag.label]
    with pytest.raises(TrainingError, match="All 4 training patients are positive"):
        next(fit(method, positive, VALIDATION))
    with pytest.raises(TrainingError, match="Slide t1 is given twice"):
        next(fit(method, [*TRAIN, TRAIN[1]], VALIDATION))


def test_many_classes_of_patients() -> None:
    rng = np.random.default_rng(0)
    bags = [Bag(f"m{i}", rng.normal(size=(8, 6)), None, i // 2 % 3, None, f"P{i // 2}") for i in range(24)]
    task = {"kind": "multiclass", "classes": ["a", "b", "c"], "bags": "patient"}
    method = Method(aggregator="ab_mil_rank", task=task, training={"epochs": 1})
    reports, run = finish(fit(method, bags[:12], bags[12:]))
    assert reports[0].val_metrics["balanced_accuracy"] is not None
    assert predict(run, patient_bags(bags, "multiclass")[0]).probabilities.shape == (3,)
