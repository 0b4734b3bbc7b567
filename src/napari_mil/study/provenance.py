"""What a run depends on, written into run.json so that it can be done again and found out when something changed."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mil.errors import FeatureError, ProjectError

from ._files import sha256
from .config import ROLES

if TYPE_CHECKING:
    from .project import Project

_PACKAGES = ("napari-mil", "torch", "torchvision", "numpy", "scipy", "shapely", "openslide-python", "h5py")
_KEYS = (
    "encoder",
    "encoder_revision",
    "weights_sha256",
    "transform",
    "precision",
    "color",
    "target_mpp",
    "patch_px",
    "dim",
)


def project_provenance(project: Project, slide_ids: Iterable[str] | None = None) -> dict[str, Any]:
    """Provenance of a run over some slides (None: those with a role), without method and seed.

    Returns
    -------
    dict
        `project`, `split` {role: [ids]}, `slides` {id: patient_id, label, role, partial_annotation, fingerprint,
        features_hash, lesions_sha256; time and event where known}, `label_names`, `classes`, `features` {encoder,
        weights_sha256, target_mpp, patch_px, dim, color, …}, `encoder_source` (as in project.json), `versions`,
        `platform`.
    """
    rows = (
        [r for r in project.slides if r.role is not None]
        if slide_ids is None
        else [project.slide(i) for i in slide_ids]
    )
    rule = project.config.overlap_rule
    slides: dict[str, dict[str, Any]] = {}
    kinds: dict[str, list[str]] = {}
    features: dict[str, Any] = {}
    for row in rows:
        known = feature_facts(project.feature_path(row.slide_id))
        if known is not None:
            features = {key: known[key] for key in _KEYS}
            kinds.setdefault(json.dumps(features, sort_keys=True), []).append(row.slide_id)
        slides[row.slide_id] = {
            "patient_id": row.patient,
            "label": row.label,
            "role": row.role,
            "partial_annotation": row.partial_annotation,
            "fingerprint": known["fingerprint"] if known else None,
            "features_hash": known["hash"] if known else None,
            "lesions_sha256": sha256(project.lesion_path(row.slide_id)),
            **({"overlap_rule": rule} if rule != "union" else {}),
        }
        if row.known(survival=True):
            slides[row.slide_id] |= {"time": row.time, "event": row.event}
    if len(kinds) > 1:
        raise ProjectError(
            f"{project.feature_folder}: holds features of {len(kinds)} kinds ("
            + "; ".join(f"{', '.join(ids[:3])}: {kind}" for kind, ids in list(kinds.items())[:3])
            + "). Prepare the slides again with one encoder and scale."
        )
    return {
        "project": {"name": project.config.name, "folder": project.folder.name, "feature_set": project.feature_set},
        "split": {role: [r.slide_id for r in rows if r.role == role] for role in ROLES},
        "slides": slides,
        "label_names": list(project.label_names),
        "classes": project.config.classes.model_dump(mode="json"),
        "tissue": project.config.tissue.model_dump(mode="json"),
        "tile": project.config.tile.model_dump(mode="json"),
        "features": features,
        "encoder_source": {"encoder": project.config.encoder, "weights": project.config.encoder_weights},
        "versions": versions(),
        "platform": platform.platform(),
    }


def feature_facts(path: Path) -> dict[str, Any] | None:
    """What a feature file says about itself, and a quick hash; None where there is no file."""
    if not path.is_file():
        return None
    status = path.stat()
    return dict(_feature_facts(path, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=4096)  # an experiment asks for each slide in each of its trainings
def _feature_facts(path: Path, size: int, changed: int) -> dict[str, Any]:
    import h5py

    from napari_mil.features.layout import color_of

    try:
        with h5py.File(path, "r") as file:
            attrs = {k: v.item() if hasattr(v, "item") else v for k, v in file.attrs.items()}
            patch_px, dim = int(file["coords"].attrs["patch_size"]), int(file["features"].shape[1])
    except (OSError, KeyError, IndexError) as error:
        raise FeatureError(f"{path}: is damaged ({error}); delete it and prepare the slide again.") from error
    return {
        "encoder": str(attrs.get("encoder", "")),
        "encoder_revision": str(attrs.get("encoder_revision", "")),
        "weights_sha256": str(attrs.get("weights_sha256", "")),
        "transform": str(attrs.get("transform", "")),
        "precision": str(attrs.get("precision", "")),
        "color": color_of(attrs),
        "target_mpp": float(attrs.get("target_mpp", 0)),
        "patch_px": patch_px,
        "dim": dim,
        "fingerprint": str(attrs.get("slide_fingerprint", "")) or None,
        "hash": quick_hash(path),
    }


def quick_hash(path: Path, block: int = 2**20) -> str:
    """SHA-256 of a file's size and of its first, middle and last MiB: gigabytes of features in no time."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in sorted({0, max(size // 2 - block // 2, 0), max(size - block, 0)}):
            file.seek(start)
            digest.update(file.read(block))
    return f"quick-sha256:{digest.hexdigest()}"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result can depend on."""
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
