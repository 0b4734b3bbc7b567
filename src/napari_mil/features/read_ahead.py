"""Batches of patches read by threads, a few ahead of the one who encodes them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_mil.errors import Cancelled, FeatureError, SlideError
from napari_mil.geometry import PatchGrid

from .encoder import Pixels

if TYPE_CHECKING:
    from napari_mil.slide import PatchReader

_AT_ONCE = 16  # patches between two looks at the stop flag
_MOST_READERS = 16

Indices = npt.NDArray[np.int64]


def readers_for(device: str) -> int:
    """Threads that read: on a CPU two, since the network needs the cores; ahead of a GPU as many as there are."""
    if device == "cpu":
        return 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(_MOST_READERS, cores))


def read_ahead(
    reader: PatchReader, grid: PatchGrid, batches: Sequence[Indices], readers: int, slide_id: str
) -> Generator[Pixels, None, None]:
    """The pixels of the batches, in order; `readers` threads work at most one batch each ahead of those waiting.

    Closing the generator stops them.

    Raises
    ------
    FeatureError
        When a patch cannot be read; the sentence names it.
    """
    stop = threading.Event()
    waiting: deque[Future[Pixels]] = deque()
    todo = iter(batches)
    pool = ThreadPoolExecutor(readers, thread_name_prefix="napari-mil-reader")
    try:
        for indices in todo:
            waiting.append(pool.submit(_read_batch, reader, grid, indices, stop, slide_id))
            if len(waiting) > readers:
                break
        while waiting:
            patches = waiting.popleft().result()
            following = next(todo, None)
            if following is not None:
                waiting.append(pool.submit(_read_batch, reader, grid, following, stop, slide_id))
            yield patches
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _read_batch(reader: PatchReader, grid: PatchGrid, indices: Indices, stop: threading.Event, slide_id: str) -> Pixels:
    parts: list[Pixels] = []
    for start in range(0, len(indices), _AT_ONCE):
        if stop.is_set():
            raise Cancelled
        some = indices[start : start + _AT_ONCE]
        try:
            parts.append(reader.read(some))
        except (SlideError, OSError, MemoryError) as error:
            raise _named(reader, grid, some, slide_id, error) from error
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _named(reader: PatchReader, grid: PatchGrid, some: Indices, slide_id: str, error: Exception) -> FeatureError:
    """The failure with the patch that caused it, found by reading them one by one."""
    culprit = int(some[0])
    for index in some:
        try:
            reader.read([int(index)])
        except (SlideError, OSError, MemoryError) as again:
            culprit, error = int(index), again
            break
    x, y = (int(v) for v in grid.coords[culprit])
    return FeatureError(
        f"{slide_id}: patch {culprit} at ({x}, {y}) cannot be read ({error}). Check the file and extract again; the "
        "patches before it are kept."
    )
