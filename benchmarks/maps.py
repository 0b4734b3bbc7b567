"""Attention map of 100,000 patches: a raster of stride cells against the usual canvas painted patch by patch.

    python benchmarks/maps.py [--json] [--patches 100000] [--repeats 5]

Both are run in turn in one process; the canvas is at 1/16 of level 0, each patch adding its score to its pixels and one
to a counter, then divided. Goal: ≥ 100×.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from napari_mil.geometry import PatchGrid
from napari_mil.maps import attention_map

DOWNSAMPLE = 16


def slide_grid(n: int, patch: int, stride: int) -> PatchGrid:
    """n patches at random places of a lattice that is 60 % full."""
    side = int(np.ceil(np.sqrt(n / 0.6)))
    place = np.random.default_rng(0).permutation(side * side)[:n]
    place.sort()
    return PatchGrid(np.stack([place % side, place // side], axis=1) * stride, patch, stride, 0.25)


def canvas_loop(grid: PatchGrid, scores: np.ndarray) -> np.ndarray:
    """The usual way: patch by patch into a canvas at 1/16."""
    size = tuple((grid.boxes[:, 2:].max(axis=0) // DOWNSAMPLE + 1)[::-1])
    total, number = np.zeros(size, dtype=np.float64), np.zeros(size, dtype=np.uint16)
    width, height = (int(v) // DOWNSAMPLE for v in grid.patch_px_level0)
    for (x, y), score in zip(grid.coords // DOWNSAMPLE, scores, strict=True):
        total[y : y + height, x : x + width] += score
        number[y : y + height, x : x + width] += 1
    covered = number > 0
    total[covered] /= number[covered]
    return total


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    results = {}
    for name, stride in (("no_overlap", 448), ("half_overlap", 224)):
        grid = slide_grid(options.patches, 448, stride)
        scores = np.random.default_rng(1).normal(size=len(grid))
        ours, peer = [], []
        for _ in range(options.repeats):
            ours.append(timed(lambda grid=grid, scores=scores: attention_map(grid, scores)))
            peer.append(timed(lambda grid=grid, scores=scores: canvas_loop(grid, scores)))
        results[name] = {
            "raster_ms": round(1000 * float(np.median(ours)), 3),
            "canvas_ms": round(1000 * float(np.median(peer)), 1),
            "ratio": round(float(np.median(peer) / np.median(ours)), 1),
        }
    if options.json:
        print(json.dumps({"benchmark": "maps", "patches": options.patches, "goal_ratio": 100, "results": results}))
        return
    for name, found in results.items():
        print(f"{name:14s} raster {found['raster_ms']} ms, canvas {found['canvas_ms']} ms: {found['ratio']}×")


if __name__ == "__main__":
    main()
