"""Make the synthetic sample cohort.

    python sample_data/make_sample.py FOLDER [--slides 24] [--seed 0] [--size 4096 3072]

File › Open Sample › MIL in napari makes the same one in the user's cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_mil.sample import create_sample


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the synthetic sample cohort of napari-mil.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slides", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(4096, 3072), metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    project = create_sample(
        options.folder,
        n_slides=options.slides,
        seed=options.seed,
        size=tuple(options.size),
        progress=lambda done, total, sentence: print(f"[{done:>3}/{total}] {sentence}"),
    )
    print(project)


if __name__ == "__main__":
    main()
