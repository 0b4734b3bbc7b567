"""Methods: presets, settings by dotted keys, and refusals in sentences."""

from __future__ import annotations

import importlib
import inspect
import json

import pytest
from pydantic import BaseModel

from napari_mil.errors import MethodError
from napari_mil.mil import Method, aggregator_names, build_aggregator
from napari_mil.mil.aggregators.registry import _CLASSES
from napari_mil.mil.configs import CustomAggregatorConfig
from napari_mil.mil.method import models_of
from napari_mil.mil.plugins import BUILT_IN
from napari_mil.mil.presets import RECOMMENDED

PRESETS = list(Method.presets())
AGGREGATORS = [config for config in models_of("aggregator") if config is not CustomAggregatorConfig]


@pytest.mark.parametrize("name", PRESETS)
def test_preset_builds_and_survives_json(name: str) -> None:
    method = Method.preset(name)
    assert method.name == name
    assert Method.model_validate(json.loads(method.model_dump_json())) == method
    assert method.build(16).in_dim == 16
    info = Method.presets()[name]
    assert info.title
    assert info.sentence.endswith((".", "?"))
    assert info.needs_lesions == method.needs_lesions


def test_the_recommended_preset_stands_first_and_alone() -> None:
    assert PRESETS[0] == RECOMMENDED == "rank_induction"
    assert [name for name, info in Method.presets().items() if info.recommended] == [RECOMMENDED]


def test_presets_have_the_papers_numbers() -> None:
    """METHODS §2.4, §2.5, §3.3."""
    rank = Method.preset("rank_induction")
    assert (rank.aggregator.threshold, rank.supervision.weight, rank.supervision.sigma) == (1.0, 1.0, 1.0)
    assert rank.supervision.pairs == "lesion_vs_non"
    training = rank.training
    assert (training.learning_rate, training.weight_decay, training.accumulate) == (2e-4, 1e-5, 8)
    assert (training.patience, training.min_epochs, training.epochs) == (7, 20, 200)
    assert Method.preset("rank_induction_no_threshold").aggregator.threshold is None
    assert Method.preset("attention_induction").aggregator.threshold is None
    assert Method.preset("attention_induction_t1").aggregator.threshold == 1.0
    assert Method.preset("shuffled_outlines").supervision.shuffle_labels
    c16, tcga = Method.preset("mhim_abmil_c16"), Method.preset("mhim_abmil_tcga")
    ratios = [(m.random, m.low, m.high, m.high_random, m.consistency_weight) for m in (c16.mining, tcga.mining)]
    assert ratios == [(0.5, 0.0, 0.01, 0.5, 0.1), (0.7, 0.2, 0.02, 1.0, 0.5)]
    assert (c16.mining.momentum_schedule, tcga.mining.momentum_schedule) == ("constant", "cosine")
    assert (c16.training.patience, c16.training.min_epochs) == (30, 130)
    assert (tcga.training.patience, tcga.training.min_epochs) == (20, 70)
    assert (c16.training.schedule, c16.training.accumulate, c16.training.monitor) == ("cosine", 1, "val_auroc")


class TestNetworks:
    @pytest.mark.parametrize(
        ("name", "options", "count"),
        [
            ("ab_mil_rank", {}, 527_618),
            ("ab_mil_mhim", {}, 591_490),
            ("ab_mil_mhim", {"gated": True}, 657_026),
            ("dsmil", {}, 872_708),
            ("clam_sb", {}, 788_739 + 2 * 1_026),
            ("clam_mb", {}, 788_996 + 2 * 1_026),
            ("clam_mb", {"instance_weight": 0.0}, 788_996),
            ("dtfd", {}, 789_254 + 512),  # the authors' stem has no bias
        ],
    )
    def test_number_of_parameters(self, name: str, options: dict, count: int) -> None:
        model = build_aggregator(name, 1024, 2, **options)
        assert sum(p.numel() for p in model.parameters()) == count

    @pytest.mark.parametrize("config", AGGREGATORS, ids=[config.__name__ for config in AGGREGATORS])
    def test_settings_are_the_networks_options(self, config: type[BaseModel]) -> None:
        module, name = _CLASSES[config().name]
        network = getattr(importlib.import_module(f"napari_mil.mil.aggregators{module}"), name)
        parameters = inspect.signature(network).parameters
        defaults = {key: p.default for key, p in parameters.items() if key not in ("in_dim", "n_classes")}
        assert config().options() == defaults

    def test_every_aggregator_has_settings(self) -> None:
        names = {config().name for config in AGGREGATORS}
        assert names == set(_CLASSES) == set(BUILT_IN)

    def test_unknown(self) -> None:
        with pytest.raises(MethodError, match=r"no aggregator 'abmil'; expected one of ab_mil,"):
            build_aggregator("abmil", 8, 2)
        with pytest.raises(MethodError, match=r"ab_mil has no option 'gate'; it has gated,"):
            build_aggregator("ab_mil", 8, 2, gate=True)
        with pytest.raises(MethodError, match="at least 1 and 2"):
            build_aggregator("ab_mil", 8, 1)
        with pytest.raises(MethodError, match="two classes"):
            build_aggregator("patch_classifier", 8, 3)


