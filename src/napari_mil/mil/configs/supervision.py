"""Settings of how outlined lesions teach."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Config, NonNegative, PositiveFloat, PositiveInt, named


class NoSupervision(Config):
    """Lesions are not used: the slide's label alone teaches."""

    kind: Literal["none"] = "none"


class _Lesions(Config):
    weight: NonNegative = 1.0
    """λ: weight of this loss beside the slide's own."""
    shuffle_labels: bool = False
    """Control: permute the patch labels within each slide, so that outlines carry no information."""


class RankSupervision(_Lesions):
    """Rank induction (Kim et al. 2025): a lesion patch shall score higher than a patch without lesion."""

    kind: Literal["rank"] = "rank"
    sigma: PositiveFloat = 1.0
    """σ_s: steepness of the pair probability."""
    margin: NonNegative = 0.0
    """m: by how much a lesion patch shall score higher (as published in effect: 0)."""
    pairs: Literal["lesion_vs_non", "symmetric", "all"] = "lesion_vs_non"
    """Which pairs: the paper's; the published code's with equal pairs ignored; or its default with all of them."""
    sample: PositiveInt | None = None
    """Draw at most so many lesion and so many other patches each time (published: 1024). None: all pairs, exactly."""
    cross_slide_negatives: Annotated[int, Field(ge=0)] = 0
    """Draw so many patches of negative slides as further partners, so that partly outlined slides still teach."""


class AttentionSupervision(_Lesions):
    """Attention induction: attention shall equal the share of tissue in the outlined lesions."""

    kind: Literal["attention"] = "attention"


class InstanceSupervision(_Lesions):
    """Lesion against non-lesion patches by cross-entropy on the patch scores; negative slides count as lesion-free."""

    kind: Literal["instance_bce"] = "instance_bce"
    bag_weight: NonNegative = 0.0
    """Weight of the slide's own loss; 0 is a pure patch classifier."""
    balanced: bool = True
    """Weigh lesion patches up to the number of the others in the training slides."""


SupervisionConfig = Annotated[
    Annotated[
        NoSupervision | RankSupervision | AttentionSupervision | InstanceSupervision, Field(discriminator="kind")
    ],
    named("kind"),
]
