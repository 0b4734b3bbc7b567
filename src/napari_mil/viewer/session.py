"""The truth behind the window: one project, the slide on stage, its jobs and its models. Pages show it and call it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from .background import Background, sentence_of
from .desk import Finished, JobDesk
from .models import Models
from .settings import apply_cache_limit, read_settings
from .stage import Stage
from .thumbnails import slide_thumbnail

if TYPE_CHECKING:
    import numpy.typing as npt
    from napari.components import ViewerModel

    from napari_mil.jobs import JobStatus
    from napari_mil.study import Project, SlideRow
    from napari_mil.study.prepare import ProjectEstimate

RECENT_AT_MOST = 10


def recent_file() -> Path:
    """Where the list of recent projects is kept."""
    from napari_mil.features.weights import cache_folder

    return cache_folder() / "recent.json"


class Session:
    """One window's work.

    Attributes
    ----------
    project : Project or None
    stage : Stage
        The slide that is shown, with its outlines and previews.
    models : Models
        Runs, their curves and their maps.
    desk : JobDesk
        What runs in the background.

    Signals
    -------
    project_changed()
        Another project is open, or none.
    slides_changed(set of slide ids or None)
        Rows of the slide table changed, None: any of them.
    said(str, str)
        A sentence for the person, and how grave it is: "info", "warning", "error".
    """

    project_changed = Signal()
    slides_changed = Signal(object)
    said = Signal(str, str)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.project: Project | None = None
        self.settings = read_settings()
        apply_cache_limit(self.settings)
        self.background = Background()
        self.desk = JobDesk(self.background)
        self.stage = Stage(self)
        self.models = Models(self)
        self._closed = False
        self._ready: set[str] = set()
        self._failures: dict[str, str] = {}
        self._unfinished: list[Any] = []
        self._encoders: list[Any] | None = None
        self._estimate: ProjectEstimate | None = None
        self._estimated: tuple[Project, str] | None = None  # what it was asked for last
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

    def recent_projects(self) -> list[Path]:
        """Folders of the projects opened last, the newest first; those that are gone are left out."""
        try:
            folders = [Path(p) for p in json.loads(recent_file().read_text(encoding="utf-8"))]
        except (OSError, ValueError):
            return []
        return [p for p in folders if (p / "project.json").exists()]

    def _remember(self, folder: Path) -> None:
        folders = [str(folder), *(str(p) for p in self.recent_projects() if p != folder)][:RECENT_AT_MOST]
        with contextlib.suppress(OSError):  # a list of recents is a comfort, not a need
            recent_file().parent.mkdir(parents=True, exist_ok=True)
            recent_file().write_text(json.dumps(folders), encoding="utf-8")

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
            self.say(f"New project with {len(project.slides)} slides in {target}.")

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
        self._remember(project.folder)
        self._look_at_slides()
        self.models.reload()
        self._unfinished = self.desk.unfinished(project.folder)
        self.project_changed.emit()
        self.slides_changed.emit(None)
        self._restore()

    def close_project(self) -> None:
        """Save everything and show nothing."""
        if self.project is None:
            return
        self.save_view()
        self.stage.clear()
        self.project = None
        self.models.reload()
        self._ready, self._failures, self._unfinished = set(), {}, []
        self.project_changed.emit()

    def close(self) -> None:
        """End of the window: save, stop threads and the child process; a job in it can be resumed."""
        if self._closed:
            return
        self._closed = True
        self.close_project()
        self.stage.close()
        self.models.close()
        self.desk.close()
        self.background.close()

    # what a reopened window shows again

    def save_view(self) -> None:
        """Remember slide, cameras, layers and map in the project."""
        if self.project is None:
            return
        view = dict(self.project.config.view)
        view.update(self.stage.state(), **self.models.state())
        if self.desk.running is not None:
            view["job_was_running"] = True
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
        self.models.restore(view)
        slide_id = view.get("slide")
        if slide_id in {row.slide_id for row in self.project.slides}:
            self.stage.show(slide_id, restore=view)
        if view.get("job_was_running"):
            self.project.config.view = {k: v for k, v in view.items() if k != "job_was_running"}
            if self._unfinished:
                self.say("The job that was running when the window was closed goes on.")
                self.resume_unfinished()

    # slides

    @property
    def label_names(self) -> list[str]:
        """Labels of the slides, the negative one first."""
        return list(self.project.config.label_names) if self.project else []

    @property
    def class_colours(self) -> dict[str, tuple[int, int, int]]:
        """Classes of outlines with their colours, in the order of keys 1–9."""
        return dict(self.project.config.class_colors) if self.project else {}

    def row_of(self, slide_id: str | None) -> SlideRow | None:
        """Row of a slide in the table."""
        if self.project is None or slide_id is None:
            return None
        return next((row for row in self.project.slides if row.slide_id == slide_id), None)

    def set_slides(self, slide_ids: Sequence[str], **fields: Any) -> bool:
        """Change fields of slides; False, and a sentence, when a change makes no sense."""
        if self.project is None:
            return False
        try:
            self.project.update_slides(dict.fromkeys(slide_ids, fields))
        except (MilError, ValueError) as error:
            self.say(str(error), "warning")
            return False
        self.slides_changed.emit(set(slide_ids))
        return True

    def step_slide(self, step: int) -> None:
        """Show the next (1) or the previous (-1) slide."""
        if self.project is None or not self.project.slides:
            return
        ids = [row.slide_id for row in self.project.slides]
        here = ids.index(self.stage.slide_id) if self.stage.slide_id in ids else -1 if step > 0 else 0
        self.stage.show(ids[(here + step) % len(ids)])

    def propose_split(self) -> None:
        """Give every slide a role: 60 % train, 20 % validation, 20 % test, patients kept together."""
        if self.project is None:
            return
        try:
            self.project.set_roles(self.project.propose_split())
        except MilError as error:
            self.failed(error)
            return
        self.slides_changed.emit(None)

    def add_slides(self, folder: Path) -> None:
        """Add the slides of a folder."""
        if self.project is not None:
            project = self.project
            self.background.run(lambda: project.add_slides(folder), lambda n: self._added(n, folder), self.failed)

    def _added(self, added: list[str], folder: Path) -> None:
        self.say(f"{len(added)} slides added from {folder.name}.")
        self._look_at_slides()
        self.slides_changed.emit(None)

    def read_table(self, path: Path, mapping: dict[str, str]) -> None:
        """Take labels, patients and roles from a table."""
        if self.project is None:
            return
        try:
            sentence = self.project.merge_table(path, mapping)
        except (MilError, OSError) as error:
            self.failed(error)
            return
        self.say(sentence)
        self._look_at_slides()
        self.slides_changed.emit(None)

    def set_mpp(self, mpp: float, *, everywhere: bool) -> None:
        """Say how many µm a pixel of the shown slide is, for it alone or for its folder."""
        stage = self.stage
        if self.project is None or stage.slide_id is None:
            return
        if not 0.05 <= mpp <= 20:
            self.say(f"{mpp} µm per pixel is not plausible; expected 0.05 to 20 (20x: about 0.5, 40x: about 0.25).")
            return
        try:
            self.project.set_mpp(stage.slide_id, mpp, folder=everywhere)
        except MilError as error:
            self.failed(error)
            return
        stage.set_mpp(mpp)
        self._look_at_slides()
        self.slides_changed.emit(None)

    def thumbnail(self, slide_id: str, then: Callable[[npt.NDArray[Any]], object]) -> None:
        """Hand over a slide's small picture when it is there; a slide that can't be read gets none."""
        if self.project is None:
            return
        path = self.project.slide_path(slide_id)
        self.background.run(lambda: slide_thumbnail(path), then, lambda error: self._unreadable(slide_id, error))

    def _unreadable(self, slide_id: str, error: Exception) -> None:
        self._failures.setdefault(slide_id, sentence_of(error))
        self.slides_changed.emit({slide_id})

    def _look_at_slides(self) -> None:
        """Which slides have features with the present settings, and which failed."""
        if self.project is None:
            return
        self._ready = {row.slide_id for row in self.project.slides if self.project.has_features(row.slide_id)}
        self._failures = dict(self.project.failures())

    def has_features(self, slide_id: str) -> bool:
        """Whether a slide is ready to train and map, with the present settings."""
        return slide_id in self._ready

    def failure_of(self, slide_id: str) -> str:
        """Why a slide failed, or nothing."""
        return self._failures.get(slide_id, "")

    # features

    def configure(
        self, *, tissue: dict[str, Any] | None = None, tile: dict[str, Any] | None = None, encoder: str | None = None
    ) -> None:
        """Change how slides become features; what was made with other settings stays on disk."""
        if self.project is None:
            return
        config = self.project.config
        try:
            changes: dict[str, Any] = {}
            if tissue:
                changes["tissue"] = type(config.tissue)(**{**config.tissue.model_dump(), **tissue})
            if tile:
                changes["tile"] = type(config.tile)(**{**config.tile.model_dump(), **tile})
            if encoder:
                changes["encoder"] = encoder
            changed = {k: v for k, v in changes.items() if getattr(config, k) != v}
            if not changed:
                return
            for name, value in changed.items():
                setattr(config, name, value)
            self.project.save()
        except (MilError, ValueError, OSError) as error:
            self.say(str(error), "warning")
            return
        self._look_at_slides()
        self._estimate = None
        self.slides_changed.emit(None)
        self.stage.update_patches()

    @property
    def encoders(self) -> list[Any]:
        """The encoders there are, each with a note for people."""
        if self._encoders is None:
            from napari_mil.features import list_encoders

            self._encoders = list(list_encoders())
        return self._encoders

    def estimate(self) -> ProjectEstimate | None:
        """Patches, minutes and GB of the slides without features; None while it is worked out (or makes no sense)."""
        return self._estimate

    def work_out_estimate(self) -> None:
        """Look at some of the slides that have no features yet, behind, and say what preparing all will take."""
        project = self.project
        if project is None or self.desk.running is not None or self._estimated == (project, project.feature_set):
            return
        from napari_mil.study.prepare import estimate_project

        self._estimated = (project, project.feature_set)
        feature_set, device = project.feature_set, self.settings.device

        def done(estimate: ProjectEstimate) -> None:
            if self.project is project and project.feature_set == feature_set:
                self._estimate = estimate
                self.stage.patches_changed.emit()

        self.background.run(lambda: estimate_project(project, device=device, sample=4), done, lambda _: None)

    def prepare(
        self, slide_ids: Sequence[str] | None = None, *, retry_failed: bool = False, then: Finished | None = None
    ) -> None:
        """Tissue, patches and features of all slides (or of these), in the background."""
        if self.project is None:
            return
        from napari_mil.jobs import ExtractJob

        self.save_view()
        self.desk.submit(
            ExtractJob(
                project=str(self.project.folder),
                slide_ids=list(slide_ids) if slide_ids is not None else None,
                retry_failed=retry_failed,
                device=self.settings.device,
            ),
            then,
        )

    # jobs

    @property
    def busy_text(self) -> str:
        """Why another heavy job has to wait, or nothing."""
        return "A job is running; stop it or wait." if self.desk.running is not None else ""

    def stop_job(self, keep: str = "best") -> None:
        """Stop what runs."""
        self.desk.cancel(keep)

    @property
    def unfinished_text(self) -> str:
        """What was interrupted and can go on, or nothing."""
        if not self._unfinished or self.desk.running is not None:
            return ""
        return f"Interrupted: {self._unfinished[0].title}. It can go on where it stopped."

    def resume_unfinished(self) -> None:
        """Go on with what was interrupted."""
        for unfinished in self._unfinished:
            self.models.expect(unfinished.resume_spec)
            self.desk.resume(unfinished)
        self._unfinished = []
        self.project_changed.emit()

    def forget_unfinished(self) -> None:
        """Leave what was interrupted as it is."""
        for unfinished in self._unfinished:
            unfinished.forget()
        self._unfinished = []
        self.project_changed.emit()

    def _job_report(self, report: dict[str, Any]) -> None:
        slide_id = report.get("slide_id")
        if slide_id and report.get("done") == report.get("total") and self.project is not None:
            if self.project.has_features(slide_id):
                self._ready.add(slide_id)
            self.slides_changed.emit({slide_id})

    def _job_finished(self, status: JobStatus) -> None:
        if status.phase == "failed":
            self.say(status.error or "The job failed.", "error")
            if self.project is not None:
                self._unfinished = self.desk.unfinished(self.project.folder)
        elif status.message:
            self.say(status.message)
        self._look_at_slides()
        self._estimated = None
        self.models.reload()
        self.slides_changed.emit(None)
