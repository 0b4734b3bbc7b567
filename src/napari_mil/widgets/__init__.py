"""The dock and its pages. Qt lives here and nowhere below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dock import MilDock as MilDock
    from .main import launch as launch

__all__ = ["MilDock", "launch"]


def __getattr__(name: str) -> Any:
    if name == "MilDock":
        from .dock import MilDock

        return MilDock
    if name == "launch":
        from .main import launch

        return launch
    raise AttributeError(f"module 'napari_mil.widgets' has no attribute {name!r}")
