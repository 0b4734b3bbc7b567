"""Bags: features from disk, labels from table and outlines."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from napari_mil.errors import ProjectError
from napari_mil.lesion import Lesion, LesionSet
from napari_mil.study import Project, slide_patch_labels

from .conftest import DIM, grid_of


def box(x0: int, y0: int, x1: int, y1: int, label: str = "Tumor") -> Lesion:
    return Lesion(shapely.box(x0, y0, x1, y1), label=label)


def counts(project: Project, slide_id: str) -> dict[int, int]:
    labels = slide_patch_labels(project, slide_id, grid_of())
    assert labels.dtype == np.int8
    return {int(v): int(n) for v, n in zip(*np.unique(labels, return_counts=True), strict=True)}


def test_a_bag_has_everything(made_up: Project) -> None:
    bag = made_up.bag("p01_a")
    assert bag.features.shape == (20, DIM)
    assert (bag.label, bag.patient_id, bag.slide_id) == (1, "p01", "p01_a")
    np.testing.assert_array_equal(np.flatnonzero(bag.patch_labels == 1), np.arange(5))
    assert bag.grid == grid_of()
    assert bag.tissue_pixels is None
    made_up.update_slide("p01_a", event=True, time=4.5)
    assert (made_up.bag("p01_a").event, made_up.bag("p01_a").time) == (True, 4.5)


@pytest.mark.parametrize(
    ("label", "partial", "outlines", "expected"),
    [
        ("tumor", False, [box(0, 0, 500, 100)], {0: 15, 1: 5}),
        ("tumor", True, [box(0, 0, 500, 100)], {-1: 15, 1: 5}),
        ("tumor", None, [box(0, 0, 500, 100)], {-1: 15, 1: 5}),  # unanswered counts as partial
        ("tumor", True, [box(0, 0, 500, 100), box(0, 100, 500, 200, "Normal")], {-1: 10, 0: 5, 1: 5}),
        ("tumor", False, [], {-1: 20}),  # positive without an outline: nothing is known
        ("tumor", False, [box(0, 100, 500, 200, "Normal")], {-1: 15, 0: 5}),
        ("tumor", False, [box(0, 0, 500, 100), box(0, 300, 500, 400, "Ignore")], {-1: 5, 0: 10, 1: 5}),
        ("normal", None, [], {0: 20}),
        ("normal", None, [box(0, 0, 500, 100)], {0: 20}),  # a slide without the disease has no lesion
        ("normal", True, [box(0, 0, 500, 100, "Ignore")], {-1: 5, 0: 15}),
        (None, False, [box(0, 0, 500, 100)], {0: 15, 1: 5}),
    ],
)
def test_patch_labels(made_up: Project, label, partial, outlines, expected) -> None:  # type: ignore[no-untyped-def]
    made_up.update_slide("p01_a", label=label, partial_annotation=partial)
    made_up.save_lesions("p01_a", LesionSet(outlines))
    assert counts(made_up, "p01_a") == expected


def test_bags_are_read_when_asked_for(made_up: Project) -> None:
    bags = made_up.bags("train")
    made_up.feature_path(bags.slide_ids[-1]).unlink()
    assert bags[0] is bags[0]
    assert [bag.slide_id for bag in bags[:2]] == bags.slide_ids[:2]
    with pytest.raises(ProjectError, match="has no features yet; prepare it"):
        bags[-1]
    assert len(made_up.bags()) == 18


def test_tissue_pixels_belong_to_their_grid(made_up: Project) -> None:
    from napari_mil.study.bags import tissue_path

    path = tissue_path(made_up.feature_path("p01_a"))
    np.savez(path, tissue_pixels=np.arange(20), coords=grid_of().coords)
    np.testing.assert_array_equal(made_up.bag("p01_a").tissue_pixels, np.arange(20))
    np.savez(path, tissue_pixels=np.arange(20), coords=grid_of().coords + 1)
    assert made_up.bag("p01_a").tissue_pixels is None


def test_badges_go_by_name_fingerprint_and_patient() -> None:
    from napari_mil.study import role_badge

    provenance = {
        "split": {"train": ["a"], "validation": ["b"], "test": ["c"]},
        "slides": {
            "a": {"patient_id": "P1", "fingerprint": "f1"},
            "b": {"patient_id": "P2", "fingerprint": None},
            "c": {"patient_id": "P3", "fingerprint": "f3"},
        },
    }
    assert role_badge(provenance, slide_id="a") == "TRAIN"
    assert role_badge(provenance, slide_id="renamed", fingerprint="f1") == "TRAIN"
    assert role_badge(provenance, slide_id="new", patient_id="P1") == "TRAIN"  # another slide of a training patient
    assert role_badge(provenance, slide_id="c", patient_id="P1") == "TRAIN"
    assert role_badge(provenance, slide_id="b", patient_id="P2") == "VALIDATION"
    assert role_badge(provenance, slide_id="c", patient_id="P3") == "TEST"
    assert role_badge(provenance, slide_id="d", patient_id="P4", fingerprint="f4") == "NEW"
    assert role_badge({}, slide_id="a") == "NEW"
    assert role_badge(provenance, fingerprint="") == "NEW"


def test_the_published_rule_counts_exclusions_as_lesion(made_up: Project) -> None:
    from napari_mil.study.provenance import project_provenance

    outlines = [box(0, 0, 500, 100), box(0, 100, 500, 200, "Exclusion")]
    made_up.update_slide("p01_a", partial_annotation=False)
    made_up.save_lesions("p01_a", LesionSet(outlines))
    before = counts(made_up, "p01_a"), project_provenance(made_up, ["p01_a"])["slides"]
    made_up.config.overlap_rule = "released"
    assert counts(made_up, "p01_a") == {0: 10, 1: 10} != before[0]
    assert project_provenance(made_up, ["p01_a"])["slides"] != before[1]


def test_features_stay_on_the_disk(made_up: Project) -> None:
    from napari_mil.features import read_features

    bag = made_up.bag("p01_a")
    assert not isinstance(bag.features, np.ndarray)
    stored = read_features(made_up.feature_path("p01_a"), dtype=None).features
    np.testing.assert_array_equal(bag.stored().numpy(), stored)
    np.testing.assert_array_equal(bag.rows(np.array([7, 2])).numpy(), stored[[7, 2]].astype(np.float32))
