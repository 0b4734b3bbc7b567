"""Small projects: one whose slides are pictures, one whose features are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_mil.features import FeatureHeader, FeatureWriter
from napari_mil.geometry import PatchGrid
from napari_mil.lesion import Lesion, LesionSet
from napari_mil.study import Project

DIM = 6
PATCH = 100


def grid_of(rows: int = 4, cols: int = 5) -> PatchGrid:
    y, x = np.mgrid[:rows, :cols]
    return PatchGrid(np.stack([x.ravel(), y.ravel()], axis=1) * PATCH, PATCH, PATCH, 0.5)


def write_features(
    path: Path, rows: np.ndarray, grid: PatchGrid, *, encoder: str = "texture", target_mpp: float = 0.5, px: int = 100
) -> Path:
    header = FeatureHeader(
        encoder=encoder,
        slide_fingerprint=f"print-of-{path.stem}",
        patch_px=px,
        target_mpp=target_mpp,
        level0_size=(500, 400),
        weights_sha256="none",
    )
    with FeatureWriter(path, header, grid, rows.shape[1]) as writer:
        writer.append(rows.astype(np.float32))
        return writer.finish()


def cohort(folder: Path, patients: int = 9, slides_each: int = 2) -> Project:
    """Slides of which the odd patients are positive: their patches 0–4 (the first row) are lesion, and stand out."""
    names = [f"p{p:02d}_{'ab'[k]}" for p in range(patients) for k in range(slides_each)]
    project = Project.create(folder, slides=[folder.parent / "slides" / f"{name}.svs" for name in names])
    project.update_slides(
        {
            name: {
                "patient_id": name.split("_")[0],
                "label": "tumor" if int(name[1:3]) % 2 else "normal",
                "partial_annotation": False,
            }
            for name in names
        }
    )
    project.set_roles(project.propose_split((0.5, 0.25, 0.25), seed=1))
    generator = np.random.default_rng(0)
    grid = grid_of()
    for name in names:
        rows = generator.normal(size=(len(grid), DIM))
        if project.slide(name).label == "tumor":
            rows[:5, 0] += 3
            project.save_lesions(name, LesionSet([Lesion(shapely.box(0, 0, 500, 100), label="Tumor")]))
        write_features(project.feature_path(name), rows, grid)
    return project


def quick_method(name: str = "rank_induction", epochs: int = 3):  # type: ignore[no-untyped-def]
    from napari_mil.mil import Method

    return Method.preset(name).with_settings(
        {"training.epochs": epochs, "training.min_epochs": 0, "training.learning_rate": 5e-3, "aggregator.hidden": 16}
    )


def drain(generator):  # type: ignore[no-untyped-def]
    """All reports of a generator, and what it returns."""
    reports = []
    while True:
        try:
            reports.append(next(generator))
        except StopIteration as stop:
            return reports, stop.value


@pytest.fixture
def made_up(tmp_path: Path) -> Project:
    return cohort(tmp_path / "project")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Path]:
    """A project with one finished run; tests only read it."""
    from napari_mil.study import train_project

    project = cohort(tmp_path_factory.mktemp("trained") / "project")
    _, run = drain(train_project(project, quick_method(epochs=6), seed=3))
    return project, run.folder


def paint_slide(path: Path, lesion: bool, seed: int = 0, side: int = 320) -> None:
    """A picture with pink tissue in its middle, and purple dots in the upper left of it where `lesion`."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 245, dtype=np.int16)
    pixels[40:-40, 40:-40] = (225, 150, 190)
    if lesion:
        pixels[64:192, 64:192] = (110, 60, 140)
    pixels += generator.normal(0, 9, pixels.shape).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
