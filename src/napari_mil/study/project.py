"""A project: one folder of plain files that a person can read, and the object that keeps them true to each other.

One window and one background process may hold the same project: the window alone writes project.json, slides.csv and
lesions; the process alone writes features, runs, jobs and maps. Every file is replaced whole, so neither needs a lock.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from napari_mil.errors import ProjectError

from ._files import absolute, read_json, real_path
from .config import SCHEMA_VERSION, ProjectConfig, Role
from .findings import Finding, training_findings
from .intake import collect
from .slides import ProjectSlides, Slides, first_error
from .splits import Split, Stratum, propose_split
from .table import read_table

if TYPE_CHECKING:
    from napari_mil.lesion import LesionSet
    from napari_mil.mil import Bag

    from .badges import Badge


class Project(ProjectSlides):
    """Slides, labels, roles, lesions, features and runs of one study.

    Make one with `Project.create`, open one with `Project.open`; DESIGN's "A project on disk" is its layout.

    Attributes
    ----------
    folder : Path
        Absolute.
    config : ProjectConfig
        Content of project.json; call `save` after changing it.
    """

    # making, opening, saving

    @classmethod
    def create(
        cls,
        folder: Path | str,
        slides: Slides | None = None,
        *,
        name: str | None = None,
        mapping: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Self:
        """Make a project in a new or empty folder; no slide is opened.

        Parameters
        ----------
        folder : path
        slides : folder, CSV file, or list of slide files, optional
        name : str, optional
            The folder's name where not given.
        mapping : {meaning: column}, optional
            For a CSV whose columns cannot be guessed; see `read_table`.
        **settings
            Further fields of `ProjectConfig` (encoder, tile, …).

        Raises
        ------
        ProjectError
            When a project is there already, or the slides cannot be used.
        """
        folder = absolute(folder)
        if (folder / "project.json").exists():
            raise ProjectError(f"{folder}: holds a project already; open it, or choose another folder.")
        try:
            config = ProjectConfig(name=name or folder.name, **settings)
        except ValidationError as error:
            raise ProjectError(f"{folder}: {first_error(error)}.") from error
        project = cls(folder, config, [])
        if slides is not None:
            project._take(collect(slides, folder, mapping))
        project.save()
        return project

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a project by its folder or its project.json.

        Raises
        ------
        ProjectError
            When there is none, it was written by a newer version, or a file of it is damaged.
        """
        path = absolute(folder)
        path = path.parent if path.name == "project.json" else path
        if not (path / "project.json").is_file():
            raise ProjectError(f"{path}: holds no project.json; choose a project's folder, or make a new project.")
        data = read_json(path / "project.json")
        version = data.get("schema_version", 1) if isinstance(data, dict) else None
        if not isinstance(version, int):
            raise ProjectError(f"{path / 'project.json'}: is not a project of napari-mil; found no schema_version.")
        if version > SCHEMA_VERSION:
            raise ProjectError(
                f"{path}: was written by a newer napari-mil (schema version {version}, this one knows "
                f"{SCHEMA_VERSION}); update with: pip install --upgrade napari-mil"
            )
        try:
            config = ProjectConfig.model_validate(data)
        except ValidationError as error:
            raise ProjectError(f"{path / 'project.json'}: {first_error(error)}; mend or remove that entry.") from error
        table = path / "slides.csv"
        rows = read_table(table)[0] if table.is_file() else []
        project = cls(path, config, rows)
        project._learn_labels(rows)  # a label written into the table by hand
        return project

    # labels and roles

    def propose_split(
        self, fractions: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 0, by: Stratum | None = None
    ) -> Split:
        """A patient-grouped {slide_id: role}, stratified by label (or by event); see `napari_mil.study.propose_split`.

        Nothing is changed until `set_roles`.
        """
        return propose_split(self.slides, fractions, seed, by=by)

    def set_roles(self, roles: Mapping[str, Role | None]) -> None:
        """Give slides their roles, all together, so that patients can move whole."""
        self.update_slides({slide_id: {"role": role} for slide_id, role in roles.items()})

    def check_trainable(self, survival: bool | None = None) -> list[Finding]:
        """Sentences about what is missing for training, blocking ones first; empty when all is well.

        Survival needs times and events in place of labels; None: where slides have these and no label.
        """
        return training_findings(self, survival)

    def role_badge(self, run: Any, slide_id: str) -> Badge:
        """What a slide was to a run (a Run, its folder, or its provenance): TRAIN, VALIDATION, TEST or NEW."""
        from .badges import badge_of_project_slide

        return badge_of_project_slide(self, run, slide_id)

    # lesions

    @property
    def lesion_folder(self) -> Path:
        """Folder of the outlines."""
        return self.folder / "lesions"

    def lesion_path(self, slide_id: str) -> Path:
        """File of a slide's outlines, whether it is there or not."""
        return self.lesion_folder / f"{self.slide(slide_id).slide_id}.geojson"

    def lesions(self, slide_id: str) -> LesionSet:
        """Outlines of a slide; an empty set when it has none."""
        from napari_mil.lesion import load_lesions

        return load_lesions(self.lesion_folder, self.slide(slide_id).slide_id)

    def save_lesions(self, slide_id: str, lesions: LesionSet) -> Path:
        """Write a slide's outlines, keeping a history."""
        from napari_mil.lesion import save_lesions

        return save_lesions(self.lesion_folder, self.slide(slide_id).slide_id, lesions)

    # features, bags, runs

    @property
    def encoder(self) -> str:
        """Name of the encoder, or the absolute path of its program (*.pt2)."""
        name = self.config.encoder
        return str(real_path(name, self.folder)) if name.lower().endswith(".pt2") else name

    @property
    def encoder_weights(self) -> Path | None:
        """Absolute path of the encoder's local weights."""
        stored = self.config.encoder_weights
        return None if stored is None else real_path(stored, self.folder)

    @property
    def feature_set(self) -> str:
        """Name of the feature set that the present settings give (or that was imported)."""
        if self.config.feature_set is not None:
            return self.config.feature_set
        from napari_mil.features import feature_set_name

        weights = self.encoder_weights
        return feature_set_name(
            self.encoder,
            self.config.tile,
            self.config.tissue,
            weights=weights.name if weights else None,
            color=self.config.color,
            precision="auto" if self.encoder == "texture" else self.config.precision,  # it has no choice
        )

    @property
    def feature_folder(self) -> Path:
        """Folder of the present feature set."""
        return self.folder / "features" / self.feature_set

    def feature_path(self, slide_id: str) -> Path:
        """File of a slide's features, whether it is there or not."""
        return self.feature_folder / f"{self.slide(slide_id).slide_id}.h5"

    def has_features(self, slide_id: str) -> bool:
        """Whether a slide's features are complete."""
        return self.feature_path(slide_id).is_file()

    def bag(self, slide_id: str) -> Bag:
        """Features, label and patch labels of one slide, as training wants them."""
        from .bags import project_bag

        return project_bag(self, slide_id)

    def bags(self, role: Role | None = None) -> Sequence[Bag]:
        """Bags of the slides of a role (None: all with features), read when asked for."""
        from .bags import ProjectBags

        return ProjectBags(self, [r.slide_id for r in self.slides if role is None or r.role == role])

    def failures(self) -> dict[str, str]:
        """Slides of the present feature set that failed: {slide_id: sentence}."""
        path = self.feature_folder / "failures.json"
        return {k: str(v.get("sentence", "")) for k, v in read_json(path).items()} if path.is_file() else {}

    def runs(self) -> list[Path]:
        """Folders of the runs, the newest first."""
        folder = self.folder / "runs"
        found = [p.parent for p in folder.glob("*/run.json")] if folder.is_dir() else []
        return sorted(found, key=lambda p: p.name, reverse=True)

    def new_run_folder(self, method_name: str) -> Path:
        """Make an empty folder runs/<when>-<method>."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", method_name).strip("-") or "run"
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{plain}"
        for k in range(1, 1000):
            folder = self.folder / "runs" / (stem if k == 1 else f"{stem}-{k}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return folder
        raise ProjectError(f"{self.folder / 'runs'}: has 1,000 runs named {stem}; remove some.")

    def provenance(self, slide_ids: Iterable[str] | None = None) -> dict[str, Any]:
        """What a run depends on: split, patients, labels, hashes of slides, lesions and features, versions."""
        from .provenance import project_provenance

        return project_provenance(self, slide_ids)
