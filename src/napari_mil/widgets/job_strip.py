"""The strip at the foot of the dock: what runs, how far it is, and a way to stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_mil.viewer.desk import is_for

from .parts import Action, duration, row

if TYPE_CHECKING:
    from napari_mil.jobs import JobStatus
    from napari_mil.viewer.session import Session


class JobStrip(QWidget):
    """Shows the running job, or the one that was interrupted; hidden when there is neither."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 2, 8, 2)
        layout.setSpacing(2)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        self.cancel = Action(
            "Stop", lambda: session.stop_job("best"), tip="Stops within two seconds; what is done is kept"
        )
        self.resume = Action("Resume", session.interrupted.resume)
        self.dismiss = Action("Dismiss", session.interrupted.forget)
        layout.addWidget(self.text)
        line = QHBoxLayout()
        line.addWidget(self.bar, 1)
        line.addWidget(self.cancel)
        layout.addLayout(line)
        layout.addWidget(row(self.resume, self.dismiss))
        session.desk.changed.connect(self.show_status)
        session.desk.busy_changed.connect(self.refresh)
        session.project_changed.connect(self.refresh)
        self.refresh()

    def show_status(self, status: JobStatus) -> None:
        """Show one status of the running job."""
        self.refresh()

    def refresh(self) -> None:
        running = self.session.desk.running
        status = self.session.desk.status
        unfinished = self.session.interrupted.text
        for widget in (self.bar, self.cancel):
            widget.setVisible(running is not None)
        for widget in (self.resume, self.dismiss):
            widget.setVisible(running is None and bool(unfinished))
        if running is not None and status is not None:
            self.bar.setValue(round(1000 * (status.fraction or 0)))
            left = duration(status.seconds_left)
            self.bar.setFormat(f"%p % · {left} left" if left else "%p %")
            facts = [status.message]
            if status.device:
                facts.append(status.device)
            if status.memory_mb:
                facts.append(f"{status.memory_mb:,.0f} MB")
            if self.session.desk.waiting:
                facts.append(f"{self.session.desk.waiting} waiting")
            if not is_for(running, self.session.project.folder if self.session.project else None):
                facts.insert(0, running.spec.title)  # of a project that is not open any more
            self.text.setText(" · ".join(f for f in facts if f))
            self.cancel.set_reason("It is stopping." if running.keep is not None else "")
        else:
            self.text.setText(unfinished)
        self.setVisible(running is not None or bool(unfinished))
