"""A slide as large as real ones for the other benchmarks: stained tissue on glass, pyramid of JPEG tiles, 0.25 µm/px.

    python benchmarks/big_slide.py [--out FILE] [--size 40000x30000] [--step 4] [--seed 0]

Four sections of tissue as the sample cohort has them, each different, enlarged from 0.5 to 0.25 µm/px and given fine
texture so that a tile of tissue has about as many bytes as a scanner's (about 10:1). Tiles of 256 px, YCbCr 4:2:0,
quality 80; each level is 1/`step` of the one before. OpenSlide opens it as generic TIFF. Made once (about a minute for
40,000 × 30,000) and kept in the user's cache unless `--out` says where.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

MPP = 0.25
TILE_PX = 256
QUALITY = 80
SIZE = (40_000, 30_000)
_PAINTED = 2  # pixels of the slide to one painted pixel
_GRAIN_PX = 1024
_AROUND = 2  # painted rows above and below that the enlarging looks at

Rgb = npt.NDArray[np.uint8]


def big_slide(path: Path | None = None, size: tuple[int, int] = SIZE, *, step: int = 4, seed: int = 0) -> Path:
    """Where the slide lies; it is made first if it is not there.

    Parameters
    ----------
    path : Path, optional
        The .tif; in the user's cache by default.
    size : (int, int)
        Width and height of level 0.
    step : int
        Each level's side is 1/step of the one before, the last at most 2,500 px or so: 4 as scanners do it, or 2.
    seed : int
        Another one, other tissue.
    """
    if path is None:
        from napari_mil.features.weights import cache_folder

        path = cache_folder() / "benchmarks" / f"big-{size[0]}x{size[1]}-step{step}-seed{seed}.tif"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, size, step, seed)
    return path


def _write(path: Path, size: tuple[int, int], step: int, seed: int) -> None:
    import tifffile

    rng = np.random.default_rng(seed)
    painted = _paint(size, rng)
    part = path.with_name(path.name + ".part")
    with ThreadPoolExecutor(os.cpu_count()) as pool, tifffile.TiffWriter(part, bigtiff=True) as tiff:

        def write(level: Iterator[Rgb], height: int, width: int, downsample: int) -> None:
            tiff.write(
                _tiles(level, pool),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(downsample > 1),
                resolution=(1e4 / (MPP * downsample),) * 2,
                resolutionunit="CENTIMETER",
                software="napari-mil benchmark slide",
                metadata=None,
            )

        smaller = np.empty((size[1] // step, size[0] // step, 3), np.uint8)
        write(_finest(painted, size, step, smaller, rng), size[1], size[0], 1)
        downsample = step
        while True:
            write(_rows(smaller), *smaller.shape[:2], downsample)
            if max(smaller.shape) <= 10 * TILE_PX:
                break
            smaller = _reduced(smaller, step)
            downsample *= step
    os.replace(part, path)


def _paint(size: tuple[int, int], rng: np.random.Generator) -> Rgb:
    """Four sections of tissue, two by two, at 0.5 µm/px."""
    from napari_mil.sample.anatomy import Planner
    from napari_mil.sample.paint import Painter

    painter = Painter(rng)
    width, height = (-(-side // (2 * _PAINTED)) for side in size)
    out = np.empty((2 * height, 2 * width, 3), np.uint8)
    for row in range(2):
        for column in range(2):
            plan = Planner(rng, (width + 1) // 2, (height + 1) // 2).make(tumor_share=0.05)
            section = painter.paint(plan, rng)[:height, :width]
            out[row * height : (row + 1) * height, column * width : (column + 1) * width] = section
    return out


def _finest(painted: Rgb, size: tuple[int, int], step: int, smaller: Rgb, rng: np.random.Generator) -> Iterator[Rgb]:
    """Level 0 in rows of tiles; `smaller` is filled with their means on the way."""
    grain = ndimage.gaussian_filter(rng.standard_normal((_GRAIN_PX, _GRAIN_PX), np.float32), 0.6, mode="wrap")
    grain = np.round(grain / grain.std() * 40).astype(np.int16)
    across = np.tile(grain, (1, -(-size[0] // _GRAIN_PX)))[:, : size[0]]
    for top in range(0, size[1], TILE_PX):
        height = min(TILE_PX, size[1] - top)
        first, last = top // _PAINTED, -(-(top + height) // _PAINTED)
        low, high = max(0, first - _AROUND), min(len(painted), last + _AROUND)
        box = (0, first - low, size[0] / _PAINTED, first - low + height / _PAINTED)
        enlarged = Image.fromarray(painted[low:high]).resize((size[0], height), Image.Resampling.BICUBIC, box=box)
        rows = _textured(np.asarray(enlarged), across[np.arange(top, top + height) % _GRAIN_PX])
        done = rows[: height // step * step, : smaller.shape[1] * step]
        smaller[top // step : top // step + len(done) // step] = _reduced(done, step)
        yield rows


def _textured(rows: Rgb, grain: npt.NDArray[np.int16]) -> Rgb:
    """Rows with grain where there is stain; glass stays clear."""
    stain = np.maximum(240 - rows[..., 1].astype(np.int16), 0)
    change = (grain * stain) >> 8
    return np.clip(rows + change[..., None], 0, 255).astype(np.uint8)


def _reduced(rgb: Rgb, step: int) -> Rgb:
    """Each step × step pixels as one, their mean; what is left over at the far edges is cut off."""
    height, width = (side // step * step for side in rgb.shape[:2])
    return np.asarray(Image.fromarray(rgb[:height, :width]).reduce(step))


def _rows(level: Rgb) -> Iterator[Rgb]:
    for top in range(0, len(level), TILE_PX):
        yield level[top : top + TILE_PX]


def _tiles(rows: Iterator[Rgb], pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The tiles of a level as JPEG files, row by row; those at the far edges are filled up with their last pixels."""
    import imagecodecs

    def encode(tile: Rgb) -> bytes:
        missing = [(0, TILE_PX - side) for side in tile.shape[:2]]
        full = np.pad(tile, [*missing, (0, 0)], mode="edge") if any(n for _, n in missing) else tile
        return bytes(
            imagecodecs.jpeg8_encode(
                full, QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling="420", optimize=False
            )
        )

    for row in rows:
        yield from pool.map(encode, [row[:, left : left + TILE_PX] for left in range(0, row.shape[1], TILE_PX)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", default=f"{SIZE[0]}x{SIZE[1]}")
    parser.add_argument("--step", type=int, choices=(2, 4), default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    width, height = map(int, options.size.split("x"))
    path = big_slide(options.out, (width, height), step=options.step, seed=options.seed)
    print(f"{path}  {path.stat().st_size / 1e6:.0f} MB, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
