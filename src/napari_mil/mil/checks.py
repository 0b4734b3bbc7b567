"""Whether these slides can be trained on, before anything starts: errors as sentences, doubts as notes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from napari_mil.errors import TrainingError

from .bag import Bag
from .configs import BinaryTask, RankSupervision, SurvivalTask
from .method import Method
from .metrics import c_index
from .survival import survival_bins

FEW = 10
"""Fewer slides of a class (or events) than this in validation: its figures are mostly chance."""


def check_bags(method: Method, train: Sequence[Bag], validation: Sequence[Bag]) -> list[str]:
    """Refuse what cannot be trained.

    Returns
    -------
    list of str
        Sentences about what can, but with doubts.

    Raises
    ------
    TrainingError
        Empty split, missing or single class, missing times or events, too few events for the bins of time, features of
        different sizes, a slide or patient on both sides, no lesions for a method that learns from them.
    """
    survival = isinstance(method.task, SurvivalTask)
    for bags, role in ((train, "training"), (validation, "validation")):
        if not bags:
            needed = "slides with time and event" if survival else "at least one slide of each class"
            raise TrainingError(f"There is no {role} slide with features; give {needed} the role {role}.")
        if survival:
            _check_times(method, bags, role)
        else:
            _check_labels(method, bags, role)
    _check_sizes([*train, *validation])
    _check_apart(train, validation)
    if isinstance(method.task, SurvivalTask):
        survival_bins([bag.time for bag in train], [bag.event for bag in train], method.task.n_bins)  # type: ignore[arg-type]
        notes = _few_events(method, validation)
    else:
        notes = _few_in_validation(method, validation)
    if method.needs_lesions:
        notes += _check_lesions(method, train)
    return notes


def names(bags: Sequence[Bag], most: int = 5) -> str:
    """Slide names for a sentence, not too many."""
    ids = [bag.slide_id for bag in bags]
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def _check_labels(method: Method, bags: Sequence[Bag], role: str) -> None:
    classes, unit = method.task.classes, method.task.bags
    missing = [bag for bag in bags if bag.label is None]
    if missing:
        raise TrainingError(
            f"{len(missing)} of {len(bags)} {role} {unit}s have no label ({names(missing)}); "
            "label them, or take them out."
        )
    for bag in bags:
        if bag.label is not None and bag.label >= len(classes):
            raise TrainingError(
                f"Slide {bag.slide_id} has label {bag.label}, but the task has the classes "
                f"{', '.join(f'{i} {name}' for i, name in enumerate(classes))}."
            )
    present = {bag.label for bag in bags}
    absent = [name for index, name in enumerate(classes) if index not in present]
    if len(present) == 1:
        only = classes[next(index for index in present if index is not None)]
        raise TrainingError(
            f"All {len(bags)} {role} {unit}s are {only}; training needs {unit}s of another class there, too "
            f"({', '.join(absent)})."
        )
    if absent and role == "training":
        raise TrainingError(
            f"No training {unit} is {absent[0]}; give one that role, or leave the class out of the task."
        )


def _check_times(method: Method, bags: Sequence[Bag], role: str) -> None:
    missing = [bag for bag in bags if bag.time is None or bag.event is None]
    if missing:
        raise TrainingError(
            f"Survival needs time and event, which {len(missing)} of {len(bags)} {role} {method.task.bags}s lack "
            f"({names(missing)}); fill in the columns time and event (1 seen, 0 not seen), or take them out."
        )
    for bag in bags:
        if bag.time is None or not math.isfinite(bag.time) or bag.time < 0:
            raise TrainingError(f"The time of {bag.slide_id} is {bag.time}; expected a number that is not negative.")


def _check_sizes(bags: Sequence[Bag]) -> None:
    sizes = Counter(bag.dim for bag in bags)
    if len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        odd = next(bag for bag in bags if bag.dim != usual)
        raise TrainingError(
            f"Slide {odd.slide_id} has {odd.dim} numbers per patch, most others {usual}; "
            "extract all slides with the same encoder."
        )


def _check_apart(train: Sequence[Bag], validation: Sequence[Bag]) -> None:
    ids = Counter(name for bag in [*train, *validation] for name in bag.slide_ids)
    twice = [slide_id for slide_id, count in ids.items() if count > 1]
    if twice:
        raise TrainingError(f"Slide {twice[0]} is given twice in training and validation; give each slide one role.")
    patients = {bag.patient_id for bag in train if bag.patient_id is not None}
    both = [bag for bag in validation if bag.patient_id in patients]
    if both:
        raise TrainingError(
            f"Patient {both[0].patient_id} is in training and in validation (slide {both[0].slide_id}); "
            "give all slides of a patient the same role."
        )


def _few_in_validation(method: Method, validation: Sequence[Bag]) -> list[str]:
    counts = Counter(bag.label for bag in validation)
    classes, unit = method.task.classes, method.task.bags
    watched = [1] if isinstance(method.task, BinaryTask) else range(len(classes))
    notes = []
    for index in watched:
        if counts[index] < FEW:
            slides = f"1 {unit}" if counts[index] == 1 else f"{counts[index]} {unit}s"
            notes.append(
                f"Validation holds only {slides} of class {classes[index]}: with fewer than {FEW}, its AUROC and the "
                f"choice of the best epoch are mostly chance. Add {unit}s, or read them with care."
            )
    return notes


def _few_events(method: Method, validation: Sequence[Bag]) -> list[str]:
    times, events = [bag.time for bag in validation], [bag.event for bag in validation]
    seen = sum(map(bool, events))
    what = "1 event" if seen == 1 else f"{seen} events"
    if c_index(times, events, [0.0] * len(times)) is None:  # type: ignore[arg-type]
        nothing = f"Validation holds {what} and nobody who outlived one for certain, so there is no C-index"
        if method.training.monitor == "val_c_index":
            raise TrainingError(
                f"{nothing} to choose the best epoch by; give more cases the role validation, or set "
                "training.monitor val_loss."
            )
        return [f"{nothing}; the best epoch is chosen by the loss."]
    if seen < FEW:
        return [
            f"Validation holds only {what}: with fewer than {FEW}, its C-index and the choice of the best epoch are "
            "mostly chance. Add cases, or read them with care."
        ]
    return []


def _check_lesions(method: Method, train: Sequence[Bag]) -> list[str]:
    supervision = method.supervision
    survival = isinstance(method.task, SurvivalTask)  # any slide may have lesions, labelled or not
    positives = [bag for bag in train if (bag.label != 0 if survival else bag.label)]
    with_lesion = [bag for bag in positives if bag.patch_labels is not None and (bag.patch_labels == 1).any()]
    which = f"{'' if survival else 'positive '}training {method.task.bags}s"
    title = {"rank": "Rank induction", "attention": "Attention induction"}.get(supervision.kind, "The patch loss")
    if not with_lesion:
        raise TrainingError(
            f"{title} learns from outlined lesions, but none of the {len(positives)} {which} has a "
            "patch inside an outline. Outline some lesions, or choose a method without outlines (AB-MIL)."
        )
    notes = []
    outlined = {bag.slide_id for bag in with_lesion}
    without = [bag for bag in positives if bag.slide_id not in outlined]
    if without:
        notes.append(
            f"{len(without)} of {len(positives)} {which} have no outlined lesion and teach by their "
            f"{'time' if survival else 'label'} alone: {names(without)}."
        )
    if isinstance(supervision, RankSupervision) and not supervision.cross_slide_negatives:
        no_pair = [bag for bag in with_lesion if bag.patch_labels is not None and not (bag.patch_labels == 0).any()]
        advice = (
            "answer whether all lesions are outlined, outline normal regions, or set supervision.cross_slide_negatives"
        )
        if len(no_pair) == len(with_lesion):
            raise TrainingError(
                "Rank induction compares lesion with non-lesion patches, but no outlined training slide has patches "
                f"known to be free of lesion (partly outlined slides have none): {advice}."
            )
        if no_pair:
            notes.append(
                f"{len(no_pair)} of {len(with_lesion)} outlined {method.task.bags}s have no patch known to be free "
                f"of lesion, so their outlines teach nothing: {names(no_pair)}. To use them, {advice}."
            )
    return notes
