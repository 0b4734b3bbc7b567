"""Trained models of the open project: their runs, their curves, training another one, handing one on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from .run_facts import LiveRun, RunFacts, part_weights, read_run
from .words import count

if TYPE_CHECKING:
    from napari_mil.jobs import Job, JobStatus

    from .session import Session

DEVICES = {"auto": "Best there is", "cpu": "CPU", "cuda": "GPU (CUDA)", "mps": "GPU (Apple)"}


class Models:
    """Runs of the project.

    Attributes
    ----------
    runs : list of Path
        Their folders, the newest first.
    run : Path or None
        The chosen one.

    Signals
    -------
    runs_changed()
        The list of runs, or the chosen one.
    epochs_changed()
        Another epoch of the chosen run.
    """

    runs_changed = Signal()
    epochs_changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.runs: list[Path] = []
        self.run: Path | None = None
        self._read = RunFacts()
        self._live: LiveRun | None = None
        session.desk.report.connect(self._report)

    # runs

    @property
    def devices(self) -> dict[str, str]:
        """Devices by name; what isn't there answers with a sentence when asked for."""
        return {k: v for k, v in DEVICES.items() if (k == "mps") <= (sys.platform == "darwin")}

    def reload(self) -> None:
        """Look at the project's runs again."""
        project = self._session.project
        found = list(project.runs()) if project is not None else []
        if self._live is not None and not self.training:
            self._live = None
        live = self._live.folder if self._live is not None else None
        self.runs = [live, *found] if live is not None and live not in found else found
        if self.run not in self.runs:
            self.run = self.runs[0] if self.runs else None
        self._read_run()

    def select_run(self, run: Path | None) -> None:
        """Choose a run; its curves are shown."""
        if run != self.run:
            self.run = run
            self._read_run()

    def _read_run(self) -> None:
        self._read = RunFacts()
        if self.run is not None:
            try:
                self._read = read_run(self.run)
            except (MilError, OSError, ValueError) as error:
                self._session.say(f"{self.run.name} can't be read. {error}", "warning")
        self.runs_changed.emit()
        self.epochs_changed.emit()

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """Epochs of the chosen run; in training, those of the stage that is under way."""
        return self._shown.shown

    @property
    def stage(self) -> str:
        """Which run these are epochs of: "plain" is the one before it, empty the run itself."""
        return self._shown.stage

    @property
    def part_weights(self) -> dict[str, float]:
        """What the parts of the chosen run's loss are multiplied by."""
        return part_weights(self._shown.method)

    @property
    def stage_text(self) -> str:
        """How far the plain run is that comes before the training under way; empty when there is none."""
        return self._live.stage_text if self._live is not None and self.training else ""

    @property
    def _shown(self) -> LiveRun | RunFacts:
        return self._live if self._live is not None and self.run_in_training else self._read

    @property
    def facts(self) -> RunFacts:
        """What is on disk of the chosen run."""
        return self._read

    @property
    def training(self) -> bool:
        """Whether a model of this project is being trained now."""
        project = self._session.project
        return self._session.desk.runs_for(project.folder if project is not None else None, "train")

    @property
    def run_in_training(self) -> bool:
        """Whether the chosen run is the one in training."""
        return self._live is not None and self._live.folder == self.run

    @property
    def run_text(self) -> str:
        """What came of the chosen run, in a line or two."""
        return "" if self.run is None else self._shown.text

    # training

    def train(self, seed: int, device: str) -> None:
        """Train a model with the method that is chosen, in the background."""
        session, method = self._session, self._session.method.form.method
        if session.project is None or method is None:
            return
        from napari_mil.jobs import TrainJob

        try:
            out = session.project.new_run_folder(method.name)
        except (MilError, OSError) as error:
            session.failed(error)
            return
        session.stage.outlines.flush()
        session.save_view()
        spec = TrainJob(
            project=str(session.project.folder),
            method=method.model_dump(mode="json"),
            seed=seed,
            device=device,
            out=str(out),
        )
        session.desk.submit(spec)
        self.expect(spec)

    def expect(self, spec: Any) -> None:
        """A training was handed in: its curves are shown, those of epochs done before first."""
        if spec.kind != "train" or spec.out is None:
            return
        run = Path(spec.out)
        before = read_run(run) if spec.resume else RunFacts()
        self._live = LiveRun(run, spec.method, before.epochs, before.plain)
        self.run = run
        self.reload()

    def resume_run(self) -> None:
        """Go on with the chosen run where it stopped."""
        session, facts = self._session, self._read.facts
        if session.project is None or self.run is None or not facts:
            return
        from napari_mil.jobs import TrainJob

        session.stage.outlines.flush()
        spec = TrainJob(
            project=str(session.project.folder),
            method=facts["method"],
            seed=facts["seed"],
            device=facts.get("device", "auto"),
            out=str(self.run),
            resume=True,
        )
        session.desk.submit(spec)
        self.expect(spec)

    @property
    def resume_obstacle(self) -> str:
        """Why the chosen run can't go on, or nothing."""
        return self._read.obstacle

    def _report(self, job: Job, report: dict[str, Any]) -> None:
        if "train_loss" not in report or self._live is None or job.spec.kind != "train":
            return
        if str(self._live.folder) != getattr(job.spec, "out", None):
            return  # of a project that is closed
        self._live.take(report)
        self.epochs_changed.emit()

    # handing on

    @property
    def save_obstacle(self) -> str:
        """Why the chosen run's model can't be saved, or nothing."""
        if self.run is None:
            return "Train a model first."
        return "It is still in training; stop it or wait." if self.run_in_training else ""

    def save_model(self, folder: Path) -> None:
        """Put the chosen run's model in a folder of its own, to be used elsewhere."""
        if self.run is None:
            return
        run = self.run

        def work() -> Path:
            from napari_mil.study import export_bundle

            return export_bundle(run, folder)

        self._session.background.run(work, lambda p: self._session.say(f"Model saved in {p}."), self._session.failed)

    def apply(self, bundle: Path, target: Path) -> None:
        """Run a saved model on a slide or a folder: tissue, features, prediction, map."""

        def found(slides: list[Path]) -> None:
            if slides:
                self._apply(bundle, target, slides)
            else:
                self._session.say(f"{target}: no slides found there.", "warning")

        def find() -> list[Path]:
            from napari_mil.slide import find_slides

            return list(find_slides(target)) if target.is_dir() else [target]

        self._session.background.run(find, found, self._session.failed)

    def _apply(self, bundle: Path, target: Path, slides: list[Path]) -> None:
        from napari_mil.jobs import ApplyJob

        session = self._session
        out = (target.parent if slides == [target] else target) / f"{bundle.name}-maps"
        shown = session.stage.slide
        mpp = shown.mpp[0] if shown is not None and shown.mpp is not None and shown.path in slides else None
        spec = ApplyJob(
            bundle=str(bundle),
            slides=[str(p) for p in slides],
            out=str(out),
            slide_mpp=mpp,
            device=session.settings.device,
        )

        def applied(status: JobStatus) -> None:
            if status.phase != "done":
                return
            failed = (status.result or {}).get("failed") or {}
            session.say(
                f"{count(len(slides) - len(failed), 'slide')} done; predictions and maps are in {out}."
                + (f" {len(failed)} failed: {next(iter(failed.values()))}" if failed else ""),
                "warning" if failed else "info",
            )
            session.maps.show_applied(out, slides)

        session.desk.submit(spec, applied)
