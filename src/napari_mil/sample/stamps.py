"""Small pictures of nuclei, drawn once and stamped thousands of times.

Each stamp is a (k, k) uint8 raster of haematoxylin in canvas units (0 … 127), soft at its rim, drawn at 0.5 µm/px.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .fields import CANVAS_MAX, resize

Kind = Literal["spindle", "lymphocyte", "epithelium", "tumor", "mitosis", "blood"]
Stamp = npt.NDArray[np.uint8]

TURNS = 24  # directions a nucleus may point to, over half a turn
UNIT = 127 / 1.6  # canvas units of one unit of haematoxylin


@dataclass(frozen=True)
class _Look:
    """How a kind of nucleus looks: half axes in µm, depth of stain, clumping, rim, share with a nucleolus."""

    long: tuple[float, float]
    short: tuple[float, float]
    depth: tuple[float, float]
    clumps: float
    rim: float
    nucleoli: float
    rough: float
    variants: int


LOOKS: dict[Kind, _Look] = {
    "spindle": _Look((4.5, 7.5), (1.1, 1.8), (0.60, 0.90), 0.10, 0.05, 0.0, 0.06, 12),
    "lymphocyte": _Look((2.5, 3.1), (2.3, 2.8), (0.95, 1.20), 0.18, 0.05, 0.0, 0.03, 16),
    "epithelium": _Look((3.6, 4.8), (2.3, 3.0), (0.62, 0.85), 0.13, 0.10, 0.1, 0.03, 16),
    "tumor": _Look((4.4, 7.6), (3.3, 5.2), (0.38, 0.85), 0.17, 0.26, 0.8, 0.10, 40),
    "mitosis": _Look((3.6, 5.2), (1.6, 2.6), (1.30, 1.50), 0.25, 0.0, 0.0, 0.25, 4),
    "blood": _Look((3.0, 3.6), (2.6, 3.4), (0.95, 1.12), 0.03, 0.10, 0.0, 0.04, 8),
}


def _draw(rng: np.random.Generator, look: _Look, angle: float) -> Stamp:
    """One nucleus, its long axis at `angle` (radians, x towards y)."""
    a, b = rng.uniform(*look.long) * 2, rng.uniform(*look.short) * 2  # px at 0.5 µm/px
    half = int(np.ceil(a * 1.25)) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    around = np.arctan2(v / b, u / a)
    rim = 1.0 + sum(
        look.rough * rng.normal() * np.cos(k * around + rng.uniform(0, 6.3)) / (k - 1) ** 0.5 for k in (2, 3, 4)
    )
    r = np.hypot(u / a, v / b) / rim
    inside = np.clip((1 - r) * b / 1.3 + 0.5, 0, 1)
    side = 2 * half + 1
    clump = resize(rng.standard_normal((side // 3 + 2, side // 3 + 2)).astype(np.float32), (side, side))
    stain = rng.uniform(*look.depth) + look.clumps * clump + look.rim * np.exp(-(((r - 0.88) / 0.13) ** 2))
    if rng.random() < look.nucleoli:
        for _ in range(rng.integers(1, 3)):
            du, dv = rng.uniform(-0.45, 0.45) * a, rng.uniform(-0.45, 0.45) * b
            stain = stain + 0.75 * np.exp(-((u - du) ** 2 + (v - dv) ** 2) / (2 * rng.uniform(1.1, 1.9) ** 2))
    return np.asarray(np.clip(inside * np.clip(stain, 0.2, 1.5) * UNIT, 0, CANVAS_MAX), np.uint8)


class NucleusLibrary:
    """Every kind of nucleus in several variants and `TURNS` directions."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._stamps: dict[Kind, list[list[Stamp]]] = {
            kind: [
                [_draw(rng, look, np.pi * turn / TURNS) for _ in range(look.variants)]
                for turn in (range(1) if kind in ("lymphocyte", "blood") else range(TURNS))
            ]
            for kind, look in LOOKS.items()
        }

    def stamp_all(
        self,
        canvas: npt.NDArray[np.uint8],
        kind: Kind,
        xy_px: npt.NDArray[np.float64],
        angles: npt.NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        """Stamp nuclei with their centres at (N, 2) canvas pixels; the darker of canvas and stamp stays."""
        turns = self._stamps[kind]
        rows = np.mod(np.round(angles / np.pi * TURNS).astype(int), len(turns))
        variants = rng.integers(0, len(turns[0]), len(xy_px))
        height, width = canvas.shape
        for (x, y), turn, variant in zip(np.round(xy_px).astype(int).tolist(), rows, variants, strict=True):
            stamp = turns[turn][variant]
            half = stamp.shape[0] // 2
            top, left = y - half, x - half
            if top < 0 or left < 0 or top + stamp.shape[0] > height or left + stamp.shape[1] > width:
                continue
            there = canvas[top : top + stamp.shape[0], left : left + stamp.shape[1]]
            np.maximum(there, stamp, out=there)
