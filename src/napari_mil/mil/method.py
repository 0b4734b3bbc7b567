"""A method: aggregator, supervision, mining, task and training, composed and checked. Free of torch."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError, model_validator

from napari_mil.errors import MethodError

from .combinations import check_combination
from .configs import (
    AbMilConfig,
    AggregatorConfig,
    BinaryTask,
    Config,
    CustomAggregatorConfig,
    MiningConfig,
    NoMining,
    NoSupervision,
    SupervisionConfig,
    TaskConfig,
    TrainingConfig,
)
from .presets import ABLATIONS, PRESETS, PresetInfo

if TYPE_CHECKING:
    from .aggregators import Aggregator

KIND_KEYS = {"aggregator": "name", "supervision": "kind", "mining": "kind", "task": "kind"}


class Method(Config):
    """Three independent choices, a task, and how to train (METHODS §0).

    Examples
    --------
    >>> method = Method.preset("rank_induction").with_settings({"training.epochs": 50})
    >>> Method(aggregator="ab_mil", supervision={"kind": "rank", "margin": 1.0}).aggregator.gated
    False

    Raises
    ------
    MethodError
        For an unknown or wrong setting, and for a combination that makes no sense; a sentence says which.
    """

    name: str = "custom"
    """Name of the preset it came from; says nothing to the training."""
    aggregator: AggregatorConfig = AbMilConfig()
    """From patches to a slide."""
    supervision: SupervisionConfig = NoSupervision()
    """How outlined lesions teach."""
    mining: MiningConfig = NoMining()
    """Which patches the model is shown."""
    task: TaskConfig = BinaryTask()
    """What is predicted."""
    training: TrainingConfig = TrainingConfig()
    """How the weights are found."""

    @model_validator(mode="wrap")
    @classmethod
    def _say_it_in_a_sentence(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise MethodError(_sentence(error)) from error

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        check_combination(self)
        if isinstance(self.aggregator, CustomAggregatorConfig):
            _check_known(self.aggregator.name)
        return self

    # ------------------------------------------------------------------------------------------------- presets
    @classmethod
    def preset(cls, name: str) -> Method:
        """A method of the papers, a control (`Method.presets()` lists them) or a row of an ablation, by name."""
        if name in ABLATIONS:
            preset, settings = ABLATIONS[name]
            return cls.preset(preset).with_settings(settings).model_copy(update={"name": name})
        if name not in PRESETS:
            close = _close(name, [*PRESETS, *ABLATIONS])
            known = "" if close else f" Presets: {', '.join(PRESETS)}."
            raise MethodError(f"There is no preset {name!r}{close}.{known}")
        return cls.model_validate({"name": name, **PRESETS[name][0]})

    @classmethod
    def presets(cls) -> dict[str, PresetInfo]:
        """Every preset and what to say about it, the recommended one first."""
        return {name: info for name, (_, info) in PRESETS.items()}

    # ------------------------------------------------------------------------------------------------ settings
    def with_settings(self, settings: Mapping[str, Any]) -> Method:
        """The same method with some settings changed.

        Parameters
        ----------
        settings : mapping of dotted keys to values
            `{"training.epochs": 5, "aggregator.threshold": None}`. Strings are understood as the command line gives
            them: "5", "true", "none", "a, b, c". When a part's kind changes (`aggregator.name`,
            `supervision.kind`, …) its other settings start from the defaults of the new kind, except those that both
            have and that were set. With another `task.kind` a `training.monitor` that the new task lacks becomes its
            own: the C-index for survival, the AUROC for classes.
        """
        data = self.model_dump()
        ordered = sorted(settings.items(), key=lambda item: not _is_kind_key(item[0]))  # kinds before their settings
        for key, value in ordered:
            self.put(data, key, value)
        return Method.model_validate(data)

    def settings(self) -> dict[str, Any]:
        """Every setting by its dotted key."""
        flat: dict[str, Any] = {}
        for part, value in self.model_dump().items():
            if isinstance(value, dict):
                flat.update({f"{part}.{key}": item for key, item in value.items()})
        return flat

    @staticmethod
    def put(data: dict[str, Any], key: str, value: Any) -> None:
        """Change one setting in the plain data of a method (`model_dump`), which need not make sense yet."""
        part, _, setting = key.partition(".")
        if part not in data or part == "name" or not setting:
            known = [name for name in data if name != "name"]
            raise MethodError(
                f"There is no setting {key!r}; a setting is written part.name, with part one of {', '.join(known)}."
            )
        if KIND_KEYS.get(part) == setting:
            data[part] = _change_kind(part, setting, value, data[part])
            if part == "task":
                _move_monitor(data["task"]["kind"], data["training"])
            return
        fields = _fields_of(part, data[part])
        if setting not in fields:
            kind = data[part].get(KIND_KEYS.get(part, ""), "")
            known = [f"{part}.{name}" for name in fields]
            raise MethodError(
                f"There is no setting {key!r}{f' with {part} {kind}' if kind else ''}{_close(key, known)}. "
                f"Settings: {', '.join(known)}."
            )
        data[part][setting] = _read(value, fields[setting])

    # --------------------------------------------------------------------------------------------------- build
    @property
    def n_classes(self) -> int:
        """Number of classes that a person sees."""
        return self.task.n_classes

    @property
    def needs_lesions(self) -> bool:
        """Whether outlined lesions take part in training."""
        return self.supervision.kind != "none"

    def build(self, in_dim: int, n_classes: int | None = None) -> Aggregator:
        """The network, with fresh weights from torch's generator, for patches of `in_dim` numbers."""
        from .aggregators import build_aggregator

        return build_aggregator(self.aggregator.name, in_dim, n_classes or self.n_classes, **self.aggregator.options())


