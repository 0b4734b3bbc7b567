"""A project without slide files: made-up features in which tumour patches stand out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely

from napari_mil.features import FeatureHeader, FeatureWriter
from napari_mil.geometry import PatchGrid
from napari_mil.lesion import Lesion, LesionSet
from napari_mil.study import Project

DIM, PATCH = 8, 100


def make_project(folder: Path, patients: int = 12, rows: int = 20) -> Project:
    """`patients` slides of `rows` × 10 patches; odd ones have a tumour in their first row of patches."""
    names = [f"p{number:02d}" for number in range(patients)]
    project = Project.create(folder, slides=[folder.parent / "slides" / f"{name}.svs" for name in names])
    labels = {name: "tumor" if number % 2 else "normal" for number, name in enumerate(names)}
    project.update_slides({name: {"label": labels[name], "partial_annotation": False} for name in names})
    project.set_roles(project.propose_split((0.5, 0.25, 0.25), seed=0))
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:rows, :10]
    grid = PatchGrid(np.stack([x.ravel(), y.ravel()], axis=1) * PATCH, PATCH, PATCH, 0.5)
    for name in names:
        values = generator.normal(size=(len(grid), DIM)).astype(np.float32)
        if labels[name] == "tumor":
            values[:10, 0] += 2
            project.save_lesions(name, LesionSet([Lesion(shapely.box(0, 0, 1000, 100), label="Tumor")]))
        header = FeatureHeader(
            encoder="texture",
            slide_fingerprint=f"print-of-{name}",
            patch_px=PATCH,
            target_mpp=0.5,
            level0_size=(1000, rows * PATCH),
        )
        with FeatureWriter(project.feature_path(name), header, grid, DIM) as writer:
            writer.append(values)
            writer.finish()
    return project


def method(epochs: int) -> dict[str, Any]:
    """Rank induction, exactly `epochs` long."""
    from napari_mil.mil import Method

    settings = {"training.epochs": epochs, "training.patience": None, "aggregator.hidden": 16}
    plain: dict[str, Any] = Method.preset("rank_induction").with_settings(settings).model_dump(mode="json")
    return plain
