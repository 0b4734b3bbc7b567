"""What stands between a project and its training, each a sentence that says what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .splits import patients_in_two_roles
from .words import counted

if TYPE_CHECKING:
    from .config import SlideRow
    from .project import Project

FEW_POSITIVES = 10  # or events


class Finding(str):
    """A sentence; `blocking` says whether training is impossible or merely less telling than it could be."""

    __slots__ = ("blocking",)
    blocking: bool

    def __new__(cls, sentence: str, *, blocking: bool = True) -> Finding:
        finding = super().__new__(cls, sentence)
        finding.blocking = blocking
        return finding


def training_findings(project: Project, survival: bool | None = None) -> list[Finding]:
    """Findings about a project's slides, blocking ones first; see `Project.check_trainable`."""
    rows = project.slides
    if not rows:
        return [Finding("The project has no slides yet. Add a folder of slides, or a table.")]
    if survival is None:
        survival = any(r.known(survival=True) for r in rows) and not any(r.label for r in rows)
    if survival:
        found = [*_times(rows), *_roles(project, True), *_events(rows)]
    else:
        found = [*_labels(project), *_roles(project, False), *_validation(project)]
    found += [*_features(project, survival), *_outlines(project, survival)]
    return sorted(found, key=lambda finding: not finding.blocking)


def _times(rows: Sequence[SlideRow]) -> list[Finding]:
    if not any(r.known(survival=True) for r in rows):
        return [
            Finding(
                "No slide has a time and an event yet, which survival needs. Read a table with the columns time and "
                "event (1 seen, 0 not seen)."
            )
        ]
    lacking = [r.slide_id for r in rows if r.role is not None and not r.known(survival=True)]
    if lacking:
        return [
            Finding(
                f"{counted(len(lacking), 'slide has', 'slides have')} a role but no time or event ({_some(lacking)}). "
                f"Read {_them(lacking)} from a table, or take the role away."
            )
        ]
    return []


def _events(rows: Sequence[SlideRow]) -> list[Finding]:
    """Whether there are events to learn from, and to judge by."""
    found = []
    for role in ("train", "validation"):
        patients = {r.patient: bool(r.event) for r in rows if r.role == role and r.known(survival=True)}
        events = sum(patients.values())
        if patients and not events and role == "train":
            found.append(
                Finding(
                    f"None of the {counted(len(patients), 'train patient')} has had the event, so there is nothing to "
                    "learn. Move patients with events to train."
                )
            )
        elif patients and role == "validation" and events < FEW_POSITIVES:
            found.append(
                Finding(
                    f"Only {counted(events, 'validation patient has', 'validation patients have')} had the event, "
                    f"fewer than {FEW_POSITIVES}: the validation C-index and the choice of the best epoch will be "
                    "largely chance. Add slides, or repeat over several splits.",
                    blocking=False,
                )
            )
    return found


def _labels(project: Project) -> list[Finding]:
    rows = project.slides
    found = []
    unlabelled = [r.slide_id for r in rows if r.role is not None and r.label is None]
    if not any(r.label for r in rows):
        found.append(
            Finding("No slide has a label yet. Give each slide its label on the Slides page, or read a table.")
        )
    elif unlabelled:
        found.append(
            Finding(
                f"{counted(len(unlabelled), 'slide has', 'slides have')} a role but no label ({_some(unlabelled)}). "
                f"Label {_them(unlabelled)} first."
            )
        )
    return found


def _roles(project: Project, survival: bool) -> list[Finding]:
    rows = [r for r in project.slides if r.known(survival)]
    if not rows:
        return []
    found = []
    for patient, roles in list(patients_in_two_roles(project.slides).items())[:3]:
        where = " and ".join(f"{role} ({_some(ids)})" for role, ids in roles.items())
        found.append(Finding(f"Patient {patient} is in {where}. Give all slides of a patient the same role."))
    for role in ("train", "validation"):
        labels = Counter(r.label for r in rows if r.role == role)
        kind = "slide with time and event" if survival else "labelled slide"
        most = "The only" if labels.total() == 1 else f"All {labels.total()}"
        if not labels:
            found.append(Finding(f"No {kind} has the role {role}. Propose a split, or choose some slides for it."))
        elif len(labels) == 1 and not survival:
            only = next(iter(labels))
            found.append(
                Finding(
                    f"{most} {role} {_have(labels.total())} the label {only}. Training needs at least two labels: "
                    f"label more slides, or move some to {role}.",
                )
            )
    if not any(r.role == "test" for r in rows):
        found.append(
            Finding(
                "No slide has the role test, so nothing will tell how well the model does on new slides.",
                blocking=False,
            )
        )
    return found


