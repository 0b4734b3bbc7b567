"""What a person changes in a preset, without a window."""

from __future__ import annotations

import pytest

from napari_mil.mil import Method
from napari_mil.viewer.method_form import MethodForm


@pytest.fixture
def form() -> MethodForm:
    form = MethodForm()
    form.begin("rank_induction", Method.preset("rank_induction"))
    return form


@pytest.mark.parametrize("preset", sorted(Method.presets()))
def test_every_preset_is_shown_as_it_is(preset: str) -> None:
    form = MethodForm()
    form.begin(preset, Method.preset(preset))
    assert form.values() == Method.preset(preset).settings()
    assert form.method == Method.preset(preset)
    assert form.changes == {}
    assert form.obstacle == ""
    described = {setting.key for part in form.parts for setting in form.settings_of(part)}
    kinds = {part.key for part in form.parts.values() if part.key}
    assert described | kinds == set(form.values())


def test_a_change_is_told_and_taken_back(form: MethodForm) -> None:
    seen = []
    form.changed.connect(lambda: seen.append(form.changes))
    form.put("training.patience", None)
    form.put("training.patience", None)  # no change
    form.put("aggregator.temperature", 0.5)
    assert seen == [{"training.patience": None}, {"aggregator.temperature": 0.5, "training.patience": None}]
    assert form.method == Method.preset("rank_induction").with_settings(seen[-1])
    form.reset("training.patience")
    assert form.changes == {"aggregator.temperature": 0.5}
    form.reset_all()
    assert form.method == Method.preset("rank_induction")


def test_another_kind_keeps_what_both_have_as_the_command_line_does(form: MethodForm) -> None:
    changes = {"aggregator.threshold": 0.25, "aggregator.name": "trans_mil"}
    for key, value in changes.items():
        form.put(key, value)
    by_command = Method.preset("rank_induction").with_settings({"aggregator.threshold": 0.25})
    assert form.method == by_command.with_settings({"aggregator.name": "trans_mil"})
    assert form.changes == {"aggregator.name": "trans_mil", "aggregator.threshold": 0.25}
    form.reset("aggregator.name")
    assert form.method == Method.preset("rank_induction")


def test_another_task_is_monitored_by_its_own_figure_and_back() -> None:
    form = MethodForm()
    form.begin("mhim_abmil_c16", Method.preset("mhim_abmil_c16"))
    form.put("task.kind", "survival")
    assert form.method == Method.preset("mhim_abmil_c16").with_settings({"task.kind": "survival"})
    assert form.changes == {"task.kind": "survival", "training.monitor": "val_c_index"}
    form.reset("task.kind")
    assert form.changes == {}


def test_a_combination_without_sense_is_shown_and_named(form: MethodForm) -> None:
    form.put("aggregator.name", "mean")
    assert form.method is None
    assert form.obstacle.startswith("Rank induction needs a score for each patch, and mean pooling has none")
    assert form.value("aggregator.name") == "mean"
    assert form.value("aggregator.stem_dim") == 512  # its settings can be filled in all the same
    form.put("supervision.kind", "none")
    assert form.obstacle == ""
    assert form.method is not None
    form.put("training.learning_rate", -1.0)
    assert "training.learning_rate is -1.0" in form.obstacle


def test_changes_of_another_preset_are_gone(form: MethodForm) -> None:
    form.put("training.epochs", 3)
    form.begin("ab_mil", Method.preset("ab_mil"))
    assert form.changes == {}
    form.put_all({"training.epochs": 5, "aggregator.gated": True, "aggregator.hidden": 8})  # it has no `hidden`
    assert form.changes == {"aggregator.gated": True, "training.epochs": 5}
