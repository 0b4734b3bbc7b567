"""The encoder without weights: colour and texture statistics of stain-separated patches.

Small, deterministic and quick, so that everything works offline; weaker than a trained network, and says so. Each
patch is reckoned alone, in an order that never changes: its numbers are the same bits whatever the batch.

The stains are told apart by the fixed vectors of Ruifrok and Johnston (Anal Quant Cytol Histol 23:291, 2001), the
local binary patterns are the rotation-invariant uniform ones of Ojala et al. (IEEE TPAMI 24:971, 2002).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError

from .encoder import TEXTURE_NOTE, Pixels, Rows

Plane = npt.NDArray[np.float32]  # (h, w)

_HEMATOXYLIN = (0.650, 0.704, 0.286)
_EOSIN = (0.072, 0.990, 0.105)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_STEP = 1 / 96  # optical density of one histogram bin: 256 bins reach from -0.33 to 2.33
_OFFSET = 32  # bin of optical density 0
_SMALLEST_PX = 32  # below, the coarsest scale has too few pixels for a statistic
_NUCLEUS_OD = 0.35  # hematoxylin above which a pixel certainly counts as nucleus
_REVISION = "1"


@cache
def _tables() -> npt.NDArray[np.float32]:
    """(3 stains, 3 channels, 256): what a channel's value adds to a stain (hematoxylin, eosin, residual)."""
    he = np.array([_HEMATOXYLIN, _EOSIN])
    he /= np.linalg.norm(he, axis=1, keepdims=True)
    residual = np.cross(he[0], he[1])
    unmix = np.linalg.inv(np.vstack([he, residual / np.linalg.norm(residual)]))  # od (3,) @ unmix → stains (3,)
    od = -np.log10((np.arange(256) + 1) / 256)
    return (unmix.T[:, :, None] * od).astype(np.float32)


@cache
def _od_table() -> npt.NDArray[np.float32]:
    """(256,) a third of the optical density, so that three look-ups add up to their mean."""
    return (-np.log10((np.arange(256) + 1) / 256) / 3).astype(np.float32)


@cache
def _lbp_classes() -> npt.NDArray[np.uint8]:
    """(256,) 8-bit neighbour pattern → 0..8 ones in a uniform pattern, 9 for all the others."""
    patterns = np.arange(256)
    bits = (patterns[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9).astype(np.uint8)


def _halve(plane: Plane) -> Plane:
    """Means of 2 x 2 blocks; an odd last row or column is left out."""
    h, w = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    rows = plane[0:h:2, :w] + plane[1:h:2, :w]
    return np.asarray((rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25), dtype=np.float32)


def _bins(plane: Plane) -> npt.NDArray[np.int64]:
    """(256,) histogram of optical densities."""
    index = plane * np.float32(1 / _STEP) + np.float32(_OFFSET + 0.5)
    return np.bincount(np.clip(index, 0, 255).astype(np.uint8).ravel(), minlength=256)


def _from_bins(counts: npt.NDArray[np.int64]) -> tuple[float, float, list[float]]:
    """Mean, standard deviation and the five quantiles of a histogram of optical densities."""
    values = (np.arange(256) - _OFFSET) * _STEP
    share = counts / counts.sum()
    mean = float((share * values).sum())
    deviation = float(np.sqrt((share * (values - mean) ** 2).sum()))
    cumulated = np.cumsum(share)
    return mean, deviation, [float(np.interp(q, cumulated, values + _STEP / 2)) for q in _QUANTILES]


def _otsu(counts: npt.NDArray[np.int64]) -> float:
    """The optical density that parts a histogram best in two (Otsu 1979)."""
    values = (np.arange(256) - _OFFSET) * _STEP
    weight = np.cumsum(counts)[:-1].astype(float)
    total = float(counts.sum())
    moment = np.cumsum(counts * values)
    gap = moment[-1] * weight - total * moment[:-1]
    between = np.divide(gap**2, weight * (total - weight), out=np.zeros(255), where=(weight > 0) & (weight < total))
    return float(values[int(between.argmax())] + _STEP / 2)


def _correlation(a: Plane, b: Plane) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).mean() * (b * b).mean()))
    return float((a * b).mean()) / norm if norm > 1e-8 else 0.0


