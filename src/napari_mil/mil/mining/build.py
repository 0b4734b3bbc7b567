"""From a method's settings to its miner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from .mhim import MhimMiner, Miner
from .mhim2 import Mhim2Miner

if TYPE_CHECKING:
    from napari_mil.mil.aggregators import Aggregator
    from napari_mil.mil.configs import Mhim2Mining, MhimMining


def build_miner(
    config: MhimMining | Mhim2Mining, student: Aggregator, steps: int, weights: Mapping[str, Tensor] | None = None
) -> Miner:
    """The miner of a method's settings; what it learns is drawn from torch's generator. See `Miner`."""
    if config.kind == "mhim2":
        return Mhim2Miner(config, student, steps, weights)
    return MhimMiner(config, student, steps, weights)
