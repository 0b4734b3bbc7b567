"""From slides to features: which slides are ready, with which settings, what the rest will take, and the job itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from .background import sentence_of

if TYPE_CHECKING:
    from napari_mil.features import EncoderInfo
    from napari_mil.study import Project
    from napari_mil.study.prepare import ProjectEstimate

    from .desk import Finished
    from .session import Session


class Preparation:
    """Features of the open project.

    Attributes
    ----------
    ready : set of str
        Slides that have features with the present settings.
    failures : dict
        Slides that could not be read or prepared, and why.
    estimate : ProjectEstimate or None
        What the slides without features will take; None while it is worked out.

    Signals
    -------
    estimated()
        The estimate is there, or is no longer true.
    """

    estimated = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.ready: set[str] = set()
        self.failures: dict[str, str] = {}
        self.estimate: ProjectEstimate | None = None
        self._estimated: tuple[Project, str, int] | None = None  # what it was asked for last
        self._estimating = False  # one at a time: it opens slides
        self._encoders: list[EncoderInfo] | None = None

    def look(self) -> None:
        """See which slides have features with the present settings, and which failed: two small reads."""
        project = self._session.project
        if project is None:
            self.ready, self.failures = set(), {}
            return
        try:
            with os.scandir(project.feature_folder) as entries:
                there = {entry.name for entry in entries}
        except OSError:  # nothing was prepared yet
            there = set()
        self.ready = {slide_id for slide_id in project.slide_ids if f"{slide_id}.h5" in there}
        try:
            self.failures = {k: v for k, v in project.failures().items() if k not in self.ready}
        except MilError as error:
            self.failures = {}
            self._session.failed(error)

    def unreadable(self, slide_id: str, error: Exception) -> None:
        """Note that a slide could not be read."""
        self.failures.setdefault(slide_id, sentence_of(error))
        self._session.slides.changed.emit({slide_id})

    def prepared(self, slide_id: str) -> None:
        """A job says that it has done with a slide."""
        self._encoders = None  # weights may have been downloaded
        project = self._session.project
        if project is not None and slide_id in project.slide_ids and project.has_features(slide_id):
            self.ready.add(slide_id)
            self.failures.pop(slide_id, None)
            self._session.slides.changed.emit({slide_id})

    # settings

    @property
    def encoders(self) -> list[EncoderInfo]:
        """The encoders there are, each with a note for people."""
        if self._encoders is None:
            from napari_mil.features import list_encoders

            self._encoders = list(list_encoders())
        return self._encoders

    def accept_licence(self, encoder: str) -> None:
        """The person accepts the licence of an encoder's weights, once for all their projects."""
        from napari_mil.features.licences import accept
        from napari_mil.features.published import PUBLISHED

        try:
            accept(PUBLISHED[encoder])
        except MilError as error:
            self._session.failed(error)
        self._encoders = None

    def configure(
        self,
        *,
        tissue: dict[str, Any] | None = None,
        tile: dict[str, Any] | None = None,
        encoder: str | None = None,
        weights: str | None = None,
        precision: str | None = None,
        color: str | None = None,
    ) -> None:
        """Change how slides become features; what was made with other settings stays on disk.

        Another encoder begins with its own weights; `weights` is a local file, or "" for those that are downloaded.
        """
        session, project = self._session, self._session.project
        if project is None:
            return
        config = project.config
        try:
            changes: dict[str, Any] = {}
            if tissue:
                changes["tissue"] = type(config.tissue)(**{**config.tissue.model_dump(), **tissue})
            if tile:
                changes["tile"] = type(config.tile)(**{**config.tile.model_dump(), **tile})
            if encoder and encoder != config.encoder:
                changes |= {"encoder": encoder, "encoder_weights": None}
            if weights is not None:
                changes["encoder_weights"] = weights or None
            if precision:
                changes["precision"] = precision
            if color:
                changes["color"] = color
            changed = {k: v for k, v in changes.items() if getattr(config, k) != v}
            if not changed:
                return
            for name, value in changed.items():
                setattr(config, name, value)
            project.save()
        except (MilError, ValueError, OSError) as error:
            session.say(str(error), "warning")
            return
        self.look()
        self.estimate = None
        session.slides.changed.emit(None)
        if "color" in changed and session.stage.slide_id is not None:
            session.stage.show(session.stage.slide_id, again=True)  # patches and tissue follow
        else:
            session.stage.patches.update()

    # before and while

    def work_out_estimate(self) -> None:
        """Look at some of the slides that have no features yet, behind, and say what preparing all will take."""
        session, project = self._session, self._session.project
        if project is None or session.desk.running is not None or self._estimating:
            return
        asked = (project, project.feature_set, len(project) - len(self.ready))
        if self._estimated == asked or asked[2] == 0:
            return
        from napari_mil.study.prepare import estimate_project

        self._estimated = asked
        self._estimating = True
        device = session.settings.device

        def done(estimate: ProjectEstimate) -> None:
            self._estimating = False
            now = session.project
            if now is project and asked == (now, now.feature_set, len(now) - len(self.ready)):
                self.estimate = estimate
            self.estimated.emit()  # whoever shows it asks again where it is no longer true

        def failed(_: Exception) -> None:
            self._estimating = False
            self.estimate = None

        session.background.run(lambda: estimate_project(project, device=device, sample=4), done, failed, patient=True)

    def prepare(
        self, slide_ids: Sequence[str] | None = None, *, retry_failed: bool = False, then: Finished | None = None
    ) -> None:
        """Tissue, patches and features of all slides (or of these), in the background."""
        session = self._session
        if session.project is None:
            return
        from napari_mil.jobs import ExtractJob

        session.stage.outlines.flush()  # regions to be ignored are outlines
        session.save_view()
        session.desk.submit(
            ExtractJob(
                project=str(session.project.folder),
                slide_ids=list(slide_ids) if slide_ids is not None else None,
                retry_failed=retry_failed,
                device=session.settings.device,
            ),
            then,
        )
