"""A small cohort of synthetic slides with everything a project needs, the same on every run."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mil.whole import written_whole

from .anatomy import Planner
from .paint import MPP, PENS, Painter
from .slides import tumor_polygons, write_mask, write_slide

if TYPE_CHECKING:
    from shapely import Polygon

SAMPLE_VERSION = 1  # raised whenever the pictures change, so that an old cache is not taken for the new one
LABELS = ("normal", "tumor")
SIZE_PX = (4096, 3072)
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Case:
    """One slide to be made."""

    slide_id: str
    patient_id: str
    label: str
    tumor_share: float
    fold: bool
    pen: str | None
    outlines: str  # suffix of its annotation file


def plan_cohort(n_slides: int, seed: int) -> list[Case]:
    """Cases of a cohort: patients in pairs, one with and one without tumour; every third pair has two slides each.

    Folds and pen marks fall on both labels alike, so that no method can learn from them.
    """
    rng = np.random.default_rng([seed, n_slides])
    cases: list[Case] = []
    while len(cases) < n_slides:
        first = 1 + len({case.patient_id for case in cases})
        pair = first // 2
        for patient, label in enumerate(rng.permutation(LABELS), start=first):
            for part in "AB" if pair % 3 == 2 else "A":
                pen = str(rng.choice(list(PENS)))
                cases.append(
                    Case(
                        slide_id=f"P{patient:02d}-{part}",
                        patient_id=f"P{patient:02d}",
                        label=str(label),
                        tumor_share=round(float(rng.uniform(0.025, 0.09)), 4) if label == "tumor" else 0.0,
                        fold=bool(rng.random() < 0.25),
                        pen=pen if rng.random() < 0.25 else None,
                        outlines=".xml" if pair % 3 == 1 else ".geojson",
                    )
                )
    return cases[:n_slides]


def create_sample(
    folder: Path | str,
    *,
    n_slides: int = 24,
    seed: int = 0,
    size: tuple[int, int] = SIZE_PX,
    progress: Progress | None = None,
) -> Path:
    """Make the sample cohort, or what is missing of it.

    The folder then holds ``slides/`` (pyramidal TIFFs at 0.5 µm/px), ``annotations/`` (GeoJSON, some ASAP XML),
    ``truth/`` (masks at 1/16), ``slides.csv``, and ``project/``: a project with all of it, ready to be prepared
    and trained.

    Parameters
    ----------
    folder : path
        Where to make it; made when missing. Slides that are there already are kept.
    n_slides : int
        Number of slides, half of them with tumour.
    seed : int
        The same seed gives the same pictures.
    size : (int, int)
        Width and height of each slide in level-0 pixels, multiples of 16.
    progress : callable, optional
        Called as ``progress(done, total, sentence)``.

    Returns
    -------
    Path
        Folder of the project.

    Raises
    ------
    ValueError
        When the number or size of the slides makes no sense.
    """
    if n_slides < 1 or min(size) < 1024 or size[0] % 16 or size[1] % 16:
        raise ValueError(
            f"{n_slides} slides of {size[0]} x {size[1]} px cannot be made; "
            "expected at least one, each side a multiple of 16 of at least 1024 px."
        )
    folder = Path(folder)
    for name in ("slides", "annotations", "truth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    cases = plan_cohort(n_slides, seed)
    painter: Painter | None = None
    for i, case in enumerate(cases):
        if progress is not None:
            progress(i, n_slides, f"Painting slide {i + 1} of {n_slides} ({case.slide_id})")
        rng = np.random.default_rng([seed, n_slides, i])
        plan = Planner(rng, size[0] * MPP, size[1] * MPP).make(tumor_share=case.tumor_share)
        slide = folder / "slides" / f"{case.slide_id}.tif"
        if not slide.exists():
            painter = painter or Painter(np.random.default_rng([seed, n_slides, n_slides]))
            write_slide(slide, painter.paint(plan, rng, fold=case.fold, pen=case.pen))
        polygons = tumor_polygons(plan)
        write_mask(folder / "truth" / f"{case.slide_id}.png", polygons, size)
        if polygons:
            _write_outlines(folder / "annotations" / f"{case.slide_id}{case.outlines}", polygons)
    _write_table(folder / "slides.csv", cases)
    project = _make_project(folder, cases, seed)
    if progress is not None:
        progress(n_slides, n_slides, f"The sample cohort is ready in {folder}")
    return project


def sample_folder() -> Path:
    """Where the sample cohort of this version lies in the user's cache (``NAPARI_MIL_CACHE`` when set)."""
    from napari_mil.features.weights import cache_folder

    return cache_folder() / "sample" / f"v{SAMPLE_VERSION}"


def _write_outlines(path: Path, polygons: Sequence[Polygon]) -> None:
    from napari_mil.lesion import Lesion, LesionSet, write_lesions

    if not path.exists():
        names = [f"area {i + 1}" for i in range(len(polygons))]
        lesions = [
            Lesion(polygon, label="Tumor", name=name, id=f"{path.stem} {name}")
            for polygon, name in zip(polygons, names, strict=True)
        ]
        write_lesions(LesionSet(tuple(lesions)), path)


def _write_table(path: Path, cases: Sequence[Case]) -> None:
    with written_whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["slide_id", "path", "patient_id", "label", "partial_annotation"])
        for case in cases:
            table.writerow([case.slide_id, f"slides/{case.slide_id}.tif", case.patient_id, case.label, 0])


def _make_project(folder: Path, cases: Sequence[Case], seed: int) -> Path:
    """The project over the cohort, with roles and outlines; one that is there already is left as it is."""
    from napari_mil.lesion import read_lesions
    from napari_mil.study import Project

    target = folder / "project"
    if (target / "project.json").exists():
        return target
    project = Project.create(target, slides=folder / "slides.csv", name="Synthetic cohort")
    for case in cases:
        outlines = folder / "annotations" / f"{case.slide_id}{case.outlines}"
        if outlines.exists():
            project.save_lesions(case.slide_id, read_lesions(outlines))
    for slide_id, role in project.propose_split(seed=seed).items():
        project.update_slide(slide_id, role=role)
    project.save()
    return target
