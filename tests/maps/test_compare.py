"""Maps against maps, and against outlines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from napari_mil.errors import MilError
from napari_mil.geometry import PatchGrid
from napari_mil.maps import (
    attention_map,
    auroc,
    average_precision,
    compare_maps,
    lesion_share,
    midranks,
    pearson,
    spearman,
)


def grid_of(rows: int, cols: int, size: int = 100, origin: tuple[int, int] = (0, 0)) -> PatchGrid:
    y, x = np.mgrid[:rows, :cols]
    return PatchGrid(np.stack([x.ravel(), y.ravel()], 1) * size + np.array(origin), size, size, 0.5)


# quarters, so that there are many ties
tied_scores = st.lists(st.integers(-8, 8).map(lambda v: v / 4), min_size=2, max_size=60)


@given(scores=tied_scores, seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_ranking_measures_are_those_of_scipy_and_scikit_learn(scores: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, len(scores))
    other = generator.normal(size=len(scores)) + np.array(scores)
    np.testing.assert_array_equal(midranks(scores), stats.rankdata(scores))
    if len(set(labels.tolist())) == 2:
        assert auroc(labels, scores) == pytest.approx(sk.roc_auc_score(labels, scores))
        assert average_precision(labels, scores) == pytest.approx(sk.average_precision_score(labels, scores))
    else:
        assert np.isnan(auroc(labels, scores))
    if len(set(scores)) > 1:
        assert spearman(scores, other) == pytest.approx(stats.spearmanr(scores, other).statistic, abs=1e-12)
        assert pearson(scores, other) == pytest.approx(stats.pearsonr(scores, other).statistic, abs=1e-12)
    else:
        assert np.isnan(pearson(scores, other))


def test_labels_that_are_not_binary_and_nan_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 and 1"):
        auroc([0, 1, 2], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        average_precision([0, 1], [0.1, np.nan])
    with pytest.raises(ValueError, match="same"):
        auroc([0, 1], [0.1])


def test_two_maps_of_one_raster_are_compared_on_common_cells() -> None:
    grid = grid_of(10, 12)
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=120), generator.normal(size=120)
    first, second = attention_map(grid.select(np.arange(0, 100)), a[:100]), attention_map(grid, b)
    table = compare_maps({"a": first, "b": second})
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["map"], row["against"], row["n"]) == ("a", "b", 100)
    assert row["spearman"] == pytest.approx(stats.spearmanr(a[:100], b[:100]).statistic, abs=1e-6)
    assert row["pearson"] == pytest.approx(stats.pearsonr(a[:100], b[:100]).statistic, abs=1e-6)
    assert np.isnan(row["auroc"])


def test_maps_of_different_rasters_meet_at_the_coarser_cells() -> None:
    coarse = grid_of(4, 4, 200)
    fine = grid_of(8, 8, 100)
    values = np.random.default_rng(1).permutation(16).astype(float)
    x, y = fine.coords.T // 200
    fine_values = values[y * 4 + x]
    table = compare_maps({"c": attention_map(coarse, values), "f": attention_map(fine, fine_values)})
    assert table.iloc[0]["n"] == 16
    assert table.iloc[0]["spearman"] == pytest.approx(1)


def test_maps_of_slides_of_another_scale_are_refused() -> None:
    other = PatchGrid([[0, 0], [100, 0]], 100, 100, 0.25)
    with pytest.raises(MilError, match=r"b has 0\.25 × 0\.25 .* a 0\.5 × 0\.5"):
        compare_maps({"a": attention_map(grid_of(1, 2), [1, 2]), "b": attention_map(other, [1, 2])})


def test_against_labels_of_patches() -> None:
    grid = grid_of(5, 8)
    generator = np.random.default_rng(3)
    labels = generator.integers(-1, 2, 40)
    scores = labels + generator.normal(size=40)
    table = compare_maps({"m": attention_map(grid, scores)}, labels, grid)
    known = labels >= 0
    row = table.iloc[0]
    assert (row["against"], row["n"], row["top_k"]) == ("lesions", known.sum(), (labels == 1).sum())
    assert row["auroc"] == pytest.approx(sk.roc_auc_score(labels[known], scores[known]))
    assert row["average_precision"] == pytest.approx(sk.average_precision_score(labels[known], scores[known]))
    order = np.argsort(-scores[known])[: (labels == 1).sum()]
    assert row["lesion_share_top_k"] == pytest.approx((labels[known][order] == 1).mean())
    with pytest.raises(MilError, match=r"shape \(3,\); expected \(40,\)"):
        compare_maps({"m": attention_map(grid, scores)}, [0, 1, 1], grid)
    with pytest.raises(MilError, match="expected a grid"):
        compare_maps({"m": attention_map(grid, scores)}, labels)


def test_against_outlines_with_and_without_a_grid() -> None:
    shapely = pytest.importorskip("shapely")
    lesion = pytest.importorskip("napari_mil.lesion")
    grid = grid_of(6, 6)
    outlines = lesion.LesionSet([lesion.Lesion(shapely.box(0, 0, 300, 300), label="Tumor")])
    inside = (grid.centers < 300).all(axis=1)
    amap = attention_map(grid, inside.astype(float))
    for where in (None, grid):
        row = compare_maps({"m": amap}, outlines, where).iloc[0]
        assert (row["n"], row["top_k"]) == (36, 9)
        assert row["auroc"] == 1
        assert row["lesion_share_top_k"] == 1


def test_lesion_share_counts_ties_in_proportion() -> None:
    assert lesion_share([1, 0, 1, 0], [3, 2, 1, 0], k=2) == 0.5
    assert lesion_share([1, 0, 0, 0], [1, 1, 1, 1]) == 0.25
    assert np.isnan(lesion_share([0, 0], [1, 2]))


def test_no_maps_give_an_empty_table_with_its_columns() -> None:
    table = compare_maps({})
    assert len(table) == 0
    assert "spearman" in table.columns
