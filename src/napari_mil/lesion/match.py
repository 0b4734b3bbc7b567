"""Which annotation file belongs to which slide, by name; and a whole folder imported with a report."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_mil.errors import LesionError

from .files import SUFFIXES, read_lesions
from .model import LesionSet

_SLIDE_SUFFIX = re.compile(
    r"\.(ome\.tiff?|svs|ndpi|mrxs|scn|bif|vms|vmu|svslide|tiff?|dcm|zarr|png|jpe?g|czi|isyntax|i2syntax)$"
)


@dataclass(frozen=True)
class MatchReport:
    """What `match_files` found.

    Attributes
    ----------
    matched : dict
        Slide id → its file.
    unmatched : list of Path
        Files that name no slide.
    ambiguous : dict
        File → the slides it could belong to, or that several files claim; none of these is matched.
    """

    matched: dict[str, Path]
    unmatched: list[Path]
    ambiguous: dict[Path, list[str]]


@dataclass(frozen=True)
class ImportReport:
    """What `import_folder` found.

    Attributes
    ----------
    lesions : dict
        Slide id → its outlines; nothing is saved yet.
    matched : dict
        Slide id → the file that they came from.
    unmatched_files : list of Path
        Annotation files that name no slide.
    slides_without : list of str
        Slides that got no outlines.
    ambiguous : dict
        File → the slides that it could belong to.
    problems : list of str
        Sentences: files that cannot be read, ambiguous names, outlines repaired or left out.
    """

    lesions: dict[str, LesionSet] = field(repr=False)
    matched: dict[str, Path]
    unmatched_files: list[Path]
    slides_without: list[str]
    ambiguous: dict[Path, list[str]]
    problems: list[str]

    def summary(self) -> str:
        """The report in one sentence."""
        objects = sum(map(len, self.lesions.values()))
        return (
            f"{objects} outlines for {len(self.lesions)} slides; {len(self.slides_without)} slides without, "
            f"{len(self.unmatched_files)} files of no slide, {len(self.ambiguous)} ambiguous, "
            f"{len(self.problems)} problems."
        )


def match_files(files: Iterable[str | os.PathLike[str]], slide_ids: Iterable[str]) -> MatchReport:
    """Match annotation files to slides by name, without regard to case.

    A file belongs to the slide whose id it carries as whole words: ``S1.xml``, ``s1.svs.geojson`` and
    ``S1_annotations.json`` are S1's, ``S10.xml`` is not. An exact name goes before one with additions, a longer id
    before a shorter. A file whose name is the beginning of one slide's id (TCGA's short names) is that slide's. Two
    slides that fit equally well, or two files that fit a slide equally well, are ambiguous and left to the person.
    """
    ids = {slide_id: _stem(slide_id) for slide_id in slide_ids}
    claims: dict[str, dict[Path, int]] = {}
    unmatched: list[Path] = []
    ambiguous: dict[Path, list[str]] = {}
    for file in sorted({Path(file) for file in files}):
        best, found = _best(_stem(file.name), ids)
        if not found:
            unmatched.append(file)
        elif len(found) > 1:
            ambiguous[file] = found
        else:
            claims.setdefault(found[0], {})[file] = best
    matched: dict[str, Path] = {}
    for slide_id, candidates in claims.items():
        top = max(candidates.values())
        winners = [file for file, score in candidates.items() if score == top]
        if len(winners) == 1:
            matched[slide_id] = winners[0]
            losers = [file for file in candidates if file != winners[0]]
        else:
            losers = list(candidates)
        ambiguous.update({file: [slide_id] for file in losers})
    return MatchReport(matched, unmatched, ambiguous)


_EXACT = 1_000_000


def _best(stem: str, ids: Mapping[str, str]) -> tuple[int, list[str]]:
    """The best score of a file's stem, and the slides that reach it."""
    scores: dict[str, int] = {}
    for slide_id, name in ids.items():
        if not name:
            continue
        if stem == name:
            scores[slide_id] = _EXACT
        elif _holds(stem, name):
            scores[slide_id] = len(name)
        elif name.startswith(stem) and not name[len(stem)].isalnum():
            scores[slide_id] = 0  # the id goes on after the file's name: weakest
    top = max(scores.values(), default=0)
    return top, [slide_id for slide_id, score in scores.items() if score == top]


def _holds(text: str, name: str) -> bool:
    """Whether a name stands in a text as whole words."""
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text) is not None


def _stem(name: str) -> str:
    """A file's or slide's name in lower case without annotation and slide suffixes."""
    stem = name.strip().casefold()
    for suffix in SUFFIXES:
        if stem.endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    return _SLIDE_SUFFIX.sub("", stem)


def import_folder(folder: str | os.PathLike[str], slide_ids: Sequence[str]) -> ImportReport:
    """Read all annotation files of a folder and those below, matched to slides by name; nothing is saved.

    Raises
    ------
    LesionError
        When the folder is missing. A bad file is a problem in the report, not an error.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LesionError(f"{folder}: no such folder; expected one with annotation files. Check its name.")
    files = [
        file
        for file in folder.rglob("*")
        if file.name.lower().endswith(SUFFIXES)
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    match = match_files(files, slide_ids)
    problems = [
        f"{file.name} was left out: "
        + (f"it could belong to {', '.join(ids)}." if len(ids) > 1 else f"another file also fits slide {ids[0]}.")
        for file, ids in match.ambiguous.items()
    ]
    lesions: dict[str, LesionSet] = {}
    for slide_id, file in match.matched.items():
        try:
            lesions[slide_id] = read_lesions(file)
        except LesionError as error:
            problems.append(str(error))
            continue
        problems.extend(f"{file.name}: {problem}" for problem in lesions[slide_id].problems)
    return ImportReport(
        lesions=lesions,
        matched={slide_id: match.matched[slide_id] for slide_id in lesions},
        unmatched_files=match.unmatched,
        slides_without=[slide_id for slide_id in slide_ids if slide_id not in lesions],
        ambiguous=match.ambiguous,
        problems=problems,
    )
