"""Multiple-instance learning: bags in, scores out. Knows no slide, no file layout of a project, no window.

Everything here is loaded on first use: describing a method or a bag needs no torch, training one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

# public name → the module it lives in
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bag": ["Bag"],
        "patients": ["patient_bags"],
        "records": ["EpochReport", "Prediction"],
        "metrics": ["auroc", "balanced_accuracy", "c_index"],
        "method": ["Method"],
        "presets": ["PresetInfo"],
        "checkpoint": ["Run"],
        "fit": ["fit"],
        "predict": ["predict"],
        "aggregators": ["Aggregator", "BagOutput", "build_aggregator", "threshold_attention"],
        "plugins": ["aggregator_names"],
        "supervision": [
            "rank_loss",
            "attention_induction_loss",
            "attention_target",
            "instance_bce_loss",
            "shuffle_labels",
        ],
        "mining": [
            "MaskRatios",
            "MaskedBag",
            "mask_instances",
            "consistency_loss",
            "ema_update",
            "cosine_schedule",
            "RecycleNetwork",
            "class_aware_score",
        ],
        "mining.hard_negative": ["hard_negatives", "hard_negative_bags"],
        "survival": ["survival_bins", "survival_nll"],
        "convert": ["convert_state_dict", "read_published"],
    },
)

if TYPE_CHECKING:
    from .aggregators import Aggregator as Aggregator
    from .aggregators import BagOutput as BagOutput
    from .aggregators import build_aggregator as build_aggregator
    from .aggregators import threshold_attention as threshold_attention
    from .bag import Bag as Bag
    from .checkpoint import Run as Run
    from .convert import convert_state_dict as convert_state_dict
    from .convert import read_published as read_published
    from .fit import fit as fit
    from .method import Method as Method
    from .metrics import auroc as auroc
    from .metrics import balanced_accuracy as balanced_accuracy
    from .metrics import c_index as c_index
    from .mining import MaskedBag as MaskedBag
    from .mining import MaskRatios as MaskRatios
    from .mining import RecycleNetwork as RecycleNetwork
    from .mining import class_aware_score as class_aware_score
    from .mining import consistency_loss as consistency_loss
    from .mining import cosine_schedule as cosine_schedule
    from .mining import ema_update as ema_update
    from .mining import mask_instances as mask_instances
    from .mining.hard_negative import hard_negative_bags as hard_negative_bags
    from .mining.hard_negative import hard_negatives as hard_negatives
    from .patients import patient_bags as patient_bags
    from .plugins import aggregator_names as aggregator_names
    from .predict import predict as predict
    from .presets import PresetInfo as PresetInfo
    from .records import EpochReport as EpochReport
    from .records import Prediction as Prediction
    from .supervision import attention_induction_loss as attention_induction_loss
    from .supervision import attention_target as attention_target
    from .supervision import instance_bce_loss as instance_bce_loss
    from .supervision import rank_loss as rank_loss
    from .supervision import shuffle_labels as shuffle_labels
    from .survival import survival_bins as survival_bins
    from .survival import survival_nll as survival_nll
