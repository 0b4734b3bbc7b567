"""What lies under the cursor: a patch's score, rank, percentile and box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_mil.geometry import PatchGrid, world_to_level0

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import ViewerModel

    from napari_mil.maps import AttentionMap


def hover_text(
    attention_map: AttentionMap, table: pd.DataFrame, world_position: Sequence[float], grid: PatchGrid
) -> str:
    """One line about the patch under a world position (y, x) in µm; empty where there is none.

    Parameters
    ----------
    attention_map : AttentionMap
    table : DataFrame
        `patch_table(grid, scores)`: columns score, rank, percentile, one row per patch in the grid's order.
    world_position : (y, x)
    grid : PatchGrid
    """
    if len(world_position) < 2 or not np.isfinite(world_position).all():
        return ""
    x, y = world_to_level0(world_position[-2:], grid.mpp)
    index = grid.patch_at(float(x), float(y))
    if index is None:
        return ""
    row = table.iloc[index]
    left, top = grid.coords[index]
    width, height = grid.patch_px_level0
    where = f"patch {index} at x {left:,}, y {top:,}, {width} × {height} px"
    if np.isnan(row["score"]):
        return f"no score · {where}"
    return (
        f"score {row['score']:.4g} · rank {row['rank']:,.0f} of {len(table):,} · "
        f"percentile {row['percentile']:.1f} · {where}"
    )


class Hover:
    """Follows the cursor and says what is under it, in the status bar and by signal.

    Signals
    -------
    changed(str)
        The line about the patch under the cursor; empty outside.
    """

    changed = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._source: tuple[AttentionMap, pd.DataFrame, PatchGrid] | None = None
        self.text = ""
        viewer.cursor.events.position.connect(self._moved)
        viewer.events.status.connect(self._status)

    def set_map(
        self, attention_map: AttentionMap | None, table: pd.DataFrame | None = None, grid: PatchGrid | None = None
    ) -> None:
        """Speak of this map from now on; None for none."""
        if attention_map is None or table is None or grid is None:
            self._source = None
        else:
            self._source = (attention_map, table, grid)
        self._moved()

    def _moved(self, _: Any = None) -> None:
        text = ""
        if self._source is not None:
            attention_map, table, grid = self._source
            text = hover_text(attention_map, table, self._viewer.cursor.position, grid)
        if text != self.text:
            before, self.text = self.text, text
            if not text and self._viewer.status == before:
                self._viewer.status = "Ready"
            self.changed.emit(text)
        self._status()

    def _status(self, _: Any = None) -> None:
        # napari writes its own status from another thread after each move; ours is put back over it
        if self.text and self._viewer.status != self.text:
            self._viewer.status = self.text

    def close(self) -> None:
        """Follow the cursor no more."""
        self._source = None
        self.text = ""
        self._viewer.cursor.events.position.disconnect(self._moved)
        self._viewer.events.status.disconnect(self._status)
