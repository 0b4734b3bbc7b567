"""What a preset says about itself, and the trainings that many of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

R = "Kim et al., Ranking-Aware MIL, MIDL 2025"
M1 = "Tang et al., MHIM-MIL, ICCV 2023"
M2 = "Tang et al., MHIM-MIL v2, IJCV 2025"
ILSE = "Ilse et al., Attention-based deep MIL, ICML 2018"
LI = "Li et al., Deep instance-level hard negative mining, MICCAI 2019"
OURS = "no paper's"
CONTROL = "control"


@dataclass(frozen=True)
class PresetInfo:
    """What a person reads about a preset.

    Parameters
    ----------
    title, sentence : str
        Its name, short, and what it does.
    paper : str
        Whose it is.
    family : str
        Heading in a list of presets, see `FAMILIES`.
    row : str
        The paper's name of it, where it is printed, and what figure it had there.
    recommended, needs_lesions : bool
        One is recommended; those that need outlines cannot do without.
    """

    title: str
    sentence: str
    paper: str
    family: str
    row: str
    recommended: bool = False
    needs_lesions: bool = False

    @property
    def source(self) -> str:
        """The paper and the row of its table; of a control or a combination of ours, what it is."""
        if self.paper in (OURS, CONTROL):
            return f"{self.row[:1].upper()}{self.row[1:]}"
        return f"{self.paper}: {self.row}"


Settings = dict[str, Any]
Table = dict[str, tuple[Settings, PresetInfo]]

# Training of R (METHODS §2.5): the defaults of TrainingConfig plus its sampler.
R_TRAINING: Settings = {"sampler": "balanced"}

# Training of M1 (METHODS §3.3): one slide per step, cosine to 0, the epoch of the best validation AUC.
M1_C16: Settings = {
    "epochs": 200,
    "learning_rate": 2e-4,
    "weight_decay": 1e-5,
    "schedule": "cosine",
    "min_learning_rate": 0.0,
    "accumulate": 1,
    "sampler": "shuffled",
    "monitor": "val_auroc",
    "patience": 30,
    "min_epochs": 130,
}
M1_TCGA: Settings = {**M1_C16, "patience": 20, "min_epochs": 70}
M1_TASK: Settings = {"kind": "binary", "class_weight": "none"}

# Training of M2 (METHODS §4.5)
M2_TRAINING: Settings = {**M1_C16, "min_learning_rate": 1e-7, "patience": 20, "min_epochs": 100}
M2_SURVIVAL: Settings = {**M2_TRAINING, "monitor": "val_c_index", "patience": 15, "min_epochs": 30}
SURVIVAL_TASK: Settings = {"kind": "survival", "n_bins": 4, "bags": "patient"}
