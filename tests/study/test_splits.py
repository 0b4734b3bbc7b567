"""Patients stay together, labels in proportion, seeds decide."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import ProjectError
from napari_mil.study import SlideRow, k_fold, monte_carlo, propose_split
from napari_mil.study.splits import patients_in_two_roles, refuse_patients_in_two_roles


def rows_of(patients: list[tuple[str, int]]) -> list[SlideRow]:
    """(label, number of slides) of each patient."""
    return [
        SlideRow(slide_id=f"s{p:03d}_{k}", path="x", patient_id=f"p{p:03d}", label=label or None)
        for p, (label, n) in enumerate(patients)
        for k in range(n)
    ]


cohorts = st.lists(st.tuples(st.sampled_from(["normal", "tumor", ""]), st.integers(1, 4)), min_size=1, max_size=40)


@given(cohorts, st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_patients_stay_together_and_the_order_of_the_rows_does_not_matter(
    patients: list[tuple[str, int]], seed: int
) -> None:
    rows = rows_of(patients)
    if not any(row.label for row in rows):
        with pytest.raises(ProjectError, match="No slide has a label"):
            propose_split(rows, seed=seed)
        return
    split = propose_split(rows, seed=seed)
    given_roles = [row.model_copy(update={"role": split.get(row.slide_id)}) for row in rows]
    assert patients_in_two_roles(given_roles) == {}
    assert set(split) == {row.slide_id for row in rows if row.label}
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    assert propose_split(shuffled, seed=seed) == split
    for label in ("normal", "tumor"):
        n = sum(wanted == label for wanted, _ in patients)
        found = Counter(
            role for p, (wanted, _) in enumerate(patients) if wanted == label for role in {split[f"s{p:03d}_0"]}
        )
        if n >= 3:
            assert set(found) == {"train", "validation", "test"}
            for role, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
                assert abs(found[role] - n * share) <= 2
        elif n:
            assert found["train"] >= 1


def test_seeds_give_different_splits_and_the_same_one_again() -> None:
    rows = rows_of([("normal", 1), ("tumor", 1)] * 20)
    first, second = monte_carlo(rows, 2, seed=5)
    assert first != second
    assert monte_carlo(rows, 2, seed=5) == [first, second]
    assert Counter(first.values()) == {"train": 24, "validation": 8, "test": 8}


def test_slides_are_counted_where_patients_have_many() -> None:
    rows = rows_of([("tumor", 10), *[("tumor", 1)] * 9])
    sizes = Counter(propose_split(rows, seed=0).values())
    assert sizes["train"] >= 10  # the patient with ten slides cannot be in the small parts


def test_a_fixed_test_set_is_kept() -> None:
    rows = rows_of([("normal", 2), ("tumor", 2)] * 8)
    rows = [row.model_copy(update={"role": "test" if row.patient_id < "p004" else None}) for row in rows]
    for split in monte_carlo(rows, 3, (0.8, 0.2, 0.0), keep_test=True):
        assert {i for i, role in split.items() if role == "test"} == {r.slide_id for r in rows if r.role == "test"}
        assert Counter(split.values())["train"] > Counter(split.values())["validation"] > 0
    with pytest.raises(ProjectError, match="no test set to keep"):
        monte_carlo(rows_of([("normal", 1)]), 1, keep_test=True)


@given(st.integers(2, 5), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_each_slide_is_in_the_test_fold_once(folds: int, seed: int) -> None:
    rows = rows_of([("normal", 2), ("tumor", 1)] * 7)
    splits = k_fold(rows, folds, seed)
    tested = Counter(slide for split in splits for slide, role in split.items() if role == "test")
    assert tested == Counter(row.slide_id for row in rows)
    for split in splits:
        assert patients_in_two_roles([r.model_copy(update={"role": split[r.slide_id]}) for r in rows]) == {}
        for role in ("train", "validation", "test"):
            assert {r.label for r in rows if split[r.slide_id] == role} == {"normal", "tumor"}


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(ProjectError, match=r"Only 2 patients .* too few for 3 folds"):
        k_fold(rows_of([("tumor", 5), ("tumor", 1), *[("normal", 1)] * 9]), 3)
    with pytest.raises(ValueError, match="at least 2"):
        k_fold([], 1)


def test_fractions_must_make_sense() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        propose_split(rows_of([("tumor", 1)]), (0.5, 0.1, 0.1))


def test_a_patient_in_two_roles_is_refused_with_names() -> None:
    rows = rows_of([("tumor", 2)])
    rows = [row.model_copy(update={"role": role}) for row, role in zip(rows, ("train", "test"), strict=True)]
    with pytest.raises(ProjectError, match=r"patient p000 is in train \(s000_0\) and in test \(s000_1\)"):
        refuse_patients_in_two_roles(rows)
