"""OME-Zarr 0.4 and 0.5 (zarr v2 and v3 stores), through the extra `zarr`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mil.errors import SlideClosed, SlideError

from .kinds import refuse_other_kinds
from .source import BLOCK_PX, BlocksOfRegions, Pixels, Size, mean_downsamples, plausible_mpp

ZARR_SUFFIX = ".zarr"
_METADATA = ("zarr.json", ".zattrs", ".zgroup")
_IMAGE_KEYS = ("multiscales", "bioformats2raw.layout", "plate")
_ARRAY_METADATA = (".zarray", "zarr.json")
_CHUNK_LIMIT = 64 * 1024**2  # bytes of one decoded chunk
_LEAST_BLOCK, _MOST_BLOCK = 256, 1024  # px; smaller chunks are read several at a time, larger ones in parts
_HASHED_BYTES = 64 * 1024
_RGB = ["ff0000", "00ff00", "0000ff"]
_AXES = "tczyx"  # of all images before version 0.3
# length units of UDUNITS-2, in µm; a scale without a unit says nothing
_UM = {
    "angstrom": 1e-4, "picometer": 1e-6, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4,
    "decimeter": 1e5, "meter": 1e6, "inch": 25_400.0,
    "å": 1e-4, "pm": 1e-6, "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6,
}  # fmt: skip


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr store of any kind, by its name or by the metadata in it."""
    return os.path.isdir(path) and (path.suffix.lower() == ZARR_SUFFIX or metadata_file(path) is not None)


def metadata_file(path: Path) -> Path | None:
    """The file that says what a zarr store holds; None where there is none, or the folder may not be read."""
    return next((path / name for name in _METADATA if os.path.isfile(path / name)), None)


