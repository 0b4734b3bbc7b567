"""Between the two trainings of hard negative bags: what the first one mistook for positive (METHODS §5)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch

from .bag import Bag
from .checkpoint import Run
from .configs import HardNegativeMining
from .mining.hard_negative import hard_negative_bags, hard_negatives
from .predict import predict


class Mistakes(NamedTuple):
    """What the second training adds to its slides, and what to tell a person about it."""

    bags: list[Bag]
    note: str


def learn_from_mistakes(
    config: HardNegativeMining,
    plain: Run,
    train: Sequence[Bag],
    *,
    taken: Collection[str],
    seed: int,
    device: str,
    on_bag: Callable[[int, int], None],
) -> Mistakes:
    """Predict the negative training slides with a trained model and make new bags of those it takes for positive.

    Parameters
    ----------
    plain : Run
        The first training, with its best weights.
    train : sequence of Bag
        All training slides: the new bags' sizes are like theirs.
    taken : collection of str
        Slide ids that the new bags must not have.
    seed : int
        The same seed, run and slides give the same bags.
    on_bag : callable (done, total)
        Called after each negative slide.
    """
    negatives = [index for index, bag in enumerate(train) if bag.label == 0]
    model = plain.build()
    mistaken, weights = [], []
    for done, index in enumerate(negatives, 1):
        prediction = predict(plain, train[index], device=device, model=model)
        if prediction.probabilities[1] > 0.5:
            mistaken.append(train[index])
            weights.append(prediction.attention)
        on_bag(done, len(negatives))
    if not mistaken:
        same = " The second training is the first one again." if config.second == "anew" else ""
        note = f"The first training took none of the {len(negatives)} negative slides for positive; no bag is added."
        return Mistakes([], note + same)
    bags = hard_negative_bags(
        mistaken,
        weights,
        n_clusters=config.clusters,
        n_bags=config.bags,
        deviations=config.deviations,
        sizes=[len(bag) for bag in train],
        taken=taken,
        generator=torch.Generator().manual_seed(seed + 2_000_003),
    )
    hard = sum(len(hard_negatives(values, deviations=config.deviations)) for values in weights)
    note = (
        f"The first training took {len(mistaken)} of {len(negatives)} negative slides for positive; "
        f"{hard} hard patches of theirs make {len(bags)} new negative bags."
    )
    return Mistakes(bags, note)
