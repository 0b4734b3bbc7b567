"""Jobs of the open project that ended before they were done, and can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mil.errors import MilError

if TYPE_CHECKING:
    from napari_mil.jobs import UnfinishedJob

    from .session import Session


class Interrupted:
    """What was interrupted.

    Attributes
    ----------
    jobs : list of UnfinishedJob
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.jobs: list[UnfinishedJob] = []

    def look(self) -> None:
        """See what the project remembers."""
        project = self._session.project
        self.jobs = self._session.desk.unfinished(project.folder) if project is not None else []

    @property
    def text(self) -> str:
        """What can go on, or nothing."""
        if not self.jobs or self._session.desk.running is not None:
            return ""
        return f"Interrupted: {self.jobs[0].title}. It can go on where it stopped."

    def resume(self) -> None:
        """Go on with all of them."""
        waiting, self.jobs = self.jobs, []
        for job in waiting:
            try:
                self._session.desk.resume(job)
            except MilError as error:
                self._session.failed(error)
            else:
                self._session.models.expect(job.resume_spec)
        self._session.desk.busy_changed.emit()

    def forget(self) -> None:
        """Leave them as they are."""
        for job in self.jobs:
            job.forget()
        self.jobs = []
        self._session.desk.busy_changed.emit()
