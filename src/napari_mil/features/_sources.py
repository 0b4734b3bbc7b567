"""What this room asks of a slide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class SlideLike(Protocol):
    """The part of `napari_mil.slide.Slide` that extraction and import need."""

    @property
    def path(self) -> Path: ...
    @property
    def source(self) -> Any: ...
    @property
    def dimensions(self) -> tuple[int, int]: ...
    @property
    def mpp(self) -> tuple[float, float] | None: ...
    @property
    def mpp_source(self) -> str | None: ...
    @property
    def level_dimensions(self) -> Sequence[tuple[int, int]]: ...
    @property
    def level_downsamples(self) -> Sequence[float]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def objective_power(self) -> float | None: ...
