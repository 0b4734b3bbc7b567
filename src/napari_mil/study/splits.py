"""Splits of slides into train, validation and test: patients stay together, labels in proportion, seeds decide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_mil.errors import ProjectError

from .config import ROLES, Role, SlideRow, order_labels

Split = dict[str, Role]
Stratum = Literal["label", "event"]


def patients_in_two_roles(rows: Iterable[SlideRow]) -> dict[str, dict[Role, list[str]]]:
    """Patients whose slides have more than one role: {patient: {role: [slide ids]}}."""
    found: dict[str, dict[Role, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.role is not None:
            found[row.patient][row.role].append(row.slide_id)
    return {patient: dict(roles) for patient, roles in found.items() if len(roles) > 1}


def refuse_patients_in_two_roles(rows: Iterable[SlideRow], where: str = "") -> None:
    """Raise a ProjectError that names patients and slides when a patient is in two roles."""
    found = patients_in_two_roles(rows)
    if not found:
        return
    some = [
        f"patient {patient} is in " + " and in ".join(f"{role} ({', '.join(ids[:3])})" for role, ids in roles.items())
        for patient, roles in list(found.items())[:3]
    ]
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    raise ProjectError(
        f"{where}{'; '.join(some)}{more}. The test would be on tissue the model has seen: "
        "give all slides of a patient the same role."
    )


def propose_split(
    rows: Sequence[SlideRow],
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    *,
    roles: Sequence[Role] = ROLES,
    by: Stratum | None = None,
) -> Split:
    """Deal the patients of labelled slides to roles, stratified by label; for survival by event.

    A patient counts under the last of its slides' labels (the positive one). With at least as many patients of a
    label as roles, every role gets one; with fewer, the first roles do.

    Parameters
    ----------
    rows : sequence of SlideRow
        Slides of patients without any label (time and event) get no role.
    fractions : numbers
        Share of the patients for each role, adding up to 1.
    seed : int
        The same seed, slides and labels give the same split, whatever the order of the rows.
    by : "label" or "event", optional
        By label where not given; by event where no slide has a label.

    Raises
    ------
    ProjectError
        When no slide has a label (time and event).
    ValueError
        When the fractions make no sense.
    """
    shares = np.asarray(fractions, dtype=float)
    if len(shares) != len(roles) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"fractions are {tuple(fractions)}; expected {len(roles)} shares that add up to 1.")
    slides = _by_patient(rows)
    chosen: dict[str, Role] = {}
    for patients in _strata(rows, seed, by):
        target = _whole_shares(len(patients), shares)
        slides_wanted = shares * sum(len(slides[p]) for p in patients)
        for patient in sorted(patients, key=lambda p: -len(slides[p])):
            open_roles = np.flatnonzero(target > 0)
            best = open_roles[np.argmax(slides_wanted[open_roles])]
            chosen[patient] = roles[best]
            target[best] -= 1
            slides_wanted[best] -= len(slides[patient])
    return {row.slide_id: chosen[row.patient] for row in rows if row.patient in chosen}


def monte_carlo(
    rows: Sequence[SlideRow],
    repeats: int,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    *,
    keep_test: bool = False,
    by: Stratum | None = None,
) -> list[Split]:
    """`repeats` independent splits. With `keep_test` the test slides stay, and the others are dealt anew.

    With `keep_test`, train and validation share what is not test as fractions[0] : fractions[1].
    """
    if not keep_test:
        return [propose_split(rows, fractions, seed + k, by=by) for k in range(repeats)]
    test: Split = {row.slide_id: "test" for row in rows if row.role == "test"}
    if not test:
        raise ProjectError("No slide has the role test, so there is no test set to keep; give some slides that role.")
    rest = [row for row in rows if row.role != "test"]
    total = fractions[0] + fractions[1]
    shares = (fractions[0] / total, fractions[1] / total)
    return [propose_split(rest, shares, seed + k, roles=ROLES[:2], by=by) | test for k in range(repeats)]


def k_fold(
    rows: Sequence[SlideRow], folds: int, seed: int = 0, *, validation: float = 0.2, by: Stratum | None = None
) -> list[Split]:
    """Patient-grouped, stratified k-fold: each fold is the test once; `validation` of the other patients validate.

    Raises
    ------
    ProjectError
        When a label has fewer patients than there are folds.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds}; expected at least 2.")
    fold_of: dict[str, int] = {}
    turn = 0
    for patients in _strata(rows, seed, by):
        if len(patients) < folds:
            raise ProjectError(
                f"Only {len(patients)} patients have the rarest {_kind(rows, by)}, too few for {folds} folds; "
                f"choose at most {len(patients)} folds, or Monte-Carlo splits."
            )
        for patient in patients:
            fold_of[patient] = turn % folds
            turn += 1
    splits: list[Split] = []
    for fold in range(folds):
        rest = [row for row in rows if fold_of.get(row.patient, fold) != fold]
        test: Split = {row.slide_id: "test" for row in rows if fold_of.get(row.patient) == fold}
        dealt = propose_split(rest, (1 - validation, validation), seed + fold, roles=ROLES[:2], by=by)
        splits.append(dealt | test)
    return splits


def _by_patient(rows: Iterable[SlideRow]) -> Mapping[str, list[str]]:
    slides: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        slides[row.patient].append(row.slide_id)
    return slides


def _kind(rows: Iterable[SlideRow], by: Stratum | None) -> Stratum:
    """What the split goes by."""
    if by is not None:
        return by
    every = list(rows)
    labelled = any(row.known(survival=False) for row in every)
    return "event" if not labelled and any(row.known(survival=True) for row in every) else "label"


def _levels(rows: Sequence[SlideRow], by: Stratum) -> dict[str, int]:
    """{patient: number of its label, or whether its event was seen}."""
    known = [row for row in rows if row.known(survival=by == "event")]
    if not known:
        what, do = ("time and event", "read them from a table") if by == "event" else ("a label", "label the slides")
        raise ProjectError(f"No slide has {what} yet, so there is nothing to split; {do} first.")
    names = order_labels([row.label for row in known if row.label is not None])
    level: dict[str, int] = {}
    for row in known:
        own = int(bool(row.event)) if by == "event" else names.index(row.label or "")
        level[row.patient] = max(level.get(row.patient, 0), own)
    return level


def _strata(rows: Sequence[SlideRow], seed: int, by: Stratum | None) -> list[list[str]]:
    """Patients of each label (event or none) in an order drawn from the seed; the rarest first."""
    level = _levels(rows, _kind(rows, by))
    generator = np.random.default_rng(seed)
    strata: list[list[str]] = []
    for k in range(max(level.values()) + 1):
        patients = sorted(p for p, at in level.items() if at == k)
        strata.append([patients[i] for i in generator.permutation(len(patients))])
    return sorted((s for s in strata if s), key=len)


def _whole_shares(n: int, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """n patients as whole numbers in proportion to shares; at least one each while there are enough."""
    asked = shares > 0
    if n < asked.sum():
        return np.where(asked, np.cumsum(asked) <= n, False).astype(int)
    whole = np.where(asked, np.maximum(np.floor(n * shares + 1e-9), 1), 0).astype(int)
    while whole.sum() != n:
        step = 1 if whole.sum() < n else -1
        lack = np.where(asked & ((whole > 1) | (step > 0)), step * (n * shares - whole), -np.inf)
        whole[int(lack.argmax())] += step
    return whole
