"""How long an extraction will take and how large its file gets, from speeds seen on this machine."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from .published import PUBLISHED
from .weights import cache_folder

# patches/s end to end before anything was measured here: one core of a recent laptop, one mid-range GPU
_TYPICAL = {"texture": 150.0, "resnet18": 45.0, "resnet50": 25.0}
_TYPICAL_OTHER = 10.0
_GPU_FACTOR = 20.0
_TYPICAL_GMAC = {"cpu": 45.0, "gpu": 2000.0}  # of vision transformers, 10⁹ multiplications a second
_FEWEST = 64  # patches below which a speed says more about the start than about the work


@dataclass(frozen=True)
class Estimate:
    """Minutes and gigabytes (10⁹ bytes); ``measured`` tells whether the speed was seen on this machine."""

    minutes: float
    gigabytes: float
    patches_per_second: float
    measured: bool


def estimate(n_patches: int, dim: int | None, encoder_name: str, *, device: str = "cpu") -> Estimate:
    """Time and space that extracting `n_patches` will take.

    Parameters
    ----------
    dim : int or None
        Numbers per patch, stored as float16; 1024 is assumed when the encoder does not say beforehand.
    """
    seen = _speeds().get(_key(encoder_name, device))
    speed = seen or _typical(encoder_name, device)
    size = n_patches * (2 * (dim or 1024) + 16) / 1e9
    return Estimate(n_patches / speed / 60, size, speed, seen is not None)


def remember_speed(encoder_name: str, device: str, patches_per_second: float, n_patches: int) -> None:
    """Keep a measured speed for later estimates; a cache that cannot be written is no reason to fail."""
    if n_patches < _FEWEST or not patches_per_second > 0:
        return
    speeds = _speeds()
    key = _key(encoder_name, device)
    old = speeds.get(key)
    speeds[key] = round(patches_per_second if old is None else (old + patches_per_second) / 2, 2)
    path = _speed_file()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(speeds, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)


def _typical(encoder_name: str, device: str) -> float:
    if encoder_name in PUBLISHED:
        return _TYPICAL_GMAC["cpu" if device == "cpu" else "gpu"] / PUBLISHED[encoder_name].gmac
    speed = _TYPICAL.get(encoder_name, _TYPICAL_OTHER)
    return speed * _GPU_FACTOR if device != "cpu" and encoder_name != "texture" else speed


def _key(encoder_name: str, device: str) -> str:
    return f"{encoder_name}@{device}"


def _speed_file() -> Path:
    return cache_folder() / "speeds.json"


def _speeds() -> dict[str, float]:
    try:
        found = json.loads(_speed_file().read_text(encoding="utf-8"))
        return {str(key): float(value) for key, value in found.items() if float(value) > 0}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
