"""Networks from slide labels alone: the rows of M1's Table 1 on both data sets, Ilse's, and baselines of survival."""

from __future__ import annotations

from ._info import (
    ILSE,
    M1,
    M1_C16,
    M1_TASK,
    M1_TCGA,
    M2,
    M2_SURVIVAL,
    R_TRAINING,
    SURVIVAL_TASK,
    PresetInfo,
    Settings,
    Table,
)

# name → aggregator, title, sentence, family, published AUC on Camelyon16 and TCGA lung (METHODS §7)
_ROWS: dict[str, tuple[Settings, str, str, str, str, str]] = {
    "abmil": (
        {"name": "ab_mil_mhim"},
        "AB-MIL (network of MHIM-MIL)",
        "Attention-based pooling over a 512-wide stem; what MHIM-MIL starts from.",
        "Attention MIL",
        "94.00",
        "93.17",
    ),
    "abmil_gated": (
        {"name": "ab_mil_mhim", "gated": True},
        "AB-MIL, gated (network of MHIM-MIL)",
        "The same with gated attention, 657,026 parameters.",
        "Attention MIL",
        "",
        "",
    ),
    "dsmil": (
        {"name": "dsmil"},
        "DSMIL",
        "The most suspicious patch asks all others how like it they are.",
        "Attention MIL",
        "94.57",
        "93.71",
    ),
    "clam_sb": (
        {"name": "clam_sb"},
        "CLAM-SB",
        "Gated attention that also learns to tell its highest patches from its lowest.",
        "Attention MIL",
        "94.65",
        "93.67",
    ),
    "clam_mb": (
        {"name": "clam_mb"},
        "CLAM-MB",
        "CLAM with an attention branch for each class.",
        "Attention MIL",
        "94.70",
        "93.69",
    ),
    "transmil": (
        {"name": "trans_mil"},
        "TransMIL",
        "Patches attend to one another, and a class token reads them.",
        "Transformers",
        "93.51",
        "92.51",
    ),
    "dtfd": (
        {"name": "dtfd", "distillation": "max_min"},
        "DTFD-MIL",
        "The slide is split into pseudo-bags; their highest and lowest patches are pooled once more (MaxMinS).",
        "Attention MIL",
        "95.15",
        "93.83",
    ),
    "dtfd_afs": (
        {"name": "dtfd", "distillation": "afs"},
        "DTFD-MIL (AFS)",
        "The slide is split into pseudo-bags; the pooled features of each are pooled once more.",
        "Attention MIL",
        "",
        "",
    ),
    "dtfd_max": (
        {"name": "dtfd", "distillation": "max"},
        "DTFD-MIL (MaxS)",
        "The slide is split into pseudo-bags; the highest patch of each is pooled once more.",
        "Attention MIL",
        "",
        "",
    ),
    "dtfd_mas": (
        {"name": "dtfd", "distillation": "mas"},
        "DTFD-MIL (MAS)",
        "The slide is split into pseudo-bags; the patch of highest attention of each is pooled once more.",
        "Attention MIL",
        "",
        "",
    ),
    "mean": (
        {"name": "mean"},
        "Mean pooling",
        "All patches count the same; a baseline.",
        "Baselines",
        "80.07",
        "90.13",
    ),
    "max": (
        {"name": "max"},
        "Max pooling",
        "The patch of the highest logit speaks for the slide; a baseline.",
        "Baselines",
        "81.28",
        "86.45",
    ),
}
DATA_SETS: dict[str, tuple[str, Settings]] = {"c16": ("Camelyon16", M1_C16), "tcga": ("TCGA", M1_TCGA)}


def _preset(kind: str, data_set: str) -> tuple[Settings, PresetInfo]:
    aggregator, title, sentence, family, *figures = _ROWS[kind]
    place, training = DATA_SETS[data_set]
    figure = figures[list(DATA_SETS).index(data_set)]
    row = f"{title}, Table 1, {place}: AUC {figure}" if figure else f"{title}, settings of Table 1, {place}"
    settings = {"aggregator": aggregator, "task": M1_TASK, "training": training}
    return settings, PresetInfo(f"{title}, {place}", sentence, M1, family, row)


def _rows(*kinds: str) -> Table:
    """The rows on both data sets; mean and max of Camelyon16 are called just that."""
    return {
        kind if kind in ("mean", "max") and data_set == "c16" else f"{kind}_{data_set}": _preset(kind, data_set)
        for kind in kinds
        for data_set in DATA_SETS
    }


# Ilse et al. 2018 on tabular sets, as Wang et al. 2018 before them: momentum SGD, here as the plain SGD that it comes
# to (momentum .9 at 5e-4 moves as far as 5e-3 without), one bag per step, 100 epochs, the last of them.
_TABULAR: Settings = {
    "optimizer": "sgd",
    "learning_rate": 5e-3,
    "weight_decay": 5e-3,
    "epochs": 100,
    "accumulate": 1,
    "sampler": "shuffled",
    "patience": None,
}


def _ilse(gated: bool, stem: str) -> Settings:
    tabular = {"training": _TABULAR, "task": {"kind": "binary", "class_weight": "none"}}
    return {
        "aggregator": {"name": "ab_mil", "gated": gated, "stem": stem},
        **(tabular if stem == "tabular" else {"training": R_TRAINING}),
    }


ATTENTION: Table = {
    "ab_mil": (
        _ilse(False, "linear"),
        PresetInfo(
            "AB-MIL",
            "The usual attention-based pooling, from slide labels alone.",
            ILSE,
            "Attention MIL",
            "Attention, equation 8",
        ),
    ),
    "ab_mil_gated": (
        _ilse(True, "linear"),
        PresetInfo(
            "AB-MIL, gated",
            "Attention-based pooling with gated attention, from slide labels alone.",
            ILSE,
            "Attention MIL",
            "Gated attention, equation 9",
        ),
    ),
    **_rows("abmil", "abmil_gated", "dsmil", "clam_sb", "clam_mb", "dtfd", "dtfd_afs", "dtfd_max", "dtfd_mas"),
    "ab_mil_tabular": (
        _ilse(False, "tabular"),
        PresetInfo(
            "AB-MIL for tables",
            "Ilse's small network for bags of table rows instead of patches (MUSK, Elephant).",
            ILSE,
            "Attention MIL",
            "Attention, Table 1: MUSK1 .892",
        ),
    ),
    "ab_mil_tabular_gated": (
        _ilse(True, "tabular"),
        PresetInfo(
            "AB-MIL for tables, gated",
            "The same with gated attention.",
            ILSE,
            "Attention MIL",
            "Gated attention, Table 1: MUSK1 .900",
        ),
    ),
}
TRANSFORMERS: Table = _rows("transmil")
BASELINES: Table = _rows("mean", "max")

_SURVIVAL: dict[str, Settings] = {
    "abmil": {"name": "ab_mil_mhim", "activation": "gelu"},
    "dsmil": {"name": "dsmil", "activation": "gelu", "fusion": "logits"},
    "transmil": {"name": "trans_mil", "activation": "gelu"},
    "mean": {"name": "mean"},
    "max": {"name": "max"},
}


def _survival(kind: str) -> tuple[Settings, PresetInfo]:
    _, title, sentence, *_ = _ROWS[kind]
    title = title.partition(" (")[0]
    settings = {"aggregator": _SURVIVAL[kind], "task": SURVIVAL_TASK, "training": M2_SURVIVAL}
    info = PresetInfo(f"{title}, survival", sentence, M2, "Survival", f"{title}, table of survival")
    return settings, info


SURVIVAL: Table = {f"{kind}_survival": _survival(kind) for kind in _SURVIVAL}
