"""Settings of what is predicted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Config, PositiveFloat, named


class _Task(Config):
    bags: Literal["slide", "patient"] = "slide"
    """One bag per slide, or all slides of a patient together."""


class BinaryTask(_Task):
    """Two classes; the second is the positive one."""

    kind: Literal["binary"] = "binary"
    classes: tuple[str, str] = ("negative", "positive")
    """Names, the positive one second."""
    class_weight: Literal["none", "balanced", "released"] | PositiveFloat = "balanced"
    """Weight of a positive slide: negatives/positives (balanced), all/positives (as released), or a number."""

    @property
    def n_classes(self) -> int:
        return 2


class MulticlassTask(_Task):
    """Three classes or more, mutually exclusive."""

    kind: Literal["multiclass"] = "multiclass"
    classes: Annotated[tuple[str, ...], Field(min_length=3)]
    """Names in the order of the labels 0, 1, 2, …; the first is the one without lesions."""
    class_weight: Literal["none", "balanced"] | tuple[PositiveFloat, ...] = "none"
    """Equal weights; n / (classes × n of the class); or one number per class."""

    @property
    def n_classes(self) -> int:
        return len(self.classes)


class SurvivalTask(_Task):
    """Time to an event in bins, with slides whose event was not seen (Tang et al. 2025, METHODS §4.6)."""

    kind: Literal["survival"] = "survival"
    n_bins: Annotated[int, Field(ge=3)] = 4
    """Bins of time: quantiles of the seen events' times in training."""
    bags: Literal["slide", "patient"] = "patient"
    """One bag per slide, or all slides of a patient together."""

    @property
    def n_classes(self) -> int:
        return self.n_bins

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"bin {k}" for k in range(1, self.n_bins + 1))


TaskConfig = Annotated[
    Annotated[BinaryTask | MulticlassTask | SurvivalTask, Field(discriminator="kind")], named("kind")
]
