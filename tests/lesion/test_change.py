"""Outlines moved, widened, measured, and made from masks."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_mil.errors import LesionError
from napari_mil.lesion import ClassRoles, Lesion, LesionSet, areas_um2, buffer, lesions_from_mask, shift

SQUARE = Lesion(shapely.Polygon(shapely.box(0, 0, 100, 100).exterior, [shapely.box(40, 40, 60, 60).exterior]))
NORMAL = Lesion(shapely.box(200, 0, 300, 50), label="Normal")
POINT = Lesion(shapely.Point(5, 5))


def test_shift_is_recorded_and_undone() -> None:
    lesions = LesionSet([SQUARE, POINT], problems=["x"])
    there = shift(lesions, 1000, -20.5)
    assert there[0].geometry.bounds == (1000, -20.5, 1100, 79.5)
    assert there.meta["shift"] == [1000, -20.5]
    back = shift(there, -1000, 20.5)
    assert back.meta["shift"] == [0, 0]
    assert back[0].geometry.equals(SQUARE.geometry)
    assert back.problems == ("x",)


def test_areas_are_in_square_micrometres() -> None:
    areas = areas_um2(LesionSet([SQUARE, NORMAL, POINT]), (0.5, 0.25))
    np.testing.assert_allclose(areas, [9600 * 0.125, 5000 * 0.125, 0])
    np.testing.assert_allclose(areas_um2([SQUARE], 2), [9600 * 4])


def test_buffer_widens_lesions_only() -> None:
    wide = buffer(LesionSet([SQUARE, NORMAL, POINT]), 10)
    assert wide[0].geometry.area == pytest.approx(100**2 + 4 * 1000 + np.pi * 100, rel=1e-3)
    assert wide[0].id == SQUARE.id
    assert wide[1] is NORMAL
    assert wide[2] is POINT
    assert wide.meta["buffer_px"] == 10
    other = buffer(LesionSet([SQUARE, NORMAL]), 10, ClassRoles(lesion=("Normal",), normal=()))
    assert other[0] is SQUARE
    narrow = buffer(LesionSet([SQUARE, NORMAL]), -30)
    assert len(narrow) == 1
    assert "narrower than 60 px" in narrow.problems[0]


class TestMasks:
    def test_regions_holes_and_classes(self) -> None:
        mask = np.zeros((10, 20), dtype=np.uint8)
        mask[1:9, 1:9] = 1
        mask[3:5, 3:5] = 0
        mask[2:4, 12:18] = 2
        lesions = lesions_from_mask(mask, downsample=(4, 2), origin=(100, 50), classes={1: "Tumor", 2: "Stroma"})
        assert lesions.labels == {"Tumor": 1, "Stroma": 1}
        assert lesions[0].geometry.area == (64 - 4) * 8
        assert lesions[0].geometry.bounds == (104, 52, 136, 68)
        assert len(lesions[0].geometry.interiors) == 1
        assert lesions_from_mask(mask).labels == {"Tumor": 2}
        assert lesions_from_mask(mask, classes={2: "A"}).labels == {"A": 1}

    @settings(max_examples=50, deadline=None)
    @given(arrays(bool, st.tuples(st.integers(0, 8), st.integers(0, 8))))
    def test_every_pixel_once(self, mask: np.ndarray) -> None:
        lesions = lesions_from_mask(mask)
        assert sum(lesion.geometry.area for lesion in lesions) == mask.sum()
        region = lesions.region()
        for y, x in np.ndindex(*mask.shape):
            assert region.contains(shapely.Point(x + 0.5, y + 0.5)) == mask[y, x]

    def test_pictures_are_refused(self) -> None:
        with pytest.raises(LesionError, match="one channel"):
            lesions_from_mask(np.zeros((4, 4, 3), np.uint8))
        with pytest.raises(LesionError, match="float"):
            lesions_from_mask(np.zeros((4, 4)))
