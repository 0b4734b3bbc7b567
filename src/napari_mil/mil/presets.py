"""Named methods: the rows of the papers' tables, and the controls that a comparison needs. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_R = "Kim et al., Ranking-Aware MIL, MIDL 2025"
_M1 = "Tang et al., MHIM-MIL, ICCV 2023"
_ILSE = "Ilse et al., Attention-based deep MIL, ICML 2018"

RECOMMENDED = "rank_induction"


@dataclass(frozen=True)
class PresetInfo:
    """What a person reads about a preset."""

    title: str
    sentence: str
    paper: str
    recommended: bool = False
    needs_lesions: bool = False


# Training of R (METHODS §2.5): the defaults of TrainingConfig plus its sampler.
_R_TRAINING: dict[str, Any] = {"sampler": "balanced"}
# Training of M1 (METHODS §3.3): one slide per step, cosine to 0, selection by validation AUC.
_M1_C16: dict[str, Any] = {
    "schedule": "cosine",
    "accumulate": 1,
    "sampler": "shuffled",
    "monitor": "val_auroc",
    "patience": 30,
    "min_epochs": 130,
}
_M1_TCGA: dict[str, Any] = {**_M1_C16, "patience": 20, "min_epochs": 70}
_M1_TASK: dict[str, Any] = {"kind": "binary", "class_weight": "none"}

# A control has to be trained as well as what it is compared with. R's 2e-4 over 8 slides leaves a logistic regression
# unfinished after 200 epochs where features are few (METHODS §6). Its loss weighs lesion patches: no balanced draws.
_PATCHES: dict[str, Any] = {"learning_rate": 3e-3, "accumulate": 1, "sampler": "shuffled", "epochs": 400}


def _rank(threshold: float | None, **supervision: Any) -> dict[str, Any]:
    return {
        "aggregator": {"name": "ab_mil_rank", "threshold": threshold},
        "supervision": {"kind": "rank", **supervision},
        "training": _R_TRAINING,
    }


def _attention(threshold: float | None) -> dict[str, Any]:
    return {
        "aggregator": {"name": "ab_mil_rank", "threshold": threshold},
        "supervision": {"kind": "attention"},
        "training": _R_TRAINING,
    }


def _mhim(training: dict[str, Any], **mining: Any) -> dict[str, Any]:
    return {
        "aggregator": {"name": "ab_mil_mhim"},
        "mining": {"kind": "mhim", **mining},
        "task": _M1_TASK,
        "training": training,
    }


def _pooling(name: str) -> dict[str, Any]:
    return {"aggregator": {"name": name}, "task": _M1_TASK, "training": _M1_C16}


# name → (settings, what to say about it); the order is that of the window's list
PRESETS: dict[str, tuple[dict[str, Any], PresetInfo]] = {
    "rank_induction": (
        _rank(1.0),
        PresetInfo(
            "Rank induction",
            "Patches inside your outlines learn to score higher than patches outside, and weak attention is cut off.",
            _R,
            recommended=True,
            needs_lesions=True,
        ),
    ),
    "rank_induction_no_threshold": (
        _rank(None),
        PresetInfo(
            "Rank induction without threshold",
            "Rank induction with plain softmax attention, for a fair comparison with methods that cut nothing off.",
            _R,
            needs_lesions=True,
        ),
    ),
    "attention_induction": (
        _attention(None),
        PresetInfo(
            "Attention induction",
            "Attention is fitted to the share of tissue inside your outlines.",
            _R,
            needs_lesions=True,
        ),
    ),
    "attention_induction_t1": (
        _attention(1.0),
        PresetInfo(
            "Attention induction with threshold",
            "Attention induction with the attention threshold that rank induction has in the paper.",
            _R,
            needs_lesions=True,
        ),
    ),
    "ab_mil_rank": (
        {"aggregator": {"name": "ab_mil_rank"}, "training": _R_TRAINING},
        PresetInfo(
            "AB-MIL (network of rank induction)", "The same network from slide labels alone; outlines are not used.", _R
        ),
    ),
    "ab_mil": (
        {"aggregator": {"name": "ab_mil"}, "training": _R_TRAINING},
        PresetInfo("AB-MIL", "The usual attention-based pooling, from slide labels alone.", _ILSE),
    ),
    "ab_mil_gated": (
        {"aggregator": {"name": "ab_mil", "gated": True}, "training": _R_TRAINING},
        PresetInfo("AB-MIL, gated", "Attention-based pooling with gated attention, from slide labels alone.", _ILSE),
    ),
    "mhim_abmil_c16": (
        _mhim(_M1_C16, random=0.5, low=0.0, high=0.01, high_random=0.5, consistency_weight=0.1),
        PresetInfo(
            "MHIM-MIL (AB-MIL), Camelyon16 settings",
            "A teacher hides the easiest patches, so that the model also learns from the harder ones.",
            _M1,
        ),
    ),
    "mhim_abmil_tcga": (
        _mhim(
            _M1_TCGA,
            random=0.7,
            low=0.2,
            high=0.02,
            high_random=1.0,
            momentum_schedule="cosine",
            consistency_weight=0.5,
        ),
        PresetInfo(
            "MHIM-MIL (AB-MIL), TCGA settings",
            "The same with the settings for slides that are mostly tumour.",
            _M1,
        ),
    ),
    "random_mask_only": (
        # 1 − (1 − .5)(1 − .01) = .505: as many patches as mhim_abmil_c16 masks at first, but any
        _mhim(_M1_C16, random=0.505, low=0.0, high=0.0, high_random=1.0, high_decay="none", consistency_weight=0.1),
        PresetInfo(
            "Control: random masks only",
            "As many patches hidden as in MHIM-MIL, but at random: what does mining add?",
            _M1,
        ),
    ),
    "patch_classifier": (
        {
            "aggregator": {"name": "patch_classifier"},
            "supervision": {"kind": "instance_bce"},
            "training": _PATCHES,
        },
        PresetInfo(
            "Control: patch classifier",
            "Lesion against non-lesion patches by logistic regression; the highest patch speaks for the slide.",
            "control",
            needs_lesions=True,
        ),
    ),
    "shuffled_outlines": (
        _rank(1.0, shuffle_labels=True),
        PresetInfo(
            "Control: shuffled outlines",
            "Rank induction with the patch labels of each slide shuffled: do the outlines matter?",
            "control",
            needs_lesions=True,
        ),
    ),
    "mean": (
        _pooling("mean"),
        PresetInfo("Mean pooling", "All patches count the same; a baseline.", _M1),
    ),
    "max": (
        _pooling("max"),
        PresetInfo("Max pooling", "The patch of the highest logit speaks for the slide; a baseline.", _M1),
    ),
}
