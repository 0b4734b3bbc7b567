"""Bags: what is kept, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mil import PatchGrid
from napari_mil.errors import TrainingError
from napari_mil.mil import Bag

X = np.arange(12, dtype=np.float32).reshape(4, 3)


class OnDisk:
    """Like an HDF5 dataset: has a shape, becomes an array when asked, wants ascending indices."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, 0

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        self.reads += 1
        return self.array.copy()

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        assert (np.diff(index) > 0).all()
        return self.array[index]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_stay_as_given_and_become_float32(dtype: type) -> None:
    bag = Bag("a", X.astype(dtype))
    assert bag.features.dtype == dtype
    assert bag.tensor().dtype == torch.float32
    np.testing.assert_array_equal(bag.tensor(), X)
    assert (len(bag), bag.dim) == (4, 3)


def test_float32_is_not_copied_and_a_read_only_array_is_not_written() -> None:
    x = X.copy()
    assert Bag("a", x).tensor().data_ptr() == x.ctypes.data
    x.flags.writeable = False
    Bag("a", x).tensor().zero_()
    assert x.sum() > 0


def test_tensor_features() -> None:
    bag = Bag("a", torch.from_numpy(X).requires_grad_())
    assert not bag.tensor().requires_grad
    np.testing.assert_array_equal(bag.rows(np.array([2, 0, 2])), X[[2, 0, 2]])


def test_features_on_disk_are_read_when_needed() -> None:
    disk = OnDisk(X.astype(np.float16))
    bag = Bag("a", disk)
    assert disk.reads == 0
    np.testing.assert_array_equal(bag.tensor(), X)
    np.testing.assert_array_equal(bag.rows(np.array([3, 1, 3])), X[[3, 1, 3]])
    bad = disk.array.copy()
    bad[1, 1] = np.nan
    with pytest.raises(TrainingError, match=r"Slide b.*1 of 4 patches are NaN.*patch 1"):
        Bag("b", OnDisk(bad)).tensor()
    with pytest.raises(TrainingError, match="Slide b"):
        Bag("b", OnDisk(bad)).rows(np.array([1]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float16", "float32", "tensor"])
def test_features_that_are_no_numbers_are_refused_by_name(value: float, kind: str) -> None:
    x = X.astype(np.float16 if kind == "float16" else np.float32)
    x[2, 1] = value
    with pytest.raises(TrainingError, match=r"Slide tumor_001: the features of 1 of 4.*first: patch 2"):
        Bag("tumor_001", torch.from_numpy(x) if kind == "tensor" else x)


def test_large_features_are_not_taken_for_infinite() -> None:
    for largest in (np.full((100, 10), 6e4, np.float16), np.full((100, 10), 3e38, np.float32)):
        assert Bag("a", largest).features.shape == (100, 10)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"features": np.zeros(3)}, r"shape \(3,\); expected"),
        ({"features": np.zeros((0, 3))}, "has no patches"),
        ({"features": np.zeros((3, 0))}, r"shape \(3, 0\)"),
        ({"features": np.zeros((3, 2), int)}, "int64; expected float16 or float32"),
        ({"patch_labels": np.zeros(3)}, r"shape \(3,\) for 4 patches"),
        ({"patch_labels": np.array([0, 1, 2, 0])}, "patch label 2"),
        ({"tissue_pixels": np.array([1, 2, 3])}, "expected 4 counts"),
        ({"tissue_pixels": np.array([1, 2, 3, -1])}, "none negative"),
        ({"label": -1}, "expected the index of a class"),
        ({"label": 0.5}, "expected the index of a class"),
        ({"grid": PatchGrid([[0, 0]], 8, 8, 0.5)}, "a grid of 1 patches"),
    ],
)
def test_refused(fields: dict, sentence: str) -> None:
    with pytest.raises(TrainingError, match=f"Slide odd.*{sentence}"):
        Bag(**{"slide_id": "odd", "features": X, **fields})


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_patch_labels_become_int8(dtype: type) -> None:
    bag = Bag("a", X, patch_labels=np.array([1, 0, -1, 0], dtype), label=np.int64(1))
    assert bag.patch_labels.dtype == np.int8
    assert type(bag.label) is int
