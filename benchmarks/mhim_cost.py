"""What mining costs: a training step of MHIM-MIL against one of the plain model, same process, interleaved.

    python benchmarks/mhim_cost.py [--patches 10000] [--rounds 12] [--threads 2] [--json] [--quick]

A step is forward, backward, optimiser, and with mining the teacher: its whole forward, masks of the Camelyon16 presets,
and its moving average. Bags are of 1024 numbers per patch. Ratios are of least times; the published code's are 1.57
(AB-MIL) and 0.59 (TransMIL).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
import torch

from _timing import Seconds, interleaved, machine
from napari_mil.mil import Bag, Method
from napari_mil.mil.learner import Learner, build_optimizer
from napari_mil.mil.mining import build_miner
from napari_mil.mil.objective import Objective

PRESETS = {
    "mhim_abmil_over_abmil": "mhim_abmil_c16",
    "mhim_transmil_over_transmil": "mhim_transmil_c16",
    "mhim2_abmil_over_abmil": "mhim2_abmil",
    "mhim2_transmil_over_transmil": "mhim2_transmil",
}
GOALS = {"mhim_abmil_over_abmil": 0.9, "mhim_transmil_over_transmil": 0.55}


def stepping(method: Method, bag: Bag, steps: int) -> Callable[[], None]:
    """A training that goes one step at each call."""
    torch.manual_seed(0)
    model = method.build(bag.dim)
    miner = build_miner(method.mining, model, steps) if method.mining.kind != "none" else None
    optimizer = build_optimizer(method.training, model, miner)
    learner = Learner(model, Objective(method, [bag], 0), optimizer, torch.Generator().manual_seed(0), miner)
    model.train()

    def step() -> None:
        learner.loss(bag).total.backward()
        learner.bags_seen += 1
        learner.step()

    return step


def measure(preset: str, bag: Bag, rounds: int, width: int) -> dict[str, Seconds]:
    """Seconds of steps with mining and without."""
    method = Method.preset(preset).with_settings({"task.class_weight": "none", "aggregator.stem_dim": width})
    ways = {
        "plain": stepping(method.with_settings({"mining.kind": "none"}), bag, 200 * 266),
        "mining": stepping(method, bag, 200 * 266),
    }
    for step in ways.values():
        step()
    return interleaved(ways, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("patches", 10_000), ("rounds", 12), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs; its figures say nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    patches, rounds, width = (64, 1, 32) if options.quick else (options.patches, options.rounds, 512)
    x = np.random.default_rng(0).normal(size=(patches, 1024)).astype(np.float32)
    ratios: dict[str, float] = {}
    raw: dict[str, dict[str, float]] = {}
    for figure, preset in PRESETS.items():
        taken = measure(preset, Bag("bag", x, None, 1), rounds, width)
        ratios[figure] = taken["mining"].least / taken["plain"].least
        raw[preset] = {"median_over_median": taken["mining"].median / taken["plain"].median}
        for way, seconds in taken.items():
            raw[preset] |= {f"{way}_s_least": seconds.least, f"{way}_s_median": seconds.median}
    if options.json:
        facts = {"patches": patches, "threads": options.threads, "rounds": rounds, "machine": machine()}
        print(json.dumps({**ratios, **facts, "goals": GOALS, "raw": raw}))
        return
    print(f"{machine()}, {options.threads} threads, {patches} patches, {rounds} rounds\n")
    print("| step | plain, best (median) | mining, best (median) | ratio of bests | goal |\n|---|---|---|---|---|")
    for figure, preset in PRESETS.items():
        times = [f"{raw[preset][f'{w}_s_least']:.4f} ({raw[preset][f'{w}_s_median']:.4f})" for w in ("plain", "mining")]
        goal = f"≤ {GOALS[figure]}" if figure in GOALS else "–"
        print(f"| {preset} | {' | '.join(times)} | {ratios[figure]:.3f} | {goal} |")


if __name__ == "__main__":
    main()
