"""Where to compute, how much memory it takes, and a sentence when there is not enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from napari_mil.errors import TrainingError

from .bag import Bag


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
