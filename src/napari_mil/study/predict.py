"""Predictions of a run on slides, kept as small files that maps are painted from."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from napari_mil.errors import MilError, ProjectError
from napari_mil.geometry import PatchGrid
from napari_mil.maps.export import RESEARCH_ONLY
from napari_mil.whole import written_whole

from .badges import Badge
from .provenance import feature_facts
from .runs import load_run, refuse_other_features

if TYPE_CHECKING:
    from napari_mil.mil import Aggregator, Bag, Prediction, Run

    from .project import Project

Floats = npt.NDArray[np.float32]
_ARRAYS = ("scores", "attention", "logits", "probabilities", "contribution", "instance_probability")


@dataclass(frozen=True, eq=False)
class MapScores:
    """What a model said about a slide and its patches.

    Attributes
    ----------
    slide_id : str
    grid : PatchGrid
        N patches.
    scores, attention : (N,) float32
        Raw scores, and the attention that the model pooled with.
    contribution, instance_probability : (N,) float32 or None
    logits : (C,) float32
    probabilities : (n_classes,) float32
    classes : tuple of str
    badge : str
        TRAIN, VALIDATION, TEST or NEW when it was predicted.
    run : str
        Name of the run or bundle.
    fingerprint : str
        Of the slide; empty when its features do not say.
    risk : float or None
        Survival: the higher, the sooner the event is expected.
    """

    slide_id: str
    grid: PatchGrid
    scores: Floats
    attention: Floats
    logits: Floats
    probabilities: Floats
    classes: tuple[str, ...]
    badge: Badge
    run: str
    fingerprint: str = ""
    contribution: Floats | None = None
    instance_probability: Floats | None = None
    risk: float | None = None

    @property
    def predicted(self) -> str:
        """Name of the most probable class (survival: bin of time)."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def sentence(self) -> str:
        """What is predicted, in a few words."""
        if self.risk is not None:
            return f"risk {self.risk:.2f}, most likely {self.predicted} ({float(self.probabilities.max()):.2f})"
        return f"{self.predicted} ({float(self.probabilities.max()):.2f})"


@dataclass(frozen=True)
class PredictReport:
    """A slide is predicted, or could not be (`error`)."""

    slide_id: str
    done: int
    total: int
    probabilities: tuple[float, ...] = ()
    badge: str = ""
    risk: float | None = None
    message: str = ""
    error: str = ""
    predicted: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def predict_slide(
    project: Project,
    run: Run | Path | str,
    slide_id: str,
    *,
    device: str = "cpu",
    out: Path | None = None,
    model: Aggregator | None = None,
) -> MapScores:
    """Predict one slide of a project and keep its scores in `<run>/maps/<slide_id>.npz` (or in the folder `out`).

    A model of patients is shown all slides of the patient (of the same role, with features) and predicts the patient;
    the map is this slide's part.

    Raises
    ------
    MilError
        When the slide has no features, or those of another encoder or scale than the run was trained on.
    """
    return _predict_slide(project, load_run(run), slide_id, device, out, model, {})


def _predict_slide(
    project: Project,
    loaded: Run,
    slide_id: str,
    device: str,
    out: Path | None,
    model: Aggregator | None,
    known: dict[str, Prediction],
) -> MapScores:
    """`predict_slide`; `known` has what was predicted of slides together with others, and not asked for yet."""
    from napari_mil.mil import patient_bags, predict

    fingerprint = _checked_facts(project, loaded, slide_id)["fingerprint"]
    bag = project.bag(slide_id)
    if slide_id in known:
        prediction = known.pop(slide_id)
    elif loaded.method.task.bags == "patient":
        own = [project.bag(name) for name in _slides_of_patient(project, loaded, slide_id)]
        # what is known of the slides takes no part in a prediction, and need not agree
        (joined,) = patient_bags([replace(b, label=None, time=None, event=None) for b in own])
        parts = predict(loaded, joined, device=device, model=model).of_slides(joined)
        known |= {part.slide_id: part for part in parts}
        prediction = known.pop(slide_id)
    else:
        prediction = predict(loaded, bag, device=device, model=model)
    scores = scores_of(prediction, bag, loaded, project.role_badge(loaded, slide_id), str(fingerprint or ""))
    folder = out or (loaded.folder / "maps" if loaded.folder is not None else None)
    if folder is None:
        raise MilError("This run has no folder to keep its maps in; save the run first, or give an out folder.")
    save_map_scores(folder / f"{slide_id}.npz", scores)
    return scores


