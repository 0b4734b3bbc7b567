"""The soft part of a slide at 1 µm/px: which tissue is where, and how much stain it takes up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from .anatomy import CELL_UM, Plan
from .fields import CANVAS_MAX, Floats, Points, cover, fibre_texture, grain_texture, resize, scale_about, smooth_noise

EOSIN_UNIT = 127 / 2.0  # canvas units of one unit of eosin
HAEMATOXYLIN_UNIT = 127 / 1.6


class Tissue(IntEnum):
    """What a pixel of the soft picture shows."""

    STROMA = 0
    EPITHELIUM = 1
    LUMEN = 2
    TUMOR = 3
    DESMOPLASIA = 4
    FAT = 5
    MUSCLE = 6
    BLOOD = 7
    FOLLICLE = 8
    MEMBRANE = 9
    APICAL = 10


# units of eosin: base, × fibre, × grain; of haematoxylin: base, × fibre, × grain
_STAIN: dict[Tissue, tuple[float, float, float, float, float, float]] = {
    Tissue.STROMA: (0.70, 0.42, 0.03, 0.035, 0.022, 0.006),
    Tissue.EPITHELIUM: (0.74, 0.00, 0.07, 0.150, 0.000, 0.020),
    Tissue.LUMEN: (0.03, 0.00, 0.015, 0.015, 0.000, 0.006),
    Tissue.TUMOR: (0.72, 0.00, 0.08, 0.20, 0.000, 0.032),
    Tissue.DESMOPLASIA: (0.50, 0.28, 0.03, 0.075, 0.030, 0.010),
    Tissue.FAT: (0.02, 0.00, 0.00, 0.010, 0.000, 0.000),
    Tissue.MUSCLE: (1.0, 0.16, 0.05, 0.075, 0.020, 0.010),
    Tissue.BLOOD: (0.30, 0.00, 0.05, 0.020, 0.000, 0.000),
    Tissue.FOLLICLE: (0.50, 0.10, 0.06, 0.170, 0.010, 0.030),
    Tissue.MEMBRANE: (0.98, 0.10, 0.03, 0.085, 0.000, 0.000),
    Tissue.APICAL: (0.46, 0.00, 0.10, 0.105, 0.000, 0.016),
}


@dataclass
class SoftTissue:
    """Rasters at 1 µm/px: kind of tissue, cover (0 glass … 1 tissue, more in a fold), stains in canvas units."""

    kinds: npt.NDArray[np.uint8]
    cover: Floats
    eosin: npt.NDArray[np.uint8]
    haematoxylin: npt.NDArray[np.uint8]
    direction: Floats  # of the fibres, radians, on the plan's raster


class Weaver:
    """Turns a plan into soft tissue; its two textures serve a whole cohort."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.fibre = fibre_texture(rng)
        self.grain = grain_texture(rng)

    def weave(self, plan: Plan, rng: np.random.Generator, *, fold: bool = False) -> SoftTissue:
        """The soft tissue of a plan, with a fold across it when asked."""
        shape = (round(plan.height), round(plan.width))
        kinds = draw_kinds(plan, shape)
        cover_ = _cover_of(plan, shape, rng)
        if fold:
            cover_ *= 1 + 0.8 * _fold(plan, shape, rng)
        fibre, direction = self._fibres(plan, shape)
        grain = cover(self.grain, shape, rng)
        table = np.array([_STAIN[kind] for kind in Tissue], np.float32)
        base_e, fibre_e, grain_e, base_h, fibre_h, grain_h = (table[:, i][kinds] for i in range(6))
        eosin = np.clip(base_e + fibre_e * fibre + grain_e * grain, 0.0, 1.5) * cover_
        haematoxylin = np.clip(base_h + fibre_h * fibre + grain_h * grain, 0.0, 0.9) * cover_
        return SoftTissue(
            kinds=kinds,
            cover=cover_,
            eosin=_canvas(eosin, EOSIN_UNIT),
            haematoxylin=_canvas(haematoxylin, HAEMATOXYLIN_UNIT),
            direction=direction,
        )

    def _fibres(self, plan: Plan, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        """The fibre texture bent by the plan's warp (1 µm raster), and its direction (plan's raster)."""
        c, s = np.float32(np.cos(plan.turn)), np.float32(np.sin(plan.turn))
        wx, wy = (resize(w, shape) for w in plan.warp)
        x, y = np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32)[:, None]
        side = self.fibre.shape[0]
        u = (c * x + s * y + wx).astype(np.int32) % side
        v = (-s * x + c * y + wy).astype(np.int32) % side
        # along a fibre v stays the same: its direction is the gradient of v turned by a right angle
        dy, dx = np.gradient(plan.warp[1], CELL_UM)
        return self.fibre[v, u], np.arctan2(s - dx, c + dy).astype(np.float32)


