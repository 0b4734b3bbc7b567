"""A map that a window shows: whose it is, how it is painted, what it was painted from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from napari_mil.geometry import PatchGrid
    from napari_mil.maps import AttentionMap
    from napari_mil.study import Project

CHECKPOINTS = ("best.safetensors", "last.safetensors")


@dataclass(frozen=True)
class MapLook:
    """How a map is painted."""

    normalisation: str = "softmax"
    colormap: str = "inferno"
    opacity: float = 0.6
    visible: bool = True


@dataclass(frozen=True)
class Source:
    """Whose map it is, and where its scores are.

    Attributes
    ----------
    run : Path or None
        The project's run; None for a saved model.
    name : str
    file : Path
    """

    slide_id: str
    run: Path | None
    name: str
    file: Path


@dataclass(frozen=True)
class ShownMap:
    """The map on stage, with what it was painted from."""

    source: Source
    grid: PatchGrid
    scores: Any
    attention: Any
    probabilities: dict[str, float]
    badge: str
    map: AttentionMap
    normalisation: str
    table: pd.DataFrame
    preview: bool = False

    @property
    def slide_id(self) -> str:
        """The slide."""
        return self.source.slide_id

    @property
    def title(self) -> str:
        """What the layer is called."""
        return "Attention, preview" if self.preview else "Attention"


def source_of(run: Path, slide_id: str) -> Source:
    """Where a run of the project keeps a slide's scores."""
    return Source(slide_id, run, run.name, run / "maps" / f"{slide_id}.npz")


def is_made(source: Source) -> bool:
    """Whether the scores are there, and not older than the model (a resumed training makes another one)."""
    try:
        made = source.file.stat().st_mtime
    except OSError:
        return False
    if source.run is None:
        return True
    weights = [p.stat().st_mtime for name in CHECKPOINTS if (p := source.run / name).exists()]
    return made >= max(weights, default=0.0)


def read_map(
    project: Project, source: Source, normalisation: str, dimensions: tuple[int, int], preview: bool
) -> ShownMap:
    """Read scores and paint them.

    Parameters
    ----------
    dimensions : (width, height)
        Of the slide, level-0 px: a map that reaches beyond it is of another slide, and refused.
    """
    from napari_mil.maps import attention_map, check_geometry, patch_table
    from napari_mil.study import load_map_scores

    saved = load_map_scores(source.file)
    check_geometry(saved.grid, dimensions)
    values = saved.attention if normalisation == "softmax" else saved.scores
    of_values: Any = "raw" if normalisation == "softmax" else normalisation  # attention is a softmax already
    badge = saved.badge if source.run is None else str(project.role_badge(source.run, source.slide_id))
    return ShownMap(
        source=source,
        grid=saved.grid,
        scores=saved.scores,
        attention=saved.attention,
        probabilities={k: float(p) for k, p in zip(saved.classes, saved.probabilities, strict=False)},
        badge=badge,
        map=attention_map(saved.grid, values, normalisation=of_values),
        normalisation=normalisation,
        table=patch_table(saved.grid, saved.scores),
        preview=preview,
    )
