"""The patches of a map as a table, as the hover read-out and the CSV show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_mil.errors import MilError
from napari_mil.geometry import PatchGrid

from .ranking import midranks

if TYPE_CHECKING:
    import pandas as pd


def patch_table(grid: PatchGrid, scores: npt.ArrayLike) -> pd.DataFrame:
    """One row per patch, in the grid's order.

    Returns
    -------
    DataFrame
        `x`, `y`: level-0 px of the top-left corner; `score`; `rank`: 1 for the highest score (ties share the mean
        rank); `percentile`: 100 for the highest, 100 × mid-rank / N. Rank and percentile are NaN where the score is.

    Raises
    ------
    MilError
        When scores do not fit the grid.
    """
    import pandas as pd

    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(grid),):
        raise MilError(f"Scores have shape {values.shape}; expected ({len(grid)},), one for each patch.")
    known = ~np.isnan(values)
    rank, percentile = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if known.any():
        ascending = midranks(values[known])
        rank[known] = known.sum() + 1 - ascending
        percentile[known] = 100.0 * ascending / known.sum()
    return pd.DataFrame(
        {"x": grid.coords[:, 0], "y": grid.coords[:, 1], "score": values, "rank": rank, "percentile": percentile}
    )
