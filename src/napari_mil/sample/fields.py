"""Building blocks of the synthetic tissue: smooth noise, wrapped textures, blobs, scattered points.

Lengths are µm unless a name says otherwise; rasters are (rows, columns), points are (x, y).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
Raster = npt.NDArray[Any]

CANVAS_MAX = 114  # a stain canvas holds 0 … 127; the rest of the room is the camera's grain


def resize(array: Raster, shape: tuple[int, int], *, smooth: bool = True) -> Raster:
    """Enlarge or shrink a raster (uint8 or float32) to (rows, columns), bicubic when `smooth`, else bilinear."""
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(array).resize((shape[1], shape[0]), how))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int = 2) -> Floats:
    """Noise of about zero mean and unit deviation whose bumps are about `cell` pixels wide."""
    total = np.zeros(shape, np.float32)
    weight = 1.0
    norm = 0.0
    for _ in range(octaves):
        grid = (int(shape[0] / cell) + 3, int(shape[1] / cell) + 3)
        total += weight * resize(rng.standard_normal(grid).astype(np.float32), shape)
        norm += weight**2
        weight *= 0.5
        cell = max(cell / 2, 1.0)
    return total / np.float32(np.sqrt(norm))


def _wrapped(rng: np.random.Generator, size: int, sigma: tuple[float, float]) -> Floats:
    """Unit-variance noise on a torus, blurred by sigma (rows, columns)."""
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), sigma, mode="wrap")
    return np.asarray(noise / noise.std(), np.float32)


def fibre_texture(rng: np.random.Generator, size: int = 1024) -> Floats:
    """A tile (size, size) of collagen running along the columns: bundles, strands, and slits; wraps at its edges.

    Values lie in about −1 (a slit, nearly glass) … 1 (a thick bundle).
    """
    bundles = _wrapped(rng, size, (7.0, 42.0))
    strands = _wrapped(rng, size, (1.6, 26.0))
    fine = _wrapped(rng, size, (0.8, 9.0))
    tile = 0.32 * bundles + 0.3 * strands + 0.16 * fine
    slits = np.clip(-(0.75 * strands + 0.75 * bundles) - 1.25, 0, 0.8)
    return np.asarray(np.clip(tile - 1.5 * slits, -1.3, 1.0), np.float32)


def grain_texture(rng: np.random.Generator, size: int = 1024) -> Floats:
    """A tile (size, size) of granular cytoplasm, unit variance; wraps at its edges."""
    grain = 0.7 * _wrapped(rng, size, (1.0, 1.0)) + 0.7 * _wrapped(rng, size, (3.0, 3.0))
    return grain.astype(np.float32)


def blob(
    rng: np.random.Generator,
    center: tuple[float, float],
    radius: float,
    *,
    roughness: float = 0.12,
    elongation: float = 1.25,
    n: int = 72,
) -> Points:
    """A smooth closed outline (n, 2) of about the given radius: an ellipse with four random harmonics."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    wobble = np.ones(n)
    for k in range(2, 7):
        wobble += roughness * rng.normal() / k**0.7 * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    stretch = np.sqrt(rng.uniform(1, elongation))
    r = radius * np.clip(wobble, 0.45, 1.7)
    points = np.column_stack([r * np.cos(angle) * stretch, r * np.sin(angle) / stretch])
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray(points @ rotation + np.asarray(center))


def scatter(rng: np.random.Generator, width: float, height: float, spacing: float, jitter: float = 0.35) -> Points:
    """Points (N, 2) on a shaken hexagonal lattice over [0, width) × [0, height), about `spacing` apart."""
    rows = np.arange(0, height, spacing * 0.866)
    columns = np.arange(0, width, spacing)
    x = np.broadcast_to(columns, (len(rows), len(columns))).copy()
    x[1::2] += spacing / 2
    y = np.broadcast_to(rows[:, None], x.shape)
    points = np.column_stack([x.ravel(), y.ravel()])
    return np.asarray(points + rng.uniform(-jitter, jitter, points.shape) * spacing)


def scale_about(outline: Points, factor: float) -> Points:
    """The outline (n, 2) shrunk or grown about its mean."""
    center = outline.mean(axis=0)
    return np.asarray(center + (outline - center) * factor)


def span(outline: Points) -> tuple[float, float]:
    """Width and height of an outline (n, 2)."""
    width, height = outline.max(axis=0) - outline.min(axis=0)
    return float(width), float(height)


def inside(outline: Points, points: Points, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """(N,) whether points lie in an outline that its mean can see whole, `margin` away from it along the ray."""
    center = outline.mean(axis=0)
    spokes, rays = outline - center, points - center
    angle = np.arctan2(spokes[:, 1], spokes[:, 0])
    order = np.argsort(angle)
    reach = np.interp(np.arctan2(rays[:, 1], rays[:, 0]), angle[order], np.hypot(*spokes[order].T), period=2 * np.pi)
    return np.asarray(np.hypot(*rays.T) + margin <= reach)


def fill(outline: Points, spacing: float, rng: np.random.Generator, jitter: float) -> Points:
    """Points (N, 2) scattered over the inside of an outline, about `spacing` apart."""
    points = scatter(rng, *span(outline), spacing=spacing, jitter=jitter) + outline.min(axis=0)
    return np.asarray(points[inside(outline, points)])


def at(raster: Raster, points: Points, cell: float = 1.0) -> Raster:
    """Values of a raster with cells of `cell` µm at points (N, 2) in µm, clamped to its edge."""
    column = np.clip((points[:, 0] / cell).astype(int), 0, raster.shape[1] - 1)
    row = np.clip((points[:, 1] / cell).astype(int), 0, raster.shape[0] - 1)
    return np.asarray(raster[row, column])


def cover(tile: Raster, shape: tuple[int, int], rng: np.random.Generator) -> Raster:
    """A wrapping tile laid over (rows, columns) from a random offset, now and then turned over."""
    side = tile.shape[0]
    tile = np.roll(tile, tuple(rng.integers(0, side, 2).tolist()), axis=(0, 1))
    if rng.random() < 0.5:
        tile = tile.T
    return np.tile(tile, (-(-shape[0] // side), -(-shape[1] // side)))[: shape[0], : shape[1]]
