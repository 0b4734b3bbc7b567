"""A map that a window shows: whose it is, how it is painted, what it was painted from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from napari_mil.geometry import PatchGrid
    from napari_mil.maps import AttentionMap
    from napari_mil.study import Project


@dataclass(frozen=True)
class Values:
    """What a map can show of the patches.

    Attributes
    ----------
    array : str
        The array of a prediction that is painted.
    normalisation : str
        How `attention_map` takes it.
    title : str
        What the layer is called.
    said : str
        What the map's normalisation is called.
    missing : str
        What is said where a prediction lacks it.
    """

    array: str
    normalisation: Any
    title: str = "Attention"
    said: str = "raw"
    missing: str = ""

    def limits(self, data: npt.NDArray[np.float32]) -> tuple[float, float] | None:
        """Ends of the colour bar where they do not go by the data alone."""
        if self.array == "instance_probability":
            return 0.0, 1.0
        if self.array == "contribution":  # for and against: nothing in the middle
            largest = float(np.nanmax(np.abs(data), initial=0.0)) or 1.0
            return -largest, largest
        return None


VALUES = {
    "softmax": Values("attention", "raw", said="softmax"),  # attention is a softmax already
    "raw": Values("scores", "raw"),
    "percentile": Values("scores", "percentile", said="percentile"),
    "instance_probability": Values(
        "instance_probability",
        "raw",
        title="Patch probability",
        missing="This model has no classifier of single patches, so there is no patch probability; "
        "its attention is shown.",
    ),
    "contribution": Values(
        "contribution",
        "raw",
        title="Contribution",
        missing="What single patches add cannot be told apart in this model, so there is no contribution; "
        "its attention is shown.",
    ),
}
CHECKPOINTS = ("best.safetensors", "last.safetensors")


@dataclass(frozen=True)
class MapLook:
    """How a map is painted, and which of `VALUES` it shows."""

    values: str = "softmax"
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
    """(N,) what patches are read and compared by: raw scores, or what is shown in place of attention."""
    values: Values
    note: str
    """What to say where the prediction lacks the values that were asked for."""
    probabilities: dict[str, float]
    risk: float | None
    """Of survival: the higher, the sooner the event is expected."""
    badge: str
    map: AttentionMap
    table: pd.DataFrame
    preview: bool = False

    @property
    def slide_id(self) -> str:
        """The slide."""
        return self.source.slide_id

    @property
    def title(self) -> str:
        """What the layer is called."""
        return f"{self.values.title}, preview" if self.preview else self.values.title


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


def read_map(project: Project, source: Source, wanted: str, dimensions: tuple[int, int], preview: bool) -> ShownMap:
    """Read scores and paint them.

    Parameters
    ----------
    wanted : str
        One of `VALUES`; attention where the prediction lacks it.
    dimensions : (width, height)
        Of the slide, level-0 px: a map that reaches beyond it is of another slide, and refused.
    """
    from napari_mil.maps import attention_map, check_geometry, patch_table
    from napari_mil.study import load_map_scores

    saved = load_map_scores(source.file)
    check_geometry(saved.grid, dimensions)
    values, note = VALUES.get(wanted, VALUES["softmax"]), ""
    if getattr(saved, values.array) is None:
        values, note = VALUES["softmax"], values.missing
    painted = getattr(saved, values.array)
    scores = saved.scores if values.title == "Attention" else painted
    badge = saved.badge if source.run is None else str(project.role_badge(source.run, source.slide_id))
    return ShownMap(
        source=source,
        grid=saved.grid,
        scores=scores,
        values=values,
        note=note,
        probabilities={k: float(p) for k, p in zip(saved.classes, saved.probabilities, strict=False)},
        risk=saved.risk,
        badge=badge,
        map=replace(attention_map(saved.grid, painted, normalisation=values.normalisation), normalisation=values.said),
        table=patch_table(saved.grid, scores),
        preview=preview,
    )
