"""What a slide was to a model. A map of a training slide looks right by construction, so every map says it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ._files import read_json

if TYPE_CHECKING:
    from .project import Project

Badge = Literal["TRAIN", "VALIDATION", "TEST", "NEW"]
_ORDER: tuple[tuple[str, Badge], ...] = (("train", "TRAIN"), ("validation", "VALIDATION"), ("test", "TEST"))


def role_badge(
    provenance: Mapping[str, Any],
    *,
    slide_id: str | None = None,
    patient_id: str | None = None,
    fingerprint: str | None = None,
) -> Badge:
    """Badge of a slide that is known by any of its names.

    A slide counts as seen in training when its name, its fingerprint or its *patient* was: TRAIN goes before
    VALIDATION before TEST; NEW is what the run has no word about.

    Parameters
    ----------
    provenance : mapping
        `Run.provenance`: `split` {role: [slide ids]}, and `slides` {slide_id: {patient_id, fingerprint, …}}.
    """
    split = provenance.get("split") or {}
    known = provenance.get("slides") or {}
    for role, badge in _ORDER:
        for name in split.get(role, ()):
            entry = known.get(name) or {}
            if slide_id is not None and name == slide_id:
                return badge
            if fingerprint and entry.get("fingerprint") == fingerprint:
                return badge
            if patient_id and entry.get("patient_id") == patient_id:
                return badge
    return "NEW"


def badge_of_project_slide(project: Project, run: Any, slide_id: str) -> Badge:
    """Badge of a project's slide for a Run, a run folder, a run.json or a provenance mapping."""
    row = project.slide(slide_id)
    return role_badge(
        provenance_of(run),
        slide_id=slide_id,
        patient_id=row.patient,
        fingerprint=feature_fingerprint(project.feature_path(slide_id)),
    )


def provenance_of(run: Any) -> Mapping[str, Any]:
    """The provenance of a Run, of a run folder, or itself."""
    if isinstance(run, Mapping):
        return dict(run.get("provenance", run))
    if isinstance(run, str | Path):
        path = Path(run)
        content = read_json(path if path.suffix == ".json" else path / "run.json")
        return dict(content.get("provenance") or {})
    return dict(run.provenance or {})


def feature_fingerprint(path: Path) -> str | None:
    """The slide's fingerprint as its feature file keeps it; None where there is none."""
    if not path.is_file():
        return None
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("slide_fingerprint", "")) or None
    except OSError:
        return None
