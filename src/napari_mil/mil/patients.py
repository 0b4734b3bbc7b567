"""All slides of a patient as one bag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mil.errors import TrainingError

from .bag import Bag

if TYPE_CHECKING:
    from .configs import TaskConfig


class JoinedFeatures:
    """Features of several slides, put together each time they are needed: patients take no second copy of them.

    Parameters
    ----------
    parts : sequence of (N_i, D) arrays or tensors
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *(int(part.shape[0]) for part in parts)])
        self.shape = (int(self.starts[-1]), int(parts[0].shape[1]))
        self.dtype = parts[0].dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        joined = np.concatenate([_array(part) for part in self.parts])
        return joined if dtype is None else joined.astype(dtype, copy=False)

    def __getitem__(self, index: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows by their ascending numbers."""
        cuts = np.searchsorted(index, self.starts)
        rows = [
            _array(part[index[a:b] - start])
            for part, start, a, b in zip(self.parts, self.starts, cuts, cuts[1:], strict=False)
            if b > a
        ]
        return np.concatenate(rows)


def patient_bags(bags: Sequence[Bag], task: str = "binary") -> list[Bag]:
    """All slides of a patient as one bag (Tang et al. 2025 for survival); a slide without a patient keeps its own.

    Features are one slide after the other, as stored. A patient's patch labels are −1 (unknown) on slides that have
    none; there are tissue pixels where all slides have them; there is no grid.

    Parameters
    ----------
    bags : sequence of Bag
        Bags that are a patient's already are left as they are.
    task : "binary", "multiclass" or "survival"
        Two classes: a patient is positive when a slide is, and negative when all are. More classes: the slides have to
        agree. Survival: their times and events have to.

    Returns
    -------
    list of Bag
        In the order of each patient's first slide; `slide_id` is the patient, `slides` its slides.

    Raises
    ------
    TrainingError
        Slides of a patient that disagree, or have features of different sizes.
    """
    groups: dict[tuple[str, str], list[Bag]] = defaultdict(list)
    for bag in bags:
        groups["slide" if bag.patient_id is None else "patient", bag.patient_id or bag.slide_id].append(bag)
    return [_join(own, task) for own in groups.values()]


def task_bags(bags: Sequence[Bag], task: TaskConfig) -> Sequence[Bag]:
    """The bags that a task is about: as they are, or put together by patient where it says so."""
    return patient_bags(bags, task.kind) if task.bags == "patient" else bags


def _join(bags: list[Bag], task: str) -> Bag:
    """The bag of one patient."""
    first = bags[0]
    if first.patient_id is None or (len(bags) == 1 and first.slides):
        return first
    sizes = {bag.dim for bag in bags}
    if len(sizes) > 1:
        raise TrainingError(
            f"Patient {first.patient_id} has slides of {' and '.join(map(str, sorted(sizes)))} numbers per patch; "
            "extract all slides with the same encoder."
        )
    labels = {bag.label for bag in bags if bag.label is not None}
    if task == "binary" and labels == {0} and any(bag.label is None for bag in bags):
        labels = set()  # the other slides may be positive
    if task == "multiclass" and len(labels) > 1:
        raise TrainingError(
            f"The slides of patient {first.patient_id} have different labels ({_each(bags, 'label')}); one bag per "
            "patient needs one label. Correct them, or set task.bags to slide."
        )
    cases = {(bag.time, bag.event) for bag in bags}
    if task == "survival" and len(cases) > 1:
        raise TrainingError(
            f"The slides of patient {first.patient_id} have different times or events (time {_each(bags, 'time')}; "
            f"event {_each(bags, 'event')}); give all slides of a patient the same."
        )
    time, event = next(iter(cases)) if len(cases) == 1 else (None, None)
    outlined = any(bag.patch_labels is not None for bag in bags)
    measured = all(bag.tissue_pixels is not None for bag in bags)
    return replace(
        first,
        slide_id=str(first.patient_id),
        features=JoinedFeatures([bag.features for bag in bags]) if len(bags) > 1 else first.features,
        grid=None,
        label=max(labels) if labels else None,
        patch_labels=np.concatenate([_labels_or_unknown(bag) for bag in bags]) if outlined else None,
        event=event,
        time=time,
        tissue_pixels=np.concatenate([np.asarray(bag.tissue_pixels) for bag in bags]) if measured else None,
        slides=tuple(part for bag in bags for part in bag.slides or ((bag.slide_id, len(bag)),)),
    )


def _labels_or_unknown(bag: Bag) -> npt.NDArray[np.int8]:
    return bag.patch_labels if bag.patch_labels is not None else np.full(len(bag), -1, dtype=np.int8)


def _each(bags: Sequence[Bag], name: str) -> str:
    """What each slide says, for a sentence: "a 1, b 2", not too many."""
    said = [f"{bag.slide_id} {value if (value := getattr(bag, name)) is not None else 'unknown'}" for bag in bags]
    return ", ".join(said[:4]) + (", …" if len(said) > 4 else "")


def _array(part: Any) -> npt.NDArray[Any]:
    return part.detach().cpu().numpy() if hasattr(part, "detach") else np.asarray(part)
