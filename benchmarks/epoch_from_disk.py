"""An epoch whose features are read from their files, against the same epoch with features in memory.

    python benchmarks/epoch_from_disk.py [--quick] [--json] [--device cpu] [--slides 100] [--patches 10000]

Float16 features in HDF5 files as extraction writes them; nothing is kept from one epoch to the next (`keep_mb=0`).
Rounds are interleaved. `--cold` asks the system to forget the files before each epoch (Linux); else they come from its
cache, as far as they fit. Validation is one small slide of each class in memory. cpu: seconds of all processors.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from _mil import random_bag
from _timing import Report, interleaved, parser
from napari_mil.features import FeatureHeader, FeatureWriter, open_features
from napari_mil.geometry import PatchGrid
from napari_mil.mil import Bag, Method, fit

PRESETS = {"AB-MIL": "ab_mil_rank", "AB-MIL, MHIM's": "abmil_c16", "MHIM": "mhim_abmil_c16"}


def write(folder: Path, bag: Bag) -> Bag:
    """The same bag with its features in a file."""
    n = len(bag)
    coords = np.stack(np.divmod(np.arange(n), 512), axis=1).astype(np.int64) * 224
    grid = PatchGrid(coords, (224, 224), (224, 224), (0.5, 0.5))
    path = folder / f"{bag.slide_id}.h5"
    with FeatureWriter(path, FeatureHeader("random", "", 224, 0.5, level0_size=(0, 0)), grid, bag.dim) as writer:
        writer.append(bag.features)
        writer.finish()
    return replace(bag, features=open_features(path).features)


def forget(folder: Path) -> None:
    """Take the files out of the system's cache."""
    for path in folder.glob("*.h5"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def epoch(method: Method, train: list[Bag], validation: list[Bag], device: str) -> Callable[[], None]:
    """A call that trains one more epoch."""
    training = fit(method, train, validation, device=device, keep_mb=0)
    next(training)
    return lambda: (next(training), None)[1]


def main() -> None:
    options = parser(__doc__, 3)
    options.add_argument("--quick", action="store_true", help="6 slides of 500 patches")
    options.add_argument("--device", default="cpu")
    options.add_argument("--slides", type=int, default=100)
    options.add_argument("--patches", type=int, default=10_000)
    options.add_argument("--cold", action="store_true")
    chosen = options.parse_args()
    count, n = (6, 500) if chosen.quick else (chosen.slides, chosen.patches)
    report = Report("epoch_from_disk")
    validation = [random_bag(f"v{k}", 50, 1024, k, seed=1000 + k) for k in range(2)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        memory = [random_bag(f"t{k}", n, 1024, k % 2, seed=k) for k in range(count)]
        disk = [write(folder, bag) for bag in memory]
        for title, preset in PRESETS.items():
            settings = {"training.epochs": 10_000, "training.patience": None}
            settings |= {"mining.teacher": "copy"} if preset.startswith("mhim") else {}
            method = Method.preset(preset).with_settings(settings)
            ways = {
                "memory": epoch(method, memory, validation, chosen.device),
                "disk": epoch(method, disk, validation, chosen.device),
            }
            prepare = {"disk": lambda: forget(folder)} if chosen.cold else None
            taken = interleaved(ways, chosen.rounds, prepare)
            ratio = taken["disk"].least / taken["memory"].least
            figures = {way: seconds.least for way, seconds in taken.items()}
            figures |= {f"{way}_cpu": seconds.least_cpu for way, seconds in taken.items()}
            report.row("s per epoch, least", title, **figures, ratio=ratio)
            report.goal(f"{title}: disk / memory", ratio, most=1.15)
    size = count * n * 2048 / 1e9
    where = "read from the disk itself" if chosen.cold else "in the system's cache where they fit"
    report.note(f"{count} slides of {n:,} × 1,024 float16, {size:.2g} GB, files {where}.")
    if chosen.device != "cpu":
        report.note("In-memory features go to the card from pinned memory in each epoch as well.")
    report.note(f"{torch.get_num_threads()} thread(s) compute, one reads.")
    report.print(chosen.json)


if __name__ == "__main__":
    main()
