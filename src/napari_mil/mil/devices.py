"""Where to compute, how much memory it takes, and a sentence when there is not enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.utils.deterministic
from torch import Tensor

from napari_mil.errors import TrainingError

from .bag import Bag

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_REPEATS = (":4096:8", ":16:8")
"""Values of it with which cuBLAS repeats itself."""


def find_device(name: str) -> torch.device:
    """A device by name: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest there is.

    Raises
    ------
    TrainingError
        Not on this computer.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"There is no device {name!r}; expected cpu, cuda, cuda:0, mps or auto.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise TrainingError(
                'No CUDA graphics card is usable here, so device "cuda" cannot be had. Use device "cpu", or run '
                "`napari-mil doctor`: it says whether a card is there and torch was installed without CUDA."
            )
        if (device.index or 0) >= torch.cuda.device_count():
            raise TrainingError(f"There is no {name}: this computer has {torch.cuda.device_count()} CUDA device(s).")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise TrainingError('No Apple graphics is usable here, so device "mps" cannot be had. Use device "cpu".')
    elif device.type != "cpu":
        raise TrainingError(f"Device {name!r} is not supported; expected cpu, cuda, mps or auto.")
    return device


def exact(values: Tensor) -> Tensor:
    """In float64; as they are on Apple graphics, which has none."""
    return values if values.device.type == "mps" else values.double()


def put_on(values: Tensor, device: torch.device) -> Tensor:
    """On a device in the type that they have, float64 in float32 where there is none; does not wait for a card."""
    if device.type == "mps" and values.dtype == torch.float64:
        values = values.float()
    return values.to(device, non_blocking=device.type == "cuda")


def reset_peak(device: torch.device) -> None:
    """Start measuring the peak of a GPU anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_mb(device: torch.device) -> float:
    """GPU: peak since `reset_peak`; CPU: resident memory of this process. In 10⁶ bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if device.type == "mps":
        return torch.mps.current_allocated_memory() / 1e6
    import psutil

    return float(psutil.Process().memory_info().rss / 1e6)


def free_memory(device: torch.device) -> int:
    """Bytes that this process could take now on a device, without its container's limit being passed."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or "max": no limit
        return free
    return max(0, min(free, limit - used))


@contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Only operations that repeat bit for bit, where wanted; afterwards torch is set as it was.

    Raises
    ------
    TrainingError
        The graphics card is in use already without the setting that cuBLAS needs for it.
    """
    if not wanted:
        yield
        return
    if device.type == "cuda" and os.environ.get(CUBLAS) not in CUBLAS_REPEATS:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            raise TrainingError(
                f"training.deterministic on a graphics card needs the environment variable {CUBLAS} before the card is "
                f"used: set it to {CUBLAS_REPEATS[0]} and start the program again, or leave training.deterministic off."
            )
        os.environ[CUBLAS] = CUBLAS_REPEATS[0]  # read once, when the card is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    fills = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # nothing reads what nobody wrote
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = fills


@contextmanager
def memory_in_words(bag: Bag, device: torch.device) -> Iterator[None]:
    """Turn "out of memory" while working on a bag into a sentence that says what to do."""
    size = f"Slide {bag.slide_id} ({len(bag):,} patches of {bag.dim} numbers)"
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(f"{size} does not fit into the memory of {device}. {_advice(device)}") from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise TrainingError(f"{size} does not fit into the memory of {device}. {_advice(device)}") from error
        raise


def _advice(device: torch.device) -> str:
    if device.type == "cpu":
        return "Close other programs, or extract with a coarser µm per pixel or a smaller patch limit (max_patches)."
    return (
        'Use device "cpu", close other programs that use the graphics card, or extract with a coarser µm per pixel '
        "or a patch limit (max_patches). What was trained so far is kept and can be resumed."
    )