class TestSettings:
    def test_dotted_keys(self) -> None:
        method = Method.preset("rank_induction").with_settings({"training.epochs": 5, "supervision.margin": 1.0})
        assert (method.training.epochs, method.supervision.margin) == (5, 1.0)
        assert method.training.learning_rate == 2e-4

    @pytest.mark.parametrize(
        ("key", "text", "value"),
        [
            ("training.epochs", "5", 5),
            ("training.learning_rate", "1e-3", 1e-3),
            ("training.patience", "none", None),
            ("aggregator.threshold", "off", None),
            ("aggregator.threshold", "0.5", 0.5),
            ("supervision.shuffle_labels", "true", True),
            ("supervision.sample", "128", 128),
            ("supervision.pairs", "all", "all"),
            ("task.class_weight", "released", "released"),
            ("task.class_weight", "2.5", 2.5),
            ("task.classes", '["benign", "malignant"]', ("benign", "malignant")),
            ("task.classes", "benign, malignant", ("benign", "malignant")),
        ],
    )
    def test_strings_of_the_command_line(self, key: str, text: str, value: object) -> None:
        method = Method.preset("rank_induction").with_settings({key: text})
        assert method.settings()[key] == value
        assert type(method.settings()[key]) is type(value)

    def test_a_new_kind_keeps_what_both_have(self) -> None:
        method = Method.preset("rank_induction").with_settings({"supervision.shuffle_labels": True})
        other = method.with_settings({"supervision.kind": "attention", "aggregator.name": "ab_mil"})
        assert (other.supervision.kind, other.supervision.shuffle_labels) == ("attention", True)
        assert (other.aggregator.name, other.aggregator.threshold) == ("ab_mil", 1.0)
        assert method.with_settings({"supervision.kind": "none"}).settings()["supervision.kind"] == "none"

    def test_kind_first_then_its_settings(self) -> None:
        method = Method.preset("ab_mil").with_settings({"aggregator.hidden": 8, "aggregator.name": "ab_mil_rank"})
        assert method.aggregator.hidden == 8

    def test_multiclass(self) -> None:
        method = Method.preset("ab_mil").with_settings({"task.kind": "multiclass", "task.classes": ["a", "b", "c"]})
        assert method.n_classes == 3
        assert method.build(4).n_logits == 3

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            (
                {"training.epoch": 5},
                r"no setting 'training.epoch' \(did you mean 'training.epochs'\?\).*training.epochs",
            ),
            ({"trainin.epochs": 5}, "part.name, with part one of aggregator, supervision"),
            ({"epochs": 5}, "part.name"),
            ({"training.epochs": "many"}, "training.epochs is 'many': input should be a valid integer"),
            ({"training.epochs": 0}, "training.epochs is 0.*greater than or equal to 1"),
            ({"training.learning_rate": float("nan")}, "learning_rate is nan"),
            ({"aggregator.gated": True}, "no setting 'aggregator.gated' with aggregator ab_mil_rank"),
            ({"aggregator.name": "ab_mil_ran"}, "no aggregator 'ab_mil_ran' .did you mean 'ab_mil_rank'"),
            ({"supervision.kind": "ranks"}, r"supervision.kind is 'ranks' \(did you mean 'rank'\?\); expected none,"),
            ({"supervision.pairs": "some"}, "supervision.pairs is 'some'"),
            ({"task.classes": "[1"}, "cannot be read as JSON"),
            ({"task.class_weight": "half"}, "task.class_weight is 'half': input .* 'released'; or input .* number"),
            ({"task.kind": "multiclass"}, "task.classes is missing"),
            ({"mining.kind": "mhim", "mining.high": 2}, "mining.high is 2"),
        ],
    )
    def test_wrong_ones_are_named(self, settings: dict, sentence: str) -> None:
        with pytest.raises(MethodError, match=sentence):
            Method.preset("rank_induction").with_settings(settings)

    def test_unknown_preset(self) -> None:
        with pytest.raises(MethodError, match=r"no preset 'rank_inductio' \(did you mean 'rank_induction'\?\)"):
            Method.preset("rank_inductio")
        with pytest.raises(MethodError, match=r"no preset 'nothing at all'. Presets: rank_induction, "):
            Method.preset("nothing at all")

    def test_a_wrong_method_inside_another_model_is_still_a_sentence(self) -> None:
        class Job(BaseModel):
            method: Method

        with pytest.raises(MethodError, match=r"no setting 'training.epoch'"):
            Job.model_validate({"method": {"training": {"epoch": 5}}})


