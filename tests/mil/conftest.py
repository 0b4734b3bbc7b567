"""Small bags, quick methods, and the golden vectors."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mil.errors import Cancelled
from napari_mil.mil import Bag, EpochReport, Method, Run, fit

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load_golden(name: str) -> dict[str, np.ndarray]:
    """Every array of a golden file."""
    with np.load(GOLDEN / name) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="session")
def rank_golden() -> dict[str, np.ndarray]:
    return load_golden("rank.npz")


def make_bags(count: int = 8, dim: int = 6, seed: int = 0, prefix: str = "s", size: int = 12, **fields) -> list[Bag]:
    """Bags, every second positive: its first quarter of patches is lesion and lies apart."""
    rng = np.random.default_rng(seed)
    bags = []
    for index in range(count):
        n = size + index % 3
        x = rng.normal(size=(n, dim)).astype(np.float32)
        labels = np.zeros(n, dtype=np.int8)
        if index % 2:
            labels[: n // 4] = 1
            x[: n // 4] += 1.5
        bags.append(Bag(f"{prefix}{index}", x, None, index % 2, labels, **fields))
    return bags


@pytest.fixture
def train() -> list[Bag]:
    return make_bags(8, seed=1, prefix="train")


@pytest.fixture
def validation() -> list[Bag]:
    return make_bags(4, seed=2, prefix="val")


def quick(preset: str = "rank_induction", **settings: object) -> Method:
    """A preset that trains in milliseconds."""
    method = Method.preset(preset)
    small = {"aggregator.hidden": 4, "aggregator.stem_dim": 8}
    base = {
        "training.epochs": 4,
        "training.learning_rate": 0.01,
        "training.accumulate": 2,
        **{key: value for key, value in small.items() if key in method.settings() and method.settings()[key] > value},
    }
    return method.with_settings({**base, **{key.replace("__", "."): value for key, value in settings.items()}})


def finish(training: Generator[EpochReport, None, Run]) -> tuple[list[EpochReport], Run]:
    """Every report, and the run."""
    reports = []
    while True:
        try:
            reports.append(next(training))
        except StopIteration as stop:
            return reports, stop.value


def same(one: Run, other: Run) -> bool:
    return one.weights.keys() == other.weights.keys() and all(
        torch.equal(one.weights[key], other.weights[key]) for key in one.weights
    )


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseline") / "run"
    method = quick("mhim_abmil_c16").with_settings({"mining.kind": "none"})
    finish(fit(method, make_bags(7, seed=1, prefix="t"), make_bags(4, seed=2, prefix="v"), out=folder))
    return folder


class Stop:
    """Raises `Cancelled` after so many slides."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cancelled
