"""Masked hard instance mining of M1 and M2, and hard negative bags."""

from __future__ import annotations

from ._info import (
    LI,
    M1,
    M1_C16,
    M1_TASK,
    M1_TCGA,
    M2,
    M2_SURVIVAL,
    M2_TRAINING,
    R_TRAINING,
    SURVIVAL_TASK,
    PresetInfo,
    Settings,
    Table,
)

# M1's hyper-parameters, METHODS §3.3. DSMIL has those of AB-MIL.
#                           β_r  β_l  β_h   r    EMA         α
_MASKS: dict[tuple[str, str], tuple[float, float, float, float, str, float]] = {
    ("abmil", "c16"): (0.5, 0.0, 0.01, 0.5, "constant", 0.1),
    ("dsmil", "c16"): (0.5, 0.0, 0.01, 0.5, "constant", 0.1),
    ("transmil", "c16"): (0.0, 0.8, 0.03, 0.5, "cosine", 0.1),
    ("abmil", "tcga"): (0.7, 0.2, 0.02, 1.0, "cosine", 0.5),
    ("dsmil", "tcga"): (0.7, 0.2, 0.02, 1.0, "cosine", 0.5),
    ("transmil", "tcga"): (0.6, 0.2, 0.02, 1.0, "constant", 0.5),
}
NETWORKS: dict[str, tuple[str, str]] = {
    "abmil": ("ab_mil_mhim", "AB-MIL"),
    "dsmil": ("dsmil", "DSMIL"),
    "transmil": ("trans_mil", "TransMIL"),
}
_AUC = {
    ("abmil", "c16"): "96.14",
    ("dsmil", "c16"): "96.49",
    ("transmil", "c16"): "96.49",
    ("abmil", "tcga"): "94.97",
    ("dsmil", "tcga"): "95.53",
    ("transmil", "tcga"): "94.87",
}


def mhim_masks(network: str, data_set: str) -> Settings:
    """`mining` of M1 for "abmil", "dsmil" or "transmil" and "c16" or "tcga"."""
    random, low, high, high_random, momentum, consistency = _MASKS[network, data_set]
    return {
        "kind": "mhim",
        "random": random,
        "low": low,
        "high": high,
        "high_random": high_random,
        "high_decay": "cosine",
        "momentum": 0.9999,
        "momentum_schedule": momentum,
        "consistency_weight": consistency,
        "consistency_temperature": 0.1,
        "student_init": "stem",
    }


def _mhim(network: str, data_set: str) -> tuple[Settings, PresetInfo]:
    aggregator, title = NETWORKS[network]
    place, training = {"c16": ("Camelyon16", M1_C16), "tcga": ("TCGA", M1_TCGA)}[data_set]
    sentence = {
        "c16": "A teacher hides the easiest patches, so that the model also learns from the harder ones.",
        "tcga": "The same with the settings for slides that are mostly tumour.",
    }[data_set]
    settings = {
        "aggregator": {"name": aggregator},
        "mining": mhim_masks(network, data_set),
        "task": M1_TASK,
        "training": training,
    }
    row = f"MHIM-MIL ({title}), Table 1, {place}: AUC {_AUC[network, data_set]}"
    return settings, PresetInfo(f"MHIM-MIL ({title}), {place}", sentence, M1, "Mining", row)


def _mhim2(network: str, survival: bool) -> tuple[Settings, PresetInfo]:
    aggregator, title = NETWORKS[network]
    settings = {
        "aggregator": {
            "name": aggregator,
            "activation": "gelu",
            **({"fusion": "logits"} if network == "dsmil" else {}),
        },
        "mining": {"kind": "mhim2"},  # its defaults are the paper's, METHODS §4
        "task": SURVIVAL_TASK if survival else M1_TASK,
        "training": M2_SURVIVAL if survival else M2_TRAINING,
    }
    sentence = (
        "A teacher hides the most telling patches and most of the others; what is hidden at random comes back as a few "
        "summaries."
    )
    if survival:
        info = PresetInfo(
            f"MHIM-MIL v2 ({title}), survival", sentence, M2, "Survival", f"MHIM-MIL ({title}), table of survival"
        )
    else:
        info = PresetInfo(
            f"MHIM-MIL v2 ({title})", sentence, M2, "Mining", f"MHIM-MIL ({title}), tables of diagnosis and subtyping"
        )
    return settings, info


_HARD_NEGATIVE: Settings = {
    "aggregator": {"name": "ab_mil", "adaptive_weight": 2.0},
    "mining": {"kind": "hard_negative", "deviations": 1.0, "clusters": 10, "bags": 10},
    "training": R_TRAINING,
}

MINING: Table = {
    **{f"mhim_{network}_{data_set}": _mhim(network, data_set) for network in NETWORKS for data_set in ("c16", "tcga")},
    **{f"mhim2_{network}": _mhim2(network, survival=False) for network in NETWORKS},
    "hard_negative_bags": (
        _HARD_NEGATIVE,
        PresetInfo(
            "Hard negative bags",
            "What a first training mistook for positive is learned again as negative; faint patches weigh double.",
            LI,
            "Mining",
            "adaptive weighting and hard negative bags",
        ),
    ),
}
MINING_SURVIVAL: Table = {f"mhim2_{network}_survival": _mhim2(network, survival=True) for network in NETWORKS}
