"""Training on a project: bags of its roles, all that it depends on in run.json, figures on held-out slides."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import ProjectError, TrainingError
from napari_mil.whole import written_whole

from .bags import ProjectBags
from .config import ROLES, Role
from .evaluate import evaluate_run
from .provenance import project_provenance
from .runs import project_around, run_facts
from .splits import Split, refuse_patients_in_two_roles

if TYPE_CHECKING:
    from napari_mil.mil import Bag, EpochReport, Method, Run

    from .project import Project


PATCH_LABELS = "patch_labels.npz"
OF_OUTLINES = (
    "its outlines were changed.",
    "the answer to “all lesions outlined?” is another.",
    "its lesion patches go by another rule.",
)
"""How sentences of `changes_since` end that matter only where outlines teach."""
_OF = "of "  # before a slide's name, which could be one that NumPy uses itself


def train_project(
    project: Project,
    method: Method | Mapping[str, Any] | str,
    *,
    seed: int = 0,
    device: str = "cpu",
    out: Path | str | None = None,
    resume: bool = False,
    on_bag: Callable[[int, int], None] | None = None,
    split: Mapping[str, Role] | None = None,
) -> Generator[EpochReport, None, Run]:
    """Train a method on a project's training slides and judge it on the others.

    The run's folder gets, besides what `fit` writes, `predictions.csv` and `metrics.json` of the validation and test
    slides (or patients, where the task's bags are patients), and `kaplan_meier.png` for survival.

    MHIM and hard negative bags start from a plain run: a finished one of the project with the same settings, seed,
    slides and features is used, and named in the run's notes; where there is none, it is trained first, in the run's
    folder.

    Parameters
    ----------
    method : Method, its dict, or a preset's name
        Its task takes the project's label names; survival takes the table's columns time and event instead.
    out : path, optional
        Folder of the run; a new one in the project's `runs` where not given.
    resume : bool
        Go on with `out`, on the split and with the outlines that it was started with, whatever was drawn since;
        refused when its slides' features or labels are others now, since the result would be of neither.
    on_bag : callable (done, total), optional
        Called after each slide of an epoch; may raise `Cancelled`.
    split : {slide_id: role}, optional
        Other roles than the project's own.

    Raises
    ------
    TrainingError, ProjectError
        What stands in the way, in a sentence.
    """
    from napari_mil.mil import fit

    from .plain_runs import plain_run

    begun = run_facts(out) if resume and out is not None and (Path(out) / "run.json").is_file() else None
    taught = None
    if begun is not None and out is not None:
        split = split or recorded_split(begun)
        taught = _read_patch_labels(Path(out))
        _refuse_changes(project, Path(out), outlines=taught is None)
    wanted = _as_method(method)
    survival = wanted.task.kind == "survival"
    if split is None:
        _refuse_obstacles(project, survival)
    roles = split_of(project, split, survival=survival)
    chosen = method_for(project, wanted)
    provenance = project_provenance(project, [i for ids in roles.values() for i in ids])
    if begun is not None and taught is not None:
        provenance = dict(begun["provenance"])
    provenance["split"] = roles
    folder = Path(out) if out is not None else project.new_run_folder(chosen.name)
    train, validation = (ProjectBags(project, roles[role], taught) for role in ("train", "validation"))
    if begun is None:
        _keep_patch_labels(folder, [*train, *validation])
    try:
        run = yield from fit(
            chosen,
            train,
            validation,
            seed=seed,
            device=device,
            out=folder,
            provenance=provenance,
            resume=resume,
            on_bag=on_bag,
            plain=plain_run(project, chosen, seed, roles) if not (folder / "plain").exists() else None,
        )
    except TrainingError:
        if [path.name for path in folder.iterdir()] == [PATCH_LABELS]:  # refused before anything began
            (folder / PATCH_LABELS).unlink()
            if out is None:
                folder.rmdir()
        raise
    evaluate_run(project, run, device=device)
    return run


def retrain_from(
    run: Path | str,
    *,
    project: Project | None = None,
    out: Path | str | None = None,
    device: str | None = None,
    on_bag: Callable[[int, int], None] | None = None,
) -> Generator[EpochReport, None, Run]:
    """Do a run again from its run.json: same method, seed and split.

    What has changed since (features, outlines, labels) can be asked beforehand: `changes_since`.

    Parameters
    ----------
    run : path
        A run's folder or run.json.
    project : Project, optional
        The one that the run lies in where not given.
    """
    from .project import Project

    facts = run_facts(run)
    around = project_around(run)
    if project is None and around is None:
        raise ProjectError(f"{run}: lies in no project's folder; say which project it is to be done again on.")
    owner = project if project is not None else Project.open(str(around))
    return (
        yield from train_project(
            owner,
            facts["method"],
            seed=int(facts["seed"]),
            device=device or str(facts.get("device") or "cpu"),
            out=out,
            on_bag=on_bag,
            split=recorded_split(facts),
        )
    )


def recorded_split(facts: Mapping[str, Any]) -> Split:
    """The {slide_id: role} in the content of a run.json."""
    recorded = (facts.get("provenance") or {}).get("split") or {}
    split: Split = {slide_id: role for role in ROLES for slide_id in recorded.get(role, [])}
    if not split:
        raise ProjectError("This run's run.json names no slides, so it can neither go on nor be done again here.")
    return split


def changes_since(project: Project, run: Path | str, roles: Sequence[Role] = ROLES) -> list[str]:
    """What a run depended on and is different now, a sentence per slide and thing; empty when all is the same."""
    facts = run_facts(run)
    provenance = facts.get("provenance") or {}
    wanted = {slide_id for role in roles for slide_id in (provenance.get("split") or {}).get(role, [])}
    before = {i: entry for i, entry in (provenance.get("slides") or {}).items() if i in wanted}
    known = [slide_id for slide_id in before if slide_id in project.slide_ids]
    now = project_provenance(project, known)["slides"]
    found = [f"{slide_id} is no longer in the project." for slide_id in before if slide_id not in project.slide_ids]
    words = {
        "label": "its label is another",
        "partial_annotation": "the answer to “all lesions outlined?” is another",
        "features_hash": "its features were made again",
        "lesions_sha256": "its outlines were changed",
        "overlap_rule": "its lesion patches go by another rule",
    }
    if facts["method"]["task"]["kind"] == "survival":
        words |= {"time": "its time is another", "event": "its event is another"}
    if facts["method"]["task"].get("bags") == "patient":
        words["patient_id"] = "its patient is another"
    for slide_id in known:
        for key, what in words.items():
            if before[slide_id].get(key) != now[slide_id].get(key):
                found.append(f"{slide_id}: {what}.")
    return found


def _refuse_obstacles(project: Project, survival: bool) -> None:
    obstacles = [finding for finding in project.check_trainable(survival) if finding.blocking]
    if obstacles:
        raise TrainingError(" ".join(obstacles))


def _keep_patch_labels(folder: Path, bags: Sequence[Bag]) -> None:
    """What the outlines taught when the run began, so that it can go on after more was drawn."""
    arrays = {f"{_OF}{bag.slide_id}": bag.patch_labels for bag in bags if bag.patch_labels is not None}
    with written_whole(folder / PATCH_LABELS) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _read_patch_labels(folder: Path) -> dict[str, npt.NDArray[np.int8]] | None:
    """The labels that a run began with; None where they were not kept."""
    if not (folder / PATCH_LABELS).is_file():
        return None
    with np.load(folder / PATCH_LABELS, allow_pickle=False) as arrays:
        return {name.removeprefix(_OF): arrays[name] for name in arrays.files}


def _refuse_changes(project: Project, run: Path, *, outlines: bool) -> None:
    changes = [
        change
        for change in changes_since(project, run, ("train", "validation"))
        if outlines or not change.endswith(OF_OUTLINES)
    ]
    if changes:
        more = f" (and {len(changes) - 3} more changes)" if len(changes) > 3 else ""
        raise TrainingError(
            f"{run.name} cannot go on as it began: {' '.join(changes[:3])}{more} Train anew, or put it back as it was."
        )


def method_for(project: Project, method: Method | Mapping[str, Any] | str) -> Method:
    """A method whose task has the project's classes; one for survival stays as it is.

    Raises
    ------
    TrainingError
        When there are fewer than two labels, which survival does not need.
    """
    method = _as_method(method)
    if method.task.kind == "survival":
        return method
    names = tuple(project.label_names)
    if len(names) < 2:
        raise TrainingError(f"The project has {len(names)} slide labels; training needs two or more. Label the slides.")
    kind = "binary" if len(names) == 2 else "multiclass"
    settings: dict[str, Any] = {"task.kind": kind}
    if tuple(method.task.classes) != names:
        settings["task.classes"] = names
    return method.with_settings(settings)


def _as_method(method: Method | Mapping[str, Any] | str) -> Method:
    from napari_mil.mil import Method

    if isinstance(method, str):
        return Method.preset(method)
    return method if isinstance(method, Method) else Method.model_validate(dict(method))


def split_of(
    project: Project, split: Mapping[str, Role] | None = None, *, survival: bool = False
) -> dict[str, list[str]]:
    """{role: [slide ids]} of the slides with features and a label (survival: time and event).

    Patients in two roles are refused.
    """
    rows = project.slides
    if split is not None:
        for slide_id in split:
            project.slide(slide_id)
        rows = [row.model_copy(update={"role": split.get(row.slide_id)}) for row in rows]
    refuse_patients_in_two_roles(rows)
    usable = [r for r in rows if r.known(survival) and r.role is not None and project.has_features(r.slide_id)]
    return {role: [r.slide_id for r in usable if r.role == role] for role in ROLES}
