"""Names of feature sets, estimates, and the speeds they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from napari_mil.features import estimate, feature_set_name, get_encoder
from napari_mil.features.estimates import remember_speed


class Config(BaseModel):
    target_mpp: float = 0.5
    patch_px: int = 224


def test_the_name_changes_with_every_choice_and_with_nothing_else() -> None:
    name = feature_set_name("resnet50", Config(), {"method": "otsu"})
    assert name.startswith("resnet50-")
    assert len(name) == len("resnet50-") + 8
    assert name == feature_set_name("resnet50", {"patch_px": 224, "target_mpp": 0.5}, '{"method": "otsu"}')
    others = {
        name,
        feature_set_name("resnet18", Config(), {"method": "otsu"}),
        feature_set_name("resnet50", Config(patch_px=256), {"method": "otsu"}),
        feature_set_name("resnet50", Config(), {"method": "manual"}),
        feature_set_name("resnet50", Config()),
        feature_set_name("resnet50", Config(), {"method": "otsu"}, weights="mine.pth"),
    }
    assert len(others) == 6
    assert feature_set_name("texture", Config()) == feature_set_name(get_encoder("texture"), Config())


def test_the_name_is_a_folder_name_everywhere(tmp_path: Path) -> None:
    program = tmp_path / "my net.pt2"
    assert feature_set_name(program, Config()).startswith("my_net-")
    program.with_suffix(".json").write_text(json.dumps({"name": "hub:org/net v2"}), encoding="utf-8")
    assert feature_set_name(str(program), Config()).startswith("hub_org_net_v2-")


def test_estimates_learn_from_this_machine(own_cache: Path) -> None:
    before = estimate(13_000, 1024, "resnet50")
    assert not before.measured
    assert before.gigabytes == pytest.approx(13_000 * (2048 + 16) / 1e9)
    remember_speed("resnet50", "cpu", 50.0, 500)
    after = estimate(12_000, 1024, "resnet50")
    assert after.measured
    assert after.minutes == pytest.approx(4)
    assert not estimate(12_000, 1024, "resnet50", device="cuda").measured
    remember_speed("resnet50", "cpu", 100.0, 500)
    assert estimate(1, 1, "resnet50").patches_per_second == 75
    remember_speed("resnet50", "cpu", 1.0, 3)  # too few to mean anything
    assert estimate(1, 1, "resnet50").patches_per_second == 75
    (own_cache / "speeds.json").write_text("[damaged", encoding="utf-8")
    assert not estimate(1, 1, "resnet50").measured


def test_an_encoder_never_heard_of_has_an_estimate_too() -> None:
    assert estimate(1000, None, "uni").minutes > 0
