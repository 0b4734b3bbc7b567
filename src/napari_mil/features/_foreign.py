"""What the importers share: other tools' arrays and attributes, read without trust."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError

from .layout import plain

_MATRIX_NAMES = ("features", "feats", "patch_embeddings")


@dataclass(frozen=True)
class Geometry:
    """Where another tool's patches lie, as far as it says.

    Parameters
    ----------
    coords : (N, 2) array
        Top-left (x, y) in level-0 pixels, as found.
    patch_px_level0, stride_px_level0 : (x, y) or None
    patch_px : int or None
        Side of a patch in pixels at the scale it was read at.
    level0_size : (width, height) or None
        As far as the file knows it, exact to `size_tolerance` pixels.
    """

    coords: npt.NDArray[Any]
    patch_px_level0: tuple[int, int] | None = None
    stride_px_level0: tuple[int, int] | None = None
    patch_px: int | None = None
    level0_size: tuple[int, int] | None = None
    size_tolerance: float = 0.0
    magnification: float | None = None


@dataclass(frozen=True)
class ForeignFeatures:
    """Features of another tool, before anything is believed."""

    source: str
    path: Path
    slide_id: str
    features: npt.NDArray[Any]
    geometry: Geometry
    encoder: str


@contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading; damage becomes a sentence."""
    import h5py

    if not path.is_file():
        raise FeatureError(f"There is no file {path}. Check the path.")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except BlockingIOError as error:
        raise FeatureError(f"{path} is being written by another program. Wait until that has finished.") from error
    except (OSError, RuntimeError) as error:
        raise FeatureError(
            f"{path} cannot be read ({error}): it is cut off, or no HDF5 file. Copy it again, or compute it again."
        ) from error


def matrix_in(path: Path, file: Any) -> npt.NDArray[Any]:
    """The (N, D) matrix of a file, under any of the usual names."""
    import h5py

    for name in _MATRIX_NAMES:
        found = file.get(name)
        if isinstance(found, h5py.Group):
            inside = [key for key in found if isinstance(found[key], h5py.Dataset)]
            if len(inside) != 1:
                raise FeatureError(f"{path} holds several feature sets {inside}; expected one. Split the file.")
            found = found[inside[0]]
        if found is not None:
            return as_matrix(path, found[...])
    raise FeatureError(f"{path} holds {sorted(file)}; expected the features under {', '.join(_MATRIX_NAMES)}.")


def as_matrix(path: Path, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, D) float16 or float32, a leading axis of one removed."""
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind != "f":
        raise FeatureError(f"{path}: features have shape {array.shape}, {array.dtype}; expected (N, D) numbers.")
    return array if array.dtype == np.float16 else array.astype(np.float32, copy=False)


def tensor_in(path: Path) -> npt.NDArray[Any]:
    """The (N, D) matrix of a ``.pt`` file, read as tensors only: nothing in it can run."""
    import torch

    if not path.is_file():
        raise FeatureError(f"There is no file {path}. Check the path.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FeatureError(
            f"{path} is not a plain tensor ({reason}). Save it again with torch.save(tensor)."
        ) from error
    if isinstance(found, dict):
        found = next((found[name] for name in _MATRIX_NAMES if name in found), None)
    if not isinstance(found, torch.Tensor):
        raise FeatureError(f"{path} holds no tensor of features. Save it again with torch.save(tensor).")
    if found.dtype not in (torch.float16, torch.float32):
        found = found.float()
    return as_matrix(path, found.detach().numpy())


def coords_in(path: Path, file: Any) -> npt.NDArray[Any]:
    """The (N, 2) coordinates as found."""
    if "coords" not in file:
        raise FeatureError(f"{path} holds {sorted(file)}; expected coords. Give the file with the patches.")
    coords = np.asarray(file["coords"][...])
    if coords.ndim == 3 and coords.shape[0] == 1:
        coords = coords[0]
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise FeatureError(f"{path}: coords have shape {coords.shape}; expected (N, 2).")
    return coords


def attribute(attrs: Any, key: str) -> Any:
    """An attribute as a plain value; None when absent, empty, NaN or the string 'None'."""
    if key not in attrs:
        return None
    value = plain(attrs[key])
    if isinstance(value, str) and value.strip().lower() in ("", "none", "nan", "unknown"):
        return None
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def number(attrs: Any, key: str) -> float | None:
    """A positive number, also when it was stored as text such as '20x'; else None."""
    value = attribute(attrs, key)
    if isinstance(value, str):
        value = value.strip().lower().removesuffix("x")
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) and found > 0 else None


def pair(attrs: Any, key: str) -> tuple[float, float] | None:
    """One number or two, as (x, y)."""
    value = attribute(attrs, key)
    try:
        array = np.broadcast_to(np.asarray(value, dtype=float), (2,))
    except (TypeError, ValueError):
        return None
    return (float(array[0]), float(array[1])) if np.isfinite(array).all() and (array > 0).all() else None


def stride_of(coords: npt.NDArray[Any], patch: tuple[int, int]) -> tuple[int, int]:
    """The step between patches, for tools that do not say: the commonest one inside rows and columns."""
    steps = [_commonest_step(coords, axis, patch[axis]) for axis in (0, 1)]
    return steps[0], steps[1]


def _commonest_step(coords: npt.NDArray[Any], axis: int, patch: int) -> int:
    order = np.lexsort((coords[:, axis], coords[:, 1 - axis]))
    along, across = coords[order, axis], coords[order, 1 - axis]
    steps = np.diff(along)[np.diff(across) == 0]
    steps = steps[(steps > 0) & (steps <= 2 * patch)]
    if len(steps) == 0:
        return patch
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])
