"""Many threads read one slide at random under a cache far too small: every pixel must be right.

Native levels, the chain that is shown and a view that reads behind, all at once, while the cache's limit changes. The
right pixels are read beforehand by one thread under a large cache. Prints reads and wrong ones; exit 1 at a wrong one.

    python benchmarks/hammer.py [--slide FILE] [--seconds 60] [--threads 8] [--cache-mb 3] [--seed 0] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Found:
    """What came of it."""

    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def hammer(path: Path, seconds: float, threads: int = 8, cache_bytes: int = 3 * 2**20, seed: int = 0) -> Found:
    """Read a slide of moderate size (its levels are held in memory, to compare) from many threads.

    Parameters
    ----------
    path : Path
    seconds : float
    threads : int
    cache_bytes : int
        Limit of the cache; it is halved and doubled meanwhile.
    seed : int
    """
    from napari_mil.slide import open_slide, set_cache_limit

    found = Found()
    with open_slide(path) as slide:
        native = [slide.read(0, 0, *size, level=level).copy() for level, size in enumerate(slide.level_dimensions)]
        chain = [level[:].copy() for level in slide.levels]
    set_cache_limit(cache_bytes)
    try:
        with open_slide(path) as slide, slide.view() as view:
            end = time.monotonic() + seconds
            workers = [
                threading.Thread(target=_work, args=(slide, view, native, chain, end, seed + i, found))
                for i in range(threads)
            ]
            for worker in workers:
                worker.start()
            turn = 0
            while any(worker.is_alive() for worker in workers):
                time.sleep(0.2)
                turn += 1
                set_cache_limit(cache_bytes // 2 if turn % 2 else cache_bytes)
            found.problems = slide.problems
    finally:
        set_cache_limit(None)
    return found


def _work(slide: Any, view: Any, native: Any, chain: Any, end: float, seed: int, found: Found) -> None:
    rng = np.random.default_rng(seed)
    try:
        while time.monotonic() < end and not found.wrong:
            level = int(rng.integers(len(native)))
            _compare(lambda x, y, w, h, k=level: slide.read_native(k, x, y, w, h), native[level], rng, "read", found)
            level = int(rng.integers(len(chain)))
            _compare(
                lambda x, y, w, h, k=level: slide.levels[k][y : y + h, x : x + w], chain[level], rng, "level", found
            )
            height, width = chain[level].shape[:2]
            y, x = int(rng.integers(height)), int(rng.integers(width))
            view.array_likes[level][y : y + 600, x : x + 600]
            found.reads += 2
    except Exception as error:  # a thread's failure is a failure
        found.wrong.append(repr(error))


def _compare(read: Any, truth: Any, rng: Any, what: str, found: Found) -> None:
    height, width = truth.shape[:2]
    x, y = int(rng.integers(width)), int(rng.integers(height))
    w, h = int(rng.integers(1, min(900, width - x) + 1)), int(rng.integers(1, min(700, height - y) + 1))
    if not np.array_equal(read(x, y, w, h), truth[y : y + h, x : x + w]):
        found.wrong.append(f"{what} of {width} x {height}: {x}, {y}, {w}, {h}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, help="one whose pixels fit into memory; a made one otherwise")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--cache-mb", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = options.slide or _made(Path(folder) / "made.tif")
        found = hammer(path, options.seconds, options.threads, int(options.cache_mb * 2**20), options.seed)
    if options.json:
        print(json.dumps(asdict(found)))
    else:
        print(f"{found.reads} reads by {options.threads} threads in {options.seconds:g} s, {len(found.wrong)} wrong")
        for line in (*found.wrong, *found.problems):
            print(line)
    return 1 if found.wrong or found.problems else 0


def _made(path: Path) -> Path:
    """A pyramid of JPEG tiles; its sides are no multiples of anything."""
    from napari_mil.sample.slides import write_slide

    rng = np.random.default_rng(0)
    small = rng.integers(60, 250, (301, 403, 3), dtype=np.uint8)
    write_slide(path, np.kron(small, np.ones((7, 7, 1), np.uint8))[:2099, :2813], mpp=0.5)
    return path


if __name__ == "__main__":
    sys.exit(main())
