"""Studies: a project on disk, splits, training and prediction on it, experiments and their reports."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# public name → its module; loaded on first use
_PUBLIC = {
    "Project": "project",
    "ProjectConfig": "config",
    "SlideRow": "config",
    "Finding": "findings",
    "order_labels": "config",
    "preview_table": "table",
    "read_table": "table",
    "write_table": "table",
    "propose_split": "splits",
    "monte_carlo": "splits",
    "k_fold": "splits",
    "role_badge": "badges",
    "ProjectBags": "bags",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from .badges import role_badge as role_badge
    from .bags import ProjectBags as ProjectBags
    from .config import ProjectConfig as ProjectConfig
    from .config import SlideRow as SlideRow
    from .config import order_labels as order_labels
    from .findings import Finding as Finding
    from .project import Project as Project
    from .splits import k_fold as k_fold
    from .splits import monte_carlo as monte_carlo
    from .splits import propose_split as propose_split
    from .table import preview_table as preview_table
    from .table import read_table as read_table
    from .table import write_table as write_table


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'napari_mil.study' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
