"""Slide → tissue → grid → features, for the slides of a project; a bad slide is recorded and the others go on."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import MilError, ProjectError
from napari_mil.geometry import PatchGrid
from napari_mil.whole import written_whole

from ._files import read_json, write_json
from .bags import labels_of, tissue_path
from .encoder import load_encoder
from .words import counted

if TYPE_CHECKING:
    from napari_mil.features import Encoder, ExtractReport
    from napari_mil.lesion import LesionSet
    from napari_mil.slide import Slide, TileConfig, TissueConfig, TissueMask

    from .config import ProjectConfig
    from .project import Project

_warnings_are_global = threading.Lock()


@dataclass(frozen=True, eq=False)
class Patches:
    """Tissue and patches of one slide.

    Attributes
    ----------
    tissue : TissueMask
    grid : PatchGrid
    labels : (N,) int8
        1 lesion, 0 not, −1 unknown; see `slide_patch_labels`.
    note : str
        What a person should know (a slide coarser than asked for, parts that cannot be read); empty otherwise.
    """

    tissue: TissueMask
    grid: PatchGrid
    labels: npt.NDArray[np.int8]
    note: str = ""


@dataclass(frozen=True)
class PrepareSummary:
    """What `prepare_all` did.

    Attributes
    ----------
    done, there : list of str
        Slides prepared now, and before.
    passed_over : list of str
        They failed before, and their files are the same.
    failed : dict
        Slide → why it failed now.
    busy : list of str
        Another process works on them.
    """

    done: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        parts = [f"{counted(len(self.done), 'slide')} prepared"]
        parts += [f"{counted(len(self.there), 'was', 'were')} ready"] if self.there else []
        parts += [f"{len(self.busy)} passed over (another process works on {_them(self.busy)})"] if self.busy else []
        if self.passed_over:
            who = "it" if len(self.passed_over) == 1 else "they"
            parts += [f"{len(self.passed_over)} passed over ({who} failed before; retry {_them(self.passed_over)})"]
        parts += [f"{len(self.failed)} failed ({', '.join(list(self.failed)[:3])})"] if self.failed else []
        return ", ".join(parts) + "."


@dataclass(frozen=True)
class ProjectEstimate:
    """What preparing the rest of a project takes, from the patches of some of its slides."""

    slides: int
    sampled: int
    patches: int
    minutes: float
    gigabytes: float
    measured: bool
    failed: dict[str, str] = field(default_factory=dict)


def open_project_slide(project: Project, slide_id: str) -> Slide:
    """Open a project's slide in the project's colours, with the µm per pixel that a person gave.

    What was given for the slide itself goes before the file's own; what was given for its folder or scanner holds
    where the file does not say.
    """
    from napari_mil.slide import open_slide

    row = project.slide(slide_id)
    slide = open_slide(project.slide_path(slide_id), mpp=row.mpp, srgb=project.config.color == "srgb")
    if slide.mpp is None:
        slide.set_mpp(project.mpp_of(slide_id, scanner=slide.vendor))
    return slide


def patches_of(
    project: Project,
    slide_id: str,
    slide: Slide,
    config: ProjectConfig | None = None,
    lesions: LesionSet | None = None,
) -> Patches:
    """Tissue, grid and patch labels of an open slide, with the project's settings (or others, to preview them).

    Patches in "ignore" regions are left out. Raises and warns as `tissue_mask` and `tile` do, the warnings being
    gathered in the note.
    """
    from napari_mil.lesion import Role

    config = config or project.config
    lesions = project.lesions(slide_id) if lesions is None else lesions
    ignored = lesions.region(Role.IGNORE, config.classes)
    mask, grid, note = find_patches(slide, config.tissue, config.tile, None if ignored.is_empty else ignored)
    return Patches(mask, grid, labels_of(project, slide_id, grid, lesions, config.classes), note)


def find_patches(
    slide: Slide, tissue: TissueConfig, tiles: TileConfig, ignore: Any = None
) -> tuple[TissueMask, PatchGrid, str]:
    """Tissue and grid of a slide, and its warnings and problems as a note."""
    from napari_mil.slide import SlideWarning, tile, tissue_mask

    with _warnings_are_global, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = tissue_mask(slide, tissue)
        grid = tile(slide, tiles, mask, ignore=ignore)
    notes = [str(w.message) for w in caught if issubclass(w.category, SlideWarning)] + list(slide.problems)
    return mask, grid, " ".join(dict.fromkeys(notes))


# the window shows what preparing will do
preview_patches = patches_of


def grid_for(project: Project, slide_id: str) -> PatchGrid:
    """The patches of a project's slide, from its features where they are ready, else from the slide."""
    if project.has_features(slide_id):
        from napari_mil.features import read_features

        return read_features(project.feature_path(slide_id), dtype=None).grid
    with open_project_slide(project, slide_id) as slide:
        return patches_of(project, slide_id, slide).grid


