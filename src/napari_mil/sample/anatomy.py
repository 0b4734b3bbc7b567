"""What stands where on a synthetic slide: tissue, glands, fat, vessels, lymph follicles and, when positive, tumour.

The plan is made in µm, before anything is painted, so that the tumour's outlines are exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .fields import Floats, Points, at, blob, fill, inside, scale_about, scatter, smooth_noise

CELL_UM = 8.0  # the plan's raster


@dataclass
class Gland:
    """One gland: its outer outline, its holes, and whether its cells are malignant."""

    outline: Points
    lumens: list[Points]
    malignant: bool = False


@dataclass
class Plan:
    """The anatomy of one slide, in µm from its top-left corner; rasters have one cell per CELL_UM."""

    width: float
    height: float
    tissue: Floats
    glands: list[Gland] = field(default_factory=list)
    tumors: list[Points] = field(default_factory=list)
    follicles: list[Points] = field(default_factory=list)
    vessels: list[tuple[Points, Points]] = field(default_factory=list)
    fat: list[Points] = field(default_factory=list)
    warp: tuple[Floats, Floats] = field(default_factory=lambda: (np.zeros((1, 1), np.float32),) * 2)
    turn: float = 0.0


class Planner:
    """Fills a plan from the rarest structure to the commonest; what is taken stays taken."""

    def __init__(self, rng: np.random.Generator, width: float, height: float) -> None:
        self.rng = rng
        self.shape = (int(np.ceil(height / CELL_UM)), int(np.ceil(width / CELL_UM)))
        self.y, self.x = (np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float32) + 0.5) * CELL_UM
        self.plan = Plan(width, height, self._tissue(width, height))
        self.taken: npt.NDArray[np.bool_] = self.plan.tissue < 0.06

    def make(self, *, tumor_share: float) -> Plan:
        """Plan a slide; `tumor_share` of its tissue (0 … 0.1) is tumour."""
        plan, rng = self.plan, self.rng
        amplitude = rng.uniform(45, 80)
        plan.warp = (
            amplitude * smooth_noise(rng, self.shape, 260 / CELL_UM),
            amplitude * smooth_noise(rng, self.shape, 260 / CELL_UM),
        )
        plan.turn = rng.uniform(0, np.pi)
        if tumor_share > 0:
            self._tumors(tumor_share)
        self._follicles(int(rng.integers(1, 4)))
        self._vessels(int(rng.integers(4, 8)))
        zones = smooth_noise(rng, self.shape, 420 / CELL_UM, octaves=1)
        self._fat(zones < -0.95)
        self._glands(zones > -0.25)
        return plan

    def _tissue(self, width: float, height: float) -> Floats:
        """How deep inside the tissue each cell lies: above 0 inside; one or two pieces with a wavy edge."""
        rng = self.rng
        field_ = np.full(self.shape, -1.0, np.float32)
        pieces = [(0.5, 0.5, 0.43, 0.40)] if rng.random() < 0.6 else [(0.30, 0.5, 0.245, 0.40), (0.74, 0.5, 0.20, 0.36)]
        for cx, cy, rx, ry in pieces:
            dx, dy = rng.uniform(-0.02, 0.02, 2)
            power = rng.uniform(2.2, 3.0)
            distance = (
                np.abs((self.x / width - cx - dx) / rx) ** power + np.abs((self.y / height - cy - dy) / ry) ** power
            )
            field_ = np.maximum(field_, (1 - distance ** (1 / power)).astype(np.float32))
        field_ += 0.07 * smooth_noise(rng, self.shape, 300 / CELL_UM, octaves=3)
        margin = np.minimum.reduce([self.x, self.y, width - self.x, height - self.y]) / 90 - 0.6
        return np.asarray(np.minimum(field_, margin), np.float32)

    def _inside(self, outline: Points) -> tuple[slice, slice, npt.NDArray[np.bool_]]:
        """The window of the plan's raster around an outline, and which of its cells the outline covers."""
        low = np.maximum((outline.min(axis=0) / CELL_UM).astype(int), 0)
        high = (outline.max(axis=0) / CELL_UM).astype(int) + 1
        rows, columns = slice(low[1], high[1]), slice(low[0], high[0])
        x, y = self.x[rows, columns], self.y[rows, columns]
        covered = inside(outline, np.column_stack([x.ravel(), y.ravel()]), margin=-CELL_UM)
        return rows, columns, covered.reshape(x.shape)

    def _place(self, outline: Points) -> bool:
        """Take the ground of an outline; False when some of it is taken or out of the tissue."""
        rows, columns, covered = self._inside(outline)
        if covered.size == 0 or (self.taken[rows, columns] & covered).any():
            return False
        self.taken[rows, columns] |= covered
        return True

    def _somewhere(self, deep: float) -> tuple[float, float]:
        """A random free place, at least `deep` inside the tissue where there is one."""
        free = np.argwhere(~self.taken & (self.plan.tissue > min(deep, float(self.plan.tissue.max()) * 0.7)))
        if len(free) == 0:
            free = np.argwhere(self.plan.tissue >= self.plan.tissue.max())
        row, column = free[self.rng.integers(len(free))]
        return (column + 0.5) * CELL_UM, (row + 0.5) * CELL_UM

    def _tumors(self, share: float) -> None:
        """One or two tumour areas of together `share` of the tissue, each packed with malignant glands and nests."""
        rng, plan = self.rng, self.plan
        area = share * float((plan.tissue > 0).sum()) * CELL_UM**2
        parts = [1.0] if rng.random() < 0.6 else [0.68, 0.32]
        for part in parts:
            radius = np.sqrt(area * part / np.pi)
            for attempt in range(60):
                outline = blob(rng, self._somewhere(0.22), radius, roughness=0.17, elongation=1.7)
                if attempt == 59 or self._place(outline):
                    break
            plan.tumors.append(outline)
            self._nests(outline, radius)

    def _nests(self, outline: Points, radius: float) -> None:
        rng = self.rng
        points = fill(outline, 72.0, rng, jitter=0.2)
        for point in points[inside(outline, points, margin=20.0)]:
            nest = blob(rng, tuple(point), rng.uniform(24, 34), roughness=0.22, elongation=1.8, n=48)
            lumens = [
                blob(rng, tuple(point + rng.uniform(-12, 12, 2)), rng.uniform(4, 10), roughness=0.2, n=20)
                for _ in range(rng.choice([0, 0, 1, 2, 3]))
            ]
            self.plan.glands.append(Gland(nest, lumens, malignant=True))

    def _follicles(self, count: int) -> None:
        for _ in range(count):
            outline = blob(self.rng, self._somewhere(0.12), self.rng.uniform(55, 110), roughness=0.1)
            if self._place(outline):
                self.plan.follicles.append(outline)

    def _vessels(self, count: int) -> None:
        for _ in range(count):
            outline = blob(self.rng, self._somewhere(0.1), self.rng.uniform(22, 60), roughness=0.08, elongation=1.8)
            if self._place(outline):
                self.plan.vessels.append((outline, scale_about(outline, self.rng.uniform(0.5, 0.72))))

    def _fat(self, zone: npt.NDArray[np.bool_]) -> None:
        rng = self.rng
        points = scatter(rng, self.plan.width, self.plan.height, spacing=62.0, jitter=0.13)
        for point in points[at(zone & ~self.taken, points, CELL_UM)]:
            self.plan.fat.append(blob(rng, tuple(point), rng.uniform(25, 30.5), roughness=0.05, n=40))
        for cell in self.plan.fat:  # neighbours may touch, other structures may not
            rows, columns, covered = self._inside(cell)
            self.taken[rows, columns] |= covered

    def _glands(self, zone: npt.NDArray[np.bool_]) -> None:
        rng = self.rng
        spacing = rng.uniform(98, 122)
        points = scatter(rng, self.plan.width, self.plan.height, spacing=spacing, jitter=0.2)
        for point in points[at(zone, points, CELL_UM)]:
            outline = blob(rng, tuple(point), rng.uniform(28, 46), roughness=0.07, elongation=1.5, n=56)
            if self._place(outline):
                lumen = scale_about(outline, rng.uniform(0.34, 0.56))
                self.plan.glands.append(Gland(outline, [lumen]))
