"""Rank induction and attention induction (R), what nobody combined them with yet, and the controls."""

from __future__ import annotations

from typing import Any

from ._info import CONTROL, M1, M1_C16, M1_TASK, OURS, R_TRAINING, PresetInfo, R, Settings, Table
from ._mining import mhim_masks

TABLE = "Table 1, Camelyon16"


def _rank(threshold: float | None, **supervision: Any) -> Settings:
    return {
        "aggregator": {"name": "ab_mil_rank", "threshold": threshold},
        "supervision": {"kind": "rank", **supervision},
        "training": R_TRAINING,
    }


def _attention(threshold: float | None) -> Settings:
    return {
        "aggregator": {"name": "ab_mil_rank", "threshold": threshold},
        "supervision": {"kind": "attention"},
        "training": R_TRAINING,
    }


def _slide_labels_alone(threshold: float | None) -> Settings:
    return {"aggregator": {"name": "ab_mil_rank", "threshold": threshold}, "training": R_TRAINING}


def _rank_with(aggregator: Settings, **mining: Any) -> Settings:
    return {
        "aggregator": aggregator,
        "supervision": {"kind": "rank"},
        "task": M1_TASK,
        "training": M1_C16,
        **({"mining": mining} if mining else {}),
    }


def _combined(title: str, sentence: str) -> PresetInfo:
    return PresetInfo(title, sentence, OURS, "Combinations", "in no paper", needs_lesions=True)


OUTLINES: Table = {
    "rank_induction": (
        _rank(1.0),
        PresetInfo(
            "Rank induction",
            "Patches inside your outlines learn to score higher than patches outside, and weak attention is cut off.",
            R,
            "Outlines",
            f"rank induction, {TABLE}: AUROC .836",
            recommended=True,
            needs_lesions=True,
        ),
    ),
    "rank_induction_no_threshold": (
        _rank(None),
        PresetInfo(
            "Rank induction without threshold",
            "Rank induction with plain softmax attention, for a fair comparison with methods that cut nothing off.",
            R,
            "Outlines",
            "rank induction, T = 0",
            needs_lesions=True,
        ),
    ),
    "attention_induction": (
        _attention(None),
        PresetInfo(
            "Attention induction",
            "Attention is fitted to the share of tissue inside your outlines.",
            R,
            "Outlines",
            f"attention induction, {TABLE}: AUROC .743",
            needs_lesions=True,
        ),
    ),
    "attention_induction_t1": (
        _attention(1.0),
        PresetInfo(
            "Attention induction with threshold",
            "Attention induction with the attention threshold that rank induction has in the paper.",
            R,
            "Outlines",
            "attention induction, T = 1",
            needs_lesions=True,
        ),
    ),
}

SLIDE_LABELS: Table = {
    "ab_mil_rank": (
        _slide_labels_alone(None),
        PresetInfo(
            "AB-MIL (network of rank induction)",
            "The network of rank induction from slide labels alone; outlines are not used.",
            R,
            "Attention MIL",
            f"AB-MIL, {TABLE}: AUROC .740",
        ),
    ),
    "ab_mil_rank_t1": (
        _slide_labels_alone(1.0),
        PresetInfo(
            "AB-MIL with threshold",
            "The same with weak attention cut off: what does the threshold do without outlines?",
            R,
            "Attention MIL",
            "AB-MIL, T = 1",
        ),
    ),
}

COMBINATIONS: Table = {
    "rank_mhim": (
        _rank_with({"name": "ab_mil_mhim"}, **mhim_masks("abmil", "c16")),
        _combined(
            "Rank induction + MHIM-MIL",
            "A teacher hides easy patches, but never those in your outlines, which are ranked.",
        ),
    ),
    "rank_transmil": (
        _rank_with({"name": "trans_mil"}),
        _combined(
            "Rank induction + TransMIL", "The class token of TransMIL learns to look at patches inside your outlines."
        ),
    ),
    "rank_dsmil": (
        _rank_with({"name": "dsmil"}),
        _combined(
            "Rank induction + DSMIL",
            "The patch classifier of DSMIL ranks patches inside your outlines above the others.",
        ),
    ),
    "rank_clam": (
        _rank_with({"name": "clam_sb"}),
        _combined(
            "Rank induction + CLAM-SB", "The attention of CLAM ranks patches inside your outlines above the others."
        ),
    ),
}

# A control has to be trained as well as what it is compared with. R's 2e-4 over 8 slides leaves a logistic regression
# unfinished after 200 epochs where features are few (METHODS §6). Its loss weighs lesion patches: no balanced draws.
_PATCHES: Settings = {"learning_rate": 3e-3, "accumulate": 1, "sampler": "shuffled", "epochs": 400}

CONTROLS: Table = {
    "random_mask_only": (
        {
            "aggregator": {"name": "ab_mil_mhim"},
            # 1 − (1 − .5)(1 − .01) = .505: as many patches as mhim_abmil_c16 masks at first, but any
            "mining": {
                **mhim_masks("abmil", "c16"),
                "random": 0.505,
                "high": 0.0,
                "high_random": 1.0,
                "high_decay": "none",
            },
            "task": M1_TASK,
            "training": M1_C16,
        },
        PresetInfo(
            "Control: random masks only",
            "As many patches hidden as in MHIM-MIL, but at random: what does mining add?",
            M1,
            "Controls",
            "control of MHIM-MIL (AB-MIL)",
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
            CONTROL,
            "Controls",
            "control of every method that uses outlines",
            needs_lesions=True,
        ),
    ),
    "shuffled_outlines": (
        _rank(1.0, shuffle_labels=True),
        PresetInfo(
            "Control: shuffled outlines",
            "Rank induction with the patch labels of each slide shuffled: do the outlines matter?",
            CONTROL,
            "Controls",
            "control of rank induction",
            needs_lesions=True,
        ),
    ),
}

_RELEASED: Settings = {
    "training": {**R_TRAINING, "accumulation_tail": "full"},
    "task": {"kind": "binary", "class_weight": "released"},
}

AS_PUBLISHED: Table = {
    "rank_induction_released": (
        {**_rank(1.0, pairs="all", sample=1024), **_RELEASED},
        PresetInfo(
            "Rank induction, as released",
            "What the released program does: all pairs of 2 × 1024 drawn patches, its class weight and its short tail.",
            R,
            "As published",
            "rank induction, released program",
            needs_lesions=True,
        ),
    ),
    "attention_induction_released": (
        {**_attention(None), **_RELEASED},
        PresetInfo(
            "Attention induction, as released",
            "Attention induction with the class weight and the short tail of the released program.",
            R,
            "As published",
            "attention induction, released program",
            needs_lesions=True,
        ),
    ),
    "ab_mil_rank_released": (
        {**_slide_labels_alone(None), **_RELEASED},
        PresetInfo(
            "AB-MIL, as released",
            "AB-MIL with the class weight and the short tail of the released program of rank induction.",
            R,
            "As published",
            "AB-MIL, released program",
        ),
    ),
    "mhim_abmil_c16_released": (
        {
            "aggregator": {"name": "ab_mil_mhim"},
            "mining": {**mhim_masks("abmil", "c16"), "teacher_mode": "train"},
            "task": M1_TASK,
            "training": M1_C16,
        },
        PresetInfo(
            "MHIM-MIL (AB-MIL), as released",
            "MHIM-MIL whose teacher keeps its dropout, as in the released program and not in the paper's algorithm.",
            M1,
            "As published",
            "MHIM-MIL (AB-MIL), released program",
        ),
    ),
}