def prepare_slide(
    project: Project, slide_id: str, *, device: str = "auto", encoder: Encoder | None = None
) -> Generator[ExtractReport, None, Path]:
    """Tissue → grid → features of one slide; returns its feature file.

    The tissue mask and the tissue pixels of each patch are kept beside it (`<slide_id>.tissue.npz`). A failure is
    recorded in the feature set's failures.json and raised; success clears it.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", …
    encoder : Encoder, optional
        The project's, when it was made before.
    """
    try:
        path = yield from _prepare(project, slide_id, device, encoder)
    except (MilError, OSError, MemoryError) as error:
        if not is_busy(error):
            record_failure(project, slide_id, _sentence(slide_id, error))
        raise
    record_failure(project, slide_id, None)
    return path


def prepare_all(
    project: Project,
    slide_ids: Sequence[str] | None = None,
    *,
    device: str = "auto",
    retry_failed: bool = False,
) -> Generator[ExtractReport, None, PrepareSummary]:
    """Prepare slides one after the other, going on after a bad one.

    Parameters
    ----------
    slide_ids : sequence of str, optional
        None: all that have no features yet, without those that failed before unless `retry_failed` or their file has
        changed since. Slides that are named are tried in any case.
    """
    summary = PrepareSummary()
    failed_before = set() if retry_failed or slide_ids is not None else failed_unchanged(project)
    encoder: Encoder | None = None
    for slide_id in project.slide_ids if slide_ids is None else slide_ids:
        if project.has_features(slide_id):
            summary.there.append(slide_id)
            continue
        if slide_id in failed_before:
            summary.passed_over.append(slide_id)
            continue
        if encoder is None:
            encoder = yield from load_encoder(project, slide_id, resolve_device(device, project.config.encoder))
        try:
            yield from prepare_slide(project, slide_id, encoder=encoder)
        except (MilError, OSError, MemoryError) as error:
            if is_busy(error):
                summary.busy.append(slide_id)
                yield _report(slide_id, 0, message=f"{slide_id}: another process works on it; passed over.")
                continue
            summary.failed[slide_id] = _sentence(slide_id, error)
            yield _report(slide_id, 0, message=summary.failed[slide_id])
        else:
            summary.done.append(slide_id)
    return summary


def estimate_project(project: Project, *, device: str = "auto", sample: int = 6) -> ProjectEstimate:
    """Patches, minutes and gigabytes of the slides that have no features yet, scaled up from `sample` of them."""
    from napari_mil.features import estimate, list_encoders

    todo = [i for i in project.slide_ids if not project.has_features(i)]
    chosen = [todo[k] for k in np.linspace(0, len(todo) - 1, min(sample, len(todo))).round().astype(int)]
    counts: list[int] = []
    failed: dict[str, str] = {}
    for slide_id in chosen:
        try:
            with open_project_slide(project, slide_id) as slide:
                counts.append(len(patches_of(project, slide_id, slide).grid))
        except (MilError, OSError) as error:
            failed[slide_id] = _sentence(slide_id, error)
    patches = round(float(np.mean(counts)) * (len(todo) - len(failed))) if counts else 0
    dim = next((info.dim for info in list_encoders() if info.name == project.config.encoder), None)
    found = estimate(patches, dim, project.config.encoder, device=resolve_device(device, project.config.encoder))
    return ProjectEstimate(len(todo), len(counts), patches, found.minutes, found.gigabytes, found.measured, failed)


