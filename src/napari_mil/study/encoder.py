"""The project's encoder, made while its weights' download is reported."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_mil.features import Encoder, ExtractReport

    from .project import Project

TOLD_EVERY_S = 0.5
_TRIES = 20


def load_encoder(project: Project, slide_id: str, device: str) -> Generator[ExtractReport, None, Encoder]:
    """Make the project's encoder; reports tell how much of its weights is there while they are downloaded, and
    in which precision it computes when that is not float32 by torch.

    Where the project leaves the precision open, features that are there already decide it: those of a project are
    all computed in one, also when it goes on on another machine. Of several processes that begin together, the first
    one to choose chooses for all.

    Parameters
    ----------
    slide_id : str
        The slide that waits for it, named in the reports.
    device : str
        "cpu", "cuda", … ("auto" is resolved by the caller).
    """
    from napari_mil.features import ExtractReport, get_encoder, in_precision, kept_precision

    so_far: tuple[int, int] = (0, 0)

    def downloaded(done: int, total: int) -> None:
        nonlocal so_far
        so_far = done, total

    precision: str = project.config.precision
    if precision == "auto":
        precision = kept_precision(project.feature_folder) or "auto"

    def make() -> Encoder:
        made = get_encoder(project.encoder, weights=project.encoder_weights, device=device, progress=downloaded)
        encoder = in_precision(made, precision)
        if precision != "auto" or not hasattr(encoder, "backend"):  # no choice to be made
            return encoder
        first = _first_said(project.feature_folder, encoder.precision)
        return encoder if first == encoder.precision else in_precision(made, first)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(make)
        told = so_far
        while not future.done():
            time.sleep(0.05 if told == (0, 0) else TOLD_EVERY_S)
            if so_far != told:
                told = so_far
                done, total = (n / 1e6 for n in told)
                share = f"{done:.0f} of {total:.0f} MB" if total else f"{done:.0f} MB"
                yield ExtractReport(
                    slide_id, 0, 0, 0.0, None, f"Downloading the weights of {project.encoder}: {share}."
                )
        encoder = future.result()
    cosine = getattr(encoder, "precision_cosine", None)
    if cosine is not None:
        said = f"{encoder.name} computes in {encoder.precision} by {getattr(encoder, 'backend', 'torch')}"
        message = f"{said}; its features agree with those of float32 (least cosine {cosine:.5f})."
        yield ExtractReport(slide_id, 0, 0, 0.0, None, message)
    return encoder


def _first_said(folder: Path, precision: str) -> str:
    """The precision that was said first for a folder of features: this one, unless another process came before.

    Slides under way cannot tell it: HDF5 locks their files.
    """
    path = folder / "precision.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="ascii") as file:
            file.write(precision)
    except FileExistsError:
        for _ in range(_TRIES):  # its writer may not have come to write
            if found := path.read_text(encoding="ascii").strip():
                return found
            time.sleep(0.05)
    except OSError:  # a folder that cannot be written is told of when its features are
        pass
    return precision
