"""Where tissue ends on a thumbnail: Otsu's thresholds, and the judgement of what the background is.

Otsu always splits, also a slide with nothing on it and one that is tissue everywhere. So the background class is
looked at before it is believed: glass is bright and colourless, the ground of fluorescence dark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .source import Pixels

Bools = npt.NDArray[np.bool_]

GLASS_CHROMA = 30
"""max − min of the channels: glass has less, the palest eosin more."""

_ROWS = 32  # looked at at a time: what is reckoned of them stays in the processor's cache
_SMOOTHED = 1.5  # grey levels; histograms are smoothed by this before their peaks are looked for
_NARROW = 6.0  # grey levels; a background spreads less than this around its peak, tissue more


@dataclass(frozen=True, slots=True)
class Ground:
    """What a thumbnail's pixels say about background.

    Parameters
    ----------
    kind : "bright" or "dark"
    grey : (h, w) uint8
        What is thresholded: luma on bright ground, the brightest channel on dark ground (blue alone has a luma of 29).
    chroma : (h, w) uint8
    valid : (h, w) bool
        False where nothing was scanned (black padding on a bright slide) or could be read.
    """

    kind: str
    grey: Pixels
    chroma: Pixels
    valid: Bools


def tones(rgb: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """(h, w, 3) → three (h, w): grey (ITU-R 601), the brightest channel, and chroma, max − min of the channels."""
    grey, brightest, chroma = (np.empty(rgb.shape[:2], np.uint8) for _ in range(3))
    for top in range(0, len(rgb), _ROWS):
        rows = slice(top, top + _ROWS)
        red, green, blue = np.ascontiguousarray(np.moveaxis(rgb[rows], 2, 0))
        weighted = red * np.uint32(299)
        weighted += green * np.uint32(587)
        weighted += blue * np.uint32(114)
        weighted += 500
        weighted //= 1000
        grey[rows] = weighted
        np.maximum(np.maximum(red, green), blue, out=brightest[rows])
        np.subtract(brightest[rows], np.minimum(np.minimum(red, green), blue), out=chroma[rows])
    return grey, brightest, chroma


def judge(rgb: Pixels, background: str = "auto", valid: Bools | None = None) -> Ground:
    """Decide whether the ground of a thumbnail is bright or dark.

    Dark when most of it is dark in every channel, or when a good part is and there is no glass: what is colourless
    and bright. `background` "bright" or "dark" is a person's own decision.
    """
    grey, brightest, chroma = tones(rgb)
    ok = np.ones(brightest.shape, bool) if valid is None else valid
    if background == "auto":
        seen = max(1, int(np.count_nonzero(ok)))
        glass = np.count_nonzero((grey > 200) & (chroma < GLASS_CHROMA) & ok) / seen
        dark = np.count_nonzero((brightest < 50) & ok) / seen
        lit = max(1.0 - dark, 1e-9)
        background = "dark" if (dark > 0.5 and glass / lit < 0.3) or (dark > 0.2 and glass < 0.01) else "bright"
    if background == "dark":
        return Ground("dark", brightest, chroma, ok)
    return Ground("bright", grey, chroma, ok & ~_padding(brightest, grey))


def find_threshold(ground: Ground, method: str) -> float:
    """Grey up to which (bright ground) or above which (dark ground) a pixel is tissue.

    Parameters
    ----------
    ground : Ground
    method : "multi_otsu" or "otsu"
        Three classes, of which the brightest (darkest) is background, or two.

    Returns
    -------
    float
        −1 on a bright ground: no tissue, 255: all; on a dark ground the other way round.
    """
    histogram = _histogram(ground.grey, ground.valid)
    if not histogram.any():
        return -1.0 if ground.kind == "bright" else 255.0
    if ground.kind == "dark":
        lowest = otsu_thresholds(histogram, 3 if method == "multi_otsu" else 2)[0]
        peak, spread = _peak(histogram, 0, lowest, bright=False)
        return float(max(lowest, peak + max(4 * spread, 4))) if spread <= _NARROW else float(lowest)
    highest = otsu_thresholds(histogram, 3 if method == "multi_otsu" else 2)[-1]
    if method == "multi_otsu" and not _is_glass(ground, ground.grey > highest):
        clear = ground.valid & (ground.grey > 215) & (ground.chroma < 15)
        if np.count_nonzero(clear) < 0.005 * histogram.sum():
            return 255.0
        histogram, highest = _histogram(ground.grey, clear), 215
    peak, spread = _peak(histogram, highest + 1, 255, bright=True)
    return float(min(highest, peak - max(4 * spread, 4))) if spread <= _NARROW else float(highest)


def otsu_thresholds(histogram: npt.NDArray[np.integer], classes: int) -> tuple[int, ...]:
    """Exact (multi-)Otsu thresholds of a histogram (256,): class k has values up to and with threshold k.

    Otsu 1979, eq. 12; Liao, Chen, Chung 2001: the split of largest variance between classes. Ties give the lowest.
    """
    if classes not in (2, 3):
        raise ValueError(f"Otsu's thresholds are for 2 or 3 classes, not {classes}.")
    counts = np.asarray(histogram, dtype=np.float64)
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    moment = np.concatenate([[0.0], np.cumsum(counts * np.arange(256))])

    def between(low: npt.NDArray[np.intp], high: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        weight = mass[high] - mass[low]
        none = np.zeros(weight.shape)
        scatter: npt.NDArray[np.float64] = np.divide((moment[high] - moment[low]) ** 2, weight, none, where=weight > 0)
        return scatter

    zero, end = np.zeros(1, np.intp), np.full(1, 256, np.intp)
    if classes == 2:
        cut = np.arange(1, 256)
        return (int(np.argmax(between(zero, cut) + between(cut, end))),)
    first, second = np.meshgrid(np.arange(1, 255), np.arange(2, 256), indexing="ij")
    value = between(zero, first) + between(first, np.maximum(first, second)) + between(second, end)
    value[second <= first] = -1.0
    at = np.unravel_index(int(np.argmax(value)), value.shape)
    return int(first[at]) - 1, int(second[at]) - 1


def _histogram(grey: Pixels, where: Bools) -> npt.NDArray[np.int64]:
    """(256,) how often each grey is there."""
    counts = np.zeros(256, np.int64)
    for top in range(0, len(grey), _ROWS):  # bincount makes 8 bytes of each value
        rows = slice(top, top + _ROWS)
        counts += np.bincount(grey[rows][where[rows]], minlength=256)
    return counts


def _is_glass(ground: Ground, candidates: Bools) -> bool:
    chosen = candidates & ground.valid
    if not chosen.any():
        return False
    grey, chroma = float(ground.grey[chosen].mean()), float(np.median(ground.chroma[chosen]))
    return (grey > 150 and chroma < GLASS_CHROMA) or grey > 230


def _peak(histogram: npt.NDArray[np.integer], low: int, high: int, *, bright: bool) -> tuple[float, float]:
    """Where the background's values pile up, and their standard deviation there.

    The threshold may have cut through the pile (a blank slide): from the highest bin of [low, high] walk uphill. The
    deviation is the larger of that of the side away from tissue (which may be clipped at 0 or 255) and that which the
    width at half height towards tissue tells.
    """
    filled = np.flatnonzero(histogram)
    low, high = (min(low, int(filled[-1])), 255) if bright else (0, max(high, int(filled[0])))
    reach = np.arange(-round(4 * _SMOOTHED), round(4 * _SMOOTHED) + 1)
    bell = np.exp(-0.5 * (reach / _SMOOTHED) ** 2)
    smooth = np.convolve(histogram, bell / bell.sum(), mode="same")
    at = low + int(np.argmax(smooth[low : high + 1]))
    step = -1 if bright else 1
    while 0 <= at + step <= 255 and smooth[at + step] > smooth[at]:
        at += step
    values = np.arange(256)
    away = values >= at if bright else values <= at
    counts = histogram[away]
    clipped = float(np.sqrt((counts * (values[away] - at) ** 2).sum() / max(1, counts.sum())))
    towards = smooth[: at + 1][::-1] if bright else smooth[at:]
    below = np.flatnonzero(towards < smooth[at] / 2)
    width = float(below[0]) if len(below) else float(len(towards))
    return float(at), max(clipped, float(np.sqrt(max(0.0, (width / 1.177) ** 2 - _SMOOTHED**2))))


def _padding(brightest: Pixels, grey: Pixels) -> Bools:
    """Black regions that touch the border of a bright slide, at least 5 % of it: never scanned."""
    black = brightest <= 8
    if black.mean() < 0.05 or not ((brightest > 8) & (grey < 190)).any():
        return np.zeros(black.shape, bool)
    from scipy.ndimage import label

    regions, count = label(black)
    border = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    touching = np.zeros(count + 1, bool)
    touching[border[border > 0]] = True
    padding: Bools = touching[regions]
    return padding if padding.mean() >= 0.05 else np.zeros(black.shape, bool)
