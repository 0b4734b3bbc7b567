"""Presets: every row of the papers' tables, cell by cell, and every row of their ablations."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_mil.errors import MethodError
from napari_mil.mil import Method
from napari_mil.mil.presets import ABLATIONS, FAMILIES, PRESETS

# METHODS §3.3: β_r, β_l, β_h0, r, β_h decay, EMA, α, student init
MHIM = {
    "mhim_abmil_c16": (0.5, 0, 0.01, 0.5, "cosine", "constant", 0.1, "stem"),
    "mhim_dsmil_c16": (0.5, 0, 0.01, 0.5, "cosine", "constant", 0.1, "stem"),
    "mhim_abmil_tcga": (0.7, 0.2, 0.02, 1, "cosine", "cosine", 0.5, "stem"),
    "mhim_dsmil_tcga": (0.7, 0.2, 0.02, 1, "cosine", "cosine", 0.5, "stem"),
    "mhim_transmil_c16": (0, 0.8, 0.03, 0.5, "cosine", "cosine", 0.1, "stem"),
    "mhim_transmil_tcga": (0.6, 0.2, 0.02, 1, "cosine", "constant", 0.5, "stem"),
}
OF_M1 = ("abmil", "abmil_gated", "dsmil", "clam_sb", "clam_mb", "transmil", "dtfd", "dtfd_afs", "mean", "max")
PARAMETERS = {  # at D = 1024, C = 2: METHODS §1
    "ab_mil_rank": 527_618,
    "abmil_c16": 591_490,
    "abmil_gated_c16": 657_026,
    "dsmil_c16": 872_708,
    "transmil_c16": 2_672_146,
}


@pytest.mark.parametrize("name", list(PRESETS))
def test_what_it_says(name: str) -> None:
    method, info = Method.preset(name), Method.presets()[name]
    assert 3 < len(info.title) < 60
    assert info.sentence.endswith((".", "?"))
    assert info.paper
    assert info.row
    assert info.family in FAMILIES
    assert info.needs_lesions == method.needs_lesions


def test_titles_tell_presets_apart() -> None:
    titles = [info.title for info in Method.presets().values()]
    assert len(set(titles)) == len(titles)


def test_families_are_not_torn_apart() -> None:
    """In the list's order each heading comes once."""
    families = [info.family for info in Method.presets().values()]
    changes = [family for before, family in zip([None, *families], families, strict=False) if family != before]
    assert changes == list(FAMILIES)


@pytest.mark.parametrize("name", list(MHIM))
def test_masks_of_mhim_cell_by_cell(name: str) -> None:
    method = Method.preset(name)
    m = method.mining
    cells = (m.random, m.low, m.high, m.high_random, m.high_decay, m.momentum_schedule, m.consistency_weight)
    assert (*cells, m.student_init) == MHIM[name]
    assert (m.momentum, m.consistency_temperature, m.teacher, m.teacher_mode) == (0.9999, 0.1, "plain", "eval")
    assert (
        method.aggregator.name
        == {"abmil": "ab_mil_mhim", "dsmil": "dsmil", "transmil": "trans_mil"}[name.split("_")[1]]
    )
    assert method.training == Method.preset(f"{name.split('_')[1]}_{name.split('_')[2]}").training


