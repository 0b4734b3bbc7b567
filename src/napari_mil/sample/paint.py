"""A finished slide: soft tissue, cells, the camera's grain, stains to colours, and the pen marks of its handler.

Colours follow Beer and Lambert: two canvases hold how much haematoxylin and eosin a pixel has taken up, and one table
turns the pair into red, green and blue; stainings differ by their table alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from .anatomy import Plan
from .cells import CellPlacer
from .fields import cover, resize
from .stamps import NucleusLibrary
from .tissue import EOSIN_UNIT, HAEMATOXYLIN_UNIT, Weaver

MPP = 0.5  # µm per pixel of the finished slide
Rgb = npt.NDArray[np.uint8]

# optical density of one unit of stain in red, green, blue
_HAEMATOXYLIN_OD = np.array([0.445, 0.575, 0.225])
_EOSIN_OD = np.array([0.030, 0.200, 0.090])
_GRAIN = 5  # the middle of the camera's grain, canvas units
PENS: dict[str, tuple[float, float, float]] = {
    "blue": (0.16, 0.27, 0.72),
    "green": (0.10, 0.48, 0.28),
    "black": (0.13, 0.13, 0.15),
}


class Painter:
    """Paints plans; textures and nuclei are made once and shared by every slide of a cohort."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.weaver = Weaver(rng)
        self.nuclei = NucleusLibrary(rng)
        self.noise = _camera_grain(rng)

    def paint(self, plan: Plan, rng: np.random.Generator, *, fold: bool = False, pen: str | None = None) -> Rgb:
        """The slide (rows, columns, 3) uint8 at 0.5 µm/px, with a fold and a pen mark of a colour when asked."""
        soft = self.weaver.weave(plan, rng, fold=fold)
        full = (soft.kinds.shape[0] * 2, soft.kinds.shape[1] * 2)
        eosin = resize(soft.eosin, full, smooth=False).copy()
        haematoxylin = resize(soft.haematoxylin, full, smooth=False).copy()
        CellPlacer(self.nuclei, soft, haematoxylin, eosin, rng).place(plan)
        rgb = self._develop(haematoxylin, eosin, rng)
        if pen is not None:
            _draw_pen(rgb, PENS[pen], rng)
        return rgb

    def _develop(self, h: npt.NDArray[np.uint8], e: npt.NDArray[np.uint8], rng: np.random.Generator) -> Rgb:
        """Add grain to the canvases (changed) and look the colours up; each slide has its own strength and hue."""
        strength = rng.uniform(0.88, 1.12, 2)
        hue = rng.normal(0, 1, (2, 3)) * [[0.012], [0.007]]
        glass = np.array([246.0, 245.0, 247.0]) + rng.uniform(-2, 2)
        full = (h.shape[0], h.shape[1])
        h += cover(self.noise, full, rng)
        e += cover(self.noise, full, rng)
        level = np.clip(np.arange(128) - float(_GRAIN), -1, None)
        od_h = (level / HAEMATOXYLIN_UNIT * strength[0])[:, None, None] * (_HAEMATOXYLIN_OD + hue[0])
        od_e = (level / EOSIN_UNIT * strength[1])[None, :, None] * (_EOSIN_OD + hue[1])
        table = np.clip(glass * 10.0 ** -(od_h + od_e), 0, 255).round().astype(np.uint8).reshape(-1, 3)
        index = h.astype(np.uint16)
        index <<= 7
        index |= e
        return np.asarray(table.take(index, axis=0))


def _camera_grain(rng: np.random.Generator, size: int = 1024) -> npt.NDArray[np.uint8]:
    """A wrapping tile of fine noise around _GRAIN, canvas units."""
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), 0.5, mode="wrap")
    return np.asarray(np.clip(np.round(noise / noise.std() * 1.1 + _GRAIN), 0, 2 * _GRAIN), np.uint8)


def _draw_pen(rgb: Rgb, color: tuple[float, float, float], rng: np.random.Generator) -> None:
    """A felt-tip stroke near a corner or an edge, drawn into the picture."""
    height, width = rgb.shape[:2]
    t = np.linspace(0, 1, 30)
    x0, y0 = rng.choice([0.04, 0.80]), rng.choice([0.05, 0.80])
    x = (x0 + 0.15 * t + 0.012 * np.sin(t * rng.uniform(4, 12))) * width
    y = (y0 + 0.14 * rng.choice([-0.3, 0.6, 1.0]) * t + 0.02 * np.sin(t * rng.uniform(3, 9))) * height
    pad = 60
    left, top = max(int(x.min()) - pad, 0), max(int(y.min()) - pad, 0)
    right, bottom = min(int(x.max()) + pad, width), min(int(y.max()) + pad, height)
    mask = Image.new("L", ((right - left) // 4, (bottom - top) // 4), 0)
    line = [((float(a) - left) / 4, (float(b) - top) / 4) for a, b in zip(x, y, strict=True)]
    ImageDraw.Draw(mask).line(line, fill=255, width=17, joint="curve")
    ink = ndimage.gaussian_filter(np.asarray(mask, np.float32) / 255, 0.8) * 0.9
    ink = resize(np.ascontiguousarray(ink), (bottom - top, right - left), smooth=False)[..., None]
    window = rgb[top:bottom, left:right]
    window[:] = np.clip(window * (1 - ink * (1 - np.asarray(color, np.float32))), 0, 255).astype(np.uint8)
