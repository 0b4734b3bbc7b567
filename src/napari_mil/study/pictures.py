"""Predictions of a project's slides as files for people: a picture of each map, and one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mil.errors import MilError

from .bundle import Applied, remember
from .predict import MapScores, load_map_scores

if TYPE_CHECKING:
    from .project import Project


def picture_prediction(project: Project, slide_id: str, out: Path | str, model: str) -> Applied:
    """Beside `out/maps/<slide>.npz`, which `predict_slide` wrote: a picture of it, and a line in predictions.csv.

    These are the files that `apply_bundle` leaves. A slide whose file is not there is pictured without its thumbnail.

    Parameters
    ----------
    project : Project
    slide_id : str
    out : path
    model : str
        Name of the run, for the title.

    Raises
    ------
    MilError
        When there are no such scores, or a file cannot be written.
    """
    from napari_mil.maps import attention_map, export_map

    out = Path(out)
    file = out / "maps" / f"{slide_id}.npz"
    scores = load_map_scores(file)
    picture = export_map(
        file.with_suffix(".png"),
        attention_map(scores.grid, scores.scores, normalisation="percentile"),
        badge=scores.badge,
        title=f"{slide_id} · {model}",
        **_under(project, scores),
    )
    chances = {name: float(p) for name, p in zip(scores.classes, scores.probabilities, strict=True)}
    applied = Applied(slide_id, scores.predicted, chances, scores.badge, str(file), str(picture), scores.risk)
    remember(out / "predictions.csv", applied)
    return applied


def _under(project: Project, scores: MapScores) -> dict[str, Any]:
    """The slide's thumbnail and size, where its file can be read."""
    from .prepare import open_project_slide

    try:
        with open_project_slide(project, scores.slide_id) as slide:
            return {"thumbnail": np.asarray(slide.thumbnail(1500)), "slide_dimensions": slide.dimensions}
    except (MilError, OSError):
        return {}