def _is_kind_key(key: str) -> bool:
    part, _, setting = key.partition(".")
    return KIND_KEYS.get(part) == setting


def models_of(part: str) -> list[type[BaseModel]]:
    """The kinds that a part can be of."""
    found: list[type[BaseModel]] = []

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
            return
        for argument in typing.get_args(annotation):
            walk(argument)

    walk(Method.model_fields[part].annotation)
    return found


def _fields_of(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a part as it stands → their types, without the kind's own name."""
    key = KIND_KEYS.get(part)
    models = models_of(part)
    model = models[0]
    if key is not None:
        same = [m for m in models if m.model_fields[key].default == values[key]]
        model = same[0] if same else CustomAggregatorConfig
    return {name: field.annotation for name, field in model.model_fields.items() if name != key}


def _change_kind(part: str, key: str, kind: Any, old: Mapping[str, Any]) -> dict[str, Any]:
    if kind == old[key]:
        return dict(old)
    kinds = [str(m.model_fields[key].default) for m in models_of(part) if m is not CustomAggregatorConfig]
    if kind not in kinds:
        if part != "aggregator":
            raise MethodError(f"{part}.{key} is {kind!r}{_close(str(kind), kinds)}; expected {_one_of(kinds)}.")
        _check_known(str(kind))
        return {key: kind}
    fields, old_defaults = _fields_of(part, {key: kind}), _defaults(part, old)
    kept = {name: value for name, value in old.items() if name in fields and value != old_defaults.get(name)}
    return {key: kind, **kept}


def _move_monitor(task: str, training: dict[str, Any]) -> None:
    """A new task's own figure chooses the best epoch where one that it lacks did."""
    if task == "survival" and training["monitor"] in ("val_auroc", "val_balanced_accuracy"):
        training["monitor"] = "val_c_index"
    elif task != "survival" and training["monitor"] == "val_c_index":
        training["monitor"] = "val_auroc"


def _defaults(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    key = KIND_KEYS[part]
    for model in models_of(part):
        if model.model_fields[key].default == values[key]:
            return {name: field.default for name, field in model.model_fields.items()}
    return {}


def _read(value: Any, annotation: Any) -> Any:
    """A setting as the command line gives it: "none" where None is allowed, JSON where a list or a table is meant."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in ("none", "null", "off") and type(None) in typing.get_args(annotation):
        return None
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise MethodError(f"{value!r} cannot be read as JSON: {error}.") from error
    kinds = {annotation, *typing.get_args(annotation)}
    if any(typing.get_origin(kind) is tuple for kind in kinds) and "," in text:
        return [item.strip() for item in text.split(",")]
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    if union and str not in typing.get_args(annotation):
        try:
            return json.loads(text)  # a number among other kinds: "1", "0.5"
        except json.JSONDecodeError:
            return value
    return value


def _check_known(name: str) -> None:
    from .plugins import aggregator_names

    names = aggregator_names()
    if name not in names:
        raise MethodError(f"There is no aggregator {name!r}{_close(name, names)}; expected {_one_of(names)}.")


def _close(word: str, known: typing.Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _one_of(names: typing.Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def _key(location: tuple[int | str, ...]) -> str:
    """Where pydantic found something, as a dotted key: without the kinds and types it tried on the way."""
    part, *steps = [str(step) for step in location] or ["method"]
    if part in KIND_KEYS and len(steps) > 1:
        steps = steps[1:]
    return ".".join([part, *steps[:1]])


def _sentence(error: ValidationError) -> str:
    """Pydantic's findings as one line per setting."""
    lines: list[str] = []
    told: dict[str, int] = {}
    for item in error.errors(include_url=False, include_context=False):
        key = _key(item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"There is no setting {key!r}.")
        elif item["type"] == "missing":
            lines.append(f"{key} is missing.")
        else:
            wanted = f"{item['msg'][0].lower()}{item['msg'][1:]}."
            if key in told:  # a setting of several types: what each of them wants
                lines[told[key]] = f"{lines[told[key]][:-1]}; or {wanted}"
            else:
                told[key] = len(lines)
                lines.append(f"{key} is {item['input']!r}: {wanted}")
    return " ".join(dict.fromkeys(lines))
