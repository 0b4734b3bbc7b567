"""What a project remembers: its settings and the rows of its slide table."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from napari_mil.geometry import Pair
from napari_mil.lesion import LESION_CLASSES, ClassRoles
from napari_mil.slide import TileConfig, TissueConfig

SCHEMA_VERSION = 1
Color = Literal["as stored", "srgb"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
Role = Literal["train", "validation", "test"]
ROLES: tuple[Role, ...] = ("train", "validation", "test")

# characters that a file name cannot hold on one of the three systems
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_NEGATIVE = re.compile(
    r"^(0|no|none|neg|negative|normal|benign|healthy|control|false|nontumou?r|wild.?type|wt|-)$|^(non|no)[-_ ]"
    r"|\b(normal|negative|benign)\b",
    re.IGNORECASE,
)


class ProjectConfig(BaseModel):
    """The content of project.json."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    schema_version: int = SCHEMA_VERSION
    name: str = ""
    encoder: str = "texture"
    encoder_weights: str | None = Field(
        None, description="a local weights file, relative to the project where it can be"
    )
    tissue: TissueConfig = Field(default_factory=TissueConfig)
    tile: TileConfig = Field(default_factory=TileConfig)
    precision: Precision = Field(
        "auto", description="of the encoder; auto: bf16 where the machine gains by it, and then the same for all slides"
    )
    color: Color = Field("as stored", description="srgb: converted from each file's ICC profile")
    classes: ClassRoles = Field(default_factory=ClassRoles)
    overlap_rule: Literal["union", "released"] = Field(
        "union", description="which patches are lesion; released: as the published program of rank induction counts"
    )
    class_colors: dict[str, tuple[int, int, int]] = Field(default_factory=lambda: dict(LESION_CLASSES))
    label_names: list[str] = Field(default_factory=list, description="slide labels, the negative one first")
    mpp: dict[str, Pair] = Field(
        default_factory=dict,
        description="µm/px (x, y) given by a person: by slide id, by folder (ends in /) or by scanner (scanner:NAME)",
    )
    feature_set: str | None = Field(None, description="an imported feature set; None: the one these settings name")
    view: dict[str, Any] = Field(default_factory=dict, description="what the window showed, for reopening")


class SlideRow(BaseModel):
    """One line of slides.csv."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slide_id: str
    path: str
    patient_id: str = ""
    label: str | None = None
    role: Role | None = None
    partial_annotation: bool | None = Field(None, description="None: nobody has said so yet, treated as partial")
    time: float | None = None
    event: bool | None = None
    mpp: Pair | None = None
    extra: dict[str, str] = Field(default_factory=dict, description="columns of the table that mean nothing to us")

    @field_validator("slide_id")
    @classmethod
    def _fit_for_a_file_name(cls, value: str) -> str:
        value = value.strip()
        if not value or _FORBIDDEN.search(value) or value in {".", ".."} or value[-1] in ". ":
            raise ValueError(
                f'slide_id {value!r} cannot name a file; it may not hold < > : " / \\ | ? * or end in a dot'
            )
        return value

    @field_validator("label")
    @classmethod
    def _no_empty_label(cls, value: str | None) -> str | None:
        return (value.strip() or None) if value is not None else None

    @field_validator("mpp")
    @classmethod
    def _plausible(cls, value: Pair | None) -> Pair | None:
        if value is not None and not all(0.05 <= v <= 20 for v in value):
            raise ValueError(f"{value} µm per pixel; expected between 0.05 and 20")
        return value

    @property
    def patient(self) -> str:
        """The patient, or the slide itself when no patient is known."""
        return self.patient_id or self.slide_id

    def known(self, survival: bool) -> bool:
        """Whether what is to be learned is known: the label, or for survival time and event."""
        return (self.time is not None and self.event is not None) if survival else self.label is not None


def order_labels(names: list[str]) -> list[str]:
    """Distinct label names, the negative class first (guessed from the name), the others in natural order."""

    def natural(name: str) -> list[Any]:
        return [
            (0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name) if part
        ]

    distinct = sorted(set(names), key=natural)
    return sorted(distinct, key=lambda name: not _NEGATIVE.search(name))
