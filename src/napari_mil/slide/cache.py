"""One cache for the process: decoded blocks of every open slide, least recently used out first.

The pixels lie in slabs, pieces of memory that are cut into places of one size and used again and again: a block that
gets fresh memory pays for its page faults (126 MB: 45 ms), one in a new slab a third (the system gives large pages),
one in a place used before nothing. Memory that is used again must not be seen by anyone else: nobody is handed a
block's memory without a claim on it, and a place is free only when all claims are released.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from napari_mil.errors import SlideError

Pixels = npt.NDArray[np.uint8]
Key = tuple[Hashable, ...]
Shape = tuple[int, int, int]

SLAB_BYTES = 12 * 1024**2
"""Memory is taken in pieces of this size: 64 places for a tile of 256 x 256, 16 for one of 512 x 512."""

_LARGEST_DEFAULT = 2 * 1024**3
_SPARE_BYTES = 8 * SLAB_BYTES  # empty slabs that are kept for the next slide
_tokens = itertools.count(1)


class _Slab:
    """A piece of memory in places of one size."""

    __slots__ = ("blocks", "free", "memory", "place_bytes")

    def __init__(self, place_bytes: int, places: int) -> None:
        self.memory: Pixels = np.empty(place_bytes * places, np.uint8)
        self.place_bytes = place_bytes
        self.free = list(range(places))
        self.blocks: set[Block] = set()

    def place(self, index: int, shape: Shape) -> Pixels:
        start = index * self.place_bytes
        return self.memory[start : start + math.prod(shape)].reshape(shape)


class Block:
    """Pixels of one block, (h, w, 3), theirs who claimed it until they release it.

    Attributes
    ----------
    key : tuple
    pixels : (h, w, 3) uint8
        To be filled by the one whose claim made it, to be read by others once it is `ready`.
    ready : bool
        Whether the pixels are there.
    error : SlideError or None
        Why they are not and won't be.
    """

    __slots__ = ("_claims", "_index", "_kept", "_slab", "error", "key", "pixels", "ready")

    def __init__(self, key: Key, pixels: Pixels, slab: _Slab | None, index: int) -> None:
        self.key = key
        self.pixels = pixels
        self.ready = False
        self.error: SlideError | None = None
        self._slab = slab  # None: memory of its own, of which nothing is kept
        self._index = index
        self._claims = 1
        self._kept = True  # in the table


class TileCache:
    """Least-recently-used cache of decoded blocks, limited in bytes. Thread-safe.

    Parameters
    ----------
    limit_bytes : int
        Most memory held. A block for which there is no place (it is larger, or everything is claimed) gets memory of
        its own, which is given back with the last claim.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._blocks: OrderedDict[Key, Block] = OrderedDict()  # least recently used first
        self._slabs: dict[int, list[_Slab]] = {}  # bytes of a place → slabs with free ones
        self._bytes = 0
        self._limit = int(limit_bytes)

    @property
    def limit_bytes(self) -> int:
        """Most memory held."""
        return self._limit

    @property
    def used_bytes(self) -> int:
        """Memory held now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._blocks)

    def set_limit(self, limit_bytes: int) -> None:
        """Change the limit; blocks beyond it are dropped at once, claimed ones when they are released."""
        if limit_bytes < 0:
            raise ValueError(f"The tile cache cannot hold {limit_bytes} bytes; expected 0 or more.")
        with self._lock:
            self._limit = int(limit_bytes)
            self._shrink(self._limit)

    def claim(self, wanted: Sequence[tuple[Key, Shape]]) -> tuple[list[Block], list[Block]]:
        """Claim blocks, to be released after use.

        Parameters
        ----------
        wanted : sequence of (key, (h, w, 3))
            Each key once.

        Returns
        -------
        blocks : list of Block
            All, in order.
        mine : list of Block
            Those that nobody has yet: fill their pixels and call `finish`, before waiting for anything else.
        """
        blocks: list[Block] = []
        mine: list[Block] = []
        try:
            with self._lock:
                for key, shape in wanted:
                    block = self._blocks.get(key)
                    if block is None:
                        block = self._new(key, shape)
                        mine.append(block)
                    else:
                        block._claims += 1
                        self._blocks.move_to_end(key)
                    blocks.append(block)
        except MemoryError:  # nobody may wait for what will not come
            for block in mine:
                self.finish(block, SlideError("There is no memory left for the slide's pixels."))
            self.release(blocks)
            raise
        return blocks, mine

    def peek(self, keys: Iterable[Key]) -> list[Block | None]:
        """Claim those blocks that are ready; None for the others. Never waits."""
        found: list[Block | None] = []
        with self._lock:
            for key in keys:
                block = self._blocks.get(key)
                if block is not None and block.ready:
                    block._claims += 1
                    self._blocks.move_to_end(key)
                    found.append(block)
                else:
                    found.append(None)
        return found

    def has(self, keys: Iterable[Key]) -> bool:
        """Whether all of these blocks are ready."""
        with self._lock:
            return all((block := self._blocks.get(key)) is not None and block.ready for key in keys)

    def finish(self, block: Block, error: SlideError | None = None) -> None:
        """Say that a block of `mine` is filled, or why it will not be: then everyone who waits is told, and it goes."""
        with self._arrived:
            block.ready, block.error = error is None, error
            if error is not None or block._slab is None:
                self._forget(block)
            self._arrived.notify_all()

    def wait(self, block: Block) -> None:
        """Wait until someone else's block is ready or has its error."""
        if not block.ready and block.error is None:
            with self._arrived:
                self._arrived.wait_for(lambda: block.ready or block.error is not None)

    def release(self, blocks: Iterable[Block | None]) -> None:
        """Give claims back."""
        with self._lock:
            for block in blocks:
                if block is not None:
                    block._claims -= 1
                    if not block._claims and not block._kept:
                        self._free(block)

    def drop(self, first: Hashable) -> None:
        """Forget every block whose key begins with `first` (the token of a slide that was closed)."""
        with self._lock:
            keys = [key for key in self._blocks if key[0] == first]
        self.forget(keys)

    def forget(self, keys: Iterable[Key]) -> None:
        """Forget these blocks."""
        with self._lock:
            for key in keys:
                block = self._blocks.get(key)
                if block is not None:
                    self._forget(block)
            empty = sum(s.memory.nbytes for slabs in self._slabs.values() for s in slabs if not s.blocks)
            if empty > _SPARE_BYTES:
                self._give_back(empty - _SPARE_BYTES)

    def clear(self) -> None:
        """Forget every block."""
        with self._lock:
            keys = list(self._blocks)
        self.forget(keys)

    # with the lock held

    def _new(self, key: Key, shape: Shape) -> Block:
        slab = self._slab_for(_place_bytes(math.prod(shape)))
        if slab is None:
            block = Block(key, np.empty(shape, np.uint8), None, 0)
        else:
            index = slab.free.pop()
            if not slab.free:
                self._slabs[slab.place_bytes].remove(slab)
            block = Block(key, slab.place(index, shape), slab, index)
            slab.blocks.add(block)
        self._blocks[key] = block
        return block

    def _slab_for(self, place_bytes: int) -> _Slab | None:
        """A slab with a free place: one that has it, a new one, or one whose blocks were used longest ago."""
        with_free = self._slabs.setdefault(place_bytes, [])
        if with_free:
            return with_free[-1]
        places = max(1, min(SLAB_BYTES, self._limit // 8) // place_bytes)
        slab_bytes = places * place_bytes
        if slab_bytes > self._limit:
            return None
        if self._bytes + slab_bytes > self._limit:
            self._give_back(self._bytes + slab_bytes - self._limit)
        while self._bytes + slab_bytes > self._limit:
            oldest = next((b for b in self._blocks.values() if self._can_go(b, place_bytes)), None)
            if oldest is None or oldest._slab is None:
                return None
            slab = oldest._slab
            if slab.place_bytes == place_bytes:
                self._forget(oldest)
                if slab in with_free:  # over the limit it is given back when it is empty
                    return slab
            else:
                self._empty(slab)
        slab = _Slab(place_bytes, places)
        self._bytes += slab_bytes
        with_free.append(slab)
        return slab

    @staticmethod
    def _can_go(block: Block, place_bytes: int) -> bool:
        """Whether forgetting a block makes a place of this size: itself, or its slab with all that lies there."""
        slab = block._slab
        if slab is None or block._claims:
            return False
        return slab.place_bytes == place_bytes or not any(other._claims for other in slab.blocks)

    def _forget(self, block: Block) -> None:
        if block._kept:
            block._kept = False
            del self._blocks[block.key]
            if not block._claims:
                self._free(block)

    def _free(self, block: Block) -> None:
        slab = block._slab
        if slab is None:
            return
        slab.blocks.discard(block)
        if not slab.free:
            self._slabs.setdefault(slab.place_bytes, []).append(slab)
        slab.free.append(block._index)
        if not slab.blocks and self._bytes > self._limit:
            self._remove(slab)

    def _empty(self, slab: _Slab) -> None:
        """Give a slab back with all its blocks, none of them claimed."""
        for block in list(slab.blocks):
            self._forget(block)
        if slab in self._slabs.get(slab.place_bytes, ()):
            self._remove(slab)

    def _remove(self, slab: _Slab) -> None:
        self._slabs[slab.place_bytes].remove(slab)
        self._bytes -= slab.memory.nbytes

    def _give_back(self, n_bytes: int) -> None:
        """Give empty slabs back until so many bytes are free, if there are as many."""
        for slabs in self._slabs.values():
            for slab in [slab for slab in slabs if not slab.blocks]:
                if n_bytes <= 0:
                    return
                self._remove(slab)
                n_bytes -= slab.memory.nbytes

    def _shrink(self, limit: int) -> None:
        self._give_back(self._bytes - limit)
        for block in list(self._blocks.values()):
            if self._bytes <= limit:
                return
            slab = block._slab
            if block._kept and slab is not None and not any(other._claims for other in slab.blocks):
                self._empty(slab)
        if self._bytes > limit:  # the rest goes when it is released
            for block in list(self._blocks.values()):
                self._forget(block)


def _place_bytes(n_bytes: int) -> int:
    """Bytes of the place for a block: sizes in steps of an eighth of the next power of two, so that they are few."""
    step = max(1024, 1 << max(0, (n_bytes - 1).bit_length() - 3))
    return max(1, -(-n_bytes // step)) * step


_cache: TileCache | None = None
_cache_lock = threading.Lock()


def new_token() -> int:
    """A number that no other slide of this process has, to begin its keys with."""
    return next(_tokens)


def default_limit() -> int:
    """A quarter of the machine's memory, at most 2 GiB."""
    import psutil

    return min(int(psutil.virtual_memory().total) // 4, _LARGEST_DEFAULT)


def tile_cache() -> TileCache:
    """The process-wide cache that every slide shares."""
    global _cache
    with _cache_lock:
        if _cache is None:
            _cache = TileCache(default_limit())
        return _cache


def set_cache_limit(limit_bytes: int | None) -> None:
    """Limit the process-wide tile cache to so many bytes; None gives the default back."""
    tile_cache().set_limit(default_limit() if limit_bytes is None else limit_bytes)
