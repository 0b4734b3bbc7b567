"""Annotation files of any kind: recognised by content, read, written, converted."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree.ElementTree import Element

from napari_mil.errors import LesionError
from napari_mil.whole import written_whole

from . import aperio, asap, dsa, geojson, ncrf
from .model import LesionSet
from .xml import parse, to_bytes

FORMATS: Mapping[str, str] = {
    "geojson": "QuPath GeoJSON (.geojson, .json, also .gz)",
    "asap": "ASAP / CAMELYON XML (.xml)",
    "aperio": "Aperio ImageScope XML (.xml)",
    "dsa": "Digital Slide Archive / HistomicsUI JSON (.json)",
    "ncrf": "CAMELYON16 outlines as NCRF JSON (.json), read only",
}
_JSON_KINDS: tuple[ModuleType, ...] = (ncrf, dsa, geojson)
_SUFFIXES = {
    ".geojson": "geojson",
    ".json": "geojson",
    ".geojson.gz": "geojson",
    ".json.gz": "geojson",
    ".xml": "asap",
}
SUFFIXES = (".geojson.gz", ".json.gz", ".geojson", ".json", ".xml")


def read_lesions(path: str | os.PathLike[str]) -> LesionSet:
    """Outlines of an annotation file, in level-0 pixels as the file has them.

    The format is found by looking inside: QuPath GeoJSON (also gzip), ASAP XML, Aperio ImageScope XML, DSA /
    HistomicsUI JSON, NCRF JSON. One bad outline never spoils the rest: what was repaired or left out stands in
    `.problems`.

    Raises
    ------
    LesionError
        When the file is missing, broken, or of no kind we know.
    """
    path = Path(path)
    data = _bytes(path)
    where = str(path)
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if not start:
        raise LesionError(f"{where}: the file is empty; expected annotations. Export it again.")
    if start == b"<" or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _read_xml(parse(data, where), where)
    parsed = _json(data, where)
    for kind in _JSON_KINDS:
        if kind.looks_like(parsed):
            lesions: LesionSet = kind.from_json(parsed, where)
            return lesions
    found = f"an object with {', '.join(map(repr, list(parsed)[:5]))}" if isinstance(parsed, dict) else "a list"
    raise LesionError(f"{where}: JSON that is {found}; expected one of: {'; '.join(FORMATS.values())}.")


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError:
        raise LesionError(f"{path}: no such file; expected an annotation file. Check its name and folder.") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise LesionError(
            f"{path}: the gzip data end too early or are damaged ({error}). Copy the file again."
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise LesionError(f"{path}: cannot be read ({reason}); expected a readable annotation file.") from error


def _json(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise LesionError(
            f"{where}: neither text nor XML; expected one of: {'; '.join(FORMATS.values())}. Is it another file?"
        ) from None
    except json.JSONDecodeError as error:
        if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
            raise LesionError(
                f"{where}: neither XML nor JSON; expected one of: {'; '.join(FORMATS.values())}. Is it another file?"
            ) from None
        raise LesionError(
            f"{where}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); expected a complete "
            "file. Export it again, it may have been cut off."
        ) from error
    except RecursionError:
        raise LesionError(f"{where}: JSON nested too deeply; expected annotations. Is it another file?") from None


def _read_xml(root: Element, where: str) -> LesionSet:
    if root.tag == "ASAP_Annotations":
        return asap.from_xml(root, where)
    if root.tag == "Annotations":
        return aperio.from_xml(root, where)
    raise LesionError(
        f"{where}: XML whose first element is <{root.tag}>; expected <ASAP_Annotations> (ASAP, CAMELYON) or "
        "<Annotations> (Aperio ImageScope). Is it another file?"
    )


def format_of(path: str | os.PathLike[str]) -> str | None:
    """Name of the format that a file of this name is written in; None when the suffix says nothing."""
    name = Path(path).name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def write_lesions(lesions: LesionSet, path: str | os.PathLike[str], format: str | None = None) -> tuple[str, ...]:
    """Write outlines as GeoJSON, ASAP XML, Aperio XML or DSA JSON; the file appears only when it is complete.

    Parameters
    ----------
    lesions : LesionSet
    path : path
        ``.geojson``, ``.json`` (with ``.gz`` compressed) or ``.xml`` choose GeoJSON or ASAP.
    format : {"geojson", "asap", "aperio", "dsa"}, optional
        Instead of what the suffix says.

    Returns
    -------
    tuple of str
        A sentence for everything that the format cannot hold; nothing with GeoJSON.

    Raises
    ------
    LesionError
        When the format is unknown or the file cannot be written.
    """
    path = Path(path)
    kind = format or format_of(path)
    problems: list[str] = []
    if kind == "geojson":
        data = json_bytes(geojson.to_json(lesions))
    elif kind == "dsa":
        document, problems = dsa.to_json(lesions)
        data = json_bytes(document)
    elif kind in ("asap", "aperio"):
        root, problems = (asap if kind == "asap" else aperio).to_xml(lesions)
        data = to_bytes(root)
    else:
        found = f"format {format!r}" if format else f"a name ending in {path.suffix!r}"
        raise LesionError(f"{path}: {found}; expected one of geojson, asap, aperio, dsa. Say which with format=.")
    write_atomic(path, gzip.compress(data, mtime=0) if path.suffix.lower() == ".gz" else data)
    return tuple(problems)


def json_bytes(document: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside, then rename: a reader sees the old file or the new one, never half of it."""
    try:
        with written_whole(path) as part:
            part.write_bytes(data)
    except OSError as error:
        reason = error.strerror or error
        raise LesionError(f"{path}: cannot be written ({reason}). Check the folder's permissions and space.") from error


@dataclass(frozen=True)
class ConvertSummary:
    """What `convert` did: files, formats, number of objects, objects of each class, and every problem on the way."""

    source: Path
    target: Path
    source_format: str
    target_format: str
    objects: int
    classes: dict[str, int]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "source": str(self.source),
            "target": str(self.target),
            "source_format": self.source_format,
            "target_format": self.target_format,
            "objects": self.objects,
            "classes": dict(self.classes),
            "problems": list(self.problems),
        }


def convert(src: str | os.PathLike[str], dst: str | os.PathLike[str], format: str | None = None) -> ConvertSummary:
    """Read one annotation file and write it as another (see `read_lesions`, `write_lesions`)."""
    lesions = read_lesions(src)
    problems = write_lesions(lesions, dst, format)
    return ConvertSummary(
        source=Path(src),
        target=Path(dst),
        source_format=str(lesions.meta.get("format", "")),
        target_format=str(format or format_of(dst)),
        objects=len(lesions),
        classes=lesions.labels,
        problems=(*lesions.problems, *problems),
    )
