"""Slide + grid + encoder → feature file: a generator of small reports, with threads that read ahead.

Reader threads fetch whole batches in order, at most a few ahead of the encoder (bounded memory); the encoder runs in
the thread that draws the generator. Closing the generator stops the readers and keeps what is done for a later call.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import Cancelled, FeatureError, SlideError
from napari_mil.geometry import PatchGrid

from . import _sources
from .encoder import Encoder, Pixels, get_encoder
from .estimates import remember_speed
from .layout import FeatureHeader, slide_id_of
from .reading import is_complete
from .store import FeatureWriter

_READ_AT_ONCE = 16  # patches between two looks at the stop flag
_SPEED_WINDOW = 32  # batches over which patches/s is taken


@dataclass(frozen=True)
class ExtractReport:
    """Where an extraction stands; ``seconds_left`` is None until a speed is known."""

    slide_id: str
    done: int
    total: int
    patches_per_second: float
    seconds_left: float | None
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def extract(
    slide: _sources.SlideLike,
    grid: PatchGrid,
    encoder: Encoder | str,
    out: Path | str,
    *,
    device: str | None = None,
    batch_size: int = 64,
    readers: int = 2,
    patch_px: int | None = None,
    target_mpp: float | None = None,
    tissue: Mapping[str, Any] | None = None,
    dtype: str = "float16",
    resume: bool = True,
) -> Generator[ExtractReport, None, Path]:
    """Compute the features of every patch and write the feature file of a slide.

    Parameters
    ----------
    slide : Slide
        An open slide whose µm per pixel is known.
    grid : PatchGrid
        N patches; row i of the file belongs to patch i.
    encoder : Encoder or str
        As `get_encoder` makes or names it.
    out : Path
        ``<slide_id>.h5``; the unfinished file beside it is called ``<slide_id>.h5.part``.
    device : str, optional
        Where an encoder given by name computes; an `Encoder` object stays where it is.
    batch_size, readers : int
        Patches per batch, reader threads.
    patch_px : int, optional
        Side in pixels at which patches are handed to the encoder; its own `input_px` when it takes no other.
    target_mpp : float, optional
        The µm per pixel that was asked for, recorded when the whole level-0 pixels of the grid give it within 3 %;
        otherwise what they do give is recorded.
    tissue : mapping, optional
        JSON-able settings of tissue and tiling, recorded.
    dtype : "float16" or "float32"
    resume : bool
        Keep rows of an earlier, interrupted call with the very same slide, grid, encoder, weights and transform.

    Yields
    ------
    ExtractReport
        One at the start and one after each batch.

    Returns
    -------
    Path
        The finished file. When it was there already, made with the same parameters, nothing is computed.

    Raises
    ------
    FeatureError
        No patches, unknown µm per pixel, a patch that cannot be read, features that are not finite, a folder that
        cannot be written, memory exhausted. What was done is kept.
    """
    out = Path(out)
    slide_id = slide_id_of(out)
    _check(slide, grid, slide_id, batch_size, readers)
    if isinstance(encoder, str):
        encoder = get_encoder(encoder, device=device or "cpu")
    out_px = patch_px if patch_px is not None and encoder.any_size else encoder.input_px
    header = _header(slide, grid, encoder, out_px, target_mpp, tissue)
    total = len(grid)
    if resume and is_complete(out, header, grid, encoder.dim, dtype):
        yield ExtractReport(slide_id, total, total, 0.0, 0.0, "Already done with these settings.")
        return out

    with FeatureWriter(out, header, grid, encoder.dim, dtype=dtype, resume=resume) as writer:
        first = writer.rows_done
        message = f"Going on after {first} of {total} patches." if first else "Reading the first patches."
        yield ExtractReport(slide_id, first, total, 0.0, None, message)
        batches = [np.arange(i, min(i + batch_size, total)) for i in range(first, total, batch_size)]
        clock, done = _Clock(first), first
        pixels = _read_ahead(slide, grid, batches, out_px, readers, slide_id)
        try:
            for patches in pixels:
                writer.append(encoder.encode(patches))
                done += len(patches)
                speed = clock.tick(done)
                left = (total - done) / speed if speed > 0 else None
                yield ExtractReport(slide_id, done, total, speed, left)
        finally:
            pixels.close()
        remember_speed(encoder.name, encoder.device, clock.overall(), done - first)
        return writer.finish()


def _check(slide: _sources.SlideLike, grid: PatchGrid, slide_id: str, batch_size: int, readers: int) -> None:
    if len(grid) == 0:
        raise FeatureError(
            f"{slide_id} has no patches. Look at its tissue preview and lower the tissue threshold or the minimum "
            "share of tissue, or draw fewer ignored regions."
        )
    if slide.mpp is None:
        raise FeatureError(f"{slide_id}: µm per pixel is unknown. Enter it for this slide on the Slides page.")
    if not np.allclose(slide.mpp, grid.mpp, rtol=1e-6):
        raise FeatureError(
            f"{slide_id}: the grid was made for {grid.mpp} µm per pixel, the slide now has {slide.mpp}. "
            "Make the grid again."
        )
    if batch_size < 1 or readers < 1:
        raise FeatureError(f"batch_size is {batch_size}, readers {readers}; both must be at least 1.")


def _header(
    slide: _sources.SlideLike,
    grid: PatchGrid,
    encoder: Encoder,
    out_px: int,
    target_mpp: float | None,
    tissue: Mapping[str, Any] | None,
) -> FeatureHeader:
    given = tuple(um / out_px for um in grid.patch_um)
    mean = float(np.sqrt(given[0] * given[1]))
    nominal = target_mpp is not None and abs(mean / target_mpp - 1) < 0.03
    transform = f"{_sources.resampling()} to {out_px} px; {encoder.transform}"
    return FeatureHeader(
        encoder=encoder.name,
        slide_fingerprint=slide.fingerprint,
        patch_px=out_px,
        target_mpp=float(target_mpp) if nominal and target_mpp is not None else round(mean, 4),
        level0_size=slide.dimensions,
        encoder_revision=encoder.revision,
        weights_sha256=encoder.weights_sha256,
        transform=transform,
        precision=encoder.precision,
        mpp_source=slide.mpp_source or "user",
        read_level=_sources.read_level(slide, grid, out_px),
        level0_magnification=slide.objective_power,
        tissue=tissue,
        extra={"effective_mpp_x": given[0], "effective_mpp_y": given[1]},
    )


def _read_ahead(
    slide: Any,
    grid: PatchGrid,
    batches: list[npt.NDArray[np.int64]],
    out_px: int,
    readers: int,
    slide_id: str,
) -> Generator[Pixels, None, None]:
    """The pixels of the batches, in order; `readers` threads work at most one batch each ahead of those waiting."""
    stop = threading.Event()
    waiting: deque[Future[Pixels]] = deque()
    todo = iter(batches)
    pool = ThreadPoolExecutor(readers, thread_name_prefix="napari-mil-reader")
    try:
        for indices in todo:
            waiting.append(pool.submit(_read_batch, slide, grid, indices, out_px, stop, slide_id))
            if len(waiting) > readers:
                break
        while waiting:
            patches = waiting.popleft().result()
            following = next(todo, None)
            if following is not None:
                waiting.append(pool.submit(_read_batch, slide, grid, following, out_px, stop, slide_id))
            yield patches
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _read_batch(
    slide: Any, grid: PatchGrid, indices: npt.NDArray[np.int64], out_px: int, stop: threading.Event, slide_id: str
) -> Pixels:
    patches = np.empty((len(indices), out_px, out_px, 3), dtype=np.uint8)
    for start in range(0, len(indices), _READ_AT_ONCE):
        if stop.is_set():
            raise Cancelled
        some = indices[start : start + _READ_AT_ONCE]
        try:
            patches[start : start + len(some)] = _sources.read_patches(slide, grid, some, out_px)
        except (SlideError, OSError, MemoryError) as error:
            raise _named(slide, grid, some, out_px, slide_id, error) from error
    return patches


def _named(
    slide: Any, grid: PatchGrid, some: npt.NDArray[np.int64], out_px: int, slide_id: str, error: Exception
) -> FeatureError:
    """The failure with the patch that caused it, found by reading them one by one."""
    culprit = int(some[0])
    for index in some:
        try:
            _sources.read_patches(slide, grid, np.array([index]), out_px)
        except (SlideError, OSError, MemoryError) as again:
            culprit, error = int(index), again
            break
    x, y = (int(v) for v in grid.coords[culprit])
    return FeatureError(
        f"{slide_id}: patch {culprit} at ({x}, {y}) cannot be read ({error}). Check the file and extract again; the "
        "patches before it are kept."
    )


class _Clock:
    """Patches per second over the last batches, and over the whole run."""

    def __init__(self, done: int) -> None:
        now = time.monotonic()
        self._first = (now, done)
        self._recent: deque[tuple[float, int]] = deque([(now, done)], maxlen=_SPEED_WINDOW)

    def tick(self, done: int) -> float:
        self._recent.append((time.monotonic(), done))
        return _rate(self._recent[0], self._recent[-1])

    def overall(self) -> float:
        return _rate(self._first, self._recent[-1])


def _rate(start: tuple[float, int], end: tuple[float, int]) -> float:
    return (end[1] - start[1]) / max(end[0] - start[0], 1e-6)
