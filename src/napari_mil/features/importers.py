"""Other tools' features → our file, their geometry checked, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from napari_mil.errors import FeatureError
from napari_mil.geometry import PatchGrid

from ._foreign import ForeignFeatures, number, open_h5, stride_of
from ._sources import SlideLike
from .clam import FOLDERS, patches_file, read_clam
from .layout import UNKNOWN_PRECISION, FeatureHeader, part_path
from .store import FeatureWriter
from .trident import PREFIX, lock_of, read_trident

Source = Literal["auto", "clam", "trident"]


@dataclass(frozen=True)
class Importable:
    """A feature file of another tool that was found in a folder; ``unfinished`` ones are refused when imported."""

    path: Path
    source: Literal["clam", "trident"]
    slide_id: str
    encoder: str | None = None
    patches: Path | None = None
    unfinished: bool = False


def find_importable(folder: Path | str) -> list[Importable]:
    """Every CLAM and TRIDENT feature file below a folder, ordered by slide."""
    folder = Path(folder)
    found: list[Importable] = []
    for path in sorted(folder.rglob("*.h5")):
        if path.parent.name == "h5_files":
            found.append(Importable(path, "clam", path.stem, None, patches_file(path)))
        elif path.parent.name.startswith(PREFIX):
            encoder = path.parent.name.removeprefix(PREFIX)
            found.append(Importable(path, "trident", path.stem, encoder, None, lock_of(path) is not None))
    found += [
        Importable(path, "clam", path.stem, None, patches_file(path))
        for path in folder.rglob("pt_files/*.pt")
        if not (path.parent.parent / "h5_files" / f"{path.stem}.h5").is_file()
    ]
    return sorted(found, key=lambda item: (item.slide_id, item.path))


def import_features(
    path: Path | str,
    out: Path | str,
    *,
    source: Source = "auto",
    slide: SlideLike | None = None,
    patches: Path | str | None = None,
    mpp: float | Sequence[float] | None = None,
    patch_px_level0: int | None = None,
    encoder: str | None = None,
) -> Path:
    """Turn one slide's features of CLAM or TRIDENT into our feature file.

    Parameters
    ----------
    path : Path
        CLAM ``h5_files/<s>.h5`` or ``pt_files/<s>.pt``; TRIDENT ``features_<encoder>/<s>.h5``.
    out : Path
        Our file ``<slide_id>.h5``, or a folder for it.
    slide : Slide, optional
        Gives µm per pixel and fingerprint, and the size that the coordinates are checked against.
    patches : Path, optional
        The patches file (or its folder) when it is not where the tool puts it.
    mpp : float or (x, y), optional
        Level-0 µm per pixel, needed without a slide that knows it; what the slide's file says goes before it.
    patch_px_level0 : int, optional
        Side of a patch in level-0 pixels, needed when no file says it.
    encoder : str, optional
        What made the features, when no file says it.

    Returns
    -------
    Path
        The written file; rows and coordinates in the order they came, in float16 when they were, else float32.

    Raises
    ------
    FeatureError
        A damaged, unfinished or contradictory file, unknown patch size or µm per pixel, patches outside the slide,
        rows that are not finite.
    """
    path, out = Path(path), Path(out)
    kind = _detect(path) if source == "auto" else source
    read = {"clam": read_clam, "trident": read_trident}[kind]
    foreign = read(path, Path(patches) if patches is not None else None, encoder)
    grid = _grid(foreign, slide, mpp, patch_px_level0)
    if slide is not None:
        _check_against(foreign, grid, slide)
    target = out if out.suffix == ".h5" else out / f"{foreign.slide_id}.h5"
    header = _header(foreign, grid, slide)
    dtype = str(foreign.features.dtype)
    try:
        with FeatureWriter(target, header, grid, foreign.features.shape[1], dtype=dtype, resume=False) as writer:
            writer.append(foreign.features)
            return writer.finish()
    except FeatureError:
        part_path(target).unlink(missing_ok=True)  # an import is quick: nothing to go on with
        raise


def _detect(path: Path) -> Literal["clam", "trident"]:
    if path.suffix == ".pt" or path.parent.name in FOLDERS:
        return "clam"
    if path.parent.name.startswith(PREFIX):
        return "trident"
    with open_h5(path) as file:
        if "format_version" in file.attrs:
            raise FeatureError(f"{path} is a feature file of napari-mil already; it needs no import.")
        if "coords" in file and number(file["coords"].attrs, "patch_size_level0") is not None:
            return "trident"
    raise FeatureError(
        f"{path} could be of CLAM or of TRIDENT. Say which (source), or give the path inside the tool's own folders."
    )


def _grid(
    foreign: ForeignFeatures, slide: SlideLike | None, mpp: float | Sequence[float] | None, patch_px: int | None
) -> PatchGrid:
    geometry, name = foreign.geometry, foreign.path.name
    if len(geometry.coords) == 0:
        raise FeatureError(f"{foreign.path} has no patches. Compute this slide's features again.")
    patch = (patch_px, patch_px) if patch_px is not None else geometry.patch_px_level0
    if patch is None:
        raise FeatureError(
            f"{name}: the patch size is unknown, so no map could be placed. Give the file with the patches, or "
            "the side of a patch in level-0 pixels."
        )
    if geometry.patch_px_level0 is not None and patch != geometry.patch_px_level0:
        raise FeatureError(
            f"{name}: a patch of {patch[0]} level-0 px was given, its file says {geometry.patch_px_level0[0]}. "
            "Leave it out, or give another patches file."
        )
    known: float | Sequence[float] | None = slide.mpp if slide is not None else None
    if known is None or (slide is not None and slide.mpp_source != "file" and mpp is not None):
        known = mpp  # a person's word, where no file has one
    if known is None:
        raise FeatureError(f"{name}: µm per pixel is unknown in {foreign.source} files. Open the slide, or give it.")
    stride = geometry.stride_px_level0
    if stride is None:
        stride = stride_of(geometry.coords, patch)
    try:
        return PatchGrid(geometry.coords, patch, stride, known)
    except ValueError as error:
        raise FeatureError(f"{foreign.path}: {error}") from error


def _check_against(foreign: ForeignFeatures, grid: PatchGrid, slide: SlideLike) -> None:
    size, geometry = np.asarray(slide.dimensions), foreign.geometry
    if geometry.level0_size is not None:
        off = np.abs(np.asarray(geometry.level0_size) - size).max()
        if off > geometry.size_tolerance:
            raise FeatureError(
                f"{foreign.path.name} was made from a slide of {geometry.level0_size[0]} x {geometry.level0_size[1]} "
                f"px, {slide.path.name} has {size[0]} x {size[1]}. Choose the slide it belongs to."
            )
    outside = ((grid.coords < 0) | (grid.coords >= size)).any(axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise FeatureError(
            f"{foreign.path.name}: {int(outside.sum())} of {len(grid)} patches lie outside {slide.path.name} "
            f"({size[0]} x {size[1]} px), first at {tuple(int(v) for v in grid.coords[first])}. Choose the slide it "
            "belongs to, and coordinates in level-0 pixels."
        )


def _header(foreign: ForeignFeatures, grid: PatchGrid, slide: SlideLike | None) -> FeatureHeader:
    geometry = foreign.geometry
    patch_px = geometry.patch_px or grid.patch_px_level0[0]
    um = float(np.sqrt(grid.patch_um[0] * grid.patch_um[1]))
    from_slide = slide is not None and slide.mpp is not None and np.allclose(slide.mpp, grid.mpp)
    return FeatureHeader(
        encoder=foreign.encoder,
        slide_fingerprint=slide.fingerprint if slide is not None else "",
        patch_px=patch_px,
        target_mpp=round(um / patch_px, 4),
        level0_size=slide.dimensions if slide is not None else (geometry.level0_size or (0, 0)),
        encoder_revision="",
        weights_sha256="unknown",
        transform="unknown",
        precision=UNKNOWN_PRECISION,
        mpp_source=(slide.mpp_source or "user") if from_slide and slide is not None else "user",
        level0_magnification=slide.objective_power if slide is not None else geometry.magnification,
        extra={"imported_from": foreign.source, "imported_file": foreign.path.name},
    )
