"""Class names, colours and roles."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from napari_mil.lesion import LESION_CLASSES, ClassRoles, Role, class_color


def test_colors_are_those_of_qupath() -> None:
    assert LESION_CLASSES["Tumor"] == (200, 0, 0)
    assert LESION_CLASSES["Immune cells"] == (160, 90, 160)
    assert LESION_CLASSES["Ignore"] == (180, 180, 180)
    assert {"Normal", "Exclusion", "Stroma", "Necrosis", "Other", "Region"} <= set(LESION_CLASSES)


def test_every_name_has_a_steady_color() -> None:
    assert class_color("tumor") == (200, 0, 0)
    assert class_color("Stroma: Positive") == (150, 200, 150)
    assert class_color("Stroma", {"stroma": (1, 2, 3)}) == (1, 2, 3)
    assert class_color("Gland") == class_color("gland") != class_color("Nerve")
    assert all(0 <= value <= 255 for value in class_color("Gland"))


@pytest.mark.parametrize(
    ("label", "role"),
    [
        ("Tumor", Role.LESION),
        (" tumor ", Role.LESION),
        ("Tumor: Negative", Role.LESION),
        ("metastases", Role.LESION),
        ("", Role.LESION),
        ("Carcinoma in situ", Role.LESION),
        ("Normal", Role.NORMAL),
        ("Exclusion", Role.EXCLUSION),
        ("ignore", Role.IGNORE),
        ("Stroma", Role.NEUTRAL),
    ],
)
def test_default_roles(label: str, role: Role) -> None:
    assert ClassRoles().role(label) is role


def test_who_lists_the_lesions_means_no_others() -> None:
    roles = ClassRoles(lesion=("Stroma", "DCIS"))
    assert roles.role("Stroma") is Role.LESION
    assert roles.role("Tumor") is Role.NEUTRAL
    assert roles.role("whatever") is Role.NEUTRAL
    assert ClassRoles(lesion=("DCIS",), unlisted="lesion").role("whatever") is Role.LESION
    assert ClassRoles(normal=("Benign", "Tumor")).role("tumor") is Role.NORMAL


@pytest.mark.parametrize("roles", [ClassRoles(), ClassRoles(lesion=("Stroma",)), ClassRoles(ignore=("Tumor",))])
def test_roles_survive_a_round_trip(roles: ClassRoles) -> None:
    again = ClassRoles.model_validate_json(roles.model_dump_json())
    assert again == roles
    assert [again.role(x) for x in ("Tumor", "Stroma", "x")] == [roles.role(x) for x in ("Tumor", "Stroma", "x")]


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValidationError, match="both lesion and normal"):
        ClassRoles(lesion=("A",), normal=("a",))
    with pytest.raises(ValidationError, match="unlisted"):
        ClassRoles(unlisted="ignore")
    with pytest.raises(ValidationError, match="extra"):
        ClassRoles(lesions=("A",))


def test_names_nobody_listed_can_be_asked_about() -> None:
    assert ClassRoles().by_default(["Tumor", "Gland", "", "Tumor: Positive", "Gland"]) == ["Gland"]