def _features(project: Project, survival: bool) -> list[Finding]:
    wanted = [r.slide_id for r in project.slides if r.role in ("train", "validation") and r.known(survival)]
    without = [slide_id for slide_id in wanted if not project.has_features(slide_id)]
    failures = project.failures() if without else {}
    failed = [slide_id for slide_id in without if slide_id in failures]
    open_ones = [slide_id for slide_id in without if slide_id not in failed]
    found = []
    if open_ones:
        found.append(
            Finding(
                f"{len(open_ones)} of {counted(len(wanted), 'training and validation slide')} "
                f"{'has' if len(open_ones) == 1 else 'have'} no features yet ({_some(open_ones)}). "
                f"Prepare {_them(open_ones)} on the Features page (or napari-mil extract)."
            )
        )
    if failed:
        found.append(
            Finding(
                f"{counted(len(failed), 'training or validation slide')} could not be prepared and "
                f"{'is' if len(failed) == 1 else 'are'} left out ({_some(failed)}). "
                f"Retry {_them(failed)} on the Features page.",
                blocking=len(failed) == len(wanted),
            )
        )
    return found


def _validation(project: Project) -> list[Finding]:
    found = []
    names = project.label_names
    validation = [r for r in project.slides if r.role == "validation" and r.label is not None]
    positives = sum(r.label != names[0] for r in validation) if names else 0
    if validation and len(names) >= 2 and 0 < positives < FEW_POSITIVES:
        found.append(
            Finding(
                f"Only {counted(positives, 'validation slide is', 'validation slides are')} positive, "
                f"fewer than {FEW_POSITIVES}: the validation AUROC "
                "and the choice of the best epoch will be largely chance. Add slides, or repeat over several splits.",
                blocking=False,
            )
        )
    return found


def _outlines(project: Project, survival: bool) -> list[Finding]:
    """Advice about outlines of the training slides; methods that need none may pass it over."""
    names = project.label_names
    train = [r for r in project.slides if r.role == "train" and r.known(survival)]
    outlined = {r.slide_id for r in train if project.lesion_path(r.slide_id).is_file()}
    negative = [r.slide_id for r in train if r.slide_id in outlined and names and r.label == names[0]]
    negative = [slide_id for slide_id in negative if has_lesion(project, slide_id)]
    open_question = [r.slide_id for r in train if r.slide_id in outlined - set(negative)]
    open_question = [i for i in open_question if project.slide(i).partial_annotation is None]
    found = []
    if negative:
        found.append(
            f"{counted(len(negative), 'training slide is', 'training slides are')} labelled {names[0]} but "
            f"{'has' if len(negative) == 1 else 'have'} lesions outlined ({_some(negative)}): "
            "those outlines are left out. Check label and outlines."
        )
    if open_question:
        found.append(
            f"For {counted(len(open_question), 'outlined training slide')} nobody has said whether "
            f"all lesions are outlined ({_some(open_question)}), so what is not outlined counts as unknown "
            "and gives no counter-examples. "
            "Answer it on the Slides page."
        )
    return [Finding(sentence, blocking=False) for sentence in found]


def has_lesion(project: Project, slide_id: str) -> bool:
    """Whether a slide has an outline of a lesion class."""
    from napari_mil.lesion import Role

    return bool(project.lesions(slide_id).of_role(Role.LESION, project.config.classes))


def _have(n: int) -> str:
    return "slide has" if n == 1 else "slides have"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _some(names: list[str], n: int = 3) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
