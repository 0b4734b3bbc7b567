"""Rank loss over every pair: value and gradient, against each pair looked at, same process, interleaved.

    python benchmarks/rank_loss.py [--lesion 2000] [--other 48000] [--repeats 5] [--json]

Peers: exact blocks in float64 (memory as small as ours), and autograd over the whole matrix of pairs in float32 (about
1.5 GB for 96 million; `--autograd-pairs` takes fewer lesion patches). Errors are relative to the blocks; with float32
scores the loss is handed out in float32, so `ours_value_error` is that rounding and `ours_float64_value_error` the
method's own. `--large` is 10,000 × 90,000 pairs, without peers. `memory.py` has its memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mil.mil.supervision import rank_loss
from napari_mil.mil.supervision.pair_sums import by_blocks


def ours(scores: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    s = scores.clone().requires_grad_()
    value = rank_loss(s, labels)
    value.backward()
    return value.item(), s.grad


def blocks(scores: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    s, lesion = scores.double(), labels == 1
    total, to_lesion, to_other = by_blocks(s[lesion], s[~lesion], 0.0)
    gradient = torch.empty_like(s)
    gradient[lesion], gradient[~lesion] = to_lesion, to_other
    pairs = len(to_lesion) * len(to_other)
    return total.item() / pairs, gradient / pairs


def autograd(scores: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    s = scores.clone().requires_grad_()
    value = F.softplus(s[labels == 0][None, :] - s[labels == 1][:, None]).mean()
    value.backward()
    return value.item(), s.grad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("lesion", 2_000), ("other", 48_000), ("autograd-pairs", 96_000_000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    if options.large:
        options.lesion, options.other = 10_000, 90_000
    scores = torch.randn(options.lesion + options.other, generator=torch.Generator().manual_seed(0))
    labels = (torch.arange(len(scores)) < options.lesion).long()
    scores[: options.lesion] += 1
    small = slice(max(0, options.lesion - options.autograd_pairs // options.other), None)
    calls: dict[str, Callable[[], tuple[float, Tensor]]] = {"ours": lambda: ours(scores, labels)}
    if not options.large:
        calls |= {"blocks": lambda: blocks(scores, labels), "autograd": lambda: autograd(scores[small], labels[small])}
    results = {name: call() for name, call in calls.items()}  # warm
    if not options.large:
        results["blocks of autograd's"] = blocks(scores[small], labels[small])
        results["ours_float64"] = ours(scores.double(), labels)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name in list(calls) * options.repeats:
        start = time.perf_counter()
        calls[name]()
        seconds[name].append(time.perf_counter() - start)
    facts: dict[str, float] = {"pairs": options.lesion * options.other, "threads": torch.get_num_threads()}
    if not options.large:
        facts["autograd_pairs"] = int(labels[small].sum()) * options.other
    for name, values in seconds.items():
        facts |= {f"{name}_ms_median": 1e3 * float(np.median(values)), f"{name}_ms_min": 1e3 * min(values)}
    peers = (("ours", "blocks"), ("ours_float64", "blocks"), ("autograd", "blocks of autograd's"))
    for name, peer in () if options.large else peers:
        (value, gradient), (exact, exact_gradient) = results[name], results[peer]
        error = (gradient - exact_gradient).abs().max() / exact_gradient.abs().max()
        facts |= {f"{name}_value_error": abs(value / exact - 1), f"{name}_gradient_error": error.item()}
    whole = ["blocks"] + ["autograd"] * (facts.get("autograd_pairs") == facts["pairs"])
    for peer in () if options.large else whole:
        facts[f"times_faster_than_{peer}"] = min(seconds[peer]) / min(seconds["ours"])
    print(json.dumps(facts) if options.json else "\n".join(f"{key:24} {value:.6g}" for key, value in facts.items()))


if __name__ == "__main__":
    main()
