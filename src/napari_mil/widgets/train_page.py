"""Train: choose a method, watch its curves, stop it when it has learned enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtGui import QHideEvent, QResizeEvent, QShowEvent
from qtpy.QtWidgets import QComboBox, QMenu, QSpinBox

from napari_mil.viewer.run_facts import figures_of
from napari_mil.viewer.words import count

from .curves import Curves
from .method_chooser import MethodChooser
from .parts import Action, HelpLine, Note, Page, Section, bullet_list, labelled, row
from .settings_form import LABEL_WIDTH, RESET_WIDTH, PartSection, SettingRow

if TYPE_CHECKING:
    from napari_mil.viewer.session import Session

KEEP = {
    "best": ("Stop, keep the best epoch", "The model of the best epoch so far becomes the result"),
    "last": ("Stop, keep the last epoch", "The model as it is now becomes the result"),
    "discard": ("Stop and discard", "The run is removed"),
}
KEEP_PLAIN = "During the plain run: its model stays as a run of its own"
COMMON = ("training.epochs", "training.learning_rate", "supervision.weight")
"""Settings that are shown first, whatever the method."""
TITLES = {"supervision.weight": "Outlines count λ"}


class TrainPage(Page):
    """Method, settings, curves."""

    title = "Train"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.rows: dict[str, SettingRow] = {}
        self.parts: dict[str, PartSection] = {}
        self._add_method()
        self._add_actions()
        self._add_settings()
        self._add_curves()
        self.body.addStretch(1)
        self.help_line = HelpLine(self, "Point at a setting to read what it does.")
        for signal in (
            session.project_changed,
            session.obstacles.changed,
            session.models.runs_changed,
            session.desk.busy_changed,
        ):
            signal.connect(self.refresh)
        session.models.epochs_changed.connect(self._show_training)
        self.refresh()

    def _add_method(self) -> None:
        self.preset = MethodChooser()
        self.preset.chosen.connect(self.session.method.choose)
        self.preset_note = Note()
        self.changed_note = Note()
        self.back = Action("Back to the preset", lambda: self.session.method.form.reset_all())
        self.changed_row = row(self.changed_note, self.back)
        section = Section("Method")
        section.add(self.preset)
        section.add(self.preset_note)
        section.add(self.changed_row)
        self.body.addWidget(section)

    def _add_settings(self) -> None:
        self.seed = QSpinBox(minimum=0, maximum=2**31 - 1, value=2018)
        self.seed.setToolTip("The same seed gives the same first weights and the same order: the same result")
        self.device = QComboBox()
        self.settings = Section("Settings", foldable=True, folded=True)
        self.all_settings = Section("All settings", foldable=True, folded=True)
        self.settings.unfolded.connect(self._show_settings)
        self.all_settings.unfolded.connect(self._show_settings)
        self.settings.title.clicked.connect(lambda: self._show_help_line())
        self.all_settings.title.clicked.connect(lambda: self._show_help_line())
        self.body.addWidget(self.settings)

    def _make_form(self) -> None:
        """Rows of the settings that every method has; made when they are looked at for the first time."""
        form = self.session.method.form
        described = {s.key: s for part in form.parts.values() for kind in part.kinds for s in kind.settings}
        for key in COMMON:
            self.rows[key] = SettingRow(form, described[key], TITLES.get(key, ""))
            self.rows[key].pointed.connect(lambda setting: self.help_line.say(setting.help))
            self.settings.add(self.rows[key])
        for title, widget in (("Seed", self.seed), ("Device", self.device)):
            line = labelled(title, widget, width=LABEL_WIDTH)
            line.setContentsMargins(0, 0, RESET_WIDTH + 4, 0)  # as wide as those that can be put back
            self.settings.add(line)
        self.settings.add(self.all_settings)
        for name, part in form.parts.items():
            self.parts[name] = PartSection(form, part, frozenset(COMMON))
            self.parts[name].pointed.connect(lambda setting: self.help_line.say(setting.help))
            self.parts[name].section.unfolded.connect(self._show_help_line)
            self.all_settings.add(self.parts[name])
        form.changed.connect(self._show_form)

    def _add_actions(self) -> None:
        self.train = Action("Train", self._train, primary=True)
        self.stop = Action("Stop…", self._open_stop_menu)
        self.stop_menu = QMenu(self.stop)
        self.stop_menu.setToolTipsVisible(True)
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
        self.figures = Curves("On the validation slides", bounds=(0.0, 1.0))
        self.outcome = Note()
        section = Section("Runs")
        section.add(self.runs)
        section.add(self.loss)
        section.add(self.figures)
        section.add(self.outcome)
        self.body.addWidget(section)

    # what the person does

    def _train(self) -> None:
        self.settings.set_folded(True)  # the curves are what counts now
        self._show_help_line()
        self.session.models.train(self.seed.value(), self.device.currentData())

    def _open_stop_menu(self) -> None:
        self.stop_menu.popup(self.stop.mapToGlobal(self.stop.rect().bottomLeft()))

    # what the session says

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self.session.obstacles.watch(True)

    def hideEvent(self, event: QHideEvent | None) -> None:
        super().hideEvent(event)
        self.session.obstacles.watch(False)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self.help_line.place()

    def refresh(self, *_: object) -> None:
        session = self.session
        self.setEnabled(session.project is not None)
        if session.project is None:
            self.hint.setText("Open a project first.")
            return
        self._fill_choices()
        self.stop.set_reason("" if session.models.training else "Nothing is being trained.")
        self.resume.set_reason(session.busy_text or session.models.resume_obstacle)
        self._show_training()
        self._show_readiness()

    def _fill_choices(self) -> None:
        models = self.session.models
        if not self.session.method.form.preset:
            self.preset.set_methods(self.session.method.presets)
            self._make_form()
            self.preset.choose(self.session.method.recommended)
        devices = models.devices
        if [self.device.itemData(i) for i in range(self.device.count())] != list(devices):
            self.device.clear()
            for name, text in devices.items():
                self.device.addItem(text, name)
            self.device.setCurrentIndex(max(0, self.device.findData(self.session.settings.device)))
        runs = models.runs
        if [self.runs.itemData(i) for i in range(self.runs.count())] != runs:
            self.runs.clear()
            for run in runs:
                self.runs.addItem(run.name, run)
        self.runs.setEnabled(bool(runs))
        if models.run in runs:
            self.runs.setCurrentIndex(runs.index(models.run))

    def _show_form(self) -> None:
        form = self.session.method.form
        self.preset.show_method(form.preset)
        self.preset_note.setText(self._about_method())
        changes = form.changes
        self.changed_row.setVisible(bool(changes))
        self.changed_note.setText(f"{count(len(changes), 'setting')} changed." if changes else "")
        self.session.obstacles.set_task(form.kind("task"))
        self._show_settings()
        self._show_readiness()

    def _about_method(self) -> str:
        """What a method is, where it comes from, what it needs."""
        chosen = self.session.method
        info = chosen.presets[chosen.form.preset]
        needs = []
        method = chosen.form.method
        if method is not None and method.needs_lesions:
            needs.append("outlines of lesions on training slides")
        if method is not None and getattr(method.mining, "teacher", "") == "plain":
            needs.append("a plain run for its teacher, which is trained first where there is none")
        if method is not None and method.mining.kind == "hard_negative":
            needs.append("a plain run, whose mistakes it learns from and which is trained first")
        lines = [info.sentence, info.source, f"Needs {' and '.join(needs)}." if needs else ""]
        return "\n".join(line for line in lines if line)

    def _show_settings(self) -> None:
        if self.settings.folded:
            return
        form = self.session.method.form
        changes = form.changes
        for key, setting_row in self.rows.items():
            there = key in form.values()
            setting_row.setVisible(there)
            if there:
                setting_row.show_value(key in changes)
        if not self.all_settings.folded:
            for part in self.parts.values():
                part.refresh()

    def _show_help_line(self) -> None:
        self.help_line.set_shown(not self.settings.folded)

    def _show_readiness(self) -> None:
        """Whether a training can begin, and what to do next."""
        session = self.session
        obstacles, advice = session.obstacles.blocking, session.obstacles.advice
        looking = "" if session.obstacles.known else "Looking at the slides…"
        senseless = session.method.obstacle
        self.help_line.warn(senseless)
        first = next(iter(obstacles), "") or senseless
        self.train.set_reason(session.busy_text or looking or first)
        told = [] if session.models.training else [*obstacles[1:], *advice]  # the first obstacle is the hint
        if senseless and obstacles:
            told.insert(0, senseless)
        self.advice.setText(bullet_list(told))
        self.hint.setText(self._next_step(first))

    def _show_training(self) -> None:
        models = self.session.models
        epochs = models.epochs
        plain, weights = bool(models.stage), models.part_weights
        loss: dict[str, list[tuple[float, float]]] = {"train": [], "validation": []}
        figures: dict[str, list[tuple[float, float]]] = {}
        for e in epochs:
            loss["train"].append((e["epoch"], e["train_loss"]))
            loss["validation"].append((e["epoch"], e["val_loss"]))
            for part, value in e.get("parts", {}).items():
                if part.startswith("val_") or len(e["parts"]) <= 2:
                    continue  # the parts of the training loss are enough to read; one part alone is the loss itself
                weight = weights.get(part, 1.0)  # so that the parts are seen to add up to the whole
                name = part if weight == 1 else f"{part} × {weight:g}"
                loss.setdefault(name, []).append((e["epoch"], weight * value))
            for title, value in figures_of(e).items():
                if value is not None:
                    figures.setdefault(title, []).append((e["epoch"], value))
        best = epochs[-1]["best_epoch"] if epochs else None
        of_plain = " of the plain run" if plain else ""
        self.loss.set_curves(loss, mark=best, title=f"Loss{of_plain}")
        self.figures.set_curves(figures, mark=best, title=f"On the validation slides{of_plain}")
        self.outcome.setText(models.run_text)
        for action, (_, tip) in zip(self.stop_menu.actions(), KEEP.values(), strict=True):
            action.setToolTip(KEEP_PLAIN if plain and action is not self.stop_menu.actions()[-1] else tip)
        if models.training:
            self.hint.setText(self._next_step(""))

    def _next_step(self, obstacle: str) -> str:
        models = self.session.models
        if models.training:
            if models.stage_text:
                return f"{models.stage_text} The training itself follows, and counts its epochs anew."
            return "Training. Stop when the curve no longer rises. What you outline meanwhile counts in the next one."
        if not self.session.obstacles.known:
            return "Looking at the slides…"
        if obstacle:
            return obstacle
        if not models.runs and self.session.method.form.preset != "rank_induction":
            return "Ready. Press “Train”."
        if not models.runs:
            return "Ready. “Rank induction” learns from your outlines where to look. Press “Train”."
        return "Go on to Maps to see where this model looks, or train another method to compare."
