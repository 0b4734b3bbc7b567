"""Bags of a project's slides: features from disk, labels from the table and the outlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from napari_mil.errors import ProjectError
from napari_mil.geometry import PatchGrid

if TYPE_CHECKING:
    from napari_mil.lesion import ClassRoles, LesionSet
    from napari_mil.mil import Bag

    from .project import Project


class ProjectBags(Sequence["Bag"]):
    """Bags of some slides of a project, each made when it is asked for and then kept.

    Their features stay on the disk and are read each time they are needed; a training keeps as many as it has room for.

    Parameters
    ----------
    patch_labels : {slide_id: (N,) int8}, optional
        Instead of what the outlines say now: the labels that a run began with.
    """

    def __init__(
        self,
        project: Project,
        slide_ids: Sequence[str],
        patch_labels: Mapping[str, npt.NDArray[np.int8]] | None = None,
    ) -> None:
        self._project = project
        self.slide_ids = list(slide_ids)
        self._patch_labels = patch_labels
        self._made: dict[str, Bag] = {}

    def __len__(self) -> int:
        return len(self.slide_ids)

    @overload
    def __getitem__(self, index: int) -> Bag: ...
    @overload
    def __getitem__(self, index: slice) -> list[Bag]: ...
    def __getitem__(self, index: int | slice) -> Bag | list[Bag]:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        slide_id = self.slide_ids[index]
        if slide_id not in self._made:
            bag = project_bag(self._project, slide_id)
            if self._patch_labels is not None:
                bag = replace(bag, patch_labels=self._patch_labels.get(slide_id))
            self._made[slide_id] = bag
        return self._made[slide_id]


def project_bag(project: Project, slide_id: str) -> Bag:
    """One slide's bag, its features still on the disk; see `slide_patch_labels` for what its patches are called.

    Raises
    ------
    ProjectError
        When the slide is unknown or has no features yet.
    FeatureError
        When its features cannot be read.
    """
    from napari_mil.features import open_features
    from napari_mil.mil import Bag

    row = project.slide(slide_id)
    path = project.feature_path(slide_id)
    if not path.is_file():
        raise ProjectError(f"{slide_id}: has no features yet; prepare it on the Features page (or napari-mil extract).")
    features = open_features(path)
    return Bag(
        slide_id=slide_id,
        features=features.features,
        grid=features.grid,
        label=project.label_index(slide_id),
        patch_labels=slide_patch_labels(project, slide_id, features.grid),
        patient_id=row.patient,
        event=row.event,
        time=row.time,
        tissue_pixels=tissue_pixels(path, features.grid),
    )


def slide_patch_labels(project: Project, slide_id: str, grid: PatchGrid) -> npt.NDArray[np.int8]:
    """Patch labels (N,) of a slide: 1 lesion, 0 not, −1 unknown (METHODS §2.1).

    A slide of the negative class has no lesion: all 0 (−1 where ignored). On any other slide patches outside the
    outlines are 0 only when a person said that all lesions are outlined; unanswered counts as partial. A slide without
    a lesion outline is all −1, save what is outlined as normal.
    """
    return labels_of(project, slide_id, grid, project.lesions(slide_id), project.config.classes)


def labels_of(
    project: Project, slide_id: str, grid: PatchGrid, lesions: LesionSet, classes: ClassRoles
) -> npt.NDArray[np.int8]:
    """`slide_patch_labels` for outlines that need not be saved yet."""
    from napari_mil.lesion import Role, patch_labels

    if project.label_index(slide_id) == 0:
        if len(lesions) == 0:
            return np.zeros(len(grid), dtype=np.int8)
        labels = patch_labels(lesions, grid, classes=classes)
        return np.where(labels == 1, 0, labels).astype(np.int8)
    exhaustive = project.slide(slide_id).partial_annotation is False and bool(lesions.of_role(Role.LESION, classes))
    rule = project.config.overlap_rule
    return patch_labels(lesions, grid, rule=rule, partial=not exhaustive, classes=classes)


def tissue_pixels(feature_path: Path, grid: PatchGrid) -> npt.NDArray[np.int64] | None:
    """Tissue pixels (N,) of each patch, kept beside its features when they were made; None where they were not."""
    path = tissue_path(feature_path)
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        pixels: npt.NDArray[np.int64] = arrays["tissue_pixels"].astype(np.int64)
        same = np.array_equal(arrays["coords"], grid.coords)
    return pixels if same else None


def tissue_path(feature_path: Path) -> Path:
    """Where the tissue mask and the tissue pixels of a feature file's patches are kept."""
    return feature_path.with_suffix(".tissue.npz")
