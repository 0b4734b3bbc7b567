"""Reading a feature file back, with every doubt said in a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError
from napari_mil.geometry import PatchGrid

from .layout import FORMAT_VERSION, FeatureHeader, color_of, part_path, plain, same_rows, sentences, slide_id_of


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one slide.

    Attributes
    ----------
    features : (N, D) array or StoredMatrix
        float32, or as stored when read with ``dtype=None``; of `open_features` still in the file.
    grid : PatchGrid
        Row i belongs to patch i.
    attrs, coords_attrs : dict
        The attributes of the file and of its coordinates, as stored.
    """

    path: Path
    slide_id: str
    features: Any
    grid: PatchGrid
    attrs: dict[str, Any]
    coords_attrs: dict[str, Any]

    def __len__(self) -> int:
        return len(self.grid)

    @property
    def dim(self) -> int:
        return int(self.features.shape[1])

    @property
    def encoder(self) -> str:
        return str(self.attrs["encoder"])

    @property
    def weights_sha256(self) -> str:
        return str(self.attrs.get("weights_sha256", ""))

    @property
    def target_mpp(self) -> float:
        return float(self.attrs["target_mpp"])

    @property
    def patch_px(self) -> int:
        return int(self.coords_attrs["patch_size"])

    @property
    def fingerprint(self) -> str:
        """The slide's fingerprint; empty when the features came from a tool that keeps none."""
        return str(self.attrs.get("slide_fingerprint", ""))

    @property
    def tissue(self) -> dict[str, Any]:
        return dict(json.loads(self.attrs.get("tissue") or "{}"))

    @property
    def provenance(self) -> dict[str, Any]:
        """What a run or bundle must know to refuse features of another kind."""
        return {
            "encoder": self.encoder,
            "encoder_revision": str(self.attrs.get("encoder_revision", "")),
            "weights_sha256": self.weights_sha256,
            "transform": str(self.attrs.get("transform", "")),
            "precision": str(self.attrs.get("precision", "")),
            "color": color_of(self.attrs),
            "target_mpp": self.target_mpp,
            "patch_px": self.patch_px,
            "dim": self.dim,
        }


def is_complete(path: Path, header: FeatureHeader, grid: PatchGrid, dim: int, dtype: str) -> bool:
    """Whether a finished file with exactly these parameters, its numbers no coarser than `dtype`, is already there."""
    import h5py

    if not path.is_file():
        return False
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            if not (file.attrs.get("done", False) and same_rows(file, header, grid, dim, None)):
                return False
            return bool(file["features"].dtype.itemsize >= np.dtype(dtype).itemsize)
    except OSError:
        return False


class StoredMatrix:
    """The (N, D) matrix of a feature file, which stays there: NumPy reads it each time it is asked for.

    Parameters
    ----------
    path : Path
    shape : (N, D)
    dtype : numpy.dtype
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All rows, not checked.

        Raises
        ------
        FeatureError
            The file is gone, damaged, or another one by now.
        """
        with self._open() as stored:
            matrix = np.empty(self.shape, dtype=self.dtype if dtype is None else dtype)
            stored.read_direct(matrix)
        return matrix

    def __getitem__(self, index: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows by their ascending numbers, each once."""
        if len(index) > len(self) // 8:  # HDF5 takes rows one by one
            return np.asarray(self)[index]
        with self._open() as stored:
            rows: npt.NDArray[Any] = stored[index]
        return rows

    def __len__(self) -> int:
        return self.shape[0]

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import h5py

        with sentences(self.path, "read"), h5py.File(self.path, "r", locking="best-effort") as file:
            stored = file["features"]
            if stored.shape != self.shape:
                raise FeatureError(
                    f"{self.path} holds features of shape {stored.shape} now, {self.shape} when it was opened: it was "
                    "made again meanwhile. Start anew with the new features."
                )
            yield stored


def read_features(path: Path | str, *, dtype: str | None = "float32") -> Features:
    """Read a finished feature file.

    Parameters
    ----------
    path : Path
        ``<slide_id>.h5`` as written by `extract` or `import_features`.
    dtype : str or None
        Type of the returned matrix; None keeps the stored one (float16: half the memory).

    Raises
    ------
    FeatureError
        The file is missing, truncated, unfinished, of another tool, or has rows that are not finite.
    """
    found = open_features(path)
    matrix = np.asarray(found.features, dtype=dtype)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        raise FeatureError(
            f"{found.path}: {len(bad)} of {len(matrix)} rows hold NaN or infinite numbers, first row {bad[0]}, patch "
            f"at {tuple(int(v) for v in found.grid.coords[bad[0]])}. Delete the file and extract the features anew."
        )
    return replace(found, features=matrix)


def open_features(path: Path | str) -> Features:
    """Everything about a finished feature file; its matrix (`StoredMatrix`) is read, unchecked, when it is needed.

    Raises
    ------
    FeatureError
        As `read_features`, save for rows that are not finite.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        more = " An unfinished one lies beside it: go on with the extraction." if part_path(path).is_file() else ""
        raise FeatureError(f"There is no feature file {path}.{more or ' Extract the features of this slide first.'}")
    with sentences(path, "read"), h5py.File(path, "r", locking="best-effort") as file:
        _check_layout(path, file)
        stored = file["features"]
        matrix = StoredMatrix(path, stored.shape, stored.dtype)
        attrs = {key: plain(value) for key, value in file.attrs.items()}
        coords_attrs = {key: plain(value) for key, value in file["coords"].attrs.items()}
        try:
            grid = PatchGrid(
                file["coords"][:],
                coords_attrs["patch_size_level0_xy"],
                coords_attrs["stride_level0_xy"],
                (attrs["mpp_x"], attrs["mpp_y"]),
            )
        except (KeyError, ValueError) as error:
            raise FeatureError(
                f"{path}: the patch geometry is damaged ({error}). Extract the features anew."
            ) from error
    return Features(path, slide_id_of(path), matrix, grid, attrs, coords_attrs)


def _check_layout(path: Path, file: Any) -> None:
    if "features" not in file or "coords" not in file:
        raise FeatureError(
            f"{path} holds {sorted(file)}; expected features and coords. Import it with import-features."
        )
    if "format_version" not in file.attrs:
        raise FeatureError(f"{path} was written by another tool. Import it first (import-features).")
    version = int(file.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise FeatureError(
            f"{path} has format {version}; this napari-mil reads up to {FORMAT_VERSION}. Update napari-mil."
        )
    shape, coords = file["features"].shape, file["coords"].shape
    if len(shape) != 2 or coords != (shape[0], 2):
        raise FeatureError(f"{path}: features have shape {shape}, coords {coords}; expected (N, D) and (N, 2).")
    if not file.attrs.get("done", False):
        rows = int(file.attrs.get("rows_done", 0))
        raise FeatureError(
            f"{path} is unfinished ({rows} of {shape[0]} rows). Extract the features of this slide again."
        )
