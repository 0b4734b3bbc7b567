"""A model to hand on: weights, method, encoder, scale, classes and licence note in one folder, and its use on slides.

A bundle names no slide and no patient. So that its maps can still say TRAIN on a slide it was trained on, it keeps the
fingerprints of those slides' files.
"""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mil.errors import MilError, TrainingError
from napari_mil.features.published import PUBLISHED
from napari_mil.lesion import ClassRoles
from napari_mil.slide import TileConfig, TissueConfig
from napari_mil.whole import written_whole

from ._files import read_json, real_path, write_json, write_text
from .badges import Badge, role_badge
from .config import ROLES
from .runs import load_run, project_around, refuse_other_features

if TYPE_CHECKING:
    from napari_mil.features import Encoder, ExtractReport, Features
    from napari_mil.mil import Aggregator, Run
    from napari_mil.slide import Slide

SCHEMA_VERSION = 1
LICENCE = (
    "Research use only: not a medical device, not for diagnosis. The weights may be under the terms of the slides and "
    "of the encoder that they were made with; whoever hands this folder on states them here."
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model and what its features must be.

    Attributes
    ----------
    name : str
    run : Run
    features : dict
        Encoder, weights_sha256, target_mpp, patch_px, dim, color that it was trained on.
    encoder : str
        Name, or the path of a program (*.pt2) in the bundle.
    encoder_weights : Path or None
        A local weights file in the bundle.
    tile, tissue : TileConfig, TissueConfig
    classes : tuple of str
        The slide labels, the negative one first.
    roles : ClassRoles
        Of the outlines.
    licence : str
    seen : {role: [fingerprints]}
    """

    name: str
    run: Run
    features: dict[str, Any]
    encoder: str
    encoder_weights: Path | None
    tile: TileConfig
    tissue: TissueConfig
    classes: tuple[str, ...]
    roles: ClassRoles
    licence: str
    seen: Mapping[str, list[str]]
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)  # encoder and network, once made

    def encoder_on(self, device: str = "auto") -> Encoder:
        """The encoder, made once for each device."""
        from napari_mil.features import get_encoder, in_precision
        from napari_mil.features.precision import PRECISIONS

        from .prepare import resolve_device

        where = resolve_device(device, self.encoder)
        if where not in self._kept:
            made = get_encoder(self.encoder, weights=self.encoder_weights, device=where)
            precision = self.features.get("precision")  # imported features do not know theirs
            self._kept[where] = in_precision(made, precision if precision in PRECISIONS else "fp32")
        encoder: Encoder = self._kept[where]
        return encoder

    @property
    def network(self) -> Aggregator:
        """The network with its weights, built once."""
        if "network" not in self._kept:
            self._kept["network"] = self.run.build()
        network: Aggregator = self._kept["network"]
        return network

    @property
    def target_mpp(self) -> float:
        """µm per pixel of its patches."""
        return float(self.features.get("target_mpp") or self.tile.target_mpp)

    @property
    def patch_px(self) -> int:
        """Side of its patches at that scale."""
        return int(self.features.get("patch_px") or self.tile.patch_px)

    def check_features(self, features: Features) -> None:
        """Refuse features of another encoder, scale or colours (FeatureError)."""
        refuse_other_features(self.features, features.provenance, features.slide_id)

    def badge(self, fingerprint: str) -> Badge:
        """What the slide with this fingerprint was to the model."""
        slides = {value: {"fingerprint": value} for values in self.seen.values() for value in values}
        return role_badge({"split": dict(self.seen), "slides": slides}, fingerprint=fingerprint)


@dataclass(frozen=True)
class Applied:
    """What a bundle said about one slide (`risk`: survival), and where its files are."""

    slide_id: str
    predicted: str
    probabilities: dict[str, float]
    badge: str
    scores: str
    picture: str
    risk: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(self.__dict__)


def export_bundle(run: Run | Path | str, out: Path | str, *, licence: str = LICENCE) -> Path:
    """Put a run's model into a folder of its own.

    Parameters
    ----------
    run : Run or path
    out : path
        A new or empty folder.
    licence : str
        The note for whoever uses it.

    Raises
    ------
    MilError
        When the folder holds something, or the run does not say what features it was trained on.
    """
    source = bundle_of_run(run)
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise MilError(f"{out}: is not empty; choose a new folder for the model.")
    out.mkdir(parents=True, exist_ok=True)
    stored: dict[str, str | None] = {"encoder": source.encoder, "encoder_weights": None}
    if source.encoder.lower().endswith(".pt2"):
        stored["encoder"] = _copy(Path(source.encoder), out)
        _copy(Path(source.encoder).with_suffix(".json"), out)
    published = PUBLISHED.get(source.encoder)
    if published is not None:
        licence = (
            f"{licence.rstrip()}\n\nIt reads the features of an encoder that is not in this folder. {published.terms}"
        )
    elif source.encoder_weights is not None:
        stored["encoder_weights"] = _copy(source.encoder_weights, out)
    anonymous = replace(source.run, provenance={"features": source.features}, notes=[], history=[])
    anonymous.save(out)
    (out / "epochs.csv").unlink(missing_ok=True)
    write_text(out / "LICENCE.txt", licence.rstrip() + "\n")
    content = {
        "schema_version": SCHEMA_VERSION,
        "name": out.name,
        "made": time.strftime("%Y-%m-%d"),
        **stored,
        "features": source.features,
        "tile": source.tile.model_dump(mode="json"),
        "tissue": source.tissue.model_dump(mode="json"),
        "classes": list(source.classes),
        "outline_classes": source.roles.model_dump(mode="json"),
        "seen": dict(source.seen),
        "use": "Research use only",
    }
    write_json(out / "bundle.json", content)
    return out


def load_bundle(folder: Path | str) -> Bundle:
    """Open a model that `export_bundle` made.

    Raises
    ------
    MilError
        When it is none, is damaged, or was made by a newer version.
    """
    folder = Path(folder)
    path = folder / "bundle.json"
    if not path.is_file():
        raise MilError(f"{folder}: holds no bundle.json; choose a folder that a model was saved in.")
    content = read_json(path)
    try:
        if content["schema_version"] > SCHEMA_VERSION:
            raise MilError(
                f"{folder}: was made by a newer napari-mil (schema version {content['schema_version']}, this one knows "
                f"{SCHEMA_VERSION}); update with: pip install --upgrade napari-mil"
            )
        encoder = str(content["encoder"])
        weights = content.get("encoder_weights")
        licence = folder / "LICENCE.txt"
        return Bundle(
            name=str(content["name"]),
            run=load_run(folder),
            features=dict(content["features"]),
            encoder=str(folder / encoder) if encoder.lower().endswith(".pt2") else encoder,
            encoder_weights=None if weights is None else folder / str(weights),
            tile=TileConfig.model_validate(content["tile"]),
            tissue=TissueConfig.model_validate(content["tissue"]),
            classes=tuple(content["classes"]),
            roles=ClassRoles.model_validate(content["outline_classes"]),
            licence=licence.read_text(encoding="utf-8") if licence.is_file() else "",
            seen={role: list(content["seen"].get(role, [])) for role in ROLES},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MilError(f"{path}: is damaged ({error}); save the model again.") from error


def bundle_of_run(run: Run | Path | str) -> Bundle:
    """A run in its project's folder, as a bundle that was not copied yet."""
    loaded = load_run(run)
    provenance = loaded.provenance
    features = dict(provenance.get("features") or {})
    if not features.get("encoder"):
        raise TrainingError("This run does not say what features it was trained on, so it cannot be used on slides.")
    slides = provenance.get("slides") or {}
    seen = {
        role: [slides[i]["fingerprint"] for i in ids if (slides.get(i) or {}).get("fingerprint")]
        for role, ids in (provenance.get("split") or {}).items()
    }
    encoder, weights = str(features["encoder"]), None
    source = provenance.get("encoder_source") or {}
    base = (project_around(loaded.folder) if loaded.folder is not None else None) or Path()
    if str(source.get("encoder", "")).lower().endswith(".pt2"):
        encoder = str(real_path(source["encoder"], base))
    if source.get("weights"):
        weights = real_path(source["weights"], base)
    return Bundle(
        name=loaded.folder.name if loaded.folder is not None else "run",
        run=loaded,
        features=features,
        encoder=encoder,
        encoder_weights=weights,
        tile=TileConfig.model_validate(provenance.get("tile") or {}),
        tissue=TissueConfig.model_validate(provenance.get("tissue") or {}),
        classes=tuple(loaded.classes),
        roles=ClassRoles.model_validate(provenance.get("classes") or {}),
        licence=LICENCE,
        seen=seen,
    )


def apply_bundle(
    bundle: Bundle | Path | str,
    slide_path: Path | str,
    out: Path | str,
    *,
    device: str = "auto",
    mpp: float | None = None,
) -> Generator[ExtractReport, None, Applied]:
    """Run a model on a slide, in the colours it was trained on: tissue → features → prediction → map.

    Into `out` come `features/<slide>.h5`, `maps/<slide>.npz` (see `load_map_scores`), `maps/<slide>.png`, and a line
    in `predictions.csv`.

    Parameters
    ----------
    bundle : Bundle or path
    slide_path : path
    out : path
    device : str
    mpp : float, optional
        µm per level-0 pixel, for a slide that does not say.

    Raises
    ------
    MilError
        When the slide cannot be read, its scale is unknown, or the encoder is not the one the model was trained with.
    """
    from napari_mil.slide import open_slide

    from .table import slide_id_of

    model = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    path, out = Path(slide_path), Path(out)
    slide_id = slide_id_of(path)
    with open_slide(path, srgb=model.features.get("color") == "srgb") as slide:
        if slide.mpp is None and mpp is not None:
            slide.set_mpp(mpp)
        features = yield from _features(model, slide, out / "features" / f"{slide_id}.h5", device)
        applied = _judge(model, slide, features, out / "maps", device)
    remember(out / "predictions.csv", applied)
    return applied


def _features(model: Bundle, slide: Slide, path: Path, device: str) -> Generator[ExtractReport, None, Features]:
    """Tissue → grid → features; what the model cannot use is refused before it is computed."""
    from napari_mil.features import ExtractReport, extract, read_features

    from .prepare import find_patches

    slide_id = path.stem
    yield ExtractReport(slide_id, 0, 0, 0.0, None, "Finding tissue.")
    mask, grid, note = find_patches(slide, model.tissue, model.tile)
    if note:
        yield ExtractReport(slide_id, 0, len(grid), 0.0, None, note)
    encoder = model.encoder_on(device)
    made = {
        "encoder": encoder.name,
        "weights_sha256": encoder.weights_sha256,
        "dim": encoder.dim,
        "color": model.features.get("color"),
    }
    scale = float(np.sqrt(grid.patch_um[0] * grid.patch_um[1])) / model.patch_px
    refuse_other_features(model.features, made | {"target_mpp": round(scale, 4)}, slide_id)
    yield from extract(
        slide,
        grid,
        encoder,
        path,
        patch_px=model.patch_px,
        target_mpp=model.target_mpp,
        tissue={"tissue": mask.to_dict(), "tile": model.tile.model_dump(mode="json")},
    )
    features = read_features(path, dtype=None)
    model.check_features(features)
    return features


def _judge(model: Bundle, slide: Slide, features: Features, folder: Path, device: str) -> Applied:
    """Prediction and map of a slide's features."""
    from napari_mil.maps import attention_map, export_map
    from napari_mil.mil import Bag, predict

    from .predict import save_map_scores, scores_of

    slide_id = features.slide_id
    bag = Bag(slide_id, features.features, features.grid)
    prediction = predict(model.run, bag, device=device, model=model.network)
    scores = scores_of(prediction, bag, model.run, model.badge(slide.fingerprint), slide.fingerprint)
    picture = export_map(
        folder / f"{slide_id}.png",
        attention_map(features.grid, prediction.scores, normalisation="percentile"),
        badge=scores.badge,
        title=f"{slide_id} · {model.name}",
        thumbnail=np.asarray(slide.thumbnail(1500)),
        slide_dimensions=slide.dimensions,
    )
    return Applied(
        slide_id=slide_id,
        predicted=scores.predicted,
        probabilities={name: float(p) for name, p in zip(model.classes, scores.probabilities, strict=True)},
        badge=scores.badge,
        scores=str(save_map_scores(folder / f"{slide_id}.npz", replace(scores, run=model.name))),
        picture=str(picture),
        risk=scores.risk,
    )


def remember(path: Path, applied: Applied) -> None:
    """Put a slide's line into predictions.csv, in place of an older one of the same slide."""
    chances = {f"p_{name}": f"{p:.6g}" for name, p in applied.probabilities.items()}
    if applied.risk is not None:
        chances |= {"risk": f"{applied.risk:.6g}"}
    columns = ["slide_id", "predicted", "badge", *chances, "use"]
    rows: list[dict[str, str]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("slide_id") != applied.slide_id]
    new = {"slide_id": applied.slide_id, "predicted": applied.predicted, "badge": applied.badge}
    new |= chances | {"use": "Research use only"}
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, new])
    write_text(path, text.getvalue())


def _copy(source: Path, folder: Path) -> str:
    if not source.is_file():
        raise MilError(f"{source}: the encoder's file is not there any more, so the model cannot be saved with it.")
    with written_whole(folder / source.name) as part:
        shutil.copyfile(source, part)
    return source.name
