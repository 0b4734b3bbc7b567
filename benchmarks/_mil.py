"""What the benchmarks of training share: bags, a learner for a method, and how much memory a call takes at its peak."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch

from napari_mil.mil import Bag, Method
from napari_mil.mil.configs import Mhim2Mining, MhimMining
from napari_mil.mil.learner import Learner, build_optimizer
from napari_mil.mil.mining import build_miner
from napari_mil.mil.objective import Objective

STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def random_bag(name: str, n: int, dim: int, label: int = 1, lesion: int = 0, seed: int = 0) -> Bag:
    """A bag of float16 features; the first `lesion` patches are lesion."""
    rng = np.random.default_rng(seed)
    features = np.empty((n, dim), dtype=np.float16)
    for start in range(0, n, 10_000):
        features[start : start + 10_000] = rng.normal(size=features[start : start + 10_000].shape)
    labels = (np.arange(n) < lesion).astype(np.int8)
    features[:lesion] += 0.1
    return Bag(name, features, None, label, labels, event=bool(label), time=float(10 + seed), patient_id=name)


def learner_of(method: Method, train: list[Bag], device: torch.device, seed: int = 0) -> Learner:
    """Model, optimiser and miner as `fit` makes them; a miner's teacher starts as the student's copy."""
    torch.manual_seed(seed)
    model = method.build(train[0].dim)
    miner = None
    if isinstance(method.mining, MhimMining | Mhim2Mining):
        miner = build_miner(method.mining, model, 1000).to(device)
    model.to(device).train()
    optimizer = build_optimizer(method.training, model, miner)
    return Learner(model, Objective(method, train, seed), optimizer, torch.Generator().manual_seed(seed), miner)


def one_step(learner: Learner, bag: Bag) -> None:
    """Loss, gradient, optimiser and teacher of one bag."""
    learner.model.train()
    learner.loss(bag).total.backward()
    learner.bags_seen += 1
    learner.step()


def synchronise(device: torch.device) -> None:
    """Wait for a graphics card, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mb(call: Callable[[], object], device: torch.device) -> float:
    """Memory beyond what was held before, at its peak while `call` runs, in 10⁶ bytes.

    A card: what torch allocated. Linux: resident memory of the process by the kernel. Elsewhere: resident memory looked
    at every few milliseconds.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is not there to be used again
        try:
            REFS.write_text("5")
        except OSError:
            return _sampled(call)
        before = _status("VmRSS")
        call()
        return (_status("VmHWM") - before) / 1e3
    return _sampled(call)


def _status(key: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1.024


def _sampled(call: Callable[[], object]) -> float:
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.003):
            peak = max(peak, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return (peak - before) / 1e6
