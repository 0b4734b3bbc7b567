"""From a name to a network."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from napari_mil.errors import MethodError
from napari_mil.mil.plugins import aggregator_names, announced

from .base import Aggregator

# name → (module, class), imported when it is built
_CLASSES = {
    "ab_mil": (".ab_mil", "AbMil"),
    "ab_mil_rank": (".ab_mil", "AbMilRank"),
    "ab_mil_mhim": (".ab_mil", "AbMilMhim"),
    "dsmil": (".dsmil", "Dsmil"),
    "trans_mil": (".trans_mil", "TransMil"),
    "clam_sb": (".clam", "ClamSb"),
    "clam_mb": (".clam", "ClamMb"),
    "dtfd": (".dtfd", "Dtfd"),
    "mean": (".pooling", "MeanPooling"),
    "max": (".pooling", "MaxPooling"),
    "patch_classifier": (".patch_classifier", "PatchClassifier"),
}


def build_aggregator(name: str, in_dim: int, n_classes: int, **options: Any) -> Aggregator:
    """A network with fresh weights drawn from torch's generator.

    Parameters
    ----------
    name : str
        One of `aggregator_names()`: ours, or one that another package announces under the entry point
        `napari_mil.aggregators` (a callable `(in_dim, n_classes, **options) -> Aggregator`).
    in_dim : int
        Numbers per patch.
    n_classes : int
        Classes that a person sees, 2 for a binary task whatever the head.
    **options
        Settings of this aggregator.

    Raises
    ------
    MethodError
        Unknown name or option.
    """
    factory: Callable[..., Aggregator]
    if name in _CLASSES:
        module, class_name = _CLASSES[name]
        factory = getattr(importlib.import_module(module, __package__), class_name)
    else:
        points = announced()
        if name not in points:
            raise MethodError(f"There is no aggregator {name!r}; expected one of {', '.join(aggregator_names())}.")
        factory = points[name].load()
    if in_dim < 1 or n_classes < 2:
        raise MethodError(f"{name}: {in_dim} numbers per patch and {n_classes} classes; expected at least 1 and 2.")
    parameters = inspect.signature(factory).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [key for key in parameters if key not in ("in_dim", "n_classes")]
    unknown = [key for key in options if key not in known]
    if unknown and not open_ended:
        raise MethodError(f"Aggregator {name} has no option {unknown[0]!r}; it has {', '.join(known)}.")
    return factory(in_dim, n_classes, **options)
