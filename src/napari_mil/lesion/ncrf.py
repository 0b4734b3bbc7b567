"""CAMELYON16 outlines as JSON: ``{"positive": [{name, vertices}], "negative": [...]}``.

Negative rings are holes in the positives; they stay objects of their own, of class "Exclusion", so that nothing is
lost.
"""

from __future__ import annotations

from typing import Any

from .model import Lesion, LesionSet
from .parts import Collector, OutlineError, describe

_CLASSES = {"positive": "Tumor", "negative": "Exclusion"}


def looks_like(data: Any) -> bool:
    """Whether parsed JSON is of this kind."""
    return isinstance(data, dict) and any(isinstance(data.get(key), list) for key in _CLASSES)


def from_json(data: dict[str, Any], where: str) -> LesionSet:
    """Objects of parsed JSON; `where` is part of every reader's signature."""
    collector = Collector()
    for key, label in _CLASSES.items():
        for index, entry in enumerate(data.get(key) or []):
            name = str(entry.get("name") or "") if isinstance(entry, dict) else ""
            what = describe(index, key, name)
            try:
                polygon = collector.polygon(what, entry.get("vertices") if isinstance(entry, dict) else None)
            except OutlineError as error:
                collector.skip(what, error)
                continue
            collector.add(Lesion(polygon, label=label, name=name), what)
    return collector.finish(format="ncrf")
