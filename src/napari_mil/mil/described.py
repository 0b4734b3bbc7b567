"""Every part of a method, its kinds and their settings in words and bounds: what a form or a help page is made from.

Free of torch, and of Qt.
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .configs import CustomAggregatorConfig
from .method import KIND_KEYS, Method, models_of
from .plugins import announced

Type = Literal["int", "float", "bool", "choice", "text", "list", "table"]

PART_TITLES = {
    "aggregator": "Aggregator",
    "supervision": "Supervision",
    "mining": "Mining",
    "task": "Task",
    "training": "Training",
}
KIND_TITLES = {
    "ab_mil": "AB-MIL",
    "ab_mil_rank": "AB-MIL of rank induction",
    "ab_mil_mhim": "AB-MIL of MHIM-MIL",
    "dsmil": "DSMIL",
    "trans_mil": "TransMIL",
    "clam_sb": "CLAM-SB",
    "clam_mb": "CLAM-MB",
    "dtfd": "DTFD-MIL",
    "mean": "Mean pooling",
    "max": "Max pooling",
    "patch_classifier": "Patch classifier",
    "none": "None",
    "rank": "Rank induction",
    "attention": "Attention induction",
    "instance_bce": "Patch loss",
    "mhim": "MHIM-MIL",
    "mhim2": "MHIM-MIL v2",
    "hard_negative": "Hard negative bags",
    "binary": "Two classes",
    "multiclass": "Three classes or more",
    "survival": "Survival",
}
# where the name of a setting alone says too little
SETTING_TITLES = {
    "stem_dim": "Stem's width",
    "attention_dim": "Attention's width",
    "query_dim": "Queries' width",
    "hidden": "Hidden width",
    "pinv_iterations": "Inverse's iterations",
    "binary_head": "Head of two classes",
    "initialisation": "First weights",
    "top_k": "Highest patches",
    "shuffle_labels": "Shuffle patch labels",
    "cross_slide_negatives": "Of negative slides",
    "sample": "Draw at most",
    "student_init": "Student begins with",
    "teacher": "Teacher begins as",
    "high_random": "High, drawn from",
    "keep": "Shown at random",
    "queries": "Recycled rows",
    "second": "Second training",
    "mining.bags": "New bags",
    "task.bags": "One bag for",
    "n_bins": "Bins of time",
    "epochs": "Epochs at most",
    "min_epochs": "Epochs at least",
    "min_learning_rate": "Last learning rate",
    "accumulate": "Slides per step",
    "accumulation_tail": "Last step of an epoch",
    "sampler": "Order of slides",
    "monitor": "Best epoch by",
}
CHOICE_TITLES = {
    "val_loss": "validation loss",
    "val_auroc": "validation AUROC",
    "val_balanced_accuracy": "validation balanced accuracy",
    "val_c_index": "validation C-index",
    "relu": "ReLU",
    "gelu": "GELU",
    "adam": "Adam",
    "adamw": "AdamW",
    "sgd": "SGD",
    "svm": "smooth SVM",
    "ce": "cross-entropy",
    "torch": "PyTorch's",
    "xavier": "Xavier",
    "single": "one logit",
    "two": "two logits",
    "max": "MaxS",
    "max_min": "MaxMinS",
    "mas": "MAS",
    "afs": "AFS",
    "lesion_vs_non": "lesion against the rest",
    "fp32": "float32",
    "bf16": "bfloat16",
    "eval": "without dropout",
    "train": "with dropout",
    "copy": "the student's copy",
    "plain": "a plain run",
    "slide": "each slide",
    "patient": "each patient",
}
# the papers' values, to begin with where a setting is off by default
STARTS = {
    "threshold": 1.0,
    "attention_dim": 128,
    "dropout": 0.25,
    "adaptive_weight": 2.0,
    "landmarks": 256,
    "sample": 1024,
}
# a symbol of the paper before the sentence: "β_h: share of …"
_SYMBOL = re.compile(r"^([^\W\d]{1}(?:_\w)?): ")
_NONE = re.compile(r"None(?: or 0)?: (.+?)\.(?:\s|$)")


@dataclass(frozen=True)
class Setting:
    """One setting.

    Parameters
    ----------
    key : str
        Dotted, as `Method.with_settings` takes it.
    title : str
        Its name in words, with the paper's symbol where it has one.
    help : str
        What it does, in a sentence or two.
    type : str
        int, float, bool, choice (one of `choices`), text, list (of `items`) or table.
    default : object
        None also where the setting has none and must be given.
    choices : tuple of str
        The words to choose from; with another type than choice, words that may stand instead of a value.
    low, high : float or None
        Bounds; whether one may be reached is left to the method's own check.
    optional : bool
        None is allowed, and means `none_means`.
    start : object
        A value to begin with where None is given up.
    items : str
        Of a list: "text" or "float".
    """

    key: str
    title: str
    help: str
    type: Type
    default: Any
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    optional: bool = False
    none_means: str = ""
    start: Any = None
    items: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind that a part can be of, its settings in order; named "" where the part has but one."""

    name: str
    title: str
    help: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Part:
    """A part of a method; `key` is the setting that chooses its kind, "" where there is but one."""

    name: str
    title: str
    help: str
    key: str
    kinds: tuple[Kind, ...]

    def kind(self, name: str) -> Kind:
        """A kind by its name."""
        return next((kind for kind in self.kinds if kind.name == name), self.kinds[0])


