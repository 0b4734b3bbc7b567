"""Class names, their colours, and what each class means for training."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

Rgb = tuple[int, int, int]

LESION_CLASSES: dict[str, Rgb] = {
    "Tumor": (200, 0, 0),
    "Normal": (60, 160, 60),
    "Exclusion": (255, 128, 0),
    "Ignore": (180, 180, 180),
    "Stroma": (150, 200, 150),
    "Immune cells": (160, 90, 160),
    "Necrosis": (50, 50, 50),
    "Other": (255, 200, 0),
    "Region": (0, 0, 180),
}
"""Classes offered from the start; the colours of QuPath, plus Normal and Exclusion."""


class Role(StrEnum):
    """What the objects of a class say about the patches under them."""

    LESION = "lesion"
    NORMAL = "normal"
    EXCLUSION = "exclusion"
    IGNORE = "ignore"
    NEUTRAL = "neutral"


class ClassRoles(BaseModel):
    """Which class names are lesion, normal, exclusion, ignored, or say nothing.

    Names are compared without regard to case; a derived QuPath class ("Tumor: Positive") has the role of its first part
    unless it is listed itself. An object without a class counts as lesion, since somebody outlined it.

    Parameters
    ----------
    lesion : tuple of str
        Their union, less the exclusions, is the lesion.
    normal : tuple of str
        Outlined as healthy: 0 even on a slide whose lesions are not all outlined.
    exclusion : tuple of str
        Cut out of the lesions (CAMELYON16 group ``_2``, NCRF ``negative``).
    ignore : tuple of str
        Patches there are unknown (-1), or dropped before extraction.
    neutral : tuple of str
        Kept and shown, without a word about lesions.
    unlisted : {"lesion", "neutral"}
        Role of a class named nowhere above. "lesion" as long as `lesion` is left alone, "neutral" when it is given:
        who lists the lesion classes means these and no others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lesion: tuple[str, ...] = ("Tumor", "Tumour", "Metastases", "Metastasis", "Lesion")
    normal: tuple[str, ...] = ("Normal",)
    exclusion: tuple[str, ...] = ("Exclusion",)
    ignore: tuple[str, ...] = ("Ignore",)
    neutral: tuple[str, ...] = ("Stroma", "Immune cells", "Necrosis", "Other", "Region", "Negative", "Benign")
    unlisted: Role = Role.LESION

    @model_validator(mode="before")
    @classmethod
    def _defaults_yield(cls, data: Any) -> Any:
        """What is given goes before the defaults: a name given for one role leaves the default list of another."""
        if not isinstance(data, dict):
            return data
        roles = [role.value for role in Role]
        given = {fold(str(name)) for role in roles for name in data.get(role, ())}
        filled = dict(data)
        for role in roles:
            if role not in data:
                default: tuple[str, ...] = cls.model_fields[role].default
                filled[role] = tuple(name for name in default if fold(name) not in given)
        if "lesion" in data:
            filled.setdefault("unlisted", Role.NEUTRAL)
        return filled

    @model_validator(mode="after")
    def _one_role_each(self) -> ClassRoles:
        if self.unlisted not in (Role.LESION, Role.NEUTRAL):
            raise ValueError(f"unlisted is {self.unlisted.value!r}; expected 'lesion' or 'neutral'.")
        seen: dict[str, Role] = {}
        for role in Role:
            for name in self.names(role):
                other = seen.setdefault(fold(name), role)
                if other is not role:
                    raise ValueError(f"Class {name!r} is both {other.value} and {role.value}; leave it in one of them.")
        return self

    def names(self, role: Role) -> tuple[str, ...]:
        """Class names listed for a role."""
        listed: tuple[str, ...] = getattr(self, role.value)
        return listed

    def role(self, label: str) -> Role:
        """Role of a class name."""
        if not label.strip():
            return Role.LESION
        for name in (fold(label), fold(label.split(":")[0])):
            for role in Role:
                if name in map(fold, self.names(role)):
                    return role
        return self.unlisted

    def by_default(self, labels: Iterable[str]) -> list[str]:
        """Class names, of those given, that are listed nowhere and so get the `unlisted` role: worth asking about."""
        listed = {fold(name) for role in Role for name in self.names(role)}
        unknown = (label for label in labels if label.strip())
        return sorted({x for x in unknown if fold(x) not in listed and fold(x.split(":")[0]) not in listed})


def fold(name: str) -> str:
    """A class name as it is compared: without case and outer blanks."""
    return name.strip().casefold()


def class_color(label: str, extra: dict[str, Rgb] | None = None) -> Rgb:
    """Colour of a class: from `extra`, else `LESION_CLASSES`, else a steady one made from the name."""
    for table in (extra or {}, LESION_CLASSES):
        for name in (label, label.split(":")[0]):
            for key, color in table.items():
                if fold(key) == fold(name):
                    return color
    if not label.strip():
        return LESION_CLASSES["Tumor"]
    seed = sum((i + 1) * ord(c) for i, c in enumerate(fold(label)))
    return 55 + seed * 97 % 180, 55 + seed * 57 % 180, 55 + seed * 31 % 180
