"""Writing the feature file of one slide and encoder: in order, resumable, renamed when complete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import FeatureError
from napari_mil.geometry import PatchGrid

from .layout import BLOCK_ROWS, FeatureHeader, part_path, same_resampling, same_rows, sentences, slide_id_of, software


class FeatureWriter:
    """Writes rows in order into ``<path>.part`` and renames it when all are there.

    Use it as a context manager: leaving it, in whatever way, writes what has been given so far and closes the file,
    which stays a ``.part`` that the next writer with the same header and grid goes on with.

    Parameters
    ----------
    path : Path
        The finished file, ``<slide_id>.h5``.
    header, grid, dim
        What will stand in it; ``dim`` is the length D of a row.
    dtype : "float16" or "float32"
    resume : bool
        Go on with a ``.part`` of the very same header, grid and type; anything else there is replaced.

    Raises
    ------
    FeatureError
        The folder cannot be written, another process writes the same file, rows have the wrong length or hold numbers
        that are not finite.
    """

    def __init__(
        self,
        path: Path,
        header: FeatureHeader,
        grid: PatchGrid,
        dim: int,
        *,
        dtype: str = "float16",
        resume: bool = True,
    ) -> None:
        if len(grid) == 0:
            raise FeatureError(f"{path.name} would hold no patch. Loosen the tissue settings or the ignored regions.")
        self.path, self.grid, self.dim = Path(path), grid, dim
        self._dtype = np.dtype(dtype)
        self._header = header
        self._buffer: list[npt.NDArray[Any]] = []
        self._buffered = 0
        with sentences(self.path, "written"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: Any = (self._reopen() if resume else None) or self._create()
        self.rows_done = int(self._file.attrs["rows_done"])

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self) -> Any:
        import h5py

        part = part_path(self.path)
        with sentences(part, "written"):
            file = h5py.File(part, "w", locking="best-effort")
            chunk = (min(len(self.grid), BLOCK_ROWS), self.dim)
            file.create_dataset("features", (len(self.grid), self.dim), self._dtype, chunks=chunk)
            coords = file.create_dataset("coords", data=self.grid.coords)
            coords.attrs.update(self._header.coords_attrs(self.grid))
            file.attrs.update(self._header.file_attrs(self.grid))
            file.attrs.update({"rows_done": 0, "done": False})
            file.flush()
        return file

    def _reopen(self) -> Any:
        """The open ``.part`` when its rows can be kept, else None."""
        import h5py

        part = part_path(self.path)
        if not part.is_file():
            return None
        try:
            file = h5py.File(part, "r+", locking="best-effort")
        except BlockingIOError as error:
            raise FeatureError(f"{part} is being written by another process. Wait for it or stop it.") from error
        except OSError:  # killed while writing: nothing in it can be trusted
            return None
        if same_rows(file, self._header, self.grid, self.dim, self._dtype) and same_resampling(file, self._header):
            return file
        file.close()
        return None

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Add the next (n, D) rows; they are written once a block of 1024 is full, or at the end."""
        rows = np.asarray(rows)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise FeatureError(f"{self.path.name}: rows have shape {rows.shape}; expected (n, {self.dim}).")
        first = self.rows_done + self._buffered
        if first + len(rows) > len(self.grid):
            raise FeatureError(f"{self.path.name}: more rows than its {len(self.grid)} patches.")
        with np.errstate(over="ignore"):
            stored = rows.astype(self._dtype)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if len(bad):
            where = tuple(int(v) for v in self.grid.coords[first + bad[0]])
            reason = "too large for float16" if np.isfinite(rows[bad[0]]).all() else "not finite"
            raise FeatureError(
                f"{slide_id_of(self.path)}: the features of patch {first + bad[0]} at {where} are {reason}. "
                "Check the encoder's weights, or store float32."
            )
        self._buffer.append(stored)
        self._buffered += len(stored)
        if self._buffered >= BLOCK_ROWS:
            self._write((self.rows_done + self._buffered) // BLOCK_ROWS * BLOCK_ROWS - self.rows_done)

    def _write(self, count: int) -> None:
        """Write the first `count` buffered rows; whole chunks while more rows are to come."""
        if count <= 0:
            return
        rows = np.concatenate(self._buffer)
        with sentences(part_path(self.path), "written"):
            self._file["features"][self.rows_done : self.rows_done + count] = rows[:count]
            self._file.flush()  # the rows first, then the promise that they are there
            self.rows_done += count
            self._file.attrs["rows_done"] = self.rows_done
            self._file.flush()
        self._buffer = [rows[count:]] if count < len(rows) else []
        self._buffered -= count

    def close(self) -> None:
        """Write what was given and close; the file stays a ``.part``. Safe to call twice."""
        if self._file is None:
            return
        try:
            self._write(self._buffered)
        finally:
            self._file.close()
            self._file = None

    def finish(self) -> Path:
        """Close the complete file and give it its name.

        Raises
        ------
        FeatureError
            When rows are missing, or a file of that name is open elsewhere (Windows).
        """
        self._write(self._buffered)
        if self.rows_done != len(self.grid):
            raise FeatureError(f"{self.path.name} has {self.rows_done} rows; expected {len(self.grid)}.")
        with sentences(part_path(self.path), "written"):
            self._file.attrs["done"] = True
            self._file.attrs["software"] = json.dumps(software(), sort_keys=True)
        self.close()
        try:
            os.replace(part_path(self.path), self.path)
        except OSError as error:
            raise FeatureError(
                f"{self.path} cannot be replaced ({error.strerror or error}). Close the program that has it open; "
                "the new rows are kept beside it."
            ) from error
        return self.path
