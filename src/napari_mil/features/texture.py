"""The encoder without weights: colour and texture statistics of stain-separated patches.

Small, deterministic and quick, so that everything works offline; weaker than a trained network, and says so. Each
patch is reckoned alone, in an order that never changes: its numbers are the same bits whatever the batch.

Measured with a logistic regression on them, patients or slides held out: GlaS patches, benign against malignant, AUROC
0.85 (0.96 with a frozen ImageNet ResNet-50); CAMELYON16 patches, tumour against normal inside a held-out slide, 0.99
and 0.77 (1.0 and 0.96); one core makes some 300 patches of 224 px a second.

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
Channel = npt.NDArray[np.uint8]  # (h, w)

_HEMATOXYLIN = (0.650, 0.704, 0.286)
_EOSIN = (0.072, 0.990, 0.105)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_STEP = 1 / 96  # optical density of one histogram bin: 256 bins reach from -0.33 to 2.33
_OFFSET = 32  # bin of optical density 0
_SMALLEST_PX = 32  # below, the coarsest scale has too few pixels for a statistic
_NOISE_OD = 0.02  # a difference that fine noise and compression do not make
_SMALLEST_NUCLEUS_PX = 8  # at half resolution; less is noise
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


def _bin(density: float) -> int:
    return round(density / _STEP) + _OFFSET


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


def _lbp(plane: Plane, margin: float) -> list[float]:
    """Root shares of the ten pattern classes; a neighbour counts as brighter when `margin` above the middle."""
    centre = plane[1:-1, 1:-1] + np.float32(margin)
    h, w = plane.shape
    code = np.zeros(centre.shape, np.uint8)
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    for bit, (dy, dx) in enumerate(ring):
        code |= (plane[dy : h - 2 + dy, dx : w - 2 + dx] > centre).view(np.uint8) << np.uint8(bit)
    patterns = np.bincount(code.ravel(), minlength=256)
    counts = np.bincount(_lbp_classes(), weights=patterns, minlength=10)
    return [float(share) for share in np.sqrt(counts / counts.sum())]


def _colour(histograms: list[npt.NDArray[np.int64]], red: Channel, green: Channel, blue: Channel) -> list[float]:
    """Amounts and spreads of hematoxylin, eosin, residual and density, and how colourful the pixels are (16)."""
    numbers: list[float] = []
    for counts in histograms[:2]:
        mean, _, (low, lower, middle, upper, high) = _from_bins(counts)
        numbers += [mean, high - middle, upper - middle, middle - lower, middle - low]
    numbers += _from_bins(histograms[2])[:2]
    highest = np.maximum(np.maximum(red, green), blue)
    counts = np.bincount((highest - np.minimum(np.minimum(red, green), blue)).ravel(), minlength=256)
    share, values = counts / counts.sum(), np.arange(256) / 255
    mean = float((share * values).sum())
    numbers += [mean, float(np.sqrt((share * (values - mean) ** 2).sum()))]
    density = np.cumsum(histograms[3]) / histograms[3].sum()
    return [*numbers, float(density[_bin(0.06)]), 1 - float(density[_bin(0.6)])]


def _nuclei(hematoxylin: Plane, counts: npt.NDArray[np.int64]) -> list[float]:
    """How much of the patch is dark blue, in pieces how large, how many and how dark (8), at half resolution."""
    from scipy import ndimage

    threshold = float(np.clip(_otsu(counts), 0.15, 0.6))
    mask = hematoxylin > np.float32(threshold)
    area = int(mask.sum())
    eroded, survivors = mask, []
    for step in range(1, 4):
        eroded = ndimage.binary_erosion(eroded, ndimage.generate_binary_structure(2, 1 + step % 2))
        survivors.append(int(eroded.sum()) / (area + 0.01 * mask.size))
    labels = ndimage.label(ndimage.binary_opening(mask))[0]
    sizes = np.bincount(labels.ravel(), minlength=2)[1:]
    sizes = sizes[sizes >= _SMALLEST_NUCLEUS_PX]
    density = len(sizes) / mask.size * 1e4
    size = float(sizes.mean()) if len(sizes) else 0.0
    values = (np.arange(256) - _OFFSET) * _STEP
    inside = np.where(values > threshold, counts, 0)
    outside = counts - inside
    contrast = (inside * values).sum() / max(inside.sum(), 1) - (outside * values).sum() / max(outside.sum(), 1)
    return [area / mask.size, *survivors, float(np.log1p(density)), float(np.log1p(size)), threshold, float(contrast)]


def _raw(patch: npt.NDArray[np.uint8]) -> list[float]:
    """(h, w, 3) uint8 → the 124 numbers before they are scaled: 24 of colour and nuclei, 100 of texture."""
    red, green, blue = (np.ascontiguousarray(patch[..., channel]) for channel in range(3))
    tables, third = _tables(), _od_table()
    planes = [tables[s, 0][red] + tables[s, 1][green] + tables[s, 2][blue] for s in range(3)]
    planes.append(third[red] + third[green] + third[blue])
    numbers = _colour([_bins(plane) for plane in planes], red, green, blue)
    halved = _halve(planes[0])
    numbers += _nuclei(halved, _bins(halved))
    for plane in (planes[0], planes[3]):
        numbers += _lbp(plane, _NOISE_OD)
        for level in range(1, 4):
            plane = _halve(plane)
            if level == 1:
                numbers += _lbp(plane, _NOISE_OD)
            numbers += _lbp(plane, 0.0)
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