class TestSenselessCombinations:
    @pytest.mark.parametrize("pooling", ["mean", "max"])
    @pytest.mark.parametrize("supervision", ["rank", "attention", "instance_bce"])
    def test_pooling_has_no_scores(self, pooling: str, supervision: str) -> None:
        with pytest.raises(MethodError, match=f"needs a score for each patch, and {pooling} pooling has none"):
            Method(aggregator=pooling, supervision=supervision)

    def test_no_attention(self) -> None:
        with pytest.raises(MethodError, match="Attention induction needs attention"):
            Method(aggregator="patch_classifier", supervision="attention")
        for name in ("mean", "max", "patch_classifier"):
            with pytest.raises(MethodError, match="MHIM goes by attention"):
                Method(aggregator=name, mining="mhim")

    def test_nothing_to_do(self) -> None:
        with pytest.raises(MethodError, match="masks nothing"):
            Method(mining={"kind": "mhim", "high": 0, "low": 0, "random": 0})
        with pytest.raises(MethodError, match="nothing would be learned"):
            Method(supervision={"kind": "instance_bce", "weight": 0})

    def test_classes(self) -> None:
        three = {"kind": "multiclass", "classes": ["a", "b", "c"]}
        with pytest.raises(MethodError, match="two classes apart"):
            Method(aggregator="patch_classifier", task=three)
        with pytest.raises(MethodError, match="2 numbers; expected 3"):
            Method(task={**three, "class_weight": [1, 2]})

    def test_sensible_ones_work(self) -> None:
        assert Method(aggregator="patch_classifier", supervision="rank").supervision.kind == "rank"
        both = Method(aggregator="ab_mil_mhim", supervision="rank", mining="mhim")
        assert (both.supervision.kind, both.mining.kind) == ("rank", "mhim")
        instances = {"kind": "instance_bce", "bag_weight": 1.0}
        assert Method(aggregator="ab_mil", supervision=instances, mining="mhim").supervision.kind == "instance_bce"


def test_every_setting_has_a_sentence_for_people() -> None:
    schema = Method.model_json_schema()
    for name, definition in schema["$defs"].items():
        for field, facts in definition.get("properties", {}).items():
            if field not in ("kind", "name"):
                assert facts.get("description"), f"{name}.{field}"


def test_aggregators_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from napari_mil.mil import plugins

    point = EntryPoint("theirs", f"{__name__}:theirs", plugins.ENTRY_POINT_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == plugins.ENTRY_POINT_GROUP else [])
    assert "theirs" in aggregator_names()
    method = Method(aggregator={"name": "theirs", "custom_options": {"gated": True}}, supervision="rank")
    assert method.build(5).attention.u is not None
    assert Method.model_validate_json(method.model_dump_json()) == method
    switched = Method.preset("ab_mil").with_settings({"aggregator.name": "theirs"})
    assert switched.build(5).attention.u is None
    with pytest.raises(MethodError, match="theirs has no option 'nothing'"):
        method.with_settings({"aggregator.custom_options": {"nothing": 1}}).build(5)


def theirs(in_dim: int, n_classes: int, gated: bool = False) -> object:
    return build_aggregator("ab_mil", in_dim, n_classes, gated=gated)


def test_unknown_aggregator_is_refused_before_building() -> None:
    with pytest.raises(MethodError, match=r"no aggregator 'transmill'"):
        Method(aggregator="transmill")
