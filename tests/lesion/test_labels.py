"""Patch labels in all their options, against the published implementation's numbers and against plain geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.geometry import PatchGrid
from napari_mil.lesion import ClassRoles, Lesion, LesionSet, buffer, overlap_fractions, patch_labels, read_lesions

from .strategies import polygons

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "geom.npz"
ROW = PatchGrid([(0, 0), (100, 0), (200, 0), (300, 0)], 100, 100, 0.5)


def boxes(*bounds: tuple[float, float, float, float], label: str = "Tumor") -> LesionSet:
    """Rectangles of one class."""
    return LesionSet([Lesion(shapely.box(*b), label=label) for b in bounds])


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return {name.removeprefix("geom."): arrays[name] for name in arrays.files}


@pytest.fixture(scope="module")
def golden_set(golden: dict[str, np.ndarray]) -> tuple[LesionSet, PatchGrid]:
    outlines = LesionSet([Lesion(shapely.Polygon(golden[f"polygon{i}"])) for i in range(3)])
    return outlines, PatchGrid(golden["patch_xyxy_level0"][:, :2], 448, 448, 0.25)


class TestGolden:
    @pytest.mark.parametrize("threshold", [0.05, 0.25])
    def test_released_rule(self, golden, golden_set, threshold: float) -> None:
        labels = patch_labels(*golden_set, min_overlap=threshold, rule="released")
        np.testing.assert_array_equal(labels, golden[f"y_thr_{threshold}"])
        assert labels.dtype == np.int8

    def test_widened_outlines(self, golden, golden_set) -> None:
        outlines, grid = golden_set
        labels = patch_labels(buffer(outlines, 448), grid, rule="released")
        np.testing.assert_array_equal(labels, golden["y_thr_0.05_pad448"])

    def test_shares_of_truncated_outlines(self, golden, golden_set) -> None:
        for i in range(3):
            polygon = shapely.Polygon(np.trunc(golden[f"polygon{i}"]))
            shares = overlap_fractions(polygon, golden_set[1])
            np.testing.assert_allclose(shares, golden["overlap_fraction_f64"][:, i], atol=1e-12)


class TestRules:
    def test_above_the_threshold_not_at_it(self) -> None:
        at, above = boxes((0, 0, 5, 100)), boxes((0, 0, 5.001, 100))
        assert patch_labels(at, ROW).tolist() == [0, 0, 0, 0]
        assert patch_labels(above, ROW).tolist() == [1, 0, 0, 0]
        for share in (0.1, 0.3, 0.7):
            assert patch_labels(boxes((0, 0, 100 * share, 100)), ROW, min_overlap=share)[0] == 0

    def test_any_touch_with_threshold_zero(self) -> None:
        assert patch_labels(boxes((99, 0, 101, 1)), ROW, min_overlap=0).tolist() == [1, 1, 0, 0]
        assert patch_labels(boxes((50, 0, 100, 50)), ROW, min_overlap=0).tolist() == [1, 0, 0, 0]

    def test_union_counts_overlaps_once_and_neighbours_together(self) -> None:
        twice = boxes((0, 0, 4, 100), (0, 0, 4, 100))
        apart = boxes((0, 0, 4, 100), (50, 0, 54, 100))
        assert patch_labels(twice, ROW)[0] == 0
        assert patch_labels(apart, ROW)[0] == 1
        assert patch_labels(apart, ROW, rule="released")[0] == 0

    def test_exclusions_and_holes_are_cut_out(self) -> None:
        tumor = Lesion(shapely.box(0, 0, 200, 100))
        out = Lesion(shapely.box(0, 0, 97, 100), label="Exclusion")
        assert patch_labels([tumor, out], ROW).tolist() == [0, 1, 0, 0]
        assert patch_labels([tumor, out], ROW, rule="released").tolist() == [1, 1, 0, 0]
        assert patch_labels([out], ROW, rule="released").tolist() == [1, 0, 0, 0]
        holed = Lesion(shapely.Polygon(shapely.box(0, 0, 100, 100).exterior, [shapely.box(1, 1, 99, 99).exterior]))
        assert patch_labels([holed], ROW).tolist() == [0, 0, 0, 0]

    def test_released_truncates_vertices(self) -> None:
        wide = boxes((0.9, 0, 5.95, 100))  # 5.05 % as drawn, 5 % after truncation
        assert patch_labels(wide, ROW)[0] == 1
        assert patch_labels(wide, ROW, rule="released")[0] == 0

    def test_released_takes_an_outline_split_by_truncation_as_one(self) -> None:
        # the neck between the two squares has no width in whole pixels
        dumbbell = shapely.union_all([shapely.box(0, 0, 18, 18), shapely.box(40, 0, 58, 18)])
        dumbbell = dumbbell.union(shapely.box(18, 5.2, 40, 5.8))
        assert dumbbell.geom_type == "Polygon"
        assert patch_labels([Lesion(dumbbell)], ROW, rule="released").tolist() == [1, 0, 0, 0]

    def test_arguments_are_checked(self) -> None:
        with pytest.raises(ValueError, match="min_overlap is 5"):
            patch_labels(LesionSet(), ROW, min_overlap=5)
        with pytest.raises(ValueError, match="rule is 'loose'"):
            patch_labels(LesionSet(), ROW, rule="loose")


class TestClasses:
    def test_partial_slides(self) -> None:
        outlines = [
            Lesion(shapely.box(0, 0, 50, 100)),
            Lesion(shapely.box(100, 0, 151, 100), label="normal"),
            Lesion(shapely.box(200, 0, 249, 100), label="Normal"),
        ]
        assert patch_labels(outlines, ROW).tolist() == [1, 0, 0, 0]
        assert patch_labels(outlines, ROW, partial=True).tolist() == [1, 0, -1, -1]

    def test_a_slide_without_outlines(self) -> None:
        assert patch_labels(LesionSet(), ROW).tolist() == [0, 0, 0, 0]
        assert patch_labels(LesionSet(), ROW, partial=True).tolist() == [-1, -1, -1, -1]

    def test_ignore_goes_before_lesion_and_lesion_before_normal(self) -> None:
        tumor = Lesion(shapely.box(0, 0, 200, 100))
        ignore = Lesion(shapely.box(0, 0, 60, 100), label="Ignore")
        normal = Lesion(shapely.box(0, 0, 400, 100), label="Normal")
        labels = patch_labels([tumor, ignore, normal], ROW, partial=True)
        assert labels.tolist() == [-1, 1, 0, 0]

    def test_other_class_names(self) -> None:
        outlines = [
            Lesion(shapely.box(0, 0, 100, 100), label="DCIS"),
            Lesion(shapely.box(100, 0, 200, 100), label="Gland"),
            Lesion(shapely.box(200, 0, 300, 100), label="Pen"),
        ]
        roles = ClassRoles(lesion=("dcis",), normal=("Gland",), ignore=("Pen",))
        assert patch_labels(outlines, ROW, classes=roles).tolist() == [1, 0, -1, 0]
        assert patch_labels(outlines, ROW, classes=roles, partial=True).tolist() == [1, 0, -1, -1]
        assert patch_labels(outlines, ROW).tolist() == [1, 1, 1, 0]  # not told otherwise, an outline is a lesion
        assert patch_labels([Lesion(shapely.box(0, 0, 400, 100), label="Stroma")], ROW).tolist() == [0, 0, 0, 0]

    def test_lines_and_broken_outlines(self) -> None:
        line = Lesion(shapely.LineString([(0, 50), (400, 50)]))
        bow_tie = Lesion(shapely.Polygon([(300, 0), (400, 100), (400, 0), (300, 100)]))
        assert patch_labels([line, bow_tie], ROW).tolist() == [0, 0, 0, 1]

    def test_no_patches(self) -> None:
        empty = PatchGrid(np.zeros((0, 2)), 100, 100, 0.5)
        for rule in ("union", "released"):
            assert patch_labels(boxes((0, 0, 5, 5)), empty, rule=rule).shape == (0,)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(polygons((1000.0, 1000.0)), min_size=1, max_size=5),
    st.lists(polygons((1500.0, 1200.0)), max_size=2),
    st.sampled_from([0.0, 0.05, 0.25, 0.5]),
)
def test_shortcuts_change_nothing(
    tumors: list[shapely.Polygon], exclusions: list[shapely.Polygon], threshold: float
) -> None:
    """Labels found without the whole union are those of the whole union."""
    objects = [Lesion(p) for p in tumors] + [Lesion(p, label="Exclusion") for p in exclusions]
    x, y = np.meshgrid(np.arange(0, 2400, 150), np.arange(0, 2400, 130))
    grid = PatchGrid(np.column_stack([x.ravel(), y.ravel()]), (200, 170), (150, 130), 0.5)
    shares = overlap_fractions(LesionSet(objects).region(), grid)
    clear = np.abs(shares - threshold) > 1e-7
    labels = patch_labels(objects, grid, min_overlap=threshold)
    np.testing.assert_array_equal(labels[clear], (shares > threshold)[clear])


def test_real_patches_of_camelyon(shared_data: Path) -> None:
    """Published patches of known class: the 5 % rule on the outlines agrees for all but one (see their README)."""
    folder = shared_data / "camelyon16_patches256"
    wrong = total = 0
    for outlines in sorted((shared_data / "annotations" / "ncrf_json").glob("Tumor*.json")):
        lesions = read_lesions(outlines)
        for kind, expected in (("tumor", 1), ("normal", 0)):
            files = list((folder / kind).glob(f"{outlines.stem.lower()}_*"))
            coords = [tuple(map(int, file.stem.split("_")[-2:])) for file in files]
            labels = patch_labels(lesions, PatchGrid(coords, 256, 256, 0.25))
            total += len(labels)
            wrong += int((labels != expected).sum())
    assert total == 89
    assert wrong <= 1
