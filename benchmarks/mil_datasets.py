"""Two classic sets of bags, MUSK1 and Elephant, by 10-fold cross-validation, against Ilse et al. 2018, Table 1.

    python benchmarks/mil_datasets.py --data FOLDER [--runs 5] [--jobs 2] [--json] [--quick]

FOLDER holds musk1.csv and elephant.csv (in it or below it): no header, column 0 the label of the bag, column 1 its id,
then the features. Five runs, each with folds of its own, stratified by label; features are standardised by the
training folds; one bag a step, 100 epochs, no early stopping: the weights of the *last* epoch are judged, at p > 0.5,
on the test fold, which nothing else has seen. (`fit` wants validation slides: it gets two training bags under other
names, and they decide nothing.) Published figures: mean ± standard error over the folds of five runs.

Ilse et al. train with momentum .9 at 5e-4 (MUSK1) and 1e-4 (Elephant) and weight decay 5e-3; plain gradient descent at
ten times the rate, which the preset `ab_mil_tabular` has, comes to the same. Mean, max and DSMIL have a stem of width
64, as wide as Ilse's network ends.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mil.mil import Bag, Method, Run, fit, predict

RATE = {"musk1": 5e-3, "elephant": 1e-3}
_SMALL = {"aggregator.stem_dim": 64, "aggregator.dropout": 0.5}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("ab_mil_tabular", {}),
    "gated attention": ("ab_mil_tabular_gated", {}),
    "mean": ("mean", _SMALL),
    "max": ("max", _SMALL),
    "DSMIL": ("dsmil_c16", _SMALL),
}
PUBLISHED = {
    ("musk1", "attention"): (0.892, 0.040),
    ("musk1", "gated attention"): (0.900, 0.050),
    ("elephant", "attention"): (0.868, 0.022),
    ("elephant", "gated attention"): (0.857, 0.027),
}


def read_bags(path: Path) -> list[Bag]:
    """Bags of a CSV file, in the order of their ids."""
    table = np.loadtxt(path, delimiter=",", dtype=np.float64)
    bags = []
    for number in np.unique(table[:, 1]):
        rows = table[table[:, 1] == number]
        labels = np.unique(rows[:, 0] > 0)
        if len(labels) > 1:
            raise SystemExit(f"{path}: bag {number:g} has two labels.")
        bags.append(Bag(f"bag {number:g}", rows[:, 2:].astype(np.float32), label=int(labels[0])))
    return bags


def standardised(bags: Sequence[Bag], like: Sequence[Bag]) -> list[Bag]:
    """Mean 0 and standard deviation 1 for the instances of `like`."""
    rows = np.concatenate([bag.features for bag in like])
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    deviation[deviation == 0] = 1
    return [replace(bag, features=(bag.features - mean) / deviation) for bag in bags]


def folds(labels: Sequence[int], count: int, seed: int) -> list[list[int]]:
    """Indices of each fold's bags, stratified."""
    from sklearn.model_selection import StratifiedKFold

    split = StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels)
    return [test.tolist() for _, test in split]


def method_of(name: str, data: str, settings: Mapping[str, Any]) -> Method:
    """A method with Ilse's training."""
    preset, own = METHODS[name]
    training = {f"training.{key}": value for key, value in Method.preset("ab_mil_tabular").training}
    rate = {"training.learning_rate": RATE[data]}
    return Method.preset(preset).with_settings({"task.class_weight": "none", **training, **rate, **own, **settings})


def accuracy(
    bags: Sequence[Bag], test: Sequence[int], name: str, data: str, settings: Mapping[str, Any], seed: int
) -> float:
    """Train on the other folds, judge on this one."""
    import torch

    torch.set_num_threads(1)
    train = [bag for k, bag in enumerate(bags) if k not in set(test)]
    judged = standardised([bags[k] for k in test], train)
    train = standardised(train, train)
    shown = [next(bag for bag in train if bag.label == label) for label in (0, 1)]
    watched = [replace(bag, slide_id=f"{bag.slide_id} again") for bag in shown]
    with tempfile.TemporaryDirectory() as folder:
        for _ in fit(method_of(name, data, settings), train, watched, seed=seed, out=folder):
            pass
        run = Run.load(folder, which="last")
        model = run.build()
        return float(np.mean([predict(run, bag, model=model).predicted == bag.label for bag in judged]))


def main() -> None:
    """Every method on both sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with musk1.csv and elephant.csv")
    parser.add_argument("--sets", nargs="*", default=list(RATE), choices=list(RATE))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings for every method")
    parser.add_argument("--quick", action="store_true", help="one run, three folds, ten epochs: does it work?")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings: dict[str, Any] = dict(item.split("=", 1) for item in options.set)
    if options.quick:
        options.runs, options.folds, settings["training.epochs"] = 1, 3, 10
    results = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for data in options.sets:
            found = next(iter(sorted(options.data.rglob(f"{data}.csv"))), None)
            if found is None:
                raise SystemExit(f"{options.data} holds no {data}.csv.")
            bags = read_bags(found)
            labels = [bag.label or 0 for bag in bags]
            cells = [(run, test) for run in range(options.runs) for test in folds(labels, options.folds, run)]
            for name in options.methods:
                start = time.monotonic()
                jobs = [pool.submit(accuracy, bags, test, name, data, settings, run) for run, test in cells]
                values = np.array([job.result() for job in jobs]).reshape(options.runs, options.folds)
                results.append(
                    {
                        "data": data,
                        "method": name,
                        "accuracy": values.mean(),
                        "sd_folds": values.std(ddof=1),
                        "standard_error": values.std(ddof=1) / np.sqrt(values.size),
                        "sd_runs": values.mean(axis=1).std(ddof=1) if options.runs > 1 else None,
                        "published": PUBLISHED.get((data, name)),
                        "seconds": time.monotonic() - start,
                    }
                )
                if not options.json:
                    print(line(results[-1]), flush=True)
    if options.json:
        print(json.dumps({"runs": options.runs, "folds": options.folds, "results": results}, indent=2))


def line(result: Mapping[str, Any]) -> str:
    """One method on one set."""
    published, runs = result["published"], result["sd_runs"]
    text = f"{result['data']:<9} {result['method']:<16} {result['accuracy']:.3f} ± {result['sd_folds']:.3f} (folds)"
    text += f" ± {result['standard_error']:.3f} (standard error)" + (
        f" ± {runs:.3f} (runs)" if runs is not None else ""
    )
    if published is not None:
        inside = abs(result["accuracy"] - published[0]) <= published[1]
        text += f"  published {published[0]:.3f} ± {published[1]:.3f}: {'within' if inside else 'OUTSIDE'}"
    return f"{text}  {result['seconds']:.0f} s"


if __name__ == "__main__":
    main()
