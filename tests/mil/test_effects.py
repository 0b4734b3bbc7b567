"""No setting without effect: each one, changed, changes the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_mil.mil import Bag, Method, fit, predict
from napari_mil.mil.aggregators import chunked

from .conftest import finish, make_bags, quick

COMMON = {
    "training.epochs": 5,
    "training.optimizer": "adamw",
    "training.learning_rate": 0.02,
    "training.schedule": "cosine",
    "training.weight_decay": 0.1,
    "training.accumulate": 1,
    "training.accumulation_tail": "full",
    "training.sampler": "balanced",
    "task.class_weight": 3.0,
    "task.classes": ["benign", "malignant"],
    "task.bags": "patient",
}
LESIONS = {"supervision.weight": 0.5, "supervision.shuffle_labels": True}
ATTENTION = {"aggregator.threshold": 0.8, "aggregator.temperature": 0.5}
NETWORK = {"aggregator.binary_head": "two", "aggregator.initialisation": "xavier"}
LONG = {"training.epochs": 12}
STEM = {
    "aggregator.stem_dim": 9,
    "aggregator.activation": "gelu",
    "aggregator.dropout": 0.5,
    "aggregator.threshold": 0.9,
    "aggregator.binary_head": "single",
    "aggregator.initialisation": "torch",
}
CLAM = {
    "aggregator.attention_dim": 5,
    "aggregator.temperature": 0.5,
    "aggregator.instance_weight": 0.5,
    "aggregator.instance_patches": 2,
    "aggregator.instance_loss": "ce",
    "aggregator.exclusive": True,
}
FLIPS: list[tuple[str, dict, dict]] = [  # preset, settings to start from, settings to flip
    ("rank_induction", {"aggregator.threshold": None, "task.class_weight": "none", "training.sampler": "shuffled"}, {
        **COMMON, **LESIONS, **ATTENTION, **NETWORK,
        "aggregator.hidden": 5,
        "supervision.sigma": 2.0,
        "supervision.margin": 1.0,
        "supervision.pairs": "all",
        "supervision.sample": 2,
        "supervision.cross_slide_negatives": 4,
    }),
    ("rank_induction", {"training.schedule": "cosine"}, {"training.min_learning_rate": 0.005}),
    ("rank_induction", {"training.patience": 1, "training.min_epochs": 0, **LONG, "training.learning_rate": 1.0},
     {"training.patience": 6, "training.min_epochs": 11}),
    ("rank_induction", {**LONG, "training.learning_rate": 0.3, "training.patience": None},
     {"training.monitor": "val_auroc"}),
    ("attention_induction", {}, {**LESIONS}),
    ("patch_classifier", {}, {
        **LESIONS,
        "aggregator.hidden": 4,
        "aggregator.initialisation": "xavier",
        "supervision.bag_weight": 1.0,
        "supervision.balanced": False,
    }),
    ("patch_classifier", {"supervision.bag_weight": 1.0}, {"aggregator.top_k": 3}),
    ("ab_mil", {}, {
        **ATTENTION, **NETWORK,
        "aggregator.gated": True,
        "aggregator.stem": "tabular",
        "aggregator.attention_dim": 7,
        "aggregator.dropout": 0.5,
    }),
    ("mean", {"aggregator.stem_dim": 8}, {
        "aggregator.stem_dim": 9, "aggregator.dropout": 0.5, "aggregator.binary_head": "single",
        "aggregator.initialisation": "torch",
    }),
    ("max", {"aggregator.stem_dim": 8}, {
        "aggregator.stem_dim": 9, "aggregator.dropout": 0.5, "aggregator.binary_head": "single",
        "aggregator.initialisation": "torch",
    }),
    ("mhim_abmil_c16", {"mining.teacher": "copy", "mining.high": 0.2, "mining.momentum": 0.5}, {
        **ATTENTION,
        "aggregator.gated": True,
        "aggregator.activation": "gelu",
        "aggregator.stem_dim": 9,
        "aggregator.attention_dim": 9,
        "aggregator.dropout": 0.5,
        "aggregator.binary_head": "single",
        "aggregator.initialisation": "torch",
        "mining.high": 0.4,
        "mining.low": 0.3,
        "mining.random": 0.2,
        "mining.high_random": 1.0,
        "mining.high_decay": "none",
        "mining.momentum": 0.9,
        "mining.momentum_schedule": "cosine",
        "mining.consistency_weight": 0.5,
        "mining.consistency_temperature": 0.5,
        "mining.teacher_mode": "train",
        "mining.teacher": "BASELINE",
    }),
    ("mhim_abmil_c16", {"mining.teacher": "BASELINE"}, {"mining.student_init": "none"}),
    ("rank_induction", {"training.learning_rate": 0.003}, {"training.monitor": "val_balanced_accuracy"}),
    ("ab_mil", {"task.kind": "survival"}, {"task.n_bins": 3, "task.bags": "slide", "training.sampler": "in_order"}),
    ("ab_mil", {"task.kind": "survival", **LONG, "training.learning_rate": 0.03}, {"training.monitor": "val_c_index"}),
    ("hard_negative_bags", {"task.class_weight": 9.0, "training.sampler": "shuffled"}, {
        "aggregator.adaptive_weight": None,
        "mining.deviations": 0.0,
        "mining.clusters": 3,
        "mining.bags": 2,
        "mining.second": "continued",
    }),
    ("transmil_c16", {"aggregator.heads": 2, "aggregator.landmarks": 4, "training.epochs": 2}, {
        **STEM,
        "aggregator.stem_dim": 10,  # heads must divide it
        "aggregator.heads": 4,
        "aggregator.landmarks": 3,
        "aggregator.pinv_iterations": 2,
        "aggregator.attention_dropout": 0.5,
    }),
    ("dsmil_c16", {"aggregator.query_dim": 4}, {
        **STEM,
        "aggregator.query_dim": 5,
        "aggregator.value_dropout": 0.5,
        "aggregator.fusion": "logits",
    }),
    ("clam_sb_c16", {"aggregator.attention_dim": 4}, {**STEM, **CLAM}),
    ("clam_mb_c16", {"aggregator.attention_dim": 4}, {**STEM, **CLAM}),
    ("dtfd_c16", {"aggregator.attention_dim": 4}, {
        **STEM,
        "aggregator.attention_dim": 5,
        "aggregator.temperature": 0.5,
        "aggregator.pseudo_bags": 3,
        "aggregator.distillation": "afs",
    }),
    ("mhim_abmil_c16", {"mining.teacher": "copy", "supervision.kind": "rank", "mining.random": 0.9},
     {"mining.spare_lesions": False}),
    ("mhim_transmil_c16", {"mining.teacher": "copy", "aggregator.heads": 2, "mining.high": 0.3, "mining.low": 0.3,
                           "training.epochs": 2}, {"mining.fusion": "mean"}),
    ("mhim2_abmil", {"mining.teacher": "copy", "mining.high": 0.2, "mining.momentum": 0.5, "training.epochs": 3}, {
        "mining.score": "attention",
        "mining.high": 0.4,
        "mining.keep": 0.5,
        "mining.queries": 2,
        "mining.query_momentum": 0.5,
        "mining.recycle_dropout": 0.5,
        "mining.momentum": 0.9,
        "mining.momentum_schedule": "cosine",
        "mining.consistency_weight": 0.1,
        "mining.consistency_temperature": 0.5,
        "mining.teacher_mode": "train",
        "mining.teacher": "BASELINE",
    }),
    ("mhim2_abmil", {"mining.teacher": "BASELINE", "training.epochs": 3}, {"mining.student_init": "stem"}),
    ("mhim2_abmil", {"mining.teacher": "copy", "supervision.kind": "rank", "training.epochs": 3},
     {"mining.spare_lesions": False}),
    # by chunks, dropout draws other masks: the only thing that may tell
    ("ab_mil", {"aggregator.dropout": 0.5}, {
        "training.precision": "bf16", "training.deterministic": True, "training.recompute": "always",
    }),
]  # fmt: skip
CASES = [(preset, base, key, value) for preset, base, flips in FLIPS for key, value in flips.items()]


def with_cases(bags: list[Bag]) -> list[Bag]:
    """Two slides of each patient, with the patient's time of the event."""
    cases = [(index // 4, bag.label) for index, bag in enumerate(bags)]
    return [
        replace(bag, patient_id=f"{bag.slide_id[0]}-{who}-{label}", time=float(30 * who + 10 * (1 - label)), event=True)
        for bag, (who, label) in zip(bags, cases, strict=True)
    ]


def fingerprint(method: Method) -> list:
    """Everything that a person could tell a run by."""
    train, validation = make_bags(7, seed=1, prefix="t", size=20), make_bags(4, seed=2, prefix="v")
    train, validation = with_cases(train), with_cases(validation)
    set_so: list[bool] = []  # what tells a deterministic training on a CPU, where the numbers are the same
    look = lambda done, total: set_so.append(torch.are_deterministic_algorithms_enabled())  # noqa: E731
    reports, run = finish(fit(method, train, validation, on_bag=look))
    facts = [(r.train_loss, r.val_loss, r.val_auroc, tuple(r.parts.values())) for r in reports]
    prediction = predict(run, validation[1])
    return [facts, any(set_so), run.best_epoch, run.classes, prediction.logits.tolist(), prediction.attention.tolist()]


@pytest.mark.parametrize(("preset", "base", "key", "value"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_setting_has_an_effect(
    preset: str, base: dict, key: str, value: object, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "CHUNK", 7)

    def real(settings: dict) -> dict:
        return {k: str(baseline) if v == "BASELINE" else v for k, v in settings.items()}

    method = quick(preset).with_settings(real(base))
    flipped = method.with_settings(real({key: value}))
    assert flipped != method
    assert fingerprint(flipped) != fingerprint(method)


def owner(method: Method, key: str) -> str:
    """The kind that a setting belongs to: ab_mil, rank, mhim, …; training has but one."""
    settings, part = method.settings(), key.split(".")[0]
    return settings.get(f"{part}.name") or settings.get(f"{part}.kind") or part


def test_no_setting_is_forgotten_above() -> None:
    methods = [Method.preset(name) for name in Method.presets()]
    flipped = {
        (owner(Method.preset(preset).with_settings({k: v for k, v in base.items() if v != "BASELINE"}), key), key)
        for preset, base, flips in FLIPS
        for key in flips
    }
    every = {(owner(method, key), key) for method in methods for key in method.settings()}
    assert {(kind, key) for kind, key in every - flipped if key.split(".")[1] not in ("name", "kind")} == set()
