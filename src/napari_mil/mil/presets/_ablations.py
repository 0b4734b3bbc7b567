"""Rows of M1's ablations (Tables 3 to 5) and M2's parts: a preset with some settings changed.

Which masks a row has is printed, how large they are is not always: shares that the row's own preset lacks are those of
MHIM-MIL's other presets.
"""

from __future__ import annotations

from typing import Any

Ablations = dict[str, tuple[str, dict[str, Any]]]

# masking strategies: high alone, and high with low, with random, with both
_MASKS: dict[str, dict[str, tuple[float, float]]] = {  # network → mask → (random, low)
    "abmil": {"ham": (0.0, 0.0), "l_ham": (0.0, 0.8), "r_ham": (0.5, 0.0), "lr_ham": (0.5, 0.2)},
    "transmil": {"ham": (0.0, 0.0), "l_ham": (0.0, 0.8), "r_ham": (0.5, 0.0), "lr_ham": (0.6, 0.2)},
}

_SELF = {"mining.teacher": "copy", "mining.momentum": 0.0, "mining.momentum_schedule": "constant"}
_ROWS: dict[str, dict[str, Any]] = {
    # parts: masks from the model itself; from a momentum teacher; and consistent with it
    "masks_alone": {**_SELF, "mining.consistency_weight": 0.0},
    "siamese": {"mining.consistency_weight": 0.0},
    "consistency": {},
    # teacher: the student itself; trained and then fixed; untrained and following; trained and following
    "teacher_student_copy": _SELF,
    "teacher_fixed": {"mining.momentum": 1.0, "mining.momentum_schedule": "constant"},
    "teacher_momentum": {"mining.teacher": "copy"},
    "teacher_init_momentum": {},
    # what the student starts from
    "student_init_none": {"mining.student_init": "none"},
    "student_init_stem": {"mining.student_init": "stem"},
    # randomly-HAM, decay of β_h, momentum, temperature
    "no_random_ham": {"mining.high_random": 1.0},
    "no_decay": {"mining.high_decay": "none"},
    "momentum_constant": {"mining.momentum_schedule": "constant"},
    "momentum_cosine": {"mining.momentum_schedule": "cosine"},
    "temperature_1": {"mining.consistency_temperature": 1.0},
}


def _of(network: str) -> Ablations:
    preset = f"mhim_{network}_c16"
    rows: Ablations = {
        f"{preset}:{name}": (preset, {"mining.random": random, "mining.low": low})
        for name, (random, low) in _MASKS[network].items()
    }
    rows |= {f"{preset}:{name}": (preset, dict(settings)) for name, settings in _ROWS.items()}
    return {f"{preset}:baseline": (f"{network}_c16", {}), **rows}


ABLATIONS: Ablations = {
    **_of("abmil"),
    **_of("transmil"),
    # several heads: votes or a union
    "mhim_transmil_c16:fusion_vote": ("mhim_transmil_c16", {"mining.fusion": "vote"}),
    "mhim_transmil_c16:fusion_mean": ("mhim_transmil_c16", {"mining.fusion": "mean"}),
    # M2: what ranks patches, random masks, recycling
    "mhim2_abmil:by_attention": ("mhim2_abmil", {"mining.score": "attention"}),
    "mhim2_abmil:no_random_mask": ("mhim2_abmil", {"mining.keep": 1.0}),
    "mhim2_abmil:no_recycling": ("mhim2_abmil", {"mining.queries": 0}),
    "mhim2_abmil:one_query": ("mhim2_abmil", {"mining.queries": 1}),
    "mhim2_abmil:ten_queries": ("mhim2_abmil", {"mining.queries": 10}),
}
"""Name of the row → (preset, settings): Method.preset takes these names, too."""
