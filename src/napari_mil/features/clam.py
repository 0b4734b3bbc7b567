"""Features of CLAM (Lu et al. 2021): ``h5_files`` or ``pt_files``, and the patch size from ``patches``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError

from ._foreign import (
    ForeignFeatures,
    Geometry,
    attribute,
    coords_in,
    matrix_in,
    number,
    open_h5,
    pair,
    stride_of,
    tensor_in,
)

FOLDERS = ("h5_files", "pt_files")


def patches_file(path: Path, patches: Path | None = None) -> Path | None:
    """``patches/<s>.h5`` that belongs to a feature file: given (file or folder), or beside or above its folder."""
    name = f"{path.stem}.h5"
    if patches is not None:
        return patches / name if patches.is_dir() else patches
    around = [path.parent.parent / "patches" / name, path.parent.parent.parent / "patches" / name]
    return next((candidate for candidate in around if candidate.is_file()), None)


def read_clam(path: Path, patches: Path | None = None, encoder: str | None = None) -> ForeignFeatures:
    """Read one slide.

    Parameters
    ----------
    path : Path
        ``h5_files/<s>.h5`` or ``pt_files/<s>.pt``.
    patches : Path, optional
        ``patches/<s>.h5`` or its folder, when it is not where CLAM puts it.
    encoder : str, optional
        CLAM does not record it; unnamed, it is called after the length of its rows.
    """
    where = patches_file(path, patches)
    if path.suffix == ".pt":
        features, coords = tensor_in(path), None
        twin = path.parent.parent / "h5_files" / f"{path.stem}.h5"
        if twin.is_file():
            with open_h5(twin) as file:
                coords = coords_in(twin, file)
    else:
        with open_h5(path) as file:
            features, coords = matrix_in(path, file), coords_in(path, file)
    geometry = _geometry(path, where, coords)
    if len(geometry.coords) != len(features):
        raise FeatureError(
            f"{path} has {len(features)} rows, but {len(geometry.coords)} coordinates are known"
            f"{f' from {where}' if where else ''}. Give the patches file these features were made from."
        )
    return ForeignFeatures("CLAM", path, path.stem, features, geometry, encoder or f"clam-{features.shape[1]}")


def _geometry(path: Path, where: Path | None, coords: npt.NDArray[np.int64] | None) -> Geometry:
    """Coordinates (the features' own first) with the patch size of the patches file, as far as it is known."""
    if where is None:
        if coords is None:
            raise FeatureError(
                f"{path.name} has no coordinates, and no patches/{path.stem}.h5 lies near. Give that file as patches."
            )
        return Geometry(coords)
    with open_h5(where) as file:
        planned, attrs = coords_in(where, file), dict(file["coords"].attrs)
    if coords is not None and not _inside(coords, planned):
        raise FeatureError(
            f"{path} has patches that are not in {where}: the two belong to different runs. Give the patches file "
            "these features were made from."
        )
    size, factor = number(attrs, "patch_size"), pair(attrs, "downsample")
    if factor is None and attribute(attrs, "patch_level") == 0:
        factor = (1.0, 1.0)
    found = coords if coords is not None else planned
    level = attrs.get("level_dim")
    if size is None or factor is None:
        return Geometry(found)
    patch = (round(size * factor[0]), round(size * factor[1]))
    level0 = None
    if level is not None and np.shape(level) == (2,):
        level0 = (round(float(level[0]) * factor[0]), round(float(level[1]) * factor[1]))
    return Geometry(found, patch, stride_of(found, patch), round(size), level0, 2 * max(factor))


def _inside(coords: npt.NDArray[np.int64], planned: npt.NDArray[np.int64]) -> bool:
    """Whether every patch with features was planned (CLAM may leave some out)."""
    known = {tuple(row) for row in planned.tolist()}
    return all(tuple(row) in known for row in coords.tolist())
