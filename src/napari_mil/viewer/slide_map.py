"""Where a model looks on the slide on stage: predicted where it must be, painted, read, exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_mil.errors import MilError

from .hover import Hover
from .map_layer import MapToggle, show_map
from .shown_map import MapLook, ShownMap, Source, is_made, read_map, source_of
from .tags import find_layers

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_mil.jobs import JobStatus

    from .session import Session


class SlideMap:
    """The map of the chosen run (or of a saved model) on the slide on stage.

    Signals
    -------
    changed()
        The map that is shown, or its look.
    hovered(str)
        The patch under the cursor.
    """

    changed = Signal()
    hovered = Signal(str)

    def __init__(self, session: Session) -> None:
        self._session = session
        self.look = MapLook()
        self.shown: ShownMap | None = None
        self.agreement_text = ""
        self._wanted: Source | None = None
        self._setting_look = False
        self._followed: Image | None = None
        self._toggle = MapToggle(session.viewer)
        self._hover = Hover(session.viewer)
        self._hover.changed.connect(self.hovered.emit)
        session.stage.slide_changed.connect(self._place_changed)
        session.stage.patches.changed.connect(self._compare_again)
        session.models.runs_changed.connect(self._place_changed)

    def close(self) -> None:
        """Let go of the viewer."""
        self._wanted = None
        self._hover.close()
        self._toggle.close()

    # which map

    @property
    def badge(self) -> str:
        """TRAIN, VALIDATION, TEST or NEW for the shown map; empty without one."""
        return self.shown.badge if self.shown is not None else ""

    @property
    def obstacle(self) -> str:
        """Why no map can be shown, or nothing."""
        session = self._session
        if session.models.run is None:
            return "Train a model first."
        slide_id = session.stage.slide_id
        if slide_id is None:
            return "Open a slide first."
        if is_made(source_of(session.models.run, slide_id)):
            return ""
        if session.stage.slide is not None and session.stage.slide.mpp is None:
            return "This slide's scale is unknown: give its µm per pixel on the page Slides."
        return session.busy_text

    def show(self) -> None:
        """Show where the chosen model looks on the slide on stage; prepared and predicted first when it must be."""
        session, run = self._session, self._session.models.run
        project, slide_id = session.project, session.stage.slide_id
        if project is None or run is None or slide_id is None:
            return
        if not self.look.visible:
            self.set_look(visible=True)
        self._wanted = source = source_of(run, slide_id)

        def prepared(_: JobStatus) -> None:
            if session.project is project and project.has_features(slide_id):
                self._predict(run, [slide_id])

        if is_made(source):
            self._load(source)
        elif slide_id in session.preparation.ready:
            self._predict(run, [slide_id])
        else:
            session.preparation.prepare([slide_id], then=prepared)

    def slides_of(self, role: str) -> list[str]:
        """Slides of a role that are ready to be predicted."""
        project = self._session.project
        ready = self._session.preparation.ready
        return [r.slide_id for r in project.slides if r.role == role and r.slide_id in ready] if project else []

    def map_slides(self, role: str) -> None:
        """Predict and map all slides of a role."""
        if self._session.models.run is not None:
            self._predict(self._session.models.run, self.slides_of(role))

    def _predict(self, run: Path, slide_ids: list[str]) -> None:
        session = self._session
        if session.project is None or not slide_ids:
            return
        from napari_mil.jobs import PredictJob

        spec = PredictJob(
            project=str(session.project.folder), run=str(run), slide_ids=slide_ids, device=session.settings.device
        )

        def predicted(status: JobStatus) -> None:
            here = session.stage.slide_id
            if status.phase == "done" and here in slide_ids and session.models.run == run:
                self._wanted = source_of(run, here)
                self._load(self._wanted)

        session.stage.outlines.flush()
        session.desk.submit(spec, predicted)

    def show_applied(self, out: Path, slides: Sequence[Path]) -> None:
        """Show what a saved model made of the slide on stage, if it is one of these."""
        from napari_mil.study.table import slide_id_of

        slide, slide_id = self._session.stage.slide, self._session.stage.slide_id
        if slide is None or slide_id is None or slide.path not in slides:
            return
        file = out / "maps" / f"{slide_id_of(slide.path)}.npz"
        if file.exists():
            self._wanted = Source(slide_id, None, out.name.removesuffix("-maps"), file)
            self._load(self._wanted)

    def _place_changed(self, *_: object) -> None:
        """Another slide or run: its map is shown if it is there."""
        run, slide_id = self._session.models.run, self._session.stage.slide_id
        source = source_of(run, slide_id) if run is not None and slide_id is not None else None
        if source is not None and self.shown is not None and self.shown.source == source and is_made(source):
            return
        self._forget()
        self._wanted = source
        if source is not None and self.look.visible and is_made(source):
            self._load(source)

    # painting

    def _load(self, source: Source) -> None:
        project, slide = self._session.project, self._session.stage.slide
        if project is None or slide is None:
            return
        values, dimensions = self.look.values, slide.dimensions
        preview = source.run is not None and self._session.models.facts.preview

        def loaded(shown: ShownMap) -> None:
            if self._is_wanted(source) and self.look.values == values:
                self._show(shown)

        def failed(error: Exception) -> None:
            if self._is_wanted(source):
                self._session.failed(error)

        self._session.background.run(lambda: read_map(project, source, values, dimensions, preview), loaded, failed)

    def _is_wanted(self, source: Source) -> bool:
        return self._wanted == source and self._session.stage.slide_id == source.slide_id

    def _show(self, shown: ShownMap) -> None:
        self.shown = shown
        viewer = self._session.viewer
        active = viewer.layers.selection.active
        layer = show_map(
            viewer,
            shown.map,
            badge=shown.badge,
            name=shown.title,
            key="attention",
            slide_id=shown.slide_id,
            colormap=self.look.colormap,
            opacity=self.look.opacity,
            limits=shown.values.limits(shown.map.data),
        )
        layer.visible = self.look.visible
        if layer is not self._followed:
            self._followed = layer
            for name in ("visible", "opacity", "colormap"):
                getattr(layer.events, name).connect(self._layer_changed)
        if active is not None and active in viewer.layers:
            viewer.layers.selection.active = active
        self._hover.set_map(shown.map, shown.table, shown.grid)
        self.agreement_text = self._agreement(shown)
        self.changed.emit()

    def _forget(self) -> None:
        if self.shown is None and self.layer is None:
            return
        self.shown = self._followed = None
        self.agreement_text = ""
        self._hover.set_map(None)
        for layer in find_layers(self._session.viewer, "map"):
            self._session.viewer.layers.remove(layer)
        self.changed.emit()

    @property
    def layer(self) -> Image | None:
        """Layer of the shown map."""
        layers: list[Any] = find_layers(self._session.viewer, "map")
        return layers[-1] if layers else None

    def set_look(self, **changes: Any) -> None:
        """Change how the map is painted: values, colormap, opacity, visible."""
        look = replace(self.look, **changes)
        if look == self.look:
            return
        before, self.look = self.look, look
        layer = self.layer
        if layer is not None:
            self._setting_look = True
            try:
                layer.colormap = look.colormap
                layer.opacity = look.opacity
                layer.visible = look.visible
            finally:
                self._setting_look = False
        if look.values != before.values and self.shown is not None:
            self._load(self.shown.source)
        if look.visible and not before.visible and self.shown is None:
            self._place_changed()
        self.changed.emit()

    def _layer_changed(self, event: Any) -> None:
        """The person used napari's own controls, or the key C."""
        layer = self.layer
        if self._setting_look or layer is None or event.source is not layer:
            return
        name = str(layer.colormap.name)
        look = replace(self.look, visible=bool(layer.visible), opacity=float(layer.opacity), colormap=name)
        if look != self.look:
            self.look = look
            self.changed.emit()

    # reading

    @property
    def prediction_text(self) -> str:
        """What the model says of the slide."""
        if self.shown is None:
            return ""
        parts = [] if self.shown.risk is None else [f"risk {self.shown.risk:.2f}"]
        parts += [f"{name} {p:.2f}" for name, p in self.shown.probabilities.items()]
        sample = " (preview: from a sample of the patches)" if self.shown.preview else ""
        return "The model says: " + " · ".join(parts) + sample

    @property
    def values_note(self) -> str:
        """Why the map shows other values than were asked for, or nothing."""
        return self.shown.note if self.shown is not None else ""

    def _compare_again(self) -> None:
        if self.shown is None:
            return
        text = self._agreement(self.shown)
        if text != self.agreement_text:
            self.agreement_text = text
            self.changed.emit()

    def _agreement(self, shown: ShownMap) -> str:
        """How the map's ranking agrees with the outlines of the slide."""
        patches = self._session.stage.patches
        labels, grid = patches.labels, patches.grid
        if labels is None or grid is None or grid != shown.grid or not ((labels == 1).any() and (labels == 0).any()):
            return ""
        from napari_mil.mil import auroc

        known = labels >= 0
        value = auroc(labels[known], shown.scores[known])
        if value is None:
            return ""
        note = " The model learned from these outlines." if shown.badge == "TRAIN" else ""
        what = "Score" if shown.values.title == "Attention" else shown.values.title
        return f"{what} against your outlines: patch AUROC {value:.3f} (0.5 would be chance).{note}"

    # handing on

    def export(self, path: Path) -> None:
        """Write the shown map to a file; its kind by the suffix."""
        shown, stage = self.shown, self._session.stage
        if shown is None:
            return
        dimensions = stage.slide.dimensions if stage.slide is not None else None
        picture = stage.picture

        def work() -> None:
            from napari_mil.maps import export_map

            export_map(
                path,
                shown.map,
                badge=shown.badge,
                grid=shown.grid,
                scores=shown.scores,
                title=f"{shown.slide_id} · {shown.source.name} · {shown.title}",
                thumbnail=picture,
                slide_dimensions=dimensions,
            )

        def failed(error: Exception) -> None:
            self._session.failed(MilError(str(error)) if isinstance(error, ValueError) else error)

        self._session.background.run(work, lambda _: self._session.say(f"Map written to {path}."), failed)

    # what a reopened window shows again

    def state(self) -> dict[str, Any]:
        """How the map looks."""
        return {name: getattr(self.look, name) for name in MapLook.__dataclass_fields__}

    def restore(self, state: Any) -> None:
        """Take up the state that `state` gave."""
        known = {k: v for k, v in (state or {}).items() if k in MapLook.__dataclass_fields__}
        self.look = MapLook(**known)
        self.changed.emit()
