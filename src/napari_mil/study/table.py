"""The slide table: CSV files of ours and of others, columns guessed by name, unknown ones kept."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_mil.errors import ProjectError

from ._files import write_text
from .config import SlideRow

COLUMNS = ("slide_id", "path", "patient_id", "label", "split", "partial_annotation", "time", "event", "mpp_x", "mpp_y")
_OPTIONAL = COLUMNS[4:]

# names that other programs and people give these columns, lower case without separators
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "slide_id": ("slideid", "slide", "slidename", "imageid", "image", "imagename", "wsi", "wsiid", "name", "id"),
    "path": ("path", "file", "filepath", "slidepath", "filename", "wsipath", "imagepath", "location"),
    "patient_id": ("patientid", "patient", "caseid", "case", "subjectid", "subject", "submitterid", "casesubmitterid"),
    "label": ("label", "class", "target", "diagnosis", "grade", "y", "category", "slidelabel", "isupgrade"),
    "split": ("split", "role", "set", "fold", "partition", "subset"),
    "partial_annotation": ("partialannotation", "partial", "partlyannotated"),
    "time": ("time", "survivaltime", "survivalmonths", "survivaldays", "ostime", "followup", "months", "days"),
    "event": ("event", "status", "osstatus", "osevent", "dead", "death", "vitalstatus"),
    "mpp_x": ("mppx", "mpp", "micronsperpixel"),
    "mpp_y": ("mppy",),
}
_ROLES = {
    "train": "train", "training": "train", "tr": "train",
    "validation": "validation", "val": "validation", "valid": "validation", "dev": "validation", "tune": "validation",
    "test": "test", "testing": "test", "te": "test", "holdout": "test",
}  # fmt: skip
_YES, _NO = {"1", "true", "yes", "y", "dead", "deceased", "1.0"}, {"0", "false", "no", "n", "alive", "living", "0.0"}


def preview_table(path: Path | str, rows: int = 8) -> tuple[list[str], list[list[str]], dict[str, str]]:
    """Columns of a CSV file, its first rows as text, and the guessed {meaning: column}."""
    columns, records = _read_csv(Path(path))
    return columns, [[record[c] for c in columns] for record in records[:rows]], guess_columns(columns)


def guess_columns(columns: Sequence[str]) -> dict[str, str]:
    """{meaning: column}, each column used once; exact names first, then what others call them."""
    plain = {column: re.sub(r"[^a-z0-9]", "", column.lower()) for column in columns}
    found = {meaning: meaning for meaning in COLUMNS if meaning in columns}
    for meaning, names in _SYNONYMS.items():
        if meaning in found:
            continue
        for name in names:
            match = [c for c in columns if plain[c] == name and c not in found.values()]
            if match:
                found[meaning] = match[0]
                break
    return found


def read_table(path: Path | str, mapping: Mapping[str, str] | None = None) -> tuple[list[SlideRow], dict[str, str]]:
    """Read a slide table.

    Parameters
    ----------
    path : path of a CSV file
        Comma, semicolon or tab, UTF-8 (with or without a byte-order mark).
    mapping : {meaning: column}, optional
        Which column means what (meanings: slide_id, path, patient_id, label, split, partial_annotation, time,
        event, mpp_x, mpp_y); guessed where not given.

    Returns
    -------
    rows, mapping
        Paths stand as in the file; columns that mean nothing are in each row's `extra`.

    Raises
    ------
    ProjectError
        When the file is no table, has neither slide names nor paths, or a slide stands in it twice.
    """
    path = Path(path)
    columns, records = _read_csv(path)
    used = dict(mapping) if mapping is not None else guess_columns(columns)
    missing = sorted(set(used.values()) - set(columns))
    if missing:
        raise ProjectError(
            f"{path}: has no column {', '.join(missing)}; found {', '.join(columns)}. Choose among these."
        )
    if not {"slide_id", "path"} & used.keys():
        raise ProjectError(
            f"{path}: no column names the slides; found {', '.join(columns)}, expected slide_id or path. "
            "Say which column is the slide's name or file."
        )
    rows = [_row(record, used, f"{path}, line {k + 2}") for k, record in enumerate(records)]
    _refuse_twice(rows, path)
    return rows, used


def fields_of(mapping: Mapping[str, str]) -> list[str]:
    """Fields of a row that a table's mapping fills, besides its name and path."""
    named = {"split": "role", "mpp_x": "mpp", "mpp_y": "mpp"}
    return list(dict.fromkeys(named.get(m, m) for m in COLUMNS[2:] if m in mapping))


def write_table(path: Path, rows: Sequence[SlideRow]) -> None:
    """Write slides.csv atomically: the columns of FORMATS, optional ones when used, then the unknown ones."""
    records = [_record(row) for row in rows]
    columns = [c for c in COLUMNS if c not in _OPTIONAL[2:] or any(r.get(c) for r in records)]
    extra = list(dict.fromkeys(name for row in rows for name in row.extra))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, *extra], restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row.extra, **record} for row, record in zip(rows, records, strict=True))
    write_text(path, text.getvalue())


