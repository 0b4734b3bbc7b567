"""Settings of which patches a model is shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from .base import Config, Dropout, Fraction, NonNegative, PositiveFloat, PositiveInt, named


class NoMining(Config):
    """Every patch is seen."""

    kind: Literal["none"] = "none"


class _Teacher(Config):
    """A momentum teacher sees the whole slide and decides what the student is shown."""

    momentum: Fraction = 0.9999
    """m: the teacher follows the student by t ← m t + (1 − m) s. 0: it is the student; 1: it never changes."""
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """Momentum stays, or rises to 1 along a half cosine."""
    consistency_weight: NonNegative = 0.1
    """α: weight of the consistency loss between the two bag embeddings."""
    consistency_temperature: PositiveFloat = 0.1
    """τ: sharpens the teacher's side of the consistency loss."""
    student_init: Literal["stem", "none"] = "stem"
    """What the student takes from the teacher's first weights."""
    teacher_mode: Literal["eval", "train"] = "eval"
    """Teacher without dropout (the paper's algorithm) or with (the published code)."""
    teacher: Annotated[
        Literal["plain", "copy"] | str, BeforeValidator(lambda value: "copy" if value is None else value)
    ] = "plain"
    """What the teacher starts from: a plain run of the same split and seed, found or trained first (plain); the
    student's copy (copy); or the folder of a trained plain run."""
    spare_lesions: bool = True
    """With outlines that teach, lesion patches are never hidden, and one other patch is always left."""


class MhimMining(_Teacher):
    """Masked hard instance mining (MHIM-MIL, Tang et al. 2023): a teacher hides what is easy from the student."""

    kind: Literal["mhim"] = "mhim"
    high: Fraction = 0.01
    """β_h: share of highest-attention patches to mask."""
    low: Fraction = 0.0
    """β_l: share of lowest-attention patches to mask."""
    random: Fraction = 0.5
    """β_r: share of patches to mask at random."""
    high_random: Annotated[float, Field(gt=0, le=1)] = 0.5
    """r: the high mask is drawn from a candidate set 1/r times as large. 1: exactly the highest."""
    high_decay: Literal["cosine", "none"] = "cosine"
    """β_h falls to 0 along a half cosine over the training, or stays."""
    fusion: Literal["vote", "mean"] = "vote"
    """Several attention heads: each votes for its own patches, or each names its share of them."""


class Mhim2Mining(_Teacher):
    """MHIM-MIL's second version (Tang et al. 2025): ranked by class-aware probability, most hidden patches recycled."""

    kind: Literal["mhim2"] = "mhim2"
    score: Literal["class_aware", "attention"] = "class_aware"
    """What patches are ranked by: their own probability of a class, or attention."""
    high: Fraction = 0.03
    """β_h: share of highest-ranked patches to mask."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the other patches that the student sees, at random; the rest is recycled. 1: no random mask."""
    queries: Annotated[int, Field(ge=0)] = 5
    """k: rows that the recycle network makes of what is hidden at random. 0: no recycle network."""
    query_momentum: Fraction = 0.9999
    """The global queries follow these rows by Q ← m Q + (1 − m) z."""
    recycle_dropout: Dropout = 0.1
    """In the recycle network: of its attention and of its rows."""
    momentum: Fraction = 0.9997
    """m: the teacher follows the student by t ← m t + (1 − m) s. 0: it is the student; 1: it never changes."""
    consistency_weight: NonNegative = 0.5
    """α: weight of the consistency loss between the two bag embeddings."""
    student_init: Literal["stem", "none"] = "none"
    """What the student takes from the teacher's first weights."""


class HardNegativeMining(Config):
    """Hard negative bags (Li et al. 2019): what a first training mistook for positive is learned again as negative."""

    kind: Literal["hard_negative"] = "hard_negative"
    deviations: NonNegative = 1.0
    """Hard is attention of at least the false-positive bag's mean plus so many standard deviations."""
    clusters: PositiveInt = 10
    """K: clusters of the hard patches by k-means."""
    bags: PositiveInt = 10
    """New negative bags that are drawn from the clusters."""
    second: Literal["anew", "continued"] = "anew"
    """The second training starts from the seed again, or from the first one's best weights."""


MiningConfig = Annotated[
    Annotated[NoMining | MhimMining | Mhim2Mining | HardNegativeMining, Field(discriminator="kind")], named("kind")
]
