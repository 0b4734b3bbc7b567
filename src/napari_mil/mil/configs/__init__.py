"""The settings of a method's parts: aggregator, supervision, mining, task, training. Free of torch.

Each part is one of several kinds, and each kind has only the settings that change something in it. The docstring under
a setting is what the window and `napari-mil train --help` show.
"""

from __future__ import annotations

from .aggregators import (
    AbMilConfig,
    AbMilMhimConfig,
    AbMilRankConfig,
    AggregatorConfig,
    ClamMbConfig,
    ClamSbConfig,
    CustomAggregatorConfig,
    DsmilConfig,
    DtfdConfig,
    MaxConfig,
    MeanConfig,
    PatchClassifierConfig,
    TransMilConfig,
)
from .base import Config
from .mining import HardNegativeMining, Mhim2Mining, MhimMining, MiningConfig, NoMining
from .supervision import AttentionSupervision, InstanceSupervision, NoSupervision, RankSupervision, SupervisionConfig
from .task import BinaryTask, MulticlassTask, SurvivalTask, TaskConfig
from .training import TrainingConfig

__all__ = [
    "AbMilConfig",
    "AbMilMhimConfig",
    "AbMilRankConfig",
    "AggregatorConfig",
    "AttentionSupervision",
    "BinaryTask",
    "ClamMbConfig",
    "ClamSbConfig",
    "Config",
    "CustomAggregatorConfig",
    "DsmilConfig",
    "DtfdConfig",
    "HardNegativeMining",
    "InstanceSupervision",
    "MaxConfig",
    "MeanConfig",
    "Mhim2Mining",
    "MhimMining",
    "MiningConfig",
    "MulticlassTask",
    "NoMining",
    "NoSupervision",
    "PatchClassifierConfig",
    "RankSupervision",
    "SupervisionConfig",
    "SurvivalTask",
    "TaskConfig",
    "TrainingConfig",
    "TransMilConfig",
]