@pytest.mark.parametrize("kind", OF_M1)
@pytest.mark.parametrize(("data_set", "patience", "after"), [("c16", 30, 130), ("tcga", 20, 70)])
def test_training_of_m1(kind: str, data_set: str, patience: int, after: int) -> None:
    method = Method.preset(kind if kind in ("mean", "max") and data_set == "c16" else f"{kind}_{data_set}")
    t = method.training
    assert (t.optimizer, t.learning_rate, t.weight_decay, t.epochs, t.accumulate) == ("adam", 2e-4, 1e-5, 200, 1)
    assert (t.schedule, t.min_learning_rate, t.monitor) == ("cosine", 0, "val_auroc")
    assert (t.patience, t.min_epochs) == (patience, after)
    assert (method.mining.kind, method.task.class_weight) == ("none", "none")


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_number_of_parameters(name: str) -> None:
    assert sum(p.numel() for p in Method.preset(name).build(1024).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("network", ["abmil", "dsmil", "transmil"])
def test_second_version(network: str) -> None:
    """METHODS §4."""
    method, survival = Method.preset(f"mhim2_{network}"), Method.preset(f"mhim2_{network}_survival")
    for each in (method, survival):
        m = each.mining
        assert (m.kind, m.momentum, m.consistency_weight, m.consistency_temperature) == ("mhim2", 0.9997, 0.5, 0.1)
        assert (m.student_init, m.query_momentum, m.recycle_dropout, m.score) == ("none", 0.9999, 0.1, "class_aware")
        assert m.high in (0.01, 0.03, 0.05)
        assert m.queries in (1, 5, 10)
        assert each.aggregator.activation == "gelu"
        assert each.training.min_learning_rate == 1e-7
    assert getattr(method.aggregator, "fusion", "logits") == "logits"
    t, s = method.training, survival.training
    assert (t.patience, t.min_epochs, t.monitor) == (20, 100, "val_auroc")
    assert (s.patience, s.min_epochs, s.monitor) == (15, 30, "val_c_index")
    assert (survival.task.kind, survival.task.n_bins, survival.task.bags) == ("survival", 4, "patient")


def test_hard_negative_bags() -> None:
    method = Method.preset("hard_negative_bags")
    assert (method.aggregator.name, method.aggregator.adaptive_weight) == ("ab_mil", 2.0)
    m = method.mining
    assert (m.kind, m.deviations, m.clusters, m.bags) == ("hard_negative", 1.0, 10, 10)


@pytest.mark.parametrize("name", ["rank_mhim", "rank_transmil", "rank_dsmil", "rank_clam"])
def test_combinations(name: str) -> None:
    method = Method.preset(name)
    assert method.supervision.kind == "rank"
    if name == "rank_mhim":
        assert method.mining == Method.preset("mhim_abmil_c16").mining
        assert method.mining.spare_lesions


def test_quirks_are_off_unless_named() -> None:
    for name in PRESETS:
        method = Method.preset(name)
        quirks = {
            "pairs": getattr(method.supervision, "pairs", "") == "all",
            "sample": getattr(method.supervision, "sample", None) is not None,
            "tail": method.training.accumulation_tail == "full",
            "weight": getattr(method.task, "class_weight", "") == "released",
            "teacher": getattr(method.mining, "teacher_mode", "") == "train",
        }
        assert any(quirks.values()) == name.endswith("_released"), (name, quirks)
    rank = Method.preset("rank_induction_released")
    assert (rank.supervision.pairs, rank.supervision.sample, rank.aggregator.threshold) == ("all", 1024, 1.0)
    assert (rank.training.accumulation_tail, rank.task.class_weight) == ("full", "released")
    assert Method.preset("mhim_abmil_c16_released").mining.teacher_mode == "train"


class TestAblations:
    @pytest.mark.parametrize("name", list(ABLATIONS))
    def test_every_row_is_a_method(self, name: str) -> None:
        preset, settings = ABLATIONS[name]
        method = Method.preset(name)
        assert method.name == name
        assert preset in PRESETS
        for key, value in settings.items():
            assert method.settings()[key] == value
        assert method.settings() == Method.preset(preset).with_settings(settings).settings()

    @pytest.mark.parametrize("network", ["abmil", "transmil"])
    def test_masks(self, network: str) -> None:
        found = {
            mask: Method.preset(f"mhim_{network}_c16:{mask}").mining for mask in ("ham", "l_ham", "r_ham", "lr_ham")
        }
        assert {mask: (m.low > 0, m.random > 0) for mask, m in found.items()} == {
            "ham": (False, False),
            "l_ham": (True, False),
            "r_ham": (False, True),
            "lr_ham": (True, True),
        }
        assert all(m.high > 0 for m in found.values())

    def test_parts_and_teachers(self) -> None:
        def mining(row: str) -> tuple:
            m = Method.preset(f"mhim_abmil_c16:{row}").mining
            return m.teacher, m.momentum, m.consistency_weight

        assert mining("masks_alone") == ("copy", 0.0, 0.0)
        assert mining("siamese") == ("plain", 0.9999, 0.0)
        assert mining("consistency") == ("plain", 0.9999, 0.1)
        assert mining("teacher_student_copy") == ("copy", 0.0, 0.1)
        assert mining("teacher_fixed") == ("plain", 1.0, 0.1)
        assert mining("teacher_momentum") == ("copy", 0.9999, 0.1)
        assert mining("teacher_init_momentum") == ("plain", 0.9999, 0.1)
        assert Method.preset("mhim_abmil_c16:baseline").mining.kind == "none"

    def test_names_are_no_presets(self) -> None:
        assert not set(ABLATIONS) & set(PRESETS)
        with pytest.raises(MethodError, match="no preset 'mhim_abmil_c16:hem'"):
            Method.preset("mhim_abmil_c16:hem")


def test_no_torch_to_list_them() -> None:
    code = "import sys; from napari_mil.mil.presets import ABLATIONS, PRESETS; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
