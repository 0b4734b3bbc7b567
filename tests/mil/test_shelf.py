"""Features read ahead, kept where there is room, and never all at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mil.errors import Cancelled, TrainingError
from napari_mil.mil import Bag, fit
from napari_mil.mil.patients import patient_bags
from napari_mil.mil.shelf import AHEAD, Shelf, light_bags

from .conftest import Stop, finish, make_bags, quick, same

CPU = torch.device("cpu")
reads: Counter[str] = Counter()


class OnDisk:
    """Features that count how often they are read."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self._array = name, array
        self.shape, self.dtype = array.shape, array.dtype

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        reads[self.name] += 1
        return self._array.copy()


def disk_bags(bags: list[Bag]) -> list[Bag]:
    reads.clear()
    return [replace(bag, features=OnDisk(bag.slide_id, bag.features)) for bag in bags]


def test_in_order_with_their_features() -> None:
    bags = make_bags(5)
    order = [3, 0, 0, 4]
    lazy = disk_bags(bags)
    shown = list(Shelf(CPU, 0).through([lazy[i] for i in order]))
    assert [bag.slide_id for bag, _ in shown] == [f"s{i}" for i in order]
    assert all(np.array_equal(x.numpy(), bags[i].features) for i, (_, x) in zip(order, shown, strict=True))
    assert reads == {"s3": 1, "s0": 2, "s4": 1}


def test_kept_where_there_is_room() -> None:
    lazy = disk_bags(make_bags(5))
    two = sum(int(np.prod(bag.features.shape)) * 4 for bag in lazy[:2])
    shelf = Shelf(CPU, two)
    for _ in range(3):
        list(shelf.through(lazy))
    assert reads == {"s0": 1, "s1": 1, "s2": 3, "s3": 3, "s4": 3}


def test_a_patient_called_like_a_slide() -> None:
    a, b, c = disk_bags(make_bags(3))
    patient, alone = patient_bags([replace(a, patient_id="s2"), replace(b, patient_id="s2"), c])
    assert patient.slide_id == alone.slide_id == "s2"
    shelf = Shelf(CPU, 10**6)
    for _ in range(2):
        assert [len(x) for _, x in shelf.through([patient, alone])] == [len(patient), len(alone)]


def test_the_next_ones_are_read_meanwhile_and_no_more() -> None:
    lazy = disk_bags(make_bags(9))
    shown = Shelf(CPU, 0).through(lazy)
    next(shown)
    for _ in range(200):
        if sum(reads.values()) == 1 + AHEAD:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert sum(reads.values()) == 1 + AHEAD
    shown.close()
    assert sum(reads.values()) == 1 + AHEAD
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("napari-mil-features")]


def test_training_from_disk_is_the_same(train: list[Bag], validation: list[Bag]) -> None:
    method = quick("mhim_abmil_c16")
    _, run = finish(fit(method, train, validation))
    for room in (0, 1e-3, None):
        _, other = finish(fit(method, disk_bags(train), disk_bags(validation), keep_mb=room))
        assert same(run, other)


def test_what_fails_in_the_thread_names_its_slide(train: list[Bag], validation: list[Bag]) -> None:
    lazy = disk_bags(train)
    bad = train[3].features.copy()
    bad[2, 1] = np.nan
    lazy[3] = replace(lazy[3], features=OnDisk("bad", bad))
    with pytest.raises(TrainingError, match=r"train3.*1 of .* patches are NaN"):
        finish(fit(quick(), lazy, validation, keep_mb=0))

    class Gone(OnDisk):
        def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
            raise MemoryError

    lazy[3] = replace(lazy[3], features=Gone("gone", bad))
    with pytest.raises(TrainingError, match=r"train3.*does not fit into the memory"):
        finish(fit(quick(), lazy, validation, keep_mb=0))


def test_cancelling_stops_the_reading(train: list[Bag], validation: list[Bag], tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        finish(fit(quick(), disk_bags(train), disk_bags(validation), keep_mb=0, out=tmp_path / "run", on_bag=Stop(3)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("napari-mil-features")]
    assert sum(reads.values()) <= 3 + AHEAD + 1


class Made(Sequence):
    """Bags made anew each time."""

    def __init__(self, bags: list[Bag], keep: bool = False) -> None:
        self._bags, self.asked = bags, Counter()
        self._kept = dict(enumerate(bags)) if keep else {}

    def __len__(self) -> int:
        return len(self._bags)

    def __getitem__(self, index: int) -> Bag:
        self.asked[index] += 1
        if index in self._kept:
            return self._kept[index]
        return replace(self._bags[index], features=self._bags[index].features.copy())


def test_bags_made_on_demand_are_let_go(train: list[Bag], validation: list[Bag]) -> None:
    made = Made(train)
    light = light_bags(made)
    assert set(made.asked.values()) == {1}
    assert [bag.slide_id for bag in light] == [bag.slide_id for bag in train]
    assert not any(isinstance(bag.features, np.ndarray) for bag in light)
    assert torch.equal(light[2].tensor(), train[2].tensor())
    assert torch.equal(light[2].rows(np.array([4, 1, 4])), train[2].rows(np.array([4, 1, 4])))
    kept = Made(train, keep=True)
    assert all(one is other for one, other in zip(light_bags(kept), train, strict=True))
    _, run = finish(fit(quick(), train, validation))
    made = Made(train)
    _, other = finish(fit(quick(), made, Made(validation), keep_mb=0))
    assert same(run, other)
    epochs = quick().training.epochs
    assert sum(made.asked.values()) == len(made) * (1 + epochs), "once to look at it, then as often as it is shown"


def test_patients_in_memory_are_not_kept_twice() -> None:
    bags = [replace(bag, patient_id="p", label=1) for bag in make_bags(3)]
    (patient,) = patient_bags(bags)
    shelf = Shelf(CPU, 10**9)
    ((_, x),) = shelf.through([patient])
    assert x.shape == patient.features.shape
    assert shelf.room == 10**9
    (patient,) = patient_bags(disk_bags(bags))
    list(shelf.through([patient]))
    assert shelf.room < 10**9