def is_ome_zarr(path: Path) -> bool:
    """Whether a zarr store says that it holds images; others (tables, SpatialData) are no slides."""
    for name in ("zarr.json", ".zattrs"):
        try:
            content = (path / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if any(f'"{key}"' in content for key in _IMAGE_KEYS):
            return True
    return False


def open_zarr(path: Path) -> ZarrSource:
    """Open the image of an OME-Zarr; of a collection of images the largest.

    Raises
    ------
    SlideError
        When zarr is not installed, the folder is no OME-Zarr, holds a plate, or an image that is no 8-bit slide.
    """
    try:
        import zarr
    except ImportError as error:
        raise SlideError(
            f"{path.name} is an OME-Zarr, and the library that reads it is not installed; install it with "
            f"`pip install napari-mil[zarr]` and open the slide again."
        ) from error
    try:
        group: Any = zarr.open_group(path, mode="r")
        facts = _facts(group)
        note = None
        if "plate" in facts:
            raise SlideError(
                f"{path.name} is a plate of many images; expected one slide: open one of the images in it."
            )
        if "multiscales" not in facts:
            group, facts, note = _largest(path, group)
        return ZarrSource(path, group, facts, note)
    except SlideError:
        raise
    except Exception as error:  # whatever zarr's parsing met: KeyError, TypeError, its own errors
        raise SlideError(
            f"{path.name} cannot be understood as an OME-Zarr image ({error}); expected a folder that was written as "
            f"OME-Zarr 0.4 or 0.5: copy it anew, or convert the slide again."
        ) from error


def folder_hash(folder: Path) -> bytes:
    """Digest of the arrays in a zarr folder, their metadata and some of their chunks: the same wherever it lies.

    What others add to the folder (labels, display settings) does not count.
    """
    digest = hashlib.sha256()
    for name in _ARRAY_METADATA:
        file = folder / name
        content = file.read_bytes() if file.is_file() else b""
        if (name == ".zarray" and content) or _is_array(content):
            digest.update(content)
            for chunk in dict.fromkeys(_leaf(folder, share) for share in (0.0, 0.5, 1.0)):
                if chunk is not None:
                    digest.update(f"{chunk.relative_to(folder).as_posix()} {chunk.stat().st_size}\n".encode())
                    with chunk.open("rb") as file_of_chunk:
                        digest.update(file_of_chunk.read(_HASHED_BYTES))
            return digest.digest()
    for inner in sorted(_visible(folder)):
        if inner != "labels" and (folder / inner).is_dir():
            digest.update(inner.encode() + folder_hash(folder / inner))
    return digest.digest()


def _is_array(metadata: bytes) -> bool:
    """Whether the metadata of zarr v3 are an array's; damaged ones are nobody's."""
    try:
        found = json.loads(metadata)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("node_type") == "array"


class ZarrSource(BlocksOfRegions):
    """One multiscale 8-bit image of an OME-Zarr. Thread-safe.

    Parameters
    ----------
    path : Path
        The folder that was opened.
    group : zarr.Group
        The image's group.
    facts : mapping
        Its OME metadata (`multiscales`, `omero`).
    note : str, optional
        What a person should know of how it was chosen.
    """

    name = "zarr"
    vendor = "ome-zarr"
    objective_power: float | None = None
    associated_names: tuple[str, ...] = ()

    def __init__(self, path: Path, group: Any, facts: Mapping[str, Any], note: str | None = None) -> None:
        self._path = path
        image = facts["multiscales"][0]
        axes = _axes(image)
        self._axes = [str(axis["name"]).lower() for axis in axes]
        arrays = [group[str(dataset["path"])] for dataset in image["datasets"]]
        self._check(arrays[0], facts)
        order = sorted(range(len(arrays)), key=lambda i: -self._size(arrays[i])[0])
        self._arrays: list[Any] | None = [arrays[i] for i in order]
        self.level_dimensions: tuple[Size, ...] = tuple(self._size(array) for array in self._arrays)
        datasets = [image["datasets"][i] for i in order]
        self.level_downsamples = _downsamples(self.level_dimensions, [_scale(dataset, axes) for dataset in datasets])
        self._blocks = tuple(self._block(array) for array in self._arrays)
        version = str(facts.get("version") or image.get("version") or "")
        self.properties: Mapping[str, str] = {"ome-zarr.version": version, "ome-zarr.name": str(image.get("name", ""))}
        self.mpp = _mpp(image, datasets[0], axes)
        self.bounds = (0, 0, *self.level_dimensions[0])
        self.notes = () if note is None else (note,)

    def block_size(self, level: int) -> Size:
        """See PixelSource: the chunks, several of small ones, parts of large ones."""
        return self._blocks[level]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See PixelSource."""
        arrays = self._arrays
        if arrays is None:
            raise SlideClosed(f"{self._path.name} was closed; open it again to read from it.")
        spans = {"y": slice(y, y + height), "x": slice(x, x + width), "c": slice(None)}
        try:
            pixels = np.asarray(arrays[level][tuple(spans.get(axis, 0) for axis in self._axes)])
        except Exception as error:  # whatever the file system and the codecs met
            raise SlideError(
                f"{self._path.name}: the region at x={x}, y={y} of level {level} cannot be read ({error}); the folder "
                f"is probably damaged or incomplete: copy it anew."
            ) from error
        kept = [axis for axis in self._axes if axis in spans]
        pixels = pixels.transpose([kept.index(axis) for axis in "yxc" if axis in kept])
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * np.uint8(255)
        return np.ascontiguousarray(np.broadcast_to(pixels.reshape(height, width, -1), (height, width, 3)))

    def read_blocks(
        self, level: int, blocks: Sequence[tuple[int, int]], outs: Sequence[Pixels]
    ) -> list[SlideError | None]:
        """See PixelSource. Blocks that fill a rectangle are read at once: zarr decodes its chunks side by side."""
        columns, rows = [column for column, _ in blocks], [row for _, row in blocks]
        if len(blocks) > 1 and len(set(blocks)) == (max(columns) - min(columns) + 1) * (max(rows) - min(rows) + 1):
            width, height = self._blocks[level]
            left, top = min(columns) * width, min(rows) * height
            places = [(row * height - top, column * width - left) for column, row in blocks]
            right = max(x + out.shape[1] for (_, x), out in zip(places, outs, strict=True))
            bottom = max(y + out.shape[0] for (y, _), out in zip(places, outs, strict=True))
            try:
                pixels = self.read(level, left, top, right, bottom)
            except SlideClosed:
                raise
            except SlideError:  # one bad chunk must not take the others with it
                return super().read_blocks(level, blocks, outs)
            for (y, x), out in zip(places, outs, strict=True):
                out[...] = pixels[y : y + out.shape[0], x : x + out.shape[1]]
            return [None] * len(blocks)
        return super().read_blocks(level, blocks, outs)

    def read_associated(self, name: str) -> Pixels:
        """See PixelSource: an OME-Zarr has none."""
        raise SlideError(f"{self._path.name} has no {name} image.")

    def close(self) -> None:
        """See PixelSource."""
        self._arrays = None

    def _check(self, array: Any, facts: Mapping[str, Any]) -> None:
        """Refuse what is no 8-bit slide."""
        if len(self._axes) != array.ndim or not {"x", "y"} <= set(self._axes):
            raise ValueError(f"its axes {', '.join(self._axes)} do not go with its {array.ndim} dimensions")
        sizes = dict(zip(self._axes, array.shape, strict=True))
        channels = sizes.get("c", 1)
        if channels == 3 and not _is_rgb(facts):
            channels = 4  # any number that is no colour's
            sizes["c"] = 3
        elif channels in (1, 3):
            sizes.pop("c", None)
        refuse_other_kinds(self._path.name, {a: n for a, n in sizes.items() if a not in "yx"}, array.dtype)
        held = int(np.prod(array.chunks)) * array.dtype.itemsize
        if held > _CHUNK_LIMIT:
            raise SlideError(
                f"{self._path.name} is stored in chunks of {' x '.join(map(str, array.chunks))} ({held / 1e6:.0f} MB "
                f"each), too large to be read piece by piece; write it again in chunks of 512 or 1024 pixels a side."
            )

    def _size(self, array: Any) -> Size:
        shape = dict(zip(self._axes, array.shape, strict=True))
        return int(shape["x"]), int(shape["y"])

    def _block(self, array: Any) -> Size:
        chunks = dict(zip(self._axes, array.chunks, strict=True))
        return _block_px(int(chunks["x"])), _block_px(int(chunks["y"]))


def _block_px(chunk: int) -> int:
    """Side of a block: whole chunks, at least 256 px of them, at most 1024 px of one."""
    if chunk < _LEAST_BLOCK:
        return -(-_LEAST_BLOCK // chunk) * chunk
    return chunk if chunk <= _MOST_BLOCK else BLOCK_PX * 2


def _facts(group: Any) -> dict[str, Any]:
    """The OME metadata of a group: under `ome` since 0.5, among the attributes before."""
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    return dict(ome) if isinstance(ome, Mapping) else attributes


def _largest(path: Path, root: Any) -> tuple[Any, dict[str, Any], str | None]:
    """The largest image of a collection, its metadata, and a sentence where there are others."""
    found = []
    for name, group in root.groups():
        facts = _facts(group)
        if "multiscales" not in facts:
            continue
        images = facts["multiscales"]
        shape = group[str(images[0]["datasets"][0]["path"])].shape
        found.append((shape[-1] * shape[-2], name, group, facts))
    if not found:
        raise ValueError("no multiscales in its metadata")
    _, name, group, facts = max(found, key=lambda image: (image[0], image[1]))
    note = f"{path.name} holds {len(found)} images; the largest of them ({name}) is shown." if len(found) > 1 else None
    return group, facts, note


def _axes(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The axes of a multiscale image, each with its name and, where it is told, its unit."""
    axes = image.get("axes") or list(_AXES)
    return [axis if isinstance(axis, Mapping) else {"name": str(axis)} for axis in axes]


def _is_rgb(facts: Mapping[str, Any]) -> bool:
    """Whether three channels are a colour's: they are, unless their own display colours are others."""
    channels = (facts.get("omero") or {}).get("channels") or []
    colors = [str(channel.get("color", "")).lower().lstrip("#") for channel in channels]
    return len(set(colors)) != 3 or colors == _RGB


def _scale(described: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Factor of each axis that a level, or an image, is described with; 1 where nothing is said."""
    scale = {str(axis["name"]).lower(): 1.0 for axis in axes}
    for transform in described.get("coordinateTransformations") or ():
        if transform.get("type") == "scale" and "scale" in transform:
            for axis, factor in zip(scale, transform["scale"], strict=True):
                scale[axis] *= float(factor)
    return scale


def _mpp(
    image: Mapping[str, Any], finest: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]
) -> tuple[float, float] | None:
    """µm per pixel (x, y) of the finest level, where its axes say their unit."""
    unit = {str(axis["name"]).lower(): _UM.get(str(axis.get("unit") or "").lower(), float("nan")) for axis in axes}
    own, of_all = _scale(finest, axes), _scale(image, axes)
    return plausible_mpp(*(own[axis] * of_all[axis] * unit[axis] for axis in "xy"))


def _downsamples(sizes: tuple[Size, ...], scales: Sequence[Mapping[str, float]]) -> tuple[float, ...]:
    """Downsample of each level as its scale says, or as its size does where the two do not go together."""
    by_size = mean_downsamples(sizes)
    found = []
    for (width, height), scale, otherwise in zip(sizes, scales, by_size, strict=True):
        x, y = (scale[axis] / scales[0][axis] if scales[0][axis] else 0.0 for axis in "xy")
        fits = x > 0 < y and abs(width * x - sizes[0][0]) <= 2 * x and abs(height * y - sizes[0][1]) <= 2 * y
        found.append((x + y) / 2 if fits else otherwise)
    return tuple(found)


def _leaf(folder: Path, share: float) -> Path | None:
    """The file at a share of the way through a folder of chunks, by name; None where there is none."""
    names = sorted(_visible(folder))
    if not names:
        return None
    entry = folder / names[int(share * (len(names) - 1))]
    return _leaf(entry, share) if entry.is_dir() else entry


def _visible(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if not name.startswith(".") and name != "zarr.json"]
