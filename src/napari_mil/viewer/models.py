"""Trained models of the open project: their runs, their curves, and the map of one on the slide on stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from .hover import Hover
from .map_layer import MapToggle, show_map
from .tags import find_layers

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image

    from napari_mil.geometry import PatchGrid
    from napari_mil.jobs import JobStatus
    from napari_mil.maps import AttentionMap

    from .session import Session

DEVICES = {"auto": "Best there is", "cpu": "CPU", "cuda": "GPU (CUDA)", "mps": "GPU (Apple)"}


@dataclass(frozen=True)
class MapLook:
    """How a map is painted."""

    normalisation: str = "softmax"
    colormap: str = "inferno"
    opacity: float = 0.6
    visible: bool = True


@dataclass(frozen=True)
class ShownMap:
    """The map on stage, with what it was painted from."""

    slide_id: str
    run: Path
    grid: PatchGrid
    scores: Any
    attention: Any
    probabilities: Sequence[float]
    badge: str
    map: AttentionMap
    table: pd.DataFrame
    preview: bool = False


class Models:
    """Runs of the project.

    Signals
    -------
    runs_changed()
        The list of runs, or the chosen one.
    epochs_changed()
        Another epoch of the chosen or running run.
    map_changed()
        The map that is shown.
    hovered(str)
        The patch under the cursor.
    """

    runs_changed = Signal()
    epochs_changed = Signal()
    map_changed = Signal()
    hovered = Signal(str)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.runs: list[Path] = []
        self.run: Path | None = None
        self.epochs: list[dict[str, Any]] = []
        self.look = MapLook()
        self.shown: ShownMap | None = None
        self.agreement_text = ""
        self._training_run: Path | None = None
        self._wanted_map: tuple[Path, str] | None = None
        self._toggle = MapToggle(session.viewer)
        self._hover = Hover(session.viewer)
        self._hover.changed.connect(self.hovered.emit)
        session.stage.slide_changed.connect(self._slide_changed)
        session.desk.report.connect(self._report)

    def close(self) -> None:
        """Let go of the viewer."""
        self._hover.close()
        self._toggle.close()

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
        import sys

        return {k: v for k, v in DEVICES.items() if (k == "mps") <= (sys.platform == "darwin")}

    def reload(self) -> None:
        """Look at the project's runs again."""
        project = self._session.project
        self.runs = list(project.runs()) if project is not None else []
        if self.run not in self.runs:
            self.run = self.runs[0] if self.runs else None
        self._read_epochs()
        if project is None:
            self._forget_map()
        self.runs_changed.emit()

    def select_run(self, run: Path) -> None:
        """Choose a run; its curves and, if there, its map are shown."""
        if run != self.run:
            self.run = run
            self._read_epochs()
            self._forget_map()
            self.runs_changed.emit()
            self._show_if_there()

    def _read_epochs(self) -> None:
        if self.training and self._training_run is None:
            return  # the epochs of the running training are on show
        self.epochs = []
        if self.run is not None:
            from napari_mil.study import read_epochs

            self.epochs = list(read_epochs(self.run))
        self.epochs_changed.emit()

    @property
    def training(self) -> bool:
        """Whether a model is being trained now."""
        running = self._session.desk.running
        return running is not None and running.spec.kind == "train"

    @property
    def run_text(self) -> str:
        """What came of the chosen run, in a line or two."""
        if self.run is None or self.training:
            return ""
        lines = []
        if self.epochs:
            best = self.epochs[-1]["best_epoch"]
            at_best = next((e for e in self.epochs if e["epoch"] == best), self.epochs[-1])
            auroc = at_best["val_auroc"]
            lines.append(
                f"{len(self.epochs)} epochs, best {best}: validation loss {at_best['val_loss']:.3f}"
                + (f", AUROC {auroc:.3f}." if auroc is not None else ".")
            )
        metrics = self.run / "metrics.json"
        if metrics.exists():
            from napari_mil.study import metrics_sentence

            lines.append(metrics_sentence(json.loads(metrics.read_text(encoding="utf-8"))))
        return "\n".join(line for line in lines if line)

    # training

    def _findings(self) -> list[Any]:
        project = self._session.project
        return list(project.check_trainable()) if project is not None else []

    @property
    def obstacles(self) -> list[str]:
        """Why nothing can be trained yet."""
        return [str(f) for f in self._findings() if f.blocking]

    @property
    def advice(self) -> list[str]:
        """What would make the result worth more."""
        return [str(f) for f in self._findings() if not f.blocking]

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
        session.stage.autosave.flush()
        session.save_view()
        spec = TrainJob(
            project=str(session.project.folder),
            method=method.model_dump(mode="json"),
            seed=seed,
            device=device,
            out=str(out),
        )
        self.expect(spec)
        session.desk.submit(spec)
        self.epochs_changed.emit()

    def expect(self, spec: Any) -> None:
        """A training begins or goes on: its curves are shown."""
        if spec.kind == "train":
            self.epochs = []
            self.run = Path(spec.out) if spec.out else self.run
            if self.run is not None and spec.resume:
                self._read_epochs()

    @property
    def resume_obstacle(self) -> str:
        """Why the chosen run can't go on, or nothing."""
        if self.run is None:
            return "There is no run yet."
        from napari_mil.study import resume_obstacle

        return str(resume_obstacle(self.run))

    def resume_run(self) -> None:
        """Go on with the chosen run where it stopped."""
        session = self._session
        if session.project is None or self.run is None:
            return
        from napari_mil.jobs import TrainJob

        facts = json.loads((self.run / "run.json").read_text(encoding="utf-8"))
        spec = TrainJob(
            project=str(session.project.folder),
            method=facts["method"],
            seed=facts["seed"],
            device=facts.get("device", "auto"),
            out=str(self.run),
            resume=True,
        )
        self.expect(spec)
        session.desk.submit(spec)

    def _report(self, report: dict[str, Any]) -> None:
        if "train_loss" in report:
            self.epochs = [e for e in self.epochs if e["epoch"] < report["epoch"]] + [report]
            for note in report.get("notes") or ():
                self._session.say(note, "warning")
            self.epochs_changed.emit()

    # maps

    @property
    def badge(self) -> str:
        """TRAIN, VALIDATION, TEST or NEW for the shown map; empty without one."""
        return self.shown.badge if self.shown is not None else ""

    @property
    def map_obstacle(self) -> str:
        """Why no map can be shown, or nothing."""
        session = self._session
        if self.run is None:
            return "Train a model first."
        slide_id = session.stage.slide_id
        if slide_id is None:
            return "Open a slide first."
        if self._map_file(slide_id).exists():
            return ""
        return session.busy_text

    def _map_file(self, slide_id: str) -> Path:
        assert self.run is not None
        return self.run / "maps" / f"{slide_id}.npz"

    def show(self) -> None:
        """Show where the chosen model looks on the slide on stage; prepared and predicted first when it must be."""
        slide_id = self._session.stage.slide_id
        if self.run is None or slide_id is None:
            return
        self._wanted_map = (self.run, slide_id)
        if self._map_file(slide_id).exists():
            self._load(self.run, slide_id)
        elif self._session.has_features(slide_id):
            self._predict([slide_id])
        else:
            self._session.prepare([slide_id], then=lambda status: self._prepared(slide_id))

    def _prepared(self, slide_id: str) -> None:
        project = self._session.project
        if project is not None and project.has_features(slide_id):
            self._predict([slide_id])

    def map_slides(self, role: str) -> None:
        """Predict and map all slides of a role."""
        project = self._session.project
        if project is not None:
            self._predict([r.slide_id for r in project.slides if r.role == role and project.has_features(r.slide_id)])

    def _predict(self, slide_ids: list[str]) -> None:
        session = self._session
        if session.project is None or self.run is None or not slide_ids:
            return
        from napari_mil.jobs import PredictJob

        run = self.run
        spec = PredictJob(
            project=str(session.project.folder), run=str(run), slide_ids=slide_ids, device=session.settings.device
        )

        def predicted(status: JobStatus) -> None:
            here = session.stage.slide_id
            if status.phase == "done" and here is not None and self._wanted_map == (run, here):
                self._load(run, here)

        session.desk.submit(spec, predicted)

    def _slide_changed(self) -> None:
        if self.shown is not None and self.shown.slide_id != self._session.stage.slide_id:
            self._forget_map()
        self._show_if_there()

    def _show_if_there(self) -> None:
        slide_id = self._session.stage.slide_id
        if self.run is not None and slide_id is not None and self._map_file(slide_id).exists() and self.look.visible:
            self._wanted_map = (self.run, slide_id)
            self._load(self.run, slide_id)

    def _load(self, run: Path, slide_id: str) -> None:
        project = self._session.project
        slide = self._session.stage.slide
        if project is None or slide is None:
            return
        look, dimensions = self.look, slide.dimensions
        preview = project.config.tile.max_patches is not None

        def work() -> ShownMap:
            from napari_mil.maps import attention_map, check_geometry, patch_table
            from napari_mil.study import load_map_scores

            saved = load_map_scores(run / "maps" / f"{slide_id}.npz")
            check_geometry(saved.grid, dimensions)
            values = saved.attention if look.normalisation == "softmax" else saved.scores
            return ShownMap(
                slide_id=slide_id,
                run=run,
                grid=saved.grid,
                scores=saved.scores,
                attention=saved.attention,
                probabilities=[float(p) for p in saved.probabilities],
                badge=str(project.role_badge(run, slide_id)),
                map=attention_map(saved.grid, values, normalisation=_of_values(look.normalisation)),
                table=patch_table(saved.grid, saved.scores),
                preview=preview,
            )

        def loaded(shown: ShownMap) -> None:
            if self._wanted_map == (run, slide_id) and self._session.stage.slide_id == slide_id:
                self._show(shown)

        self._session.background.run(work, loaded, self._session.failed)

    def _show(self, shown: ShownMap) -> None:
        self.shown = shown
        named = replace(shown.map, normalisation=self.look.normalisation)
        layer = show_map(
            self._session.viewer,
            named,
            badge=shown.badge,
            name="Attention, preview" if shown.preview else "Attention",
            key="attention",
            slide_id=shown.slide_id,
            colormap=self.look.colormap,
            opacity=self.look.opacity,
        )
        layer.visible = self.look.visible
        self._hover.set_map(shown.map, shown.table, shown.grid)
        self.agreement_text = self._agreement(shown)
        self.map_changed.emit()

    def _forget_map(self) -> None:
        self.shown = None
        self.agreement_text = ""
        self._hover.set_map(None)
        for layer in find_layers(self._session.viewer, "map"):
            self._session.viewer.layers.remove(layer)
        self.map_changed.emit()

    def _agreement(self, shown: ShownMap) -> str:
        """How the map's ranking agrees with the outlines of the slide."""
        labels, grid = self._session.stage.labels, self._session.stage.grid
        if labels is None or grid is None or grid != shown.grid or not ((labels == 1).any() and (labels == 0).any()):
            return ""
        from napari_mil.mil import auroc

        known = labels >= 0
        value = auroc(labels[known], shown.scores[known])
        if value is None:
            return ""
        note = " The model learned from these outlines." if shown.badge == "TRAIN" else ""
        return f"Score against your outlines: patch AUROC {value:.3f} (0.5 would be chance).{note}"

    def set_look(self, **changes: Any) -> None:
        """Change how the map is painted: normalisation, colormap, opacity, visible."""
        look = replace(self.look, **changes)
        if look == self.look:
            return
        anew = look.normalisation != self.look.normalisation
        self.look = look
        layer = self.layer
        if layer is not None:
            layer.colormap = look.colormap
            layer.opacity = look.opacity
            layer.visible = look.visible
        if anew and self.shown is not None:
            self._load(self.shown.run, self.shown.slide_id)
        self.map_changed.emit()

    @property
    def layer(self) -> Image | None:
        """Layer of the shown map."""
        layers: list[Any] = find_layers(self._session.viewer, "map")
        return layers[-1] if layers else None

    @property
    def prediction_text(self) -> str:
        """What the model says of the slide."""
        if self.shown is None:
            return ""
        names = self._session.label_names
        parts = [f"{name} {p:.2f}" for name, p in zip(names, self.shown.probabilities, strict=False)]
        sample = " (preview: from a sample of the patches)" if self.shown.preview else ""
        return "The model says: " + " · ".join(parts) + sample

    # handing on

    def export(self, path: Path) -> None:
        """Write the shown map to a file; its kind by the suffix."""
        shown = self.shown
        if shown is None:
            return
        from napari_mil.maps import export_map

        stage = self._session.stage
        try:
            export_map(
                path,
                shown.map,
                badge=shown.badge,
                grid=shown.grid,
                scores=shown.scores,
                title=f"{shown.slide_id} · {shown.run.name}",
                thumbnail=stage.picture,
                slide_dimensions=stage.slide.dimensions if stage.slide else None,
            )
        except (MilError, OSError, ValueError) as error:
            self._session.failed(error)
            return
        self._session.say(f"Map written to {path}.")

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
        session = self._session
        from napari_mil.jobs import ApplyJob
        from napari_mil.slide import find_slides

        slides = find_slides(target) if target.is_dir() else [target]
        if not slides:
            session.say(f"{target}: no slides found there.", "warning")
            return
        out = (target if target.is_dir() else target.parent) / f"{bundle.name}-maps"
        session.desk.submit(
            ApplyJob(bundle=str(bundle), slides=[str(p) for p in slides], out=str(out), device=session.settings.device),
            lambda status: self._applied(status, out, slides),
        )

    def _applied(self, status: JobStatus, out: Path, slides: list[Path]) -> None:
        if status.phase == "done":
            self._session.say(f"{len(slides)} slides done; predictions and maps are in {out}.")

    # what a reopened window shows again

    def state(self) -> dict[str, Any]:
        """The chosen run, and how its map looks."""
        return {
            "run": self.run.name if self.run is not None else None,
            "map": {
                "normalisation": self.look.normalisation,
                "colormap": self.look.colormap,
                "opacity": self.look.opacity,
                "visible": self.look.visible,
            },
            "map_shown": self.shown is not None,
        }

    def restore(self, view: dict[str, Any]) -> None:
        """Take up the state that `state` gave."""
        known = {k: v for k, v in (view.get("map") or {}).items() if k in MapLook.__dataclass_fields__}
        self.look = MapLook(**known)
        chosen = [run for run in self.runs if run.name == view.get("run")]
        if chosen:
            self.run = chosen[0]
            self._read_epochs()
        self.runs_changed.emit()


def _of_values(normalisation: str) -> Any:
    """Attention is a softmax already: painted as it is."""
    return "raw" if normalisation == "softmax" else normalisation


def _dotted(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(_dotted(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
