"""What stands between the project and a training, worked out behind and only while somebody looks at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal
from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari_mil.study.findings import Finding

    from .session import Session

SOON_MS = 120


class Obstacles:
    """Findings about the project's slides; hundreds of files are looked at for them.

    Signals
    -------
    changed()
        They were worked out anew.

    Attributes
    ----------
    survival : bool or None
        Whether survival is to be trained, which needs times and events in place of labels; None: not said yet.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._findings: list[Finding] | None = None
        self._outdated = True
        self._watched = False
        self._asked = 0
        self.survival: bool | None = None
        self._soon = QTimer()
        self._soon.setSingleShot(True)
        self._soon.setInterval(SOON_MS)
        self._soon.timeout.connect(self._look)
        session.slides.changed.connect(self.outdate)

    @property
    def known(self) -> bool:
        """Whether the project was looked at."""
        return self._findings is not None

    @property
    def blocking(self) -> list[str]:
        """Why nothing can be trained yet."""
        return [str(f) for f in self._findings or () if f.blocking]

    @property
    def advice(self) -> list[str]:
        """What would make the result worth more."""
        return [str(f) for f in self._findings or () if not f.blocking]

    def outdate(self, _: object = None) -> None:
        """Something changed: look again, soon where somebody watches."""
        self._outdated = True
        if self._watched:
            self._soon.start()

    def set_task(self, kind: str) -> None:
        """The task that is to be trained: survival needs times and events in place of labels."""
        if (kind == "survival") != self.survival:
            self.survival = kind == "survival"
            self._findings = None
            self.outdate()

    def forget(self) -> None:
        """Another project is open."""
        self._findings = None
        self._asked += 1
        self.outdate()

    def watch(self, on: bool) -> None:
        """Somebody looks at them, or no longer does."""
        self._watched = on
        if on and self._outdated:
            self._soon.start(0)
            self._soon.setInterval(SOON_MS)

    def _look(self) -> None:
        project = self._session.project
        self._outdated = False
        if project is None:
            return
        self._asked += 1
        asked, survival = self._asked, self.survival

        def done(found: list[Finding]) -> None:
            if asked == self._asked:
                self._findings = found
                self.changed.emit()

        self._session.background.run(lambda: list(project.check_trainable(survival)), done, self._session.failed)

    def close(self) -> None:
        """Look no more."""
        self._watched = False
        self._asked += 1
        self._soon.stop()