def _log(value: float) -> float:
    return float(np.log(max(value, 0.0) + 1e-4))


def _lbp(plane: Plane) -> list[float]:
    """Shares of the ten pattern classes; a neighbour counts as brighter from 0.02 optical density on (noise)."""
    centre = plane[1:-1, 1:-1] + np.float32(0.02)
    h, w = plane.shape
    code = np.zeros(centre.shape, np.uint8)
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    for bit, (dy, dx) in enumerate(ring):
        code |= (plane[dy : h - 2 + dy, dx : w - 2 + dx] > centre).view(np.uint8) << np.uint8(bit)
    counts = np.bincount(_lbp_classes()[code].ravel(), minlength=10)
    return [float(share) for share in np.sqrt(counts / counts.sum())]


def _coherence(dx: Plane, dy: Plane, block: int = 8) -> float:
    """How far gradients agree in direction within blocks, weighted by their energy: 0 isotropic, 1 parallel."""
    h, w = dx.shape[0] // block * block, dx.shape[1] // block * block
    if h == 0 or w == 0:
        return 0.0

    def blocks(values: Plane) -> Plane:
        return np.asarray(values[:h, :w].reshape(h // block, block, -1, block).sum(axis=(1, 3)), dtype=np.float32)

    xx, yy, xy = blocks(dx * dx), blocks(dy * dy), blocks(dx * dy)
    energy = float((xx + yy).sum())
    return float(np.sqrt((xx - yy) ** 2 + 4 * xy * xy).sum()) / energy if energy > 1e-8 else 0.0


def _texture(planes: list[Plane], with_coherence: bool) -> list[float]:
    """Gradient energy and its spread, band energy and its skew at each scale, fine to coarse."""
    numbers: list[float] = []
    for scale, plane in enumerate(planes[:4]):
        dy = plane[1:, :-1] - plane[:-1, :-1]
        dx = plane[:-1, 1:] - plane[:-1, :-1]
        energy = dx * dx + dy * dy
        mean = float(energy.mean())
        peaked = float(np.sqrt(energy).mean()) ** 2 / mean if mean > 1e-10 else 1.0
        coarse = planes[scale + 1]
        h, w = coarse.shape[0] * 2, coarse.shape[1] * 2
        band = plane[:h, :w] - np.repeat(np.repeat(coarse, 2, axis=0), 2, axis=1)
        square = band * band
        power = float(square.mean())
        skew = float((square * band).mean()) / power**1.5 if power > 1e-10 else 0.0
        numbers += [_log(mean), peaked, _log(power), float(np.tanh(skew / 4))]
        if with_coherence:
            numbers.append(_coherence(dx, dy))
    return numbers


def _nuclei(hematoxylin: Plane, eosin: Plane, counts: npt.NDArray[np.int64]) -> list[float]:
    """Proxies of how many nuclei there are, how large, how dark and how even, at half the patch's resolution."""
    from scipy import ndimage

    threshold = float(np.clip(_otsu(counts), 0.15, 0.6))
    mask = hematoxylin > np.float32(threshold)
    area = float(mask.mean())
    numbers = [area, float((hematoxylin > np.float32(_NUCLEUS_OD)).mean()), threshold]
    eroded, survivors = mask, []
    for step in range(1, 5):
        structure = ndimage.generate_binary_structure(2, 1 + step % 2)
        eroded = ndimage.binary_erosion(eroded, structure)
        survivors.append(float(eroded.mean()))
    numbers += [survivor / (area + 0.01) for survivor in survivors]
    labels, count = ndimage.label(ndimage.binary_opening(mask))
    sizes = np.bincount(labels.ravel())[1:] if count else np.zeros(1, dtype=np.int64)
    sizes = sizes[sizes >= 8] if (sizes >= 8).any() else np.zeros(1, dtype=np.int64)
    density = float((sizes > 0).sum()) / mask.size * 1e4
    numbers += [_log(density + 0.1), _log(float(sizes.mean()) + 1), _log(float(sizes.std()) + 1)]
    numbers.append(_log(float(np.percentile(sizes, 90)) + 1))
    inside = hematoxylin[mask] if mask.any() else np.zeros(1, np.float32)
    outside = hematoxylin[~mask] if not mask.all() else np.zeros(1, np.float32)
    pink = eosin[mask] if mask.any() else np.zeros(1, np.float32)
    numbers += [float(inside.mean()), float(inside.std()), float(pink.mean()), float(inside.mean() - outside.mean())]
    return numbers


def _raw(patch: npt.NDArray[np.uint8]) -> list[float]:
    """(h, w, 3) uint8 → the numbers before they are scaled."""
    red, green, blue = (np.ascontiguousarray(patch[..., channel]) for channel in range(3))
    tables = _tables()
    stains = [tables[s, 0][red] + tables[s, 1][green] + tables[s, 2][blue] for s in range(3)]
    third = _od_table()
    density = third[red] + third[green] + third[blue]

    numbers: list[float] = []
    histograms = [_bins(plane) for plane in [*stains, density]]
    for counts in histograms[:2]:
        mean, deviation, quantiles = _from_bins(counts)
        numbers += [mean, deviation, *quantiles]
    numbers += _from_bins(histograms[2])[:2]
    mean, deviation, quantiles = _from_bins(histograms[3])
    numbers += [mean, deviation, quantiles[0], quantiles[-1]]

    highest = np.maximum(np.maximum(red, green), blue)
    colour = (highest - np.minimum(np.minimum(red, green), blue)).astype(np.float32)
    numbers += [float(colour.mean()) / 255, float(colour.std()) / 255]
    numbers += [float((density < np.float32(0.06)).mean()), float((density > np.float32(0.6)).mean())]

    pyramids = [[plane] for plane in (stains[0], stains[1], density)]
    for pyramid in pyramids:
        for _ in range(4):
            pyramid.append(_halve(pyramid[-1]))
    blue_ones, pink_ones, grey_ones = pyramids
    numbers += [_correlation(blue_ones[level], pink_ones[level]) for level in (0, 2, 4)]
    numbers += _texture(blue_ones, with_coherence=False)
    numbers += _texture(grey_ones, with_coherence=True)
    numbers += _lbp(blue_ones[1]) + _lbp(grey_ones[2])
    numbers += _nuclei(blue_ones[1], pink_ones[1], _bins(blue_ones[1]))
    return numbers


class TextureEncoder:
    """Statistics of colour, texture and nuclei as features, each centred and bounded to (-3, 3); see the module."""

    name = "texture"
    input_px = 224
    any_size = True
    target_mpp: float | None = 0.5
    revision = _REVISION
    weights_sha256 = "none"
    transform = "optical density, fixed H&E vectors; statistics centred, scaled and bounded to (-3, 3)"
    precision = "fp32"
    note = TEXTURE_NOTE
    device = "cpu"

    def __init__(self) -> None:
        from ._texture_scale import CENTRE, SCALE

        self._centre, self._scale = np.asarray(CENTRE), np.asarray(SCALE)
        self.dim = len(self._centre)

    def encode(self, patches: Pixels) -> Rows:
        """(B, h, w, 3) uint8 RGB → (B, D) float32; h and w at least 32.

        Raises
        ------
        FeatureError
            When the array has another shape or type, or its patches are too small.
        """
        array: npt.NDArray[Any] = np.asarray(patches)
        if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
            raise FeatureError(f"Patches have shape {array.shape}, {array.dtype}; expected (B, h, w, 3) uint8.")
        if min(array.shape[1:3]) < _SMALLEST_PX:
            raise FeatureError(
                f"Patches are {array.shape[2]} x {array.shape[1]} px; texture needs at least {_SMALLEST_PX} px a side. "
                "Choose larger patches."
            )
        rows = np.empty((len(array), self.dim), dtype=np.float32)
        for index, patch in enumerate(array):
            scaled = (np.asarray(_raw(patch)) - self._centre) / self._scale
            rows[index] = 3 * np.tanh(scaled / 3)
        return rows
