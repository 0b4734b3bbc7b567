"""Where the nuclei go: each tissue has its own kind, density and order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .anatomy import CELL_UM, Plan
from .fields import Points, at, fill, inside, scale_about, scatter
from .stamps import Kind, NucleusLibrary
from .tissue import SoftTissue, Tissue

Canvas = npt.NDArray[np.uint8]


class CellPlacer:
    """Stamps the cells of one slide into its two stain canvases (0.5 µm/px), which are changed."""

    def __init__(
        self, nuclei: NucleusLibrary, soft: SoftTissue, haematoxylin: Canvas, eosin: Canvas, rng: np.random.Generator
    ) -> None:
        self.nuclei, self.soft, self.rng = nuclei, soft, rng
        self.haematoxylin, self.eosin = haematoxylin, eosin
        self.px_per_um = haematoxylin.shape[1] / soft.kinds.shape[1]

    def place(self, plan: Plan) -> None:
        """All cells of a plan."""
        self._stroma(plan)
        for outline in plan.follicles:
            self._follicle(outline)
        for gland in plan.glands:
            if gland.malignant:
                self._tumor(gland.outline)
            else:
                self._epithelium(gland.outline)
        for outline, lumen in plan.vessels:
            self._vessel(outline, lumen)

    def _in_tissue(self, points: Points) -> npt.NDArray[np.bool_]:
        return np.asarray(at(self.soft.cover, points) > 0.6)

    def _stamp(self, kind: Kind, points: Points, angle: npt.NDArray[np.float64] | float = 0.0) -> None:
        canvas = self.eosin if kind == "blood" else self.haematoxylin
        angles = np.broadcast_to(np.asarray(angle, dtype=float), (len(points),))
        self.nuclei.stamp_all(canvas, kind, points * self.px_per_um, angles, self.rng)

    def _stroma(self, plan: Plan) -> None:
        """Spindle cells along the fibres and loose lymphocytes, more of those around a tumour."""
        rng = self.rng
        points = scatter(rng, plan.width, plan.height, spacing=21.0, jitter=0.5)
        kind = at(self.soft.kinds, points)
        keep = self._in_tissue(points) & np.isin(kind, [Tissue.STROMA, Tissue.DESMOPLASIA])
        points, kind = points[keep], kind[keep]
        angle = at(self.soft.direction, points, CELL_UM) + rng.normal(0, 0.2, len(points))
        lymph = rng.random(len(points)) < np.where(kind == Tissue.DESMOPLASIA, 0.42, 0.13)
        self._stamp("spindle", points[~lymph], angle[~lymph])
        self._stamp("lymphocyte", points[lymph])

    def _follicle(self, outline: Points) -> None:
        """Lymphocytes shoulder to shoulder, thinning out beyond the outline."""
        cells = fill(scale_about(outline, 1.3), 6.6, self.rng, jitter=0.4)
        keep = inside(outline, cells) | (self.rng.random(len(cells)) < 0.28)
        free = np.isin(at(self.soft.kinds, cells), [Tissue.STROMA, Tissue.FOLLICLE])
        self._stamp("lymphocyte", cells[keep & free & self._in_tissue(cells)])

    def _epithelium(self, outline: Points) -> None:
        """One regular row of nuclei near the gland's base, each pointing to its middle."""
        ring = scale_about(outline, 0.83)
        closed = np.vstack([ring, ring[:1]])
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
        count = max(int(along[-1] / 6.4), 5)
        where = np.linspace(0, along[-1], count, endpoint=False) + self.rng.uniform(-1, 1, count)
        points = np.column_stack([np.interp(where, along, closed[:, i], period=along[-1]) for i in (0, 1)])
        inward = outline.mean(axis=0) - points
        inward /= np.hypot(*inward.T)[:, None]
        points += inward * self.rng.normal(0, 1.0, count)[:, None]
        angle = np.arctan2(inward[:, 1], inward[:, 0]) + self.rng.normal(0, 0.12, count)
        keep = self._in_tissue(points)
        self._stamp("epithelium", points[keep], angle[keep])

    def _tumor(self, outline: Points) -> None:
        """Large crowded nuclei without order all over a nest, now and then a mitosis."""
        points = fill(outline, 11.2, self.rng, jitter=0.28)
        points = points[(at(self.soft.kinds, points) == Tissue.TUMOR) & self._in_tissue(points)]
        angle = self.rng.uniform(0, np.pi, len(points))
        dividing = self.rng.random(len(points)) < 0.02
        self._stamp("tumor", points[~dividing], angle[~dividing])
        self._stamp("mitosis", points[dividing], angle[dividing])

    def _vessel(self, outline: Points, lumen: Points) -> None:
        """Muscle cells around the wall, red cells within."""
        for ring in (scale_about(outline, 0.93), (outline + lumen) / 2):
            pick = np.sort(self.rng.choice(len(ring), len(ring) // 5, replace=False))
            tangent = np.roll(ring, -1, axis=0) - np.roll(ring, 1, axis=0)
            self._stamp("spindle", ring[pick], np.arctan2(tangent[pick, 1], tangent[pick, 0]))
        cells = fill(scale_about(lumen, 0.93), 6.2, self.rng, jitter=0.4)
        self._stamp("blood", cells[self.rng.random(len(cells)) < 0.7])
