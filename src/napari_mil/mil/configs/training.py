"""Settings of how the weights are found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Config, NonNegative, PositiveFloat, PositiveInt


class TrainingConfig(Config):
    """How the weights are found. Defaults: Kim et al. 2025, released scripts."""

    epochs: PositiveInt = 200
    """At most so many passes over the training slides."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam; Adam with decoupled weight decay; or plain gradient descent."""
    learning_rate: PositiveFloat = 2e-4
    """Of the first epoch."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate per epoch: constant, or a half cosine from `learning_rate` to `min_learning_rate`."""
    min_learning_rate: NonNegative = 0.0
    """Where the cosine ends."""
    weight_decay: NonNegative = 1e-5
    """Pulls the weights towards zero."""
    accumulate: PositiveInt = 8
    """Slides per step: gradients are averaged over so many."""
    accumulation_tail: Literal["own", "full"] = "own"
    """Divide the epoch's last, shorter group by its own length, or (as published) by `accumulate`."""
    sampler: Literal["shuffled", "balanced", "in_order"] = "shuffled"
    """Every slide once; classes (survival: events seen or not) equally often, with replacement; or the order given."""
    monitor: Literal["val_loss", "val_auroc", "val_balanced_accuracy", "val_c_index"] = "val_loss"
    """What decides which epoch is best."""
    patience: PositiveInt | None = 7
    """Stop after so many epochs without a better one. None: never."""
    min_epochs: Annotated[int, Field(ge=0)] = 20
    """But not before this epoch is over."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the networks' layers: float32, or bfloat16 where it is safe (autocast); weights and losses stay float32.
    Validation is in the same precision, predictions are always in float32."""
    deterministic: bool = False
    """Only operations that repeat bit for bit; slower on a GPU, no difference on a CPU."""
    recompute: Literal["auto", "always", "never"] = "auto"
    """Compute parts of a step twice instead of keeping them, for less memory; auto: with very large slides."""

    def is_over(self, done: int, best: int) -> bool:
        """Whether the training ends with epoch `done`, when `best` is the best one so far."""
        if done >= self.epochs:
            return True
        return self.patience is not None and done > self.min_epochs and done - best >= self.patience