def resolve_device(device: str, encoder: str = "") -> str:
    """The device that "auto" means here; the texture encoder runs on the CPU and needs no torch to say so."""
    if encoder == "texture":
        return "cpu"
    if device != "auto":
        return device
    from napari_mil.mil.devices import find_device

    return str(find_device("auto"))


def record_failure(project: Project, slide_id: str, sentence: str | None) -> None:
    """Write a slide's failure into the feature set's failures.json, or clear it (None)."""
    path = project.feature_folder / "failures.json"
    failures: dict[str, Any] = read_json(path) if path.is_file() else {}
    if sentence is None and slide_id not in failures:
        return
    failures.pop(slide_id, None)
    if sentence is not None:
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        failures[slide_id] = {"when": when, "sentence": sentence, "file": _file_state(project, slide_id)}
    write_json(path, failures)


def is_busy(error: BaseException) -> bool:
    """Whether a feature file could not be written since another process is writing it."""
    return isinstance(error.__cause__, BlockingIOError)


def failed_unchanged(project: Project) -> set[str]:
    """Slides that failed before and whose files are still the same."""
    path = project.feature_folder / "failures.json"
    failures: dict[str, Any] = read_json(path) if path.is_file() else {}
    known = set(project.slide_ids) & set(failures)
    return {i for i in known if "file" not in failures[i] or failures[i]["file"] == _file_state(project, i)}


def _file_state(project: Project, slide_id: str) -> list[Any] | None:
    """What tells that a slide's file was replaced: path, bytes, time of change; None when it is not there."""
    path = project.slide_path(slide_id)
    try:
        facts = path.stat()
    except OSError:
        return None
    return [path.as_posix(), facts.st_size, facts.st_mtime_ns]


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _prepare(
    project: Project, slide_id: str, device: str, encoder: Encoder | None
) -> Generator[ExtractReport, None, Path]:
    from napari_mil.features import extract

    if project.config.feature_set is not None:
        raise ProjectError(
            f"{project.config.name}: uses the imported features {project.config.feature_set}, which cannot be made "
            "here; import those of this slide too, or set feature_set to nothing in project.json."
        )
    out = project.feature_path(slide_id)
    yield _report(slide_id, 0, message="Finding tissue.")
    with open_project_slide(project, slide_id) as slide:
        patches = patches_of(project, slide_id, slide)
        if patches.note:
            yield _report(slide_id, len(patches.grid), message=patches.note)
        if encoder is None:
            encoder = yield from load_encoder(project, slide_id, resolve_device(device, project.config.encoder))
        path = yield from extract(
            slide,
            patches.grid,
            encoder,
            out,
            patch_px=project.config.tile.patch_px,
            target_mpp=project.config.tile.target_mpp,
            tissue={"tissue": patches.tissue.to_dict(), "tile": project.config.tile.model_dump(mode="json")},
        )
    save_tissue(tissue_path(path), patches.tissue, patches.grid)
    return path


def save_tissue(path: Path, mask: TissueMask, grid: PatchGrid) -> None:
    """Keep a tissue mask and the tissue pixels of each patch: attention induction's target needs them."""
    from napari_mil.slide import tissue_pixels

    with written_whole(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            coords=grid.coords,
            tissue_pixels=tissue_pixels(mask, grid),
            mask=np.packbits(mask.array, axis=1),
            shape=np.array(mask.array.shape),
            downsample_xy=np.array(mask.scale),
        )


def _report(slide_id: str, total: int, *, message: str) -> ExtractReport:
    from napari_mil.features import ExtractReport

    return ExtractReport(slide_id, 0, total, 0.0, None, message)


def _sentence(slide_id: str, error: BaseException) -> str:
    if isinstance(error, MilError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{slide_id}: not enough memory; close other programs, or take a smaller tissue mask (max_px)."
    return f"{slide_id}: {error}."
