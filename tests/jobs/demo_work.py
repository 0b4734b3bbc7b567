"""Work for the tests of the job runner; run in the child process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

from napari_mil.errors import TrainingError


def count(n: int, pause: float = 0.0) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Count to n."""
    for i in range(n):
        yield {"done": i, "total": n}
        time.sleep(pause)
    return {"counted": n}


def epochs(n: int, pause: float = 0.0) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Report n epochs."""
    for i in range(n):
        yield {"epoch": i + 1, "epochs": n, "train_loss": 1.0 / (i + 1), "val_auroc": 0.5}
        time.sleep(pause)
    return {"epochs": n}


def stubborn(seconds: float) -> Generator[dict[str, Any], None, None]:
    """Never looks whether it should stop."""
    yield {"fraction": 0.0}
    time.sleep(seconds)


def polite(marker: str, check_cancelled: Callable[[], None]) -> Generator[dict[str, Any], None, None]:
    """Asks inside a long step whether it should stop, and tidies up."""
    try:
        yield {"fraction": 0.0}
        while True:
            time.sleep(0.01)
            check_cancelled()
    finally:
        with open(marker, "w") as file:
            file.write("tidy")


def gated(gate: str) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Go on once the file `gate` exists, or after 20 s, so that one failed test does not hold up the others."""
    start = time.monotonic()
    while not os.path.exists(gate) and time.monotonic() - start < 20:
        yield {"fraction": 0.5}
        time.sleep(0.01)
    return {"gate": gate}


def fail(kind: str) -> Generator[dict[str, Any], None, None]:
    """Raise in the middle."""
    yield {"fraction": 0.1}
    if kind == "mil":
        raise TrainingError("only one class in the training slides; label at least two")
    if kind == "oom":
        raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 20 GiB")
    if kind == "memory":
        raise MemoryError
    if kind == "stop":
        raise StopIteration("inside a generator")
    raise RuntimeError("something odd\nwith a second line")


def crash() -> None:
    """Die as a segmentation fault would."""
    os.abort()


def noisy() -> dict[str, Any]:
    """Print through Python and through the C level."""
    print("hello from print")
    os.write(1, b"hello from C\n")
    sys.stderr.write("hello from stderr\n")
    return {"ok": True}


def facts() -> dict[str, Any]:
    """What the process looks like from inside."""
    return {
        "pid": os.getpid(),
        "modules": sorted(name for name in sys.modules if "." not in name),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "nice": os.nice(0) if hasattr(os, "nice") else None,
        "main": getattr(sys.modules["__main__"], "__file__", None),
    }


def numbers() -> Generator[Any, None, Any]:
    """Reports of types that JSON does not know."""
    import numpy as np

    yield {"epoch": np.int64(1), "epochs": 1, "val_auroc": float("nan"), "array": np.arange(3)}
    return {"path": __import__("pathlib").Path("x"), "value": np.float32(0.5)}
