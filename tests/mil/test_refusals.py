"""What cannot be trained is refused in a sentence that says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mil.errors import TrainingError
from napari_mil.mil import Bag, Method, Run, fit

from .conftest import finish, make_bags, quick


def bag(name: str = "s", label: int | None = 1, dim: int = 6, **fields) -> Bag:
    return Bag(name, np.random.default_rng(0).normal(size=(4, dim)), None, label, **fields)


OTHER = [bag("v0", 0), bag("v1", 1)]


@pytest.mark.parametrize(
    ("train", "validation", "sentence"),
    [
        ([], OTHER, "no training slide with features"),
        (OTHER, [], "no validation slide with features"),
        ([bag("a", 0), bag("b", None)], OTHER, r"1 of 2 training slides have no label \(b\)"),
        ([bag("a", 0), bag("b", 2)], OTHER, "Slide b has label 2.*0 negative, 1 positive"),
        ([bag("a", 0), bag("b", 0)], OTHER, "All 2 training slides are negative.*positive"),
        ([bag("a", 0), bag("b", 1)], [bag("c", 0)], "All 1 validation slides are negative"),
        ([bag("a", 0), bag("b", 1), bag("c", 1, dim=5)], OTHER, "Slide c has 5 numbers per patch, most others 6"),
        ([bag("a", 0), bag("v1", 1)], OTHER, "Slide v1 is given twice"),
        ([bag("a", 0, patient_id="P"), bag("b", 1)], [bag("c", 0), bag("d", 1, patient_id="P")],
         "Patient P is in training and in validation"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on(train: list[Bag], validation: list[Bag], sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        next(fit(quick("ab_mil"), train, validation))


def test_missing_class_of_three() -> None:
    method = Method(task={"kind": "multiclass", "classes": ["a", "b", "c"]})
    with pytest.raises(TrainingError, match="No training slide is c"):
        next(fit(method, [bag("a", 0), bag("b", 1)], OTHER))


@pytest.mark.parametrize("preset", ["rank_induction", "attention_induction", "patch_classifier"])
def test_methods_of_lesions_want_lesions(preset: str, validation) -> None:
    train = [Bag(b.slide_id, b.features, None, b.label, None) for b in make_bags()]
    with pytest.raises(TrainingError, match=r"none of the 4 positive training slides has a patch inside an outline"):
        next(fit(quick(preset), train, validation))


def test_lesions_without_partners(validation) -> None:
    train = make_bags()
    partial = [
        Bag(b.slide_id, b.features, None, b.label, np.where(b.patch_labels == 1, 1, -1) if b.label else b.patch_labels)
        for b in train
    ]
    with pytest.raises(TrainingError, match=r"free of lesion.*cross_slide_negatives"):
        next(fit(quick(), partial, validation))
    next(fit(quick(supervision__cross_slide_negatives=5), partial, validation))
    some = next(fit(quick(), [*train[:6], *partial[6:]], validation)).notes
    assert any("1 of 4 outlined slides have no patch known to be free of lesion" in note for note in some)
    bare = Bag(train[7].slide_id, train[7].features, None, 1, None)
    notes = next(fit(quick(), [*train[:7], bare], validation)).notes
    assert any("1 of 4 positive training slides have no outlined lesion" in note and "s7" in note for note in notes)


def test_devices_that_are_not_there(train, validation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r'No CUDA graphics card.*Use device "cpu".*doctor'):
        next(fit(quick(), train, validation, device="cuda"))
    with pytest.raises(TrainingError, match="no device 'gpu'"):
        next(fit(quick(), train, validation, device="gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match="There is no cuda:3: this computer has 1"):
        next(fit(quick(), train, validation, device="cuda:3"))
    with pytest.raises(TrainingError, match="not supported"):
        next(fit(quick(), train, validation, device="meta"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_memory_exhausted_is_a_sentence(error: BaseException, train, validation, monkeypatch) -> None:
    from napari_mil.mil.aggregators.ab_mil import AbMilRank

    def forward(self: object, x: torch.Tensor) -> None:
        raise error

    monkeypatch.setattr(AbMilRank, "forward", forward)
    with pytest.raises(TrainingError, match=r"Slide train\d \(\d+ patches of 6 numbers\) does not fit into the memory"):
        next(fit(quick(), train, validation))


def test_other_errors_of_a_network_are_not_hidden(train, validation, monkeypatch) -> None:
    from napari_mil.mil.aggregators.ab_mil import AbMilRank

    def forward(self: object, x: torch.Tensor) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(AbMilRank, "forward", forward)
    with pytest.raises(RuntimeError, match="a bug"):
        next(fit(quick(), train, validation))


def test_loss_that_is_no_number(train, validation, tmp_path) -> None:
    method = quick(training__learning_rate=1e30, training__optimizer="sgd", training__epochs=20)
    with pytest.raises(TrainingError, match=r"loss became (nan|inf) at slide .*lower training.learning_rate"):
        finish(fit(method, train, validation, out=tmp_path / "run"))
    assert Run.load(tmp_path / "run", "last").build() is not None
