"""Every setting of every kind is described: a form made from it leaves nothing out."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from napari_mil.mil import Method, plugins
from napari_mil.mil.described import Part, Setting, choice_title, describe_method
from napari_mil.mil.method import KIND_KEYS, models_of
from napari_mil.mil.plugins import BUILT_IN


@pytest.fixture
def parts() -> dict[str, Part]:
    return {part.name: part for part in describe_method()}


def all_settings() -> list[Setting]:
    return [setting for part in describe_method() for kind in part.kinds for setting in kind.settings]


def test_every_kind_and_every_field_is_there(parts: dict[str, Part]) -> None:
    assert {part.key for part in parts.values()} == {
        "aggregator.name",
        "supervision.kind",
        "mining.kind",
        "task.kind",
        "",
    }
    assert {kind.name for kind in parts["aggregator"].kinds} >= set(BUILT_IN)
    for name, part in parts.items():
        for model in models_of(name):
            key = KIND_KEYS.get(name)
            kind = part.kind(str(model.model_fields[key].default) if key else "")
            fields = {f"{name}.{field}" for field in model.model_fields if field != key}
            if model.__name__ != "CustomAggregatorConfig":
                assert {setting.key for setting in kind.settings} == fields


def test_every_setting_says_what_it_does(parts: dict[str, Part]) -> None:
    for setting in all_settings():
        assert len(setting.help) > 5, setting.key
        assert setting.help.endswith("."), setting.key
        assert "`" not in setting.help
        assert not setting.optional or setting.none_means
    for part in parts.values():
        assert part.help
        for kind in part.kinds:
            assert kind.help
            titles = [setting.title for setting in kind.settings]
            assert len(set(titles)) == len(titles)
        names = [kind.title for kind in part.kinds]
        assert len(set(names)) == len(names)


def test_types_bounds_and_words_are_those_of_the_settings(parts: dict[str, Part]) -> None:
    found = {setting.key: setting for setting in all_settings()}
    patience = found["training.patience"]
    assert (patience.type, patience.low, patience.optional, patience.none_means) == ("int", 1, True, "never")
    high = next(s for s in parts["mining"].kind("mhim").settings if s.key == "mining.high")
    assert (high.type, high.low, high.high, high.default, high.title) == ("float", 0, 1, 0.01, "High β_h")
    assert found["training.sampler"].choices == ("shuffled", "balanced", "in_order")
    assert found["training.deterministic"].type == "bool"
    weight = next(s for s in parts["task"].kind("binary").settings if s.key == "task.class_weight")
    assert (weight.type, weight.choices) == ("float", ("none", "balanced", "released"))
    weights = next(s for s in parts["task"].kind("multiclass").settings if s.key == "task.class_weight")
    assert (weights.type, weights.items) == ("list", "float")
    teacher = found["mining.teacher"]
    assert (teacher.type, teacher.choices) == ("text", ("plain", "copy"))
    adaptive = next(s for s in parts["aggregator"].kind("ab_mil").settings if s.key == "aggregator.adaptive_weight")
    assert adaptive.start == Method.preset("hard_negative_bags").aggregator.adaptive_weight
    assert choice_title("val_c_index") == "validation C-index"
    assert choice_title("in_order") == "in order"


def test_each_default_and_each_word_makes_a_method() -> None:
    for part in describe_method():
        for kind in part.kinds:
            if kind.name in ("multiclass", "survival"):
                continue  # not with the defaults of the other parts
            chosen = {part.key: kind.name} if part.key else {}
            if part.name == "mining" and kind.name != "none":
                chosen["aggregator.name"] = "ab_mil_mhim"
            for setting in kind.settings:
                for word in setting.choices:
                    if word != "val_c_index":
                        method = Method().with_settings({**chosen, setting.key: word})
                        assert method.settings()[setting.key] == word
                if setting.optional:
                    start = Method().with_settings({**chosen, setting.key: setting.start})
                    assert setting.start is not None
                    assert start.settings()[setting.key] == setting.start


def test_aggregators_of_other_packages_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "somewhere:Model", plugins.ENTRY_POINT_GROUP)
    monkeypatch.setattr("napari_mil.mil.described.announced", lambda: {"theirs": point})
    part = describe_method.__wrapped__()[0]
    assert [(s.key, s.type) for s in part.kind("theirs").settings] == [("aggregator.custom_options", "table")]


def test_describing_needs_no_torch() -> None:
    code = "import sys; from napari_mil.mil.described import describe_method as d; d(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
