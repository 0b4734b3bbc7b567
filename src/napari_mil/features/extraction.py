"""Slide + grid + encoder → feature file: a generator of small reports, with threads that read ahead.

    slide + grid ─PatchReader→ pixels, by threads, a few batches ahead ─encoder→ rows ─FeatureWriter→ file

The encoder runs in the thread that draws the generator. Closing it stops the readers and keeps what is done for a
later call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mil.errors import FeatureError
from napari_mil.geometry import PatchGrid

from ._sources import SlideLike
from .encoder import Encoder, Pixels, Rows, get_encoder
from .estimates import remember_speed
from .layout import RESAMPLED, FeatureHeader, slide_id_of
from .precision import in_precision
from .read_ahead import read_ahead, readers_for
from .reading import is_complete
from .store import FeatureWriter

if TYPE_CHECKING:
    from napari_mil.slide import PatchReader
    from napari_mil.slide.patches import ReadPlan

_ON_CPU, _ON_GPU = 64, 128  # patches of a batch
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
    slide: SlideLike,
    grid: PatchGrid,
    encoder: Encoder | str,
    out: Path | str,
    *,
    device: str | None = None,
    precision: str = "auto",
    backend: str = "auto",
    batch_size: int | None = None,
    readers: int | None = None,
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
    precision, backend : str
        In which precision and by what an encoder given by name computes, see
        `napari_mil.features.in_precision`; an `Encoder` object computes as it does.
    batch_size, readers : int, optional
        Patches per batch, reader threads; None: what suits the device.
    patch_px : int, optional
        Side in pixels at which patches are handed to the encoder; its own `input_px` when it takes no other.
    target_mpp : float, optional
        The µm per pixel that was asked for, recorded when the whole level-0 pixels of the grid give it within 3 %;
        otherwise what they do give is recorded.
    tissue : mapping, optional
        JSON-able settings of tissue and tiling, recorded.
    dtype : "float16" or "float32"
    resume : bool
        Keep rows of an earlier, interrupted call with the very same slide, grid, encoder, weights, transform and
        precision.

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
    if isinstance(encoder, str):
        encoder = in_precision(get_encoder(encoder, device=device or "cpu"), precision, backend)
    if batch_size is None:
        batch_size = _ON_CPU if encoder.device == "cpu" else _ON_GPU
    if readers is None:
        readers = readers_for(encoder.device)
    _check(slide, grid, slide_id, batch_size, readers)

    total = len(grid)
    out_px = patch_px if patch_px is not None and encoder.any_size else encoder.input_px
    reader = _reader(slide, grid, out_px)
    header = _header(slide, grid, encoder, out_px, reader.plan, target_mpp, tissue)
    if resume and is_complete(out, header, grid, encoder.dim, dtype):
        yield ExtractReport(slide_id, total, total, 0.0, 0.0, "Already done with these settings.")
        return out

    with FeatureWriter(out, header, grid, encoder.dim, dtype=dtype, resume=resume) as writer:
        first = done = writer.rows_done
        message = f"Going on after {first} of {total} patches." if first else "Reading the first patches."
        yield ExtractReport(slide_id, first, total, 0.0, None, message)
        batches = [np.arange(i, min(i + batch_size, total)) for i in range(first, total, batch_size)]
        clock = _Clock(first)
        with closing(read_ahead(reader, grid, batches, readers, slide_id)) as pixels:
            for rows in _encoded(encoder, pixels):
                writer.append(rows)
                done += len(rows)
                speed = clock.tick(done)
                yield ExtractReport(slide_id, done, total, speed, (total - done) / speed if speed > 0 else None)
        remember_speed(encoder.name, encoder.device, clock.overall(), done - first)
        return writer.finish()


def _encoded(encoder: Encoder, batches: Iterable[Pixels]) -> Iterator[Rows]:
    """The rows of each batch; an encoder that can copy one batch while it computes another does."""
    stream: Callable[[Iterable[Pixels]], Iterator[Rows]] | None = getattr(encoder, "encode_stream", None)
    return map(encoder.encode, batches) if stream is None else stream(batches)


def _reader(slide: Any, grid: PatchGrid, out_px: int) -> PatchReader:
    from napari_mil.slide import PatchReader

    return PatchReader(slide, grid, out_px)


def _check(slide: SlideLike, grid: PatchGrid, slide_id: str, batch_size: int, readers: int) -> None:
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
    slide: SlideLike,
    grid: PatchGrid,
    encoder: Encoder,
    out_px: int,
    plan: ReadPlan,
    target_mpp: float | None,
    tissue: Mapping[str, Any] | None,
) -> FeatureHeader:
    given = tuple(um / out_px for um in grid.patch_um)
    mean = float(np.sqrt(given[0] * given[1]))
    nominal = target_mpp is not None and abs(mean / target_mpp - 1) < 0.03
    color = "" if slide.color == "as stored" else slide.color
    how = {name: getattr(encoder, name, None) for name in ("backend", "precision_cosine")}
    return FeatureHeader(
        encoder=encoder.name,
        slide_fingerprint=slide.fingerprint,
        patch_px=out_px,
        target_mpp=float(target_mpp) if nominal and target_mpp is not None else round(mean, 4),
        level0_size=slide.dimensions,
        encoder_revision=encoder.revision,
        weights_sha256=encoder.weights_sha256,
        transform=f"{'sRGB; ' if color else ''}{RESAMPLED} to {out_px} px; {encoder.transform}",
        precision=encoder.precision,
        mpp_source=slide.mpp_source or "user",
        read_level=plan.level,
        level0_magnification=slide.objective_power,
        tissue=tissue,
        color=color,
        resampling=plan.resampling,
        extra={"effective_mpp_x": given[0], "effective_mpp_y": given[1]}
        | {name: value for name, value in how.items() if value is not None},
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
