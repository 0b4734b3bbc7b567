"""Metrics against the published implementations' numbers, scikit-learn, and definitions written out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from napari_mil.study import metrics as ours

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "metrics.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def test_metrics_of_the_rank_induction_code(golden: dict[str, np.ndarray]) -> None:
    y, p = golden["metrics.label"], golden["metrics.prob"]
    assert ours.auroc(y, p) == pytest.approx(float(golden["metrics.auroc_f64"]), abs=1e-12)
    assert ours.auprc(y, p) == pytest.approx(float(golden["metrics.prauc_f64"]), abs=1e-12)
    assert ours.accuracy(y, p) == pytest.approx(float(golden["metrics.accuracy_f64"]), abs=1e-12)
    at_half = ours.confusion(y, p, 0.5, strict=True)
    assert at_half.sensitivity == pytest.approx(float(golden["metrics.sensitivity_f64"]), abs=1e-12)
    assert at_half.specificity == pytest.approx(float(golden["metrics.specificity_f64"]), abs=1e-12)


@pytest.mark.parametrize("side", ["less", "two-sided"])
def test_mann_whitney_names_its_side(golden: dict[str, np.ndarray], side: str) -> None:
    test = ours.mann_whitney(golden["mwu.a"], golden["mwu.b"], side)  # type: ignore[arg-type]
    np.testing.assert_allclose([test.statistic, test.p_value], golden[f"mwu.{side}_U_p"], rtol=1e-12)
    assert test.alternative == side


@pytest.mark.parametrize("case", [0, 1, 2])
def test_five_metrics_at_youdens_threshold(golden: dict[str, np.ndarray], case: int) -> None:
    y, s = golden[f"five/{case}/y"], golden[f"five/{case}/score"]
    for threshold, key in ((ours.youden(y, s), "acc_auc_prec_rec_f1_thr"), (0.5, "at_0.5")):
        found = ours.confusion(y, s, threshold)
        values = [found.accuracy, ours.auroc(y, s), found.precision, found.sensitivity, found.f1, threshold]
        np.testing.assert_allclose(values, golden[f"five/{case}/{key}"], rtol=1e-12)


scored = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=50)


@given(scored)
@settings(max_examples=100, deadline=None)
def test_curves_and_counts_are_those_of_scikit_learn(pairs: list[tuple[bool, int]]) -> None:
    y = np.array([int(label) for label, _ in pairs])
    s = np.array([score / 9 for _, score in pairs])
    if y.any():
        precision, recall, _ = sk.precision_recall_curve(y, s)
        assert ours.auprc(y, s) == pytest.approx(sk.auc(recall, precision))
    else:
        assert np.isnan(ours.auprc(y, s))
    found = ours.confusion(y, s, 0.5)
    assert found.accuracy == pytest.approx(sk.accuracy_score(y, s >= 0.5))
    assert found.f1 == pytest.approx(sk.f1_score(y, s >= 0.5, zero_division=0))
    if y.any() and not y.all():
        false_positive, true_positive, _ = sk.roc_curve(y, s)
        best = (true_positive - false_positive).max()
        at = ours.confusion(y, s, ours.youden(y, s))
        assert at.sensitivity + at.specificity - 1 == pytest.approx(best, abs=1e-12)
    else:
        assert np.isnan(ours.youden(y, s))


def test_delong_is_its_definition() -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 60)
    a, b = (np.round(y + generator.normal(size=60), 1) for _ in range(2))

    def structure(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wins = (s[y == 1][:, None] > s[y == 0][None]) + 0.5 * (s[y == 1][:, None] == s[y == 0][None])
        return wins.mean(axis=1), wins.mean(axis=0)

    (v10, v01), (w10, w01) = structure(a), structure(b)
    variance = v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)
    interval = ours.delong_interval(y, a)
    assert interval.value == pytest.approx(sk.roc_auc_score(y, a))
    assert interval.high - interval.value == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-6)
    covariance = np.cov(v10, w10)[0, 1] / len(v10) + np.cov(v01, w01)[0, 1] / len(v01)
    other = w10.var(ddof=1) / len(w10) + w01.var(ddof=1) / len(w01)
    z = (v10.mean() - w10.mean()) / np.sqrt(variance + other - 2 * covariance)
    test = ours.delong_test(y, a, b)
    assert test.statistic == pytest.approx(z)
    assert test.alternative == "two-sided"
    assert ours.delong_test(y, a, a).p_value == 1
    assert np.isnan(ours.delong_interval([0, 1], [0.1, 0.2]).low)


def test_bootstrap_covers_and_draws_patients_whole() -> None:
    generator = np.random.default_rng(1)
    y = np.repeat([0, 1], 60)
    s = y + generator.normal(size=120)
    interval = ours.bootstrap_interval(ours.auroc, y, s, repeats=300)
    assert interval.low < interval.value < interval.high
    assert ours.bootstrap_interval(ours.auroc, y, s, repeats=300) == interval
    # twenty copies of each slide under one patient tell no more than the slide itself
    few = ours.bootstrap_interval(ours.auroc, y[::10], s[::10], repeats=300)
    many = ours.bootstrap_interval(
        ours.auroc,
        np.repeat(y[::10], 20),
        np.repeat(s[::10], 20),
        groups=np.repeat(np.arange(12), 20).astype(str),
        repeats=300,
    )
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.35)
    assert "patients" in many.method
    assert np.isnan(ours.bootstrap_interval(ours.auroc, [1, 1], [0.1, 0.2]).low)


def test_slide_metrics_are_json_able_and_say_where_the_threshold_is_from() -> None:
    import json

    generator = np.random.default_rng(2)
    y = generator.integers(0, 2, 40)
    p = np.clip(0.3 * y + generator.random(40) * 0.7, 0, 1)
    found = ours.slide_metrics(y, np.stack([1 - p, p], 1), threshold=0.4, threshold_from="validation", repeats=50)
    json.dumps(found, allow_nan=False)
    assert found["auroc"]["value"] == pytest.approx(sk.roc_auc_score(y, p))
    assert found["at_youden"]["threshold_is"] == "found on validation"
    assert found["at_youden"]["accuracy"] == pytest.approx(((p >= 0.4) == y).mean())
    one_class = ours.slide_metrics([1, 1], [[0.2, 0.8], [0.4, 0.6]], repeats=50)
    json.dumps(one_class, allow_nan=False)
    assert one_class["auroc"]["value"] is None
    three = np.eye(3)[[0, 1, 2, 2]] * 0.7 + 0.1
    assert ours.slide_metrics([0, 1, 2, 1], three)["accuracy"] == 0.75


def test_one_sentence_about_a_run() -> None:
    y, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.7, 0.9])
    test = ours.slide_metrics(y, np.stack([1 - p, p], 1), repeats=50)
    assert ours.metrics_sentence({"sets": {"validation": test, "test": test}}) == (
        "Test: AUROC 1.000, accuracy 0.750 at 0.5, 4 slides: far too few to tell."
    )
    assert ours.metrics_sentence({"sets": {"validation": test}}).startswith("Validation: AUROC")
    assert ours.metrics_sentence({"sets": {}}) == ""
    alone = ours.slide_metrics([1, 1], np.array([[0.2, 0.8], [0.4, 0.6]]), repeats=50)
    assert "one class only" in ours.metrics_sentence({"sets": {"test": alone}})


def test_intervals_are_told_where_slides_are_enough_for_them() -> None:
    def words(positive: int, negative: int, shift: float) -> str:
        y = np.repeat([0, 1], [negative, positive])
        p = np.clip(np.r_[np.linspace(0.1, 0.6, negative), np.linspace(0.1, 0.6, positive) + shift], 0, 1)
        return ours.auroc_words(ours.slide_metrics(y, np.stack([1 - p, p], 1), repeats=50))

    assert re.fullmatch(r"0\.\d{3} \(0\.\d\d to \d\.\d\d\), 30 slides", words(15, 15, 0.2))
    assert words(15, 15, 0.55) == "1.000, 30 slides (no interval can be given at 0 or 1)"
    assert re.fullmatch(r"0\.\d{3}, 39 slides, only 9 of one label: far too few to tell", words(9, 30, 0.2))


def test_macro_auroc_leaves_absent_classes_out() -> None:
    p = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    assert ours.macro_auroc([0, 1, 0], p) == 1
    assert np.isnan(ours.macro_auroc([0, 0, 0], p))
