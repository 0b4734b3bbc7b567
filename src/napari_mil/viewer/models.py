"""Trained models of the open project: their runs, their curves, training another one, handing one on."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from .words import count

if TYPE_CHECKING:
    from napari_mil.jobs import Job, JobStatus

    from .session import Session

DEVICES = {"auto": "Best there is", "cpu": "CPU", "cuda": "GPU (CUDA)", "mps": "GPU (Apple)"}


@dataclass(frozen=True)
class RunFacts:
    """What the window shows of a run, read once: run.json of a large project takes 10 ms and more."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    obstacle: str = "There is no run yet."
    """Why it can't go on, or nothing."""
    result: str = ""
    """Its metrics on the test slides, in a sentence."""

    @property
    def preview(self) -> bool:
        """Whether it was trained on a sample of the patches."""
        tile = (self.facts.get("provenance") or {}).get("tile") or {}
        return tile.get("max_patches") is not None

    @property
    def classes(self) -> list[str]:
        """Its labels, the negative one first."""
        return [str(name) for name in self.facts.get("classes") or ()]


def read_run(run: Path) -> RunFacts:
    """Read a run's folder."""
    from napari_mil.study import metrics_sentence, read_epochs, resume_obstacle
    from napari_mil.study.runs import run_facts

    if not (run / "run.json").exists():
        return RunFacts(obstacle=str(resume_obstacle(run)))
    metrics = run / "metrics.json"
    result = metrics_sentence(json.loads(metrics.read_text(encoding="utf-8"))) if metrics.exists() else ""
    return RunFacts(list(read_epochs(run)), run_facts(run), str(resume_obstacle(run)), result)


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
        self._live: tuple[Path, list[dict[str, Any]]] | None = None  # the run in training, and its epochs so far
        session.desk.report.connect(self._report)

    # runs

    @property
    def presets(self) -> dict[str, Any]:
        """Named methods with their explanations, the recommended one first."""
        from napari_mil.mil import Method

        infos = Method.presets()
        return dict(sorted(infos.items(), key=lambda item: not item[1].recommended))

    @staticmethod
    def preset_values(name: str) -> dict[str, Any]:
        """A preset's settings by dotted name."""
        from napari_mil.mil import Method

        return _dotted(Method.preset(name).model_dump())

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
        live = self._live[0] if self._live is not None else None
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
        """Epochs of the chosen run, those of a running training included."""
        if self._live is not None and self._live[0] == self.run:
            return self._live[1]
        return self._read.epochs

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
        return self._live is not None and self._live[0] == self.run

    @property
    def run_text(self) -> str:
        """What came of the chosen run, in a line or two."""
        if self.run is None:
            return ""
        if self.run_in_training:  # later the page says the same of the project
            return "\n".join(dict.fromkeys(str(note) for epoch in self.epochs for note in epoch.get("notes") or ()))
        lines = []
        if self.epochs:
            best = self.epochs[-1]["best_epoch"]
            at_best = next((e for e in self.epochs if e["epoch"] == best), self.epochs[-1])
            auroc = at_best["val_auroc"]
            lines.append(
                f"{count(len(self.epochs), 'epoch')}, the best is {best}: validation loss {at_best['val_loss']:.3f}"
                + (f", AUROC {auroc:.3f}." if auroc is not None else ".")
            )
        lines.append(self._read.result)
        if self._read.preview:
            lines.append("Preview: it learned from a sample of the patches.")
        lines += [str(note) for note in self._read.facts.get("notes") or () if "best epoch" in str(note)]
        return "\n".join(line for line in lines if line)

    # training

    def train(self, preset: str, settings: dict[str, Any], seed: int, device: str) -> None:
        """Train a model in the background."""
        session = self._session
        if session.project is None:
            return
        from napari_mil.jobs import TrainJob
        from napari_mil.mil import Method

        try:
            method = Method.preset(preset).with_settings(settings)
            out = session.project.new_run_folder(preset)
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
        before = list(read_run(run).epochs) if spec.resume else []
        self._live = (run, before)
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
        run, epochs = self._live
        if str(run) != getattr(job.spec, "out", None):
            return  # of a project that is closed
        if report["epoch"] > 1 and (not epochs or epochs[-1]["epoch"] < report["epoch"] - 1):
            epochs = list(read_run(run).epochs)  # one that was over when its process was killed, before it could say so
        self._live = (run, [e for e in epochs if e["epoch"] < report["epoch"]] + [report])
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


def _dotted(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(_dotted(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