def slide_id_of(path: Path | str) -> str:
    """The slide's name from its file: the last part without suffix (both of .ome.tif), forbidden characters as _."""
    name = re.split(r"[/\\]", str(path).rstrip("/\\"))[-1]
    stem = re.sub(r"(?i)(\.ome)?\.[a-z0-9]{1,6}$", "", name) or name
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", stem).strip().rstrip(". ") or "slide"


def patient_of(slide_id: str) -> str:
    """The patient that a slide's name tells: the case of a TCGA barcode, else the slide itself."""
    barcode = re.match(r"(?i)TCGA-[a-z0-9]{2}-[a-z0-9]{4}(?=-|$)", slide_id)
    return barcode.group(0).upper() if barcode else slide_id


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ProjectError(f"{path}: cannot be read ({error.strerror}); check that the file exists.") from error
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    lines = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    if not lines or "\x00" in text:
        raise ProjectError(f"{path}: found no table; expected a CSV file whose first line names its columns.")
    columns = [cell.strip() for cell in lines[0]]
    if len(set(columns)) < len(columns):
        twice = sorted({c for c in columns if columns.count(c) > 1})
        raise ProjectError(f"{path}: the column {', '.join(map(repr, twice))} stands there twice; rename one.")
    width = len(columns)
    for number, line in enumerate(lines[1:], 2):
        if len(line) > width and any(cell.strip() for cell in line[width:]):
            raise ProjectError(f"{path}: row {number} has {len(line)} values, its header {width}; mend that row.")
    return columns, [dict(zip(columns, [c.strip() for c in line] + [""] * width, strict=False)) for line in lines[1:]]


def _row(record: Mapping[str, str], used: Mapping[str, str], where: str) -> SlideRow:
    value = {meaning: record[column] for meaning, column in used.items()}
    slide_path = value.get("path") or value.get("slide_id", "")
    slide_id = value.get("slide_id") or slide_id_of(slide_path)
    known = set(used.values())
    try:
        return SlideRow(
            slide_id=slide_id,
            path=slide_path,
            patient_id=value.get("patient_id") or patient_of(slide_id),
            label=value.get("label") or None,
            role=_role(value.get("split", "")),
            partial_annotation=_answer(value.get("partial_annotation", ""), "partial_annotation"),
            time=_number(value.get("time", ""), "time"),
            event=_answer(value.get("event", ""), "event"),
            mpp=_mpp(value),
            extra={c: v for c, v in record.items() if c not in known},
        )
    except ValidationError as error:
        raise ProjectError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}.") from error
    except ValueError as error:
        raise ProjectError(f"{where}: {error}.") from error


def _role(text: str) -> Any:
    plain = text.strip().lower()
    if plain and plain not in _ROLES:
        raise ValueError(f"split is {text!r}; expected train, validation, test or nothing")
    return _ROLES.get(plain)


def _answer(text: str, name: str) -> bool | None:
    plain = text.strip().lower()
    if plain and plain not in _YES | _NO:
        raise ValueError(f"{name} is {text!r}; expected 1 or 0 (yes or no), or nothing")
    return plain in _YES if plain else None


def _number(text: str, name: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise ValueError(f"{name} is {text!r}; expected a number, or nothing") from None


def _mpp(value: Mapping[str, str]) -> tuple[float, float] | None:
    x = _number(value.get("mpp_x", ""), "mpp_x")
    y = _number(value.get("mpp_y", ""), "mpp_y")
    return None if x is None else (x, x if y is None else y)


def _record(row: SlideRow) -> dict[str, str]:
    def yes(answer: bool | None) -> str:
        return "" if answer is None else str(int(answer))

    return {
        "slide_id": row.slide_id,
        "path": row.path,
        "patient_id": row.patient_id,
        "label": row.label or "",
        "split": row.role or "",
        "partial_annotation": yes(row.partial_annotation),
        "time": "" if row.time is None else repr(row.time),
        "event": yes(row.event),
        "mpp_x": "" if row.mpp is None else repr(row.mpp[0]),
        "mpp_y": "" if row.mpp is None else repr(row.mpp[1]),
    }


def _refuse_twice(rows: Sequence[SlideRow], path: Path) -> None:
    seen: dict[str, str] = {}
    for row in rows:
        key = row.slide_id.lower()  # file names of lesions and features: some systems do not tell case apart
        if key in seen:
            raise ProjectError(
                f"{path}: the slide {row.slide_id} stands there twice (paths {seen[key]} and {row.path}); "
                "give each slide one line and a slide_id of its own."
            )
        seen[key] = row.path
