"""Train: choose a method, watch its curves, stop it when it has learned enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QLineEdit, QMenu, QSpinBox

from .curves import Curves
from .parts import Action, Note, Page, Section, bullet_list, labelled, row

if TYPE_CHECKING:
    from napari_mil.viewer.session import Session

KEEP = {
    "best": ("Stop, keep the best epoch", "The model of the best epoch so far becomes the result"),
    "last": ("Stop, keep the last epoch", "The model as it is now becomes the result"),
    "discard": ("Stop and discard", "The run is removed"),
}


class TrainPage(Page):
    """Method, settings, curves."""

    title = "Train"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._add_method()
        self._add_settings()
        self._add_actions()
        self._add_curves()
        self.body.addStretch(1)
        for signal in (
            session.project_changed,
            session.obstacles.changed,
            session.models.runs_changed,
            session.desk.busy_changed,
        ):
            signal.connect(self.refresh)
        session.models.epochs_changed.connect(self._show_curves)
        self.refresh()

    def _add_method(self) -> None:
        self.preset = QComboBox()
        self.preset_note = Note()
        section = Section("Method")
        section.add(self.preset)
        section.add(self.preset_note)
        self.body.addWidget(section)
        self.preset.currentIndexChanged.connect(self._preset_changed)

    def _add_settings(self) -> None:
        self.epochs = QSpinBox(minimum=1, maximum=2000)
        self.rate = QDoubleSpinBox(minimum=1e-6, maximum=1.0, decimals=6, singleStep=1e-4)
        self.weight = QDoubleSpinBox(minimum=0.0, maximum=1000.0, decimals=3, singleStep=0.1)
        self.weight.setToolTip("How much the outlines count beside the slide's label (the weight λ of the paper)")
        self.seed = QSpinBox(minimum=0, maximum=2**31 - 1, value=2018)
        self.device = QComboBox()
        self.extra = QLineEdit(placeholderText="training.patience=20 …")
        self.extra.setToolTip(
            "Any other setting of the method, as on the command line: key=value, spaces between,\n"
            "for instance aggregator.temperature=0.5 training.patience=20"
        )
        section = Section("Settings", foldable=True, folded=True)
        section.add(labelled("Epochs at most", self.epochs))
        section.add(labelled("Learning rate", self.rate))
        self.weight_row = section.add(labelled("Outlines count λ", self.weight))
        section.add(labelled("Seed", self.seed))
        section.add(labelled("Device", self.device))
        section.add(labelled("More", self.extra))
        self.settings = section
        self.body.addWidget(section)

    def _add_actions(self) -> None:
        self.train = Action("Train", self._train, primary=True)
        self.stop = Action("Stop…", lambda: self.stop_menu.popup(self.stop.mapToGlobal(self.stop.rect().bottomLeft())))
        self.stop_menu = QMenu(self.stop)
        for keep, (text, tip) in KEEP.items():
            action = self.stop_menu.addAction(text, lambda k=keep: self.session.stop_job(k))
            if action is not None:
                action.setToolTip(tip)
        self.resume = Action("Resume", self.session.models.resume_run, tip="Go on where the chosen run stopped")
        self.body.addWidget(row(self.train, self.stop, self.resume))
        self.advice = Note()
        self.body.addWidget(self.advice)

    def _add_curves(self) -> None:
        self.runs = QComboBox(minimumWidth=80)
        self.runs.activated.connect(lambda i: self.session.models.select_run(self.runs.itemData(i)))
        self.loss = Curves("Loss")
        self.auroc = Curves("AUROC on the validation slides", bounds=(0.0, 1.0))
        self.outcome = Note()
        section = Section("Runs")
        section.add(self.runs)
        section.add(self.loss)
        section.add(self.auroc)
        section.add(self.outcome)
        self.body.addWidget(section)

    # what the person does

    def _preset_changed(self) -> None:
        name = self.preset.currentData()
        if name is None:
            return
        info = self.session.models.presets[name]
        self.preset_note.setText(f"{info.sentence} ({info.paper})" if info.paper else info.sentence)
        values = self.session.models.preset_values(name)
        self.epochs.setValue(values["training.epochs"])
        self.rate.setValue(values["training.learning_rate"])
        self.weight_row.setVisible("supervision.weight" in values)
        self.weight.setValue(values.get("supervision.weight", 1.0))

    def method_settings(self) -> dict[str, Any]:
        """The settings as the person left them, by dotted name."""
        settings: dict[str, Any] = {
            "training.epochs": self.epochs.value(),
            "training.learning_rate": self.rate.value(),
        }
        if not self.weight_row.isHidden():  # hidden where the method has none; a folded section is still meant
            settings["supervision.weight"] = self.weight.value()
        for item in self.extra.text().split():
            key, _, value = item.partition("=")
            settings[key] = value
        return settings

    def _train(self) -> None:
        self.settings.set_folded(True)  # the curves are what counts now
        self.session.models.train(
            self.preset.currentData(), self.method_settings(), self.seed.value(), self.device.currentData()
        )

    # what the session says

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self.session.obstacles.watch(True)

    def hideEvent(self, event: QHideEvent | None) -> None:
        super().hideEvent(event)
        self.session.obstacles.watch(False)

    def refresh(self, *_: object) -> None:
        session = self.session
        self.setEnabled(session.project is not None)
        if session.project is None:
            self.hint.setText("Open a project first.")
            return
        self._fill_choices()
        obstacles, advice = session.obstacles.blocking, session.obstacles.advice
        looking = "" if session.obstacles.known else "Looking at the slides…"
        self.train.set_reason(session.busy_text or looking or (obstacles[0] if obstacles else ""))
        self.stop.set_reason("" if session.models.training else "Nothing is being trained.")
        self.resume.set_reason(session.busy_text or session.models.resume_obstacle)
        told = [] if session.models.training else [*obstacles[1:], *advice]  # the first obstacle is the hint
        self.advice.setText(bullet_list(told))
        self._show_curves()
        self.hint.setText(self._next_step(obstacles))

    def _fill_choices(self) -> None:
        if not self.preset.count():
            for i, (name, info) in enumerate(self.session.models.presets.items()):
                self.preset.addItem(f"{info.title} (recommended)" if i == 0 else info.title, name)
        devices = self.session.models.devices
        if [self.device.itemData(i) for i in range(self.device.count())] != list(devices):
            self.device.clear()
            for name, text in devices.items():
                self.device.addItem(text, name)
            self.device.setCurrentIndex(max(0, self.device.findData(self.session.settings.device)))
        runs = self.session.models.runs
        if [self.runs.itemData(i) for i in range(self.runs.count())] != runs:
            self.runs.clear()
            for run in runs:
                self.runs.addItem(run.name, run)
        self.runs.setEnabled(bool(runs))
        if self.session.models.run in runs:
            self.runs.setCurrentIndex(runs.index(self.session.models.run))

    def _show_curves(self) -> None:
        epochs = self.session.models.epochs
        loss: dict[str, list[tuple[float, float]]] = {"train": [], "validation": []}
        for e in epochs:
            loss["train"].append((e["epoch"], e["train_loss"]))
            loss["validation"].append((e["epoch"], e["val_loss"]))
            for part, value in e.get("parts", {}).items():
                if part.startswith("val_") or len(e["parts"]) <= 2:
                    continue  # the parts of the training loss are enough to read; one part alone is the loss itself
                loss.setdefault(part, []).append((e["epoch"], value))
        best = epochs[-1]["best_epoch"] if epochs else None
        self.loss.set_curves(loss, mark=best)
        self.auroc.set_curves(
            {"validation": [(e["epoch"], e["val_auroc"]) for e in epochs if e["val_auroc"] is not None]}, mark=best
        )
        self.outcome.setText(self.session.models.run_text)

    def _next_step(self, obstacles: list[str]) -> str:
        if self.session.models.training:
            return "Training. Stop when the curve no longer rises. What you outline meanwhile counts in the next one."
        if not self.session.obstacles.known:
            return "Looking at the slides…"
        if obstacles:
            return obstacles[0]
        if not self.session.models.runs:
            return "Ready. “Rank induction” learns from your outlines where to look. Press “Train”."
        return "Go on to Maps to see where this model looks, or train another method to compare."
