"""Exact patch labels: our time against the double loop over polygons and patches, same process, same answer.

python benchmarks/patch_labels.py [--patches 100000] [--polygons 500] [--json]
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import shapely

from napari_mil.geometry import PatchGrid
from napari_mil.lesion import Lesion, LesionSet, overlap_fractions, patch_labels

PATCH_PX = 448
SUBSET = 1_000


def slide(patches: int, polygons: int, seed: int = 0) -> tuple[LesionSet, PatchGrid]:
    """A square slide of patches and star-shaped lesions of 60 to 400 vertices, some overlapping."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(patches)))
    column, row = np.meshgrid(np.arange(side), np.arange(side))
    coords = np.column_stack([column.ravel(), row.ravel()])[:patches] * PATCH_PX
    lesions = []
    for _ in range(polygons):
        n = int(rng.integers(60, 400))
        angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
        radius = rng.uniform(300, 3000) * (1 + 0.25 * np.sin(5 * angle + rng.uniform(0, 6)) + 0.01 * rng.normal(size=n))
        center = rng.uniform(0, side * PATCH_PX, 2)
        lesions.append(
            Lesion(shapely.Polygon(center + np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None]))
        )
    return LesionSet(lesions), PatchGrid(coords, PATCH_PX, PATCH_PX, 0.25)


def double_loop(lesions: LesionSet, grid: PatchGrid) -> np.ndarray:
    """The usual way: the union once, then each patch with each of its parts."""
    parts = shapely.get_parts(lesions.region())
    share = np.zeros(len(grid))
    for i, box in enumerate(grid.boxes):
        patch = shapely.box(*box.astype(float))
        for part in parts:
            share[i] += part.intersection(patch).area / patch.area
    return share


def fresh(lesions: LesionSet) -> LesionSet:
    """The same outlines without anything cached."""
    return LesionSet([Lesion(lesion.geometry) for lesion in lesions])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--polygons", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lesions, grid = slide(options.patches, options.polygons)
    times = []
    for _ in range(5):
        again = fresh(lesions)
        start = time.perf_counter()
        labels = patch_labels(again, grid)
        times.append(time.perf_counter() - start)
    chosen = np.random.default_rng(1).choice(len(grid), min(SUBSET, len(grid)), replace=False)
    subset = grid.select(chosen)
    start = time.perf_counter()
    expected = double_loop(fresh(lesions), subset)
    loop = (time.perf_counter() - start) * len(grid) / len(subset)
    facts = {
        "patches": len(grid),
        "polygons": len(lesions),
        "lesion_share": round(float((labels == 1).mean()), 4),
        "seconds": round(float(np.median(times)), 4),
        "double_loop_seconds": round(loop, 1),
        "ratio": round(loop / float(np.median(times))),
        "largest_error": float(np.abs(overlap_fractions(lesions.region(), subset) - expected).max()),
        "labels_differ": int((labels[chosen] != (expected > 0.05)).sum()),
    }
    if options.json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{name:22} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