@cache
def describe_method() -> tuple[Part, ...]:
    """The five parts of a method with all that can be set; aggregators that other packages announce included."""
    return tuple(_part(name, title) for name, title in PART_TITLES.items())


def choice_title(word: str) -> str:
    """A word that a setting may be, as a person reads it."""
    return CHOICE_TITLES.get(word, word.replace("_", " "))


def _part(name: str, title: str) -> Part:
    key = KIND_KEYS.get(name, "")
    kinds = []
    for model in models_of(name):
        if model is CustomAggregatorConfig:
            kinds += [_kind(name, model, key, other, other) for other in sorted(announced())]
        else:
            kind = str(model.model_fields[key].default) if key else ""
            kinds.append(_kind(name, model, key, kind, KIND_TITLES.get(kind, kind)))
    help_ = Method.model_fields[name].description or ""
    return Part(name, title, help_, f"{name}.{key}" if key else "", tuple(kinds))


def _kind(part: str, model: type[BaseModel], key: str, name: str, title: str) -> Kind:
    fields = {field: info for field, info in model.model_fields.items() if field != key}
    settings = tuple(_setting(f"{part}.{field}", info) for field, info in fields.items())
    return Kind(name, title, _one_line(model.__doc__ or ""), settings)


def _setting(key: str, info: FieldInfo) -> Setting:
    words = _one_line(info.description or "")
    name = key.partition(".")[2]
    title = SETTING_TITLES.get(key) or SETTING_TITLES.get(name) or name.replace("_", " ").capitalize()
    symbol = _SYMBOL.match(words)
    found = _Found()
    found.take(info.annotation, info.metadata)
    none = _NONE.search(words)
    return Setting(
        key=key,
        title=f"{title} {symbol.group(1)}" if symbol else title,
        help=words,
        type=found.type or "choice",
        default=None if info.is_required() else info.default,
        choices=tuple(found.choices),
        low=found.low,
        high=found.high,
        optional=found.optional,
        none_means=(none.group(1) if none else "not set") if found.optional else "",
        start=info.default if info.default is not None else STARTS.get(name),
        items=found.items,
    )


class _Found:
    """What a type's annotation says, gathered over a union's members."""

    def __init__(self) -> None:
        self.type: Type | None = None
        self.choices: list[str] = []
        self.low: float | None = None
        self.high: float | None = None
        self.optional = False
        self.items = ""

    def take(self, annotation: Any, metadata: typing.Iterable[Any] = ()) -> None:
        for item in metadata:
            for bound in item.metadata if isinstance(item, FieldInfo) else [item]:
                self.low = getattr(bound, "ge", getattr(bound, "gt", self.low))
                self.high = getattr(bound, "le", getattr(bound, "lt", self.high))
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if annotation is type(None):
            self.optional = True
        elif origin is typing.Annotated:
            self.take(arguments[0], arguments[1:])
        elif origin is Literal:
            self.choices += [str(word) for word in arguments]
        elif origin is tuple:
            self.type, self.items = "list", "text" if arguments[0] is str else "float"
        elif origin is dict:
            self.type = "table"
        elif isinstance(annotation, type):
            self.type = {bool: "bool", int: "int", float: "float", str: "text"}[annotation]  # type: ignore[assignment]
        else:
            for argument in arguments:
                self.take(argument)


def _one_line(text: str) -> str:
    return " ".join(text.replace("`", "").split())
