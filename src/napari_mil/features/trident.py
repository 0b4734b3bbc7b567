"""Features of TRIDENT: ``features_<encoder>/<s>.h5`` with the geometry in the attributes of the coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_mil.errors import FeatureError

from ._foreign import ForeignFeatures, Geometry, attribute, coords_in, matrix_in, number, open_h5, stride_of

PREFIX = "features_"


def lock_of(path: Path) -> Path | None:
    """The lock that says a file is unfinished, if there is one."""
    beside = (path.with_name(path.name + ".lock"), path.with_suffix(".lock"))
    return next((lock for lock in beside if lock.exists()), None)


def read_trident(path: Path, patches: Path | None = None, encoder: str | None = None) -> ForeignFeatures:
    """Read one slide.

    Parameters
    ----------
    path : Path
        ``features_<encoder>/<s>.h5``.
    patches : Path, optional
        ``patches/<s>_patches.h5`` or its folder, for files whose coordinates carry no geometry.
    encoder : str, optional
        Instead of the name in the file or its folder.
    """
    lock = lock_of(path)
    if lock is not None:
        raise FeatureError(
            f"{path.name} is unfinished: {lock.name} lies beside it. Let TRIDENT finish, or delete the lock when "
            "nothing writes the file any more."
        )
    with open_h5(path) as file:
        features, coords = matrix_in(path, file), coords_in(path, file)
        attrs = dict(file["coords"].attrs)
        named = attribute(file["features"].attrs, "encoder") if "features" in file else None
    if number(attrs, "patch_size_level0") is None:
        where = _patches_file(path, patches)
        if where is not None:
            with open_h5(where) as file:
                planned = coords_in(where, file)
                if len(planned) != len(coords) or (planned != coords).any():
                    raise FeatureError(f"{path} and {where} have different patches. Give the file it was made from.")
                attrs = dict(file["coords"].attrs)
    if len(coords) != len(features):
        raise FeatureError(f"{path} has {len(features)} rows but {len(coords)} coordinates. Compute it again.")
    folder = path.parent.name
    name = encoder or named or (folder.removeprefix(PREFIX) if folder.startswith(PREFIX) else None)
    geometry = _geometry(coords, attrs)
    return ForeignFeatures("TRIDENT", path, path.stem, features, geometry, str(name or f"trident-{features.shape[1]}"))


def _geometry(coords: Any, attrs: dict[str, Any]) -> Geometry:
    patch, size = number(attrs, "patch_size_level0"), number(attrs, "patch_size")
    width, height = number(attrs, "level0_width"), number(attrs, "level0_height")
    level0 = (round(width), round(height)) if width and height else None
    power = number(attrs, "level0_magnification")
    if patch is None:
        return Geometry(coords, level0_size=level0, magnification=power)
    whole = (round(patch), round(patch))
    overlap = attribute(attrs, "overlap")
    if size is None or overlap is None:
        stride = stride_of(coords, whole)
    else:
        step = max(round((size - float(overlap)) * patch / size), 1)
        stride = (step, step)
    return Geometry(coords, whole, stride, round(size) if size else None, level0, 0.0, power)


def _patches_file(path: Path, patches: Path | None) -> Path | None:
    name = f"{path.stem}_patches.h5"
    if patches is not None:
        return patches / name if patches.is_dir() else patches
    candidate = path.parent.parent / "patches" / name
    return candidate if candidate.is_file() else None
