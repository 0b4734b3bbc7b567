"""Combinations that make no sense, refused in a sentence. Free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mil.errors import MethodError

from .configs import (
    ClamMbConfig,
    ClamSbConfig,
    DsmilConfig,
    DtfdConfig,
    HardNegativeMining,
    InstanceSupervision,
    Mhim2Mining,
    MhimMining,
    MulticlassTask,
    PatchClassifierConfig,
    RankSupervision,
    SurvivalTask,
    TransMilConfig,
)

if TYPE_CHECKING:
    from .method import Method

_MINING_TITLES = {"mhim": "MHIM", "mhim2": "MHIM", "hard_negative": "Hard negative mining"}
_LESION_TITLES = {"rank": "Rank induction", "attention": "Attention induction", "instance_bce": "The patch loss"}


def check_combination(method: Method) -> None:
    """Raise a MethodError that says what does not go together, and what to change."""
    _check_parts(method)
    _check_task(method)


def _check_parts(method: Method) -> None:
    aggregator, supervision, mining = method.aggregator, method.supervision, method.mining
    name = {"mean": "mean pooling", "max": "max pooling"}.get(aggregator.name, aggregator.name)
    if supervision.kind != "none" and not aggregator.has_scores:
        raise MethodError(
            f"{_LESION_TITLES[supervision.kind]} needs a score for each patch, and {name} has none; "
            "choose an AB-MIL aggregator, or supervision none."
        )
    if supervision.kind == "attention" and not aggregator.has_attention:
        raise MethodError(
            f"Attention induction needs attention that can be learned, and {name} has none; "
            "choose an AB-MIL aggregator, or supervision rank or instance_bce."
        )
    if mining.kind != "none" and not aggregator.has_attention:
        raise MethodError(
            f"{_MINING_TITLES[mining.kind]} goes by attention, and {name} has none; "
            "choose an aggregator with attention (AB-MIL, say), or mining none."
        )
    if isinstance(mining, MhimMining) and mining.high + mining.low + mining.random == 0:
        raise MethodError("MHIM with high, low and random all 0 masks nothing; set one, or mining none.")
    if isinstance(mining, Mhim2Mining) and not aggregator.class_aware:
        raise MethodError(
            f"MHIM's second version needs each patch's own term in the slide's logits, and {name} has none; "
            "choose AB-MIL, DSMIL, TransMIL or CLAM, or mining mhim."
        )
    if isinstance(mining, Mhim2Mining) and mining.high == 0 and mining.keep == 1:
        raise MethodError("MHIM with high 0 and keep 1 masks nothing; change one, or mining none.")
    if isinstance(mining, HardNegativeMining) and method.task.kind != "binary":
        raise MethodError(
            "Hard negative bags are made of false-positive slides, which only a task of two classes has; "
            "choose task binary, or another mining."
        )
    if isinstance(supervision, InstanceSupervision) and supervision.weight == 0 and supervision.bag_weight == 0:
        raise MethodError("supervision.weight and supervision.bag_weight are both 0: nothing would be learned.")
    if isinstance(supervision, RankSupervision) and supervision.cross_slide_negatives and name == "trans_mil":
        raise MethodError(
            "TransMIL scores a patch among the others of its slide, so patches of other slides cannot be ranked "
            "with them; set supervision.cross_slide_negatives to 0."
        )
    if isinstance(aggregator, TransMilConfig) and aggregator.stem_dim % aggregator.heads:
        raise MethodError(
            f"aggregator.stem_dim {aggregator.stem_dim} does not divide by aggregator.heads {aggregator.heads}."
        )


def _check_task(method: Method) -> None:
    aggregator, task, monitor = method.aggregator, method.task, method.training.monitor
    if isinstance(aggregator, PatchClassifierConfig) and task.kind != "binary":
        raise MethodError("The patch classifier tells two classes apart; choose another aggregator for this task.")
    weights = task.class_weight if isinstance(task, MulticlassTask) else None
    if isinstance(weights, tuple) and len(weights) != task.n_classes:
        raise MethodError(f"task.class_weight has {len(weights)} numbers; expected {task.n_classes}, one per class.")
    if not isinstance(task, SurvivalTask):
        if monitor == "val_c_index":
            raise MethodError("The C-index is a figure of survival; choose another training.monitor.")
        return
    if monitor in ("val_auroc", "val_balanced_accuracy"):
        raise MethodError(f"{monitor} is a figure of classes, which survival has not; monitor val_c_index.")
    if method.supervision.kind != "none" and aggregator.per_class:
        raise MethodError(
            f"{aggregator.name} scores patches for each class, and the bins of survival are no classes of lesions; "
            "choose an aggregator with one score per patch (AB-MIL, TransMIL, CLAM-SB), or supervision none."
        )
    if isinstance(aggregator, DsmilConfig) and aggregator.fusion == "probabilities":
        raise MethodError("DSMIL's streams can be averaged for survival as logits only; set aggregator.fusion logits.")
    if isinstance(aggregator, ClamSbConfig | ClamMbConfig) and aggregator.instance_weight:
        raise MethodError(
            "CLAM's instance clustering goes by the slide's class, which survival has not; "
            "set aggregator.instance_weight to 0."
        )
    if isinstance(aggregator, DtfdConfig) and aggregator.distillation in ("max", "max_min"):
        raise MethodError(
            "DTFD-MIL's MaxS and MaxMinS hand on the patches that look most positive, which survival knows nothing of; "
            "set aggregator.distillation to afs or mas."
        )