def _canvas(stain: Floats, unit: float) -> npt.NDArray[np.uint8]:
    soft = ndimage.uniform_filter(stain, 2)  # optics: no edge is sharper than about a micrometre
    return np.asarray(np.clip(soft * unit, 0, CANVAS_MAX), np.uint8)


def draw_kinds(plan: Plan, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The kind of tissue of each pixel (rows, columns) at 1 µm/px."""
    image = Image.new("L", (shape[1], shape[0]), int(Tissue.STROMA))
    draw = ImageDraw.Draw(image)

    def polygon(outline: Points, kind: Tissue) -> None:
        draw.polygon([(float(x), float(y)) for x, y in outline], fill=int(kind))

    for outline in plan.tumors:
        polygon(outline, Tissue.DESMOPLASIA)
    for outline in plan.follicles:
        polygon(outline, Tissue.FOLLICLE)
    for cell in plan.fat:
        polygon(scale_about(cell, 1.06), Tissue.MEMBRANE)
        polygon(cell, Tissue.FAT)
    for outline, lumen in plan.vessels:
        polygon(outline, Tissue.MUSCLE)
        polygon(lumen, Tissue.BLOOD)
    for gland in plan.glands:
        if gland.malignant:
            polygon(gland.outline, Tissue.TUMOR)
            for hole in gland.lumens:
                polygon(hole, Tissue.LUMEN)
            continue
        polygon(scale_about(gland.outline, 1.05), Tissue.MEMBRANE)
        polygon(gland.outline, Tissue.EPITHELIUM)
        for hole in gland.lumens:
            polygon(scale_about(hole, 1.3), Tissue.APICAL)
            polygon(hole, Tissue.LUMEN)
    return np.asarray(image)


def _cover_of(plan: Plan, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """0 on glass, 1 in tissue, a ragged edge some micrometres wide that takes up a little more stain."""
    depth = resize(plan.tissue, shape) * 420  # about µm from the edge
    ragged = resize(smooth_noise(rng, (shape[0] // 2, shape[1] // 2), 9, octaves=2), shape, smooth=False)
    depth = depth + 5 * ragged
    rim = np.exp(-np.square((depth - 9) / 8))
    return np.asarray(np.clip(depth / 2.5 + 0.5, 0, 1) * (1 + 0.18 * rim), np.float32)


def _fold(plan: Plan, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """1 along a wavy band some 30 µm wide across the slide, 0 elsewhere."""
    mask = Image.new("L", (shape[1] // 2, shape[0] // 2), 0)
    t = np.linspace(-0.1, 1.1, 60)
    start, end = rng.uniform(0.15, 0.85, 2)
    wave = 0.035 * np.sin(t * rng.uniform(5, 9) + rng.uniform(0, 6))
    along, across = t, start + (end - start) * t + wave
    if rng.random() < 0.5:
        along, across = across, along
    line = [(float(a * mask.width), float(b * mask.height)) for a, b in zip(along, across, strict=True)]
    ImageDraw.Draw(mask).line(line, fill=255, width=int(rng.uniform(9, 17)), joint="curve")
    soft = ndimage.gaussian_filter(np.asarray(mask, np.float32) / 255, 1.6)
    return np.asarray(resize(soft, shape, smooth=False), np.float32)