def _checked_facts(project: Project, loaded: Run, slide_id: str) -> dict[str, Any]:
    facts = feature_facts(project.feature_path(slide_id))
    if facts is None:
        raise ProjectError(f"{slide_id}: has no features yet; prepare it on the Features page (or napari-mil extract).")
    refuse_other_features(loaded.provenance.get("features") or {}, facts, slide_id)
    return facts


def _slides_of_patient(project: Project, loaded: Run, slide_id: str) -> list[str]:
    """The slide and those of its patient that go with it: of the same role in the run, with the model's features."""
    roles = {name: role for role, names in (loaded.provenance.get("split") or {}).items() for name in names}
    patient = project.slide(slide_id).patient
    names = [row.slide_id for row in project.slides if row.patient == patient and project.has_features(row.slide_id)]
    together = [name for name in names if roles.get(name) == roles.get(slide_id)]
    for name in together:
        _checked_facts(project, loaded, name)
    return together


def predict_project(
    project: Project,
    run: Run | Path | str,
    slide_ids: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    out: Path | None = None,
) -> Generator[PredictReport, None, list[str]]:
    """Predict slides one after the other (None: all with features), going on after a bad one.

    Returns
    -------
    list of str
        The slides that failed.
    """
    loaded = load_run(run)
    chosen = [i for i in project.slide_ids if project.has_features(i)] if slide_ids is None else list(slide_ids)
    if not chosen:
        raise ProjectError("No slide has features yet, so there is nothing to predict; prepare the slides first.")
    model = loaded.build()
    failed: list[str] = []
    known: dict[str, Prediction] = {}
    for done, slide_id in enumerate(chosen, 1):
        try:
            found = _predict_slide(project, loaded, slide_id, device, out, model, known)
        except (MilError, OSError) as error:
            failed.append(slide_id)
            yield PredictReport(slide_id, done, len(chosen), error=str(error), message=str(error))
        else:
            message = f"{slide_id}: {found.sentence}"
            chances = tuple(map(float, found.probabilities))
            yield PredictReport(
                slide_id, done, len(chosen), chances, found.badge, found.risk, message, predicted=found.predicted
            )
    return failed


def scores_of(prediction: Prediction, bag: Bag, run: Run, badge: Badge, fingerprint: str) -> MapScores:
    """A prediction with its patches, so that a map can be painted from it."""
    if bag.grid is None:
        raise MilError(f"{bag.slide_id}: the bag has no grid, so there is no map; give its patches' coordinates.")
    return MapScores(
        slide_id=bag.slide_id,
        grid=bag.grid,
        scores=prediction.scores,
        attention=prediction.attention,
        logits=prediction.logits,
        probabilities=prediction.probabilities,
        classes=tuple(run.classes),
        badge=badge,
        run=run.folder.name if run.folder is not None else "",
        fingerprint=fingerprint,
        contribution=prediction.contribution,
        instance_probability=prediction.instance_probability,
        risk=prediction.risk,
    )


def save_map_scores(path: Path, scores: MapScores) -> Path:
    """Write scores as .npz, atomically."""
    about = {
        "slide_id": scores.slide_id,
        "classes": list(scores.classes),
        "badge": scores.badge,
        "run": scores.run,
        "fingerprint": scores.fingerprint,
        "risk": scores.risk,
        "use": RESEARCH_ONLY,
    }
    arrays: dict[str, Any] = {
        "coords": scores.grid.coords,
        "patch_px_level0": np.array(scores.grid.patch_px_level0),
        "stride_px_level0": np.array(scores.grid.stride_px_level0),
        "mpp": np.array(scores.grid.mpp),
    }
    for name in _ARRAYS:
        values = getattr(scores, name)
        if values is not None:
            arrays[name] = values
    with written_whole(path) as part, part.open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about, ensure_ascii=False)), **arrays)
    return path


def load_map_scores(path: Path | str) -> MapScores:
    """Read what `save_map_scores` wrote.

    Raises
    ------
    MilError
        When the file is not there, or no such file.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            grid = PatchGrid(arrays["coords"], arrays["patch_px_level0"], arrays["stride_px_level0"], arrays["mpp"])
            return MapScores(
                slide_id=about["slide_id"],
                grid=grid,
                scores=arrays["scores"],
                attention=arrays["attention"],
                logits=arrays["logits"],
                probabilities=arrays["probabilities"],
                classes=tuple(about["classes"]),
                badge=about["badge"],
                run=about["run"],
                fingerprint=about["fingerprint"],
                contribution=arrays.get("contribution"),
                instance_probability=arrays.get("instance_probability"),
                risk=about.get("risk"),
            )
    except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise MilError(f"{path}: holds no scores of a prediction ({error}); predict the slide again.") from error
