"""The slides of a project: their rows, changed together or not at all, and saved whole."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from napari_mil.errors import ProjectError

from ._files import absolute, real_path, stored_path, write_json
from .config import ProjectConfig, SlideRow, order_labels
from .intake import collect, disambiguate, find_again
from .splits import patients_in_two_roles, refuse_patients_in_two_roles
from .table import fields_of, read_table, slide_id_of, write_table
from .words import counted, listed

Slides = Path | str | Iterable[Path | str]
_PLAIN = {  # fields of a row, as people call them
    "patient_id": "patients",
    "label": "labels",
    "role": "roles",
    "partial_annotation": "whether all lesions are outlined",
    "time": "times",
    "event": "events",
    "mpp": "µm per pixel",
}


class ProjectSlides:
    """The slide table of a project and its settings; `Project` adds what hangs on the slides."""

    def __init__(self, folder: Path, config: ProjectConfig, rows: Sequence[SlideRow]) -> None:
        self.folder = folder
        self.config = config
        self._rows = {row.slide_id: row for row in rows}
        self._writing = threading.Lock()

    def save(self) -> None:
        """Write project.json and slides.csv, each whole or not at all."""
        self._write(table=True)

    def save_view(self, view: Mapping[str, Any]) -> None:
        """Remember what the window shows (slide, camera, layers, page: JSON only) for reopening."""
        self.config.view = dict(view)
        self._write(table=False)

    def _write(self, *, table: bool) -> None:
        try:
            with self._writing:
                write_json(self.folder / "project.json", self.config.model_dump(mode="json"))
                if table:
                    write_table(self.folder / "slides.csv", self.slides)
        except OSError as error:
            raise ProjectError(
                f"{self.folder}: the project cannot be saved ({error.strerror or error}); what was there before is "
                "kept. Check the disk space and the rights of the folder."
            ) from error

    # slides

    @property
    def slides(self) -> list[SlideRow]:
        """The rows, in the table's order."""
        return list(self._rows.values())

    @property
    def slide_ids(self) -> list[str]:
        """Names of the slides, in the table's order."""
        return list(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def slide(self, slide_id: str) -> SlideRow:
        """One row; a ProjectError when there is no such slide."""
        try:
            return self._rows[slide_id]
        except KeyError:
            raise ProjectError(f"{self.folder}: has no slide {slide_id!r}; it has {some(self._rows)}.") from None

    def update_slide(self, slide_id: str, *, save: bool = True, **fields: Any) -> SlideRow:
        """Change fields of a row; see `update_slides`."""
        return self.update_slides({slide_id: fields}, save=save)[0]

    def update_slides(self, changes: Mapping[str, Mapping[str, Any]], *, save: bool = True) -> list[SlideRow]:
        """Change rows together, all or none: {slide_id: {field: value}}; a new label joins `label_names`.

        Raises
        ------
        ProjectError
            For an unknown slide or field, a value that makes no sense, or a patient in two roles.
        """
        changed: dict[str, SlideRow] = {}
        for slide_id, fields in changes.items():
            row = self.slide(slide_id)
            unknown = sorted(set(fields) - set(SlideRow.model_fields) | {"slide_id"} & set(fields))
            if unknown:
                raise ProjectError(f"{slide_id}: a slide has no field {', '.join(unknown)} that could be changed.")
            values = dict(fields)
            if isinstance(values.get("path"), Path):
                values["path"] = stored_path(values["path"], self.folder)
            try:
                changed[slide_id] = SlideRow.model_validate(row.model_dump() | values)
            except ValidationError as error:
                raise ProjectError(f"{slide_id}: {first_error(error)}.") from error
        together = self._rows | changed
        patients = {row.patient for row in changed.values()}
        before = patients_in_two_roles(self._rows.values())
        refuse_patients_in_two_roles(r for r in together.values() if r.patient in patients - before.keys())
        before_labels = self._labels_in_use()
        self._rows = together
        self._learn_labels(changed.values())
        self._forget_labels(before_labels)
        if save:
            self.save()
        return list(changed.values())

    def add_slides(self, slides: Slides, mapping: Mapping[str, str] | None = None) -> list[str]:
        """Add a folder, a CSV or files; slides that are there already (same file) are left. Returns the new names."""
        new = self._take(collect(slides, self.folder, mapping))
        self.save()
        return new

    def merge_table(self, path: Path | str, mapping: Mapping[str, str] | None = None) -> str:
        """Take labels, patients, roles and so on of the project's slides from a CSV; a sentence says for how many.

        Slides are matched by name, or by the name of their file, without regard to case. Empty cells change nothing.
        """
        rows, used = read_table(path, mapping)
        names = {slide_id_of(row.path).lower(): row.slide_id for row in self.slides}
        names |= {name.lower(): name for name in self._rows}
        changes: dict[str, dict[str, Any]] = {}
        unknown: list[str] = []
        for row in rows:
            name = names.get(row.slide_id.lower()) or names.get(slide_id_of(row.slide_id).lower())
            if name is None:
                unknown.append(row.slide_id)
                continue
            values = {field: getattr(row, field) for field in fields_of(used) if getattr(row, field) not in (None, "")}
            changes[name] = values | {"extra": self._rows[name].extra | row.extra}
        self.update_slides(changes)
        absent = counted(len(unknown), "name is", "names are")
        missing = f" {absent} not in the project ({some(unknown, 3)})." if unknown else ""
        read = listed([_PLAIN.get(field, field) for field in fields_of(used)]) or "nothing"
        return f"Read {read} of {len(changes)} of {counted(len(self), 'slide')}.{missing}"

    def remove_slides(self, slide_ids: Iterable[str]) -> None:
        """Take slides out of the table; their files (slide, lesions, features) stay where they are."""
        for slide_id in slide_ids:
            self.slide(slide_id)
            del self._rows[slide_id]
        self.save()

    def slide_path(self, slide_id: str) -> Path:
        """Absolute path of a slide's file, whether it is there or not."""
        return real_path(self.slide(slide_id).path, self.folder)

    def missing_slides(self) -> list[str]:
        """Slides whose file is not where the table says."""
        return [slide_id for slide_id in self._rows if not self.slide_path(slide_id).exists()]

    def relocate(self, old: Path | str | None, new_folder: Path | str) -> list[str]:
        """Look for missing slide files in another folder (and below it), by name.

        Parameters
        ----------
        old : path, optional
            Only slides whose path lies in this folder (or is this file); None: every missing one.
        new_folder : path

        Returns
        -------
        list of str
            The slides found; `missing_slides` tells what is left.
        """
        before = None if old is None else absolute(old)
        lost = {i: self.slide_path(i) for i in self.missing_slides()}
        if before is not None:
            lost = {i: p for i, p in lost.items() if p == before or before in p.parents}
        found = find_again(lost, before, absolute(new_folder))
        for slide_id, path in found.items():
            row = self._rows[slide_id]
            self._rows[slide_id] = row.model_copy(update={"path": stored_path(path, self.folder)})
        self.save()
        return list(found)

    def set_mpp(
        self,
        slide_id: str,
        mpp: float | Sequence[float] | None,
        *,
        folder: bool = False,
        scanner: str | None = None,
    ) -> None:
        """Record a person's answer to "how large is a pixel?"; None forgets it.

        Parameters
        ----------
        slide_id : str
            The slide that was asked about.
        mpp : float, (x, y) or None
            µm per level-0 pixel, 0.05 to 20.
        folder : bool
            The answer holds for every slide of its folder whose file does not say.
        scanner : str, optional
            The answer holds for every slide of this scanner whose file does not say.
        """
        pair = None if mpp is None else tuple(float(v) for v in np.broadcast_to(np.asarray(mpp, dtype=float), (2,)))
        if not folder and scanner is None:
            self.update_slide(slide_id, mpp=pair)
            return
        parent = self.slide_path(slide_id).parent
        key = f"scanner:{scanner}" if scanner else stored_path(parent, self.folder) + "/"
        if not scanner:
            self.config.mpp.pop(parent.as_posix() + "/", None)  # as older projects have it
        if pair is None:
            self.config.mpp.pop(key, None)
        elif all(0.05 <= v <= 20 for v in pair):
            self.config.mpp[key] = (pair[0], pair[1])
        else:
            raise ProjectError(f"{mpp} µm per pixel is not plausible; expected 0.05 to 20 (20x: about 0.5).")
        self.save()

    def mpp_of(self, slide_id: str, scanner: str | None = None) -> tuple[float, float] | None:
        """µm/px (x, y) that a person gave: for the slide, else its nearest folder, else its scanner; else None."""
        row = self.slide(slide_id)
        if row.mpp is not None:
            return row.mpp
        if slide_id in self.config.mpp:
            return self.config.mpp[slide_id]
        for parent in self.slide_path(slide_id).parents:
            for key in (stored_path(parent, self.folder) + "/", parent.as_posix() + "/"):  # the second: older projects
                if key in self.config.mpp:
                    return self.config.mpp[key]
        return self.config.mpp.get(f"scanner:{scanner}") if scanner else None

    # labels

    @property
    def label_names(self) -> list[str]:
        """Slide labels, the negative one first; their index is the class."""
        return self.config.label_names

    def label_index(self, slide_id: str) -> int | None:
        """Class of a slide, None without a label."""
        label = self.slide(slide_id).label
        return None if label is None else self.label_names.index(label)

    def set_label_names(self, names: Sequence[str]) -> None:
        """Choose the order (the first is the negative class) and names that no slide has yet."""
        lost = sorted({r.label for r in self.slides if r.label is not None} - set(names))
        if lost or len(set(names)) != len(names):
            reason = f"slides have the label {', '.join(lost)}" if lost else "a name stands there twice"
            raise ProjectError(f"The labels cannot be {', '.join(names)}: {reason}.")
        self.config.label_names = list(names)
        self.save()

    # within

    def _take(self, rows: Sequence[SlideRow]) -> list[str]:
        there = {self.slide_path(i) for i in self._rows}
        new = [row for row in rows if real_path(row.path, self.folder) not in there]
        new = disambiguate(new, self._rows)
        together = list(self._rows.values()) + new
        refuse_patients_in_two_roles(together)
        self._rows = {row.slide_id: row for row in together}
        self._learn_labels(new)
        return [row.slide_id for row in new]

    def _labels_in_use(self) -> set[str]:
        return {row.label for row in self._rows.values() if row.label is not None}

    def _forget_labels(self, before: set[str]) -> None:
        """Drop labels that the last slide has just lost (a mistyped one, say), as long as two others are left."""
        for name in before - self._labels_in_use():
            if len(self.config.label_names) > 2:
                self.config.label_names = [n for n in self.config.label_names if n != name]

    def _learn_labels(self, rows: Iterable[SlideRow]) -> None:
        names = self.config.label_names
        new = [r.label for r in rows if r.label is not None and r.label not in names]
        if not new:
            return
        guessed = names == order_labels(names)
        together = list(dict.fromkeys([*names, *new]))
        self.config.label_names = order_labels(together) if guessed else together


def first_error(error: ValidationError) -> str:
    entry = error.errors()[0]
    where = ".".join(str(part) for part in entry["loc"])
    text = entry["msg"].removeprefix("Value error, ")
    return text if entry["type"] == "value_error" else f"{where}: {text}" if where else text


def some(names: Iterable[str], n: int = 5) -> str:
    listed = list(names)
    return (", ".join(listed[:n]) + (f" and {len(listed) - n} more" if len(listed) > n else "")) or "none"
