"""The layout of a feature file: what stands in it, and which of it must agree before rows are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_mil.errors import FeatureError
from napari_mil.geometry import PatchGrid

FORMAT_VERSION = 1
BLOCK_ROWS = 1024  # rows of a chunk: one-row chunks read nine times slower
RESAMPLED = "area"  # how pixels were brought to size where a file does not say it
UNKNOWN_PRECISION = "unknown"  # of features that another tool made
_UNKNOWN = "None"  # TRIDENT's way to say so, which its readers expect

# what must agree before old rows may be kept
_IDENTITY = (
    "format_version",
    "slide_fingerprint",
    "encoder",
    "encoder_revision",
    "weights_sha256",
    "transform",
    "precision",
    "target_mpp",
    "tissue",
)


@dataclass(frozen=True)
class FeatureHeader:
    """All that a feature file says besides its rows and its grid.

    Parameters
    ----------
    patch_px : int
        Side of a patch in pixels as the encoder saw it (at `target_mpp`).
    level0_size : (width, height)
        The slide's size in level-0 pixels; (0, 0) when unknown.
    level0_magnification : float or None
        A label for people, such as 40.
    tissue : mapping, optional
        JSON-able settings of tissue and tiling.
    color : str
        How the slide's colours were converted before the encoder saw them; empty: as they are stored.
    resampling : str
        The filters that brought the pixels to size; they differ between slides whose files have other levels.
    extra : mapping
        Further file attributes (strings and numbers).
    """

    encoder: str
    slide_fingerprint: str
    patch_px: int
    target_mpp: float
    level0_size: tuple[int, int]
    encoder_revision: str = ""
    weights_sha256: str = ""
    transform: str = ""
    precision: str = ""
    mpp_source: str = "file"
    read_level: int = 0
    level0_magnification: float | None = None
    tissue: Mapping[str, Any] | None = None
    color: str = ""
    resampling: str = RESAMPLED
    extra: Mapping[str, str | int | float] = field(default_factory=dict)

    def file_attrs(self, grid: PatchGrid) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "slide_fingerprint": self.slide_fingerprint,
            "mpp_x": grid.mpp[0],
            "mpp_y": grid.mpp[1],
            "mpp_source": self.mpp_source,
            "target_mpp": float(self.target_mpp),
            "read_level": int(self.read_level),
            "encoder": self.encoder,
            "encoder_revision": self.encoder_revision,
            "weights_sha256": self.weights_sha256,
            "transform": self.transform,
            "precision": self.precision,
            "tissue": json.dumps(dict(self.tissue) if self.tissue else {}, sort_keys=True),
            "software": json.dumps(software(), sort_keys=True),
            "resampling": self.resampling,
            **({"color": self.color} if self.color else {}),
            **self.extra,
        }

    def coords_attrs(self, grid: PatchGrid) -> dict[str, Any]:
        per_px = self.patch_px / grid.patch_px_level0[0]
        power = self.level0_magnification
        return {
            "patch_size": int(self.patch_px),
            "patch_size_level0": grid.patch_px_level0[0],
            "patch_size_level0_xy": grid.patch_px_level0,
            "stride_level0_xy": grid.stride_px_level0,
            "level0_magnification": _UNKNOWN if power is None else power,
            "target_magnification": round(10 / self.target_mpp, 3),
            "overlap": round((grid.patch_px_level0[0] - grid.stride_px_level0[0]) * per_px),
            "level0_width": int(self.level0_size[0]),
            "level0_height": int(self.level0_size[1]),
        }


def color_of(attrs: Mapping[str, Any]) -> str:
    """ "srgb" or "as stored", from the attributes of a feature file."""
    return "srgb" if attrs.get("color") else "as stored"


def slide_id_of(path: Path) -> str:
    """``folder/<slide_id>.h5[.part]`` → slide_id."""
    return path.name.removesuffix(".part").removesuffix(".h5")


def part_path(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def software() -> dict[str, str]:
    import sys
    from importlib import metadata

    try:
        ours = metadata.version("napari-mil")
    except metadata.PackageNotFoundError:  # run from a bare checkout
        ours = "unknown"
    found = {"napari-mil": ours, "numpy": np.__version__, "python": sys.version.split()[0]}
    for name in ("torch", "torchvision", "h5py"):
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", ""))
    return found


def same_rows(file: Any, header: FeatureHeader, grid: PatchGrid, dim: int, dtype: np.dtype[Any] | None) -> bool:
    """Whether an open file was made with these parameters: only then may its rows be kept.

    Which filters resampled the pixels may differ, since it hangs on the version, too: see `same_resampling`.
    """
    try:
        wanted, geometry = header.file_attrs(grid), header.coords_attrs(grid)
        features, coords = file["features"], file["coords"]
        if features.shape != (len(grid), dim) or (dtype is not None and features.dtype != dtype):
            return False
        if any(file.attrs[key] != wanted[key] for key in (*_IDENTITY, "mpp_x", "mpp_y")):
            return False
        if file.attrs.get("color", "") != header.color:
            return False
        same = ("patch_size", "patch_size_level0_xy", "stride_level0_xy")
        if not all(np.array_equal(coords.attrs[key], geometry[key]) for key in same):
            return False
        return 0 <= int(file.attrs["rows_done"]) <= len(grid) and np.array_equal(coords[:], grid.coords)
    except (KeyError, OSError, ValueError):
        return False


def same_resampling(file: Any, header: FeatureHeader) -> bool:
    """Whether the pixels of an open file went through the filters of a header, as all pixels of one file have to."""
    return bool(file.attrs.get("resampling", RESAMPLED) == header.resampling)


def kept_precision(folder: Path) -> str | None:
    """The precision that the features of a folder were computed in, so that further ones are, too; None: no features.

    Unfinished files count, imported ones, which do not know theirs, don't.
    """
    import h5py

    for path in sorted((*folder.glob("*.h5"), *folder.glob("*.h5.part"))):
        try:
            with h5py.File(path, "r", locking="best-effort") as file:
                found = str(plain(file.attrs.get("precision", "")))
        except OSError:  # being written, or damaged: another one will say it
            continue
        if found not in ("", UNKNOWN_PRECISION):
            return found
    return None


def plain(value: Any) -> Any:
    """An HDF5 attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def sentences(path: Path, verb: str) -> Iterator[None]:
    """HDF5's and the system's errors as sentences."""
    try:
        yield
    except FeatureError:
        raise
    except BlockingIOError as error:
        raise FeatureError(f"{path} is in use by another process. Wait for it or stop it.") from error
    except (OSError, RuntimeError, KeyError) as error:
        advice = (
            "Check the disk space and the rights of the folder."
            if verb == "written"
            else ("The file is damaged or cut off: delete it and extract or import the features anew.")
        )
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error  # HDF5 is wordy
        raise FeatureError(f"{path} cannot be {verb} ({reason}). {advice}") from error
