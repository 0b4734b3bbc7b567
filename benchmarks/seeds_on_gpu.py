"""Seeds side by side: R trainings at once on one graphics card, against one alone.

    python benchmarks/seeds_on_gpu.py [--runs 10] [--device cuda] [--quick] [--json]

Each run is a process of its own, as R calls of `napari-mil train` with different seeds would be. They wait for one
another after their first epoch, so that starting Python and the card is not counted. Where the time of R runs at once
is less than R times that of one, sharing pays.
"""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import torch

from _mil import random_bag
from _timing import Report, parser
from napari_mil.mil import Method, fit


def train(seed: int, preset: str, slides: int, n: int, epochs: int, device: str, gate: Any, answer: Any) -> None:
    """One run; answers with the seconds of its epochs after the first."""
    if device == "cpu":
        torch.set_num_threads(1)
    bags = [random_bag(f"s{k}", n, 1024, k % 2, lesion=n // 10, seed=k) for k in range(slides + 2)]
    method = Method.preset(preset).with_settings({"training.epochs": epochs + 1, "training.patience": None})
    training = fit(method, bags[2:], bags[:2], seed=seed, device=device)
    next(training)
    gate.wait(1800)
    start = time.perf_counter()
    for _ in training:
        pass
    answer.put(time.perf_counter() - start)


def at_once(runs: int, **settings: Any) -> float:
    """Seconds until the last of so many runs is through."""
    spawn = multiprocessing.get_context("spawn")
    gate, answer = spawn.Barrier(runs), spawn.Queue()
    processes = [
        spawn.Process(target=train, kwargs={"seed": seed, "gate": gate, "answer": answer, **settings})
        for seed in range(runs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit("A run failed; see above.")
    return max(answer.get() for _ in range(runs))


def main() -> None:
    options = parser(__doc__, 1)
    options.add_argument("--runs", type=int, default=10)
    options.add_argument("--device", default="cuda")
    options.add_argument("--preset", default="rank_induction")
    options.add_argument("--quick", action="store_true", help="4 slides of 200 patches, one epoch")
    chosen = options.parse_args()
    report = Report("seeds_on_gpu")
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        report.note("There is no graphics card here: nothing was measured. --device cpu --runs 2 --quick shows how.")
    else:
        slides, n, epochs = (4, 200, 1) if chosen.quick else (50, 10_000, 5)
        settings = {"preset": chosen.preset, "slides": slides, "n": n, "epochs": epochs, "device": chosen.device}
        one = min(at_once(1, **settings) for _ in range(chosen.rounds))
        many = min(at_once(chosen.runs, **settings) for _ in range(chosen.rounds))
        row = {"one": one, "at_once": many, "ratio": many / one, "gain": chosen.runs * one / many}
        report.row(f"s for {epochs} epoch(s) of {slides} × {n:,}", f"{chosen.runs} runs, {chosen.device}", **row)
        report.note("ratio: time of all at once over that of one; gain: over one after the other.")
    report.print(chosen.json)


if __name__ == "__main__":
    main()
