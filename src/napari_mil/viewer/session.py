"""The truth behind the window: one project, the slide on stage, its jobs and its models. Pages show it and call it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from . import recent
from .background import Background, sentence_of
from .desk import JobDesk, is_for
from .interrupted import Interrupted
from .models import Models
from .next_method import NextMethod
from .obstacles import Obstacles
from .preparation import Preparation
from .settings import follow_cache_limit, read_settings
from .slide_map import SlideMap
from .slide_table import SlideTable
from .stage import Stage
from .words import count

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mil.jobs import Job, JobStatus
    from napari_mil.study import Project


STEP_KEYS = {"PageDown": 1, "PageUp": -1}
"""The next and the previous slide, wherever in the window one is."""


class Session:
    """One window's work.

    Attributes
    ----------
    project : Project or None
    slides : SlideTable
        The project's slides, with their labels and roles.
    stage : Stage
        The slide that is shown, with its outlines and previews.
    preparation : Preparation
        From slides to features.
    method : NextMethod
        What is to be trained next.
    models : Models
        Runs and their curves.
    maps : SlideMap
        Where a model looks on the slide on stage.
    obstacles : Obstacles
        What stands between the project and a training.
    desk : JobDesk
        What runs in the background.
    interrupted : Interrupted
        What did, when the window was closed or its process died.

    Signals
    -------
    project_changed()
        Another project is open, or none.
    said(str, str)
        A sentence for the person, and how grave it is: "info", "warning", "error".
    """

    project_changed = Signal()
    said = Signal(str, str)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.project: Project | None = None
        self.settings = read_settings()
        self._unfollow_cache_limit = follow_cache_limit()
        self.background = Background()
        self.desk = JobDesk(self.background)
        self.slides = SlideTable(self)
        self.stage = Stage(self)
        self.preparation = Preparation(self)
        self.method = NextMethod(self)
        self.models = Models(self)
        self.maps = SlideMap(self)
        self.obstacles = Obstacles(self)
        self._closed = False
        self.interrupted = Interrupted(self)
        for key, step in STEP_KEYS.items():
            viewer.bind_key(key, lambda _, step=step: self.slides.step(step), overwrite=True)
        self.desk.finished.connect(self._job_finished)
        self.desk.report.connect(self._job_report)

    # speaking to the person

    def say(self, sentence: str, gravity: str = "info") -> None:
        """Tell the person something."""
        self.said.emit(sentence, gravity)

    def failed(self, error: Exception) -> None:
        """Tell the person what went wrong."""
        self.say(sentence_of(error), "error")

    # projects

    def open_or_create(self, path: Path) -> None:
        """Open a project folder; make a project of a folder of slides or a table."""
        if (path / "project.json").exists():
            self.open_project(path)
        elif path.is_dir() or path.suffix.lower() in {".csv", ".tsv", ".txt"}:
            self.new_project(path)
        else:
            self.say(f"{path.name}: expected a project, a folder of slides or a table (CSV).", "warning")

    def open_project(self, folder: Path) -> None:
        """Open a project and go back to where it was left."""
        from napari_mil.study import Project

        try:
            project = Project.open(folder)
        except (MilError, OSError) as error:
            self.failed(error)
            return
        self._take(project)

    def new_project(self, source: Path, *, mapping: dict[str, str] | None = None, folder: Path | None = None) -> None:
        """Make a project beside a folder of slides, or beside a table, and open it."""
        from napari_mil.study import Project

        name = source.name if source.is_dir() else source.stem
        target = folder or source.parent / f"{name}-mil"
        if (target / "project.json").exists():
            self.say(f"{target.name} is a project already; it is opened.")
            self.open_project(target)
            return

        def made(project: Project) -> None:
            self._take(project)
            self.say(f"New project with {count(len(project), 'slide')} in {target}.")

        self.background.run(lambda: Project.create(target, source, mapping=mapping), made, self.failed)

    def open_sample(self) -> None:
        """Make the synthetic sample cohort, if it isn't there yet, and open its project."""
        self.say("Making the sample slides, once; this takes some seconds…")

        def make() -> Path:
            from napari_mil.sample import create_sample, sample_folder

            return create_sample(sample_folder())

        self.background.run(make, self.open_project, self.failed)

    def _take(self, project: Project) -> None:
        self.close_project()
        self.project = project
        recent.remember(project.folder)
        self.preparation.look()
        self.models.reload()
        self.interrupted.look()
        self.obstacles.forget()
        self.project_changed.emit()
        self.slides.changed.emit(None)
        self._restore()

    def rename_project(self, name: str) -> None:
        """Give the project another name; its folder keeps its own."""
        name = name.strip()
        if self.project is None or not name or name == self.project.config.name:
            return
        try:
            self.project.config.name = name
            self.project.save()
        except (MilError, OSError) as error:
            self.failed(error)
        self.project_changed.emit()

    def close_project(self) -> None:
        """Save everything and show nothing."""
        if self.project is None:
            return
        self.save_view()
        self.stage.clear()
        self.project = None
        self.interrupted.look()
        self.preparation.look()
        self.models.reload()
        self.obstacles.forget()
        self.project_changed.emit()

    def close(self) -> None:
        """End of the window: save, stop threads and the child process; a job in it can be resumed."""
        if self._closed:
            return
        self._closed = True
        self.close_project()
        for key in STEP_KEYS:
            self.viewer.bind_key(key, None)
        self.obstacles.close()
        self.stage.close()
        self.maps.close()
        self.desk.close()
        self.background.close()
        self._unfollow_cache_limit()

    # what a reopened window shows again

    def save_view(self) -> None:
        """Remember slide, cameras, layers and map in the project."""
        if self.project is None:
            return
        view = dict(self.project.config.view)
        run = self.models.run
        view.update(self.stage.state(), map=self.maps.state(), run=run.name if run is not None else None)
        view["job_was_running"] = self.desk.running is not None and is_for(self.desk.running, self.project.folder)
        try:
            self.project.save_view(view)
        except (MilError, OSError) as error:
            self.failed(error)

    def set_page(self, page: str) -> None:
        """Remember the page that is shown."""
        if self.project is not None:
            self.project.config.view = {**self.project.config.view, "page": page}

    @property
    def page(self) -> str | None:
        """The page that was shown last."""
        return self.project.config.view.get("page") if self.project else None

    def _restore(self) -> None:
        assert self.project is not None
        view = self.project.config.view
        self.maps.restore(view.get("map"))
        chosen = next((run for run in self.models.runs if run.name == view.get("run")), None)
        if chosen is not None:
            self.models.select_run(chosen)
        slide_id = view.get("slide")
        if slide_id in self.project.slide_ids:
            self.stage.show(slide_id, restore=view)
        if view.get("job_was_running"):
            self.project.config.view = {k: v for k, v in view.items() if k != "job_was_running"}
            if self.interrupted.jobs:
                self.say("The job that was running when the window was closed goes on.")
                self.interrupted.resume()

    # classes of outlines

    @property
    def class_colours(self) -> dict[str, tuple[int, int, int]]:
        """Classes of outlines with their colours, in the order of keys 1–9."""
        return dict(self.project.config.class_colors) if self.project else {}

    # jobs

    @property
    def busy_text(self) -> str:
        """Why another heavy job has to wait, or nothing."""
        return "A job is running; stop it or wait." if self.desk.running is not None else ""

    def stop_job(self, keep: str = "best") -> None:
        """Stop what runs."""
        self.desk.cancel(keep)

    def _is_ours(self, job: Job) -> bool:
        return self.project is not None and is_for(job, self.project.folder)

    def _job_report(self, job: Job, report: dict[str, Any]) -> None:
        slide_id = report.get("slide_id")
        if slide_id and job.spec.kind == "extract" and report.get("done") == report.get("total") and self._is_ours(job):
            self.preparation.prepared(slide_id)

    def _job_finished(self, job: Job, status: JobStatus) -> None:
        if status.phase == "failed":
            self.say(status.error or "The job failed.", "error")
        elif status.message and not (job.spec.kind == "apply" and status.phase == "done"):  # says where its maps are
            self.say(status.message, "warning" if (status.result or {}).get("failed") else "info")
        if not self._is_ours(job):
            return
        assert self.project is not None
        if status.phase == "failed":
            self.interrupted.look()
        self.models.reload()
        if job.spec.kind == "extract":
            self.slides.look_again()
        else:
            self.obstacles.outdate()
