"""TransMIL, DSMIL and AB-MIL: a training step beside torchmil's with layers of the same size, time and peak memory.

    python benchmarks/trans_mil.py [--patches 10000] [--row-patches 12000] [--rounds 5] [--threads 2] [--json]

A step is forward, loss, backward and Adam, of one bag N × 1024 in float32, all ways in turn in one process. "With
attention row" is a prediction that also says what the class token attends to. Peaks are of a process of their own each,
beyond what it held before (model, bag, optimiser). torchmil is compared with where it is installed
(`pip install 'napari-mil[torchmil]'`); its models have no activation and no dropout after their first layer.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from _timing import Report, interleaved, parser
from napari_mil.mil import build_aggregator

DIM = 1024
MIB = 2**20
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "TransMIL": ("trans_mil", {"attention_dropout": 0.1}),
    "DSMIL": ("dsmil", {"fusion": "logits"}),
    "AB-MIL": ("ab_mil", {}),
}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "TransMIL": ("TransMIL", {"att_dim": 512, "n_heads": 8, "n_landmarks": 256, "dropout": 0.1}),
    "DSMIL": ("DSMIL", {"att_dim": 128, "nonlinear_q": True, "nonlinear_v": True}),
    "AB-MIL": ("ABMIL", {"att_dim": 128}),
}


def ours(name: str) -> nn.Module:
    kind, options = OURS[name]
    return build_aggregator(kind, DIM, 2, dropout=0.0, binary_head="single", **options)


def theirs(name: str) -> nn.Module:
    from torchmil import models

    kind, options = THEIRS[name]
    if name != "TransMIL":  # which brings its own first layer
        options = {**options, "feat_ext": nn.Sequential(nn.Linear(DIM, 512), nn.ReLU())}
    return getattr(models, kind)(in_shape=(DIM,), **options)


def step(way: str, name: str, n: int) -> Callable[[], object]:
    """A training step of one bag."""
    x, label = bag(n), torch.ones(1)
    model = (ours if way == "ours" else theirs)(name).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)

    def run() -> None:
        if way == "ours":
            loss = model.loss(model(x), lambda z: F.binary_cross_entropy_with_logits(z, label), 1)
        else:
            loss = sum(model.compute_loss(label, x[None])[1].values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def row(way: str, name: str, n: int) -> Callable[[], object]:
    """A prediction with attention."""
    x = bag(n)
    model = (ours if way == "ours" else theirs)(name).eval()

    @torch.no_grad()
    def run() -> object:
        return model(x).attention if way == "ours" else model(x[None], return_att=True)[1]

    return run


WORK = {"step": step, "row": row}


def bag(n: int) -> torch.Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(0))


def peak_mib(options: Namespace, *what: str) -> float:
    """Of a process that does it once, beyond what it held before, MiB."""
    here = [sys.executable, __file__, "--threads", str(options.threads), "--peak", *what]
    return float(subprocess.run(here, check=True, capture_output=True, text=True).stdout)


def print_peak(work: str, way: str, name: str, n: str) -> None:
    WORK[work](way, name, 500)()  # what is loaded at first use
    run = WORK[work](way, name, int(n))
    if work == "step":
        held = 8 * sum(p.numel() for p in ours(name).parameters()) / MIB  # Adam's two moments come with the first step
    else:
        held = 0.0
    before = highest(reset=True)
    run()
    print(max(highest() - before - held, 0.0))


def highest(reset: bool = False) -> float:
    """Highest resident memory of this process, MiB; with `reset` that of now."""
    facts = Path("/proc/self")
    if not (facts / "clear_refs").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)
    if reset:
        (facts / "clear_refs").write_text("5")
    lines = dict(line.split(":", 1) for line in (facts / "status").read_text().splitlines())
    return float(lines["VmHWM"].split()[0]) / 1024


def main() -> None:
    made: ArgumentParser = parser(__doc__, rounds=5)
    for name, default in (("patches", 10_000), ("row-patches", 12_000), ("large", 20_000), ("threads", 2)):
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--peak", nargs=4, metavar=("WORK", "WAY", "NAME", "N"), help="print the peak of one thing")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print_peak(*options.peak)
        return
    report = Report("trans_mil")
    report.note(f"{options.threads} threads, torch {torch.__version__}")
    peers = ["ours"] if find_spec("torchmil") is None else ["ours", "torchmil"]
    if len(peers) == 1:
        report.note("torchmil is not installed, so ours stand alone: pip install 'napari-mil[torchmil]'.")
    for name in OURS:
        compare(report, options, peers, name, "step", options.patches)
    compare(report, options, peers, "TransMIL", "row", options.row_patches)
    peak = peak_mib(options, "step", "ours", "TransMIL", str(options.large))
    report.row("training TransMIL", f"N = {options.large}", peak_MiB=peak)
    report.goal(f"TransMIL trains with N = {options.large}, MiB beyond the process", peak, most=2048)
    report.print(options.json)


def compare(report: Report, options: Namespace, peers: list[str], name: str, work: str, n: int) -> None:
    title = f"{name}, {'training step' if work == 'step' else 'prediction with attention row'}, N = {n}"
    ways = {way: WORK[work](way, name, n) for way in peers}
    for run in ways.values():
        run()  # warm
    taken = interleaved(ways, options.rounds)
    peaks = {way: peak_mib(options, work, way, name, str(n)) for way in peers}
    for way, seconds in taken.items():
        report.row(title, way, best_s=seconds.least, median_s=seconds.median, peak_MiB=peaks[way])
    if len(peers) == 1:
        return
    faster, smaller = taken["torchmil"].least / taken["ours"].least, peaks["ours"] / peaks["torchmil"]
    report.row(title, "torchmil / ours", best_s=faster, peak_MiB=1 / smaller)
    report.goal(f"{title}: times as fast as torchmil", faster, least=1 if work == "step" else 15)
    if work == "row":
        report.goal(f"{title}: its share of torchmil's peak", smaller, most=0.2)


if __name__ == "__main__":
    main()
