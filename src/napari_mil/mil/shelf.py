"""Features of the bags of a training: read ahead of the computation, and kept where there is room."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .bag import Bag
from .devices import free_memory, memory_in_words, put_on

AHEAD = 2
"""Bags that are read while another one is computed with."""


class Shelf:
    """Hands out bags with their features, as stored, on a device.

    Features that are on a disk are read by a thread while the bags before them are computed with. What was read is kept
    on the device as long as there is room; the rest is read again in every epoch. With a graphics card all features
    are kept there as long as there is room, and go there from pinned memory.

    Parameters
    ----------
    device : torch.device
    room : int or None
        Bytes of features to keep. None: half of what is free now.
    """

    def __init__(self, device: torch.device, room: int | None = None) -> None:
        self.device = device
        self.room = free_memory(device) // 2 if room is None else room
        self._kept: dict[tuple[str, ...], Tensor] = {}  # by slides: a patient may be called like another's slide

    def through(self, bags: Sequence[Bag]) -> Generator[tuple[Bag, Tensor], None, None]:
        """Each bag with its features (N, D), in this order; a bag may come twice. Closing it stops the reading.

        Raises
        ------
        TrainingError, FeatureError, …
            Whatever reading a bag's features raises, when its turn has come.
        """
        pool = ThreadPoolExecutor(1, thread_name_prefix="napari-mil-features")
        waiting: deque[tuple[Bag, Future[Tensor] | None]] = deque()
        todo = iter(bags)
        try:
            while True:
                while len(waiting) <= AHEAD and (bag := next(todo, None)) is not None:
                    waiting.append((bag, pool.submit(self._read, bag) if self._is_read(bag) else None))
                if not waiting:
                    return
                bag, future = waiting.popleft()
                with memory_in_words(bag, self.device):
                    features = self._on_device(bag, future)
                del future
                yield bag, features
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _is_read(self, bag: Bag) -> bool:
        """Whether a thread has something to do for this bag."""
        return self.device.type == "cuda" or on_disk(bag.features)

    def _read(self, bag: Bag) -> Tensor:
        kept = self._kept.get(bag.slide_ids)
        if kept is not None:
            return kept
        stored = bag.stored()
        return stored.pin_memory() if self.device.type == "cuda" and stored.device.type == "cpu" else stored

    def _on_device(self, bag: Bag, future: Future[Tensor] | None) -> Tensor:
        if future is None:
            return put_on(bag.stored(), self.device)
        features = put_on(future.result(), self.device)
        size = features.numel() * features.element_size()
        if bag.slide_ids not in self._kept and size <= self.room:
            self._kept[bag.slide_ids] = features
            self.room -= size
        return features


def on_disk(features: Any) -> bool:
    """Whether features have to be read before they are numbers."""
    if isinstance(features, np.ndarray | Tensor):
        return False
    parts = getattr(features, "parts", None)
    return parts is None or any(on_disk(part) for part in parts)


def light_bags(bags: Sequence[Bag]) -> list[Bag]:
    """Bags that hold no more memory than the sequence they come from.

    A sequence may make a bag anew, features and all, each time it is asked: such bags are looked at once, and their
    features are asked for again when they are needed.
    """
    if isinstance(bags, list | tuple):
        return list(bags)
    seen = [_Seen(bags, index) for index in range(len(bags))]
    return [one.bag() for one in seen]


class _Seen:
    """A bag of a sequence without its features, and a way to tell whether somebody keeps it."""

    def __init__(self, bags: Sequence[Bag], index: int) -> None:
        bag = bags[index]
        self._whole: weakref.ref[Bag] = weakref.ref(bag)
        self._light = bag
        if isinstance(bag.features, np.ndarray | Tensor):
            self._light = replace(bag, features=_AskedAgain(bags, index, bag.features))

    def bag(self) -> Bag:
        return self._whole() or self._light


class _AskedAgain:
    """Features of a bag that its sequence makes each time."""

    def __init__(self, bags: Sequence[Bag], index: int, like: npt.NDArray[Any] | Tensor) -> None:
        self._bags, self._index = bags, index
        self.shape, self.dtype = tuple(like.shape), like.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        features = self._bags[self._index].features
        array = features.detach().cpu().numpy() if isinstance(features, Tensor) else np.asarray(features)
        return array if dtype is None else array.astype(dtype, copy=False)

    def __getitem__(self, index: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        rows: npt.NDArray[Any] = np.asarray(self)[index]
        return rows
