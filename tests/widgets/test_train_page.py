from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from shapely.geometry import box

from napari_mil.lesion import Lesion
from napari_mil.study import Project
from napari_mil.widgets.dock import MilDock

from .conftest import click

Until = Callable[..., None]


@pytest.fixture
def page(trained: MilDock, until: Until) -> Any:
    """The Train page of a prepared project, ready to train."""
    trained.show_page("Train")
    page = trained.page
    page.device.setCurrentIndex(page.device.findData("cpu"))
    until(page.train.isEnabled)
    return page


def begin(page: Any, until: Until, epochs: int = 3000) -> Path:
    """Start a training that would take long, and wait for its curve."""
    page.session.method.form.put("training.epochs", epochs)
    page.session.method.form.put("training.patience", None)
    click(page.train)
    until(lambda: len(page.session.models.epochs) >= 2, 60)
    return page.session.models.run


def choose(page: Any, run: Path) -> None:
    """Choose a run in the list."""
    index = [page.runs.itemData(i) for i in range(page.runs.count())].index(run)
    page.runs.setCurrentIndex(index)
    page.runs.activated.emit(index)


def stop(page: Any, keep: str, until: Until) -> None:
    """Stop by the menu."""
    action = next(a for a in page.stop_menu.actions() if keep in a.text())
    assert page.stop.isEnabled()
    action.trigger()
    until(lambda: page.session.desk.running is None, 10)


def test_what_stands_in_the_way_is_said(opened: MilDock, until: Until) -> None:
    opened.show_page("Train")
    page = opened.page
    until(lambda: "have no features yet" in page.hint.text())
    assert page.train.reason == page.hint.text()
    assert page.hint.text() not in page.advice.text()  # said once
    assert page.stop.reason == "Nothing is being trained."
    assert page.resume.reason == "There is no run yet."
    session = opened.session
    session.slides.update(session.project.slide_ids, label=None)
    until(lambda: "No slide has a label yet" in page.hint.text())


def test_obstacles_are_looked_for_only_while_somebody_looks(trained: MilDock, until: Until) -> None:
    session = trained.session
    looked = []
    check = session.project.check_trainable
    session.project.check_trainable = lambda survival: looked.append(1) or check(survival)  # type: ignore[method-assign]
    session.slides.update(session.project.slide_ids[:1], patient_id="someone")
    session.background.run(lambda: None, looked.append, lambda _: None)
    until(lambda: looked)
    assert looked == [None]
    trained.show_page("Train")
    until(lambda: looked == [None, 1])
    for _ in range(5):
        session.slides.changed.emit(None)
    until(lambda: len(looked) == 3)


def test_training_shows_curves_and_a_result(page: Any, until: Until) -> None:
    session = page.session
    before = len(session.models.runs)
    click(page.settings.title)
    page.rows["training.epochs"].editor.box.setValue(3)
    click(page.train)
    assert page.runs.currentText() == session.models.run.name
    assert page.settings.title.arrowType().name == "RightArrow"  # folded: the curves are seen
    until(lambda: session.models.training and page.hint.text().startswith("Training."))
    assert page.train.reason == "A job is running; stop it or wait."
    until(lambda: session.desk.running is None, 60)
    assert [x for x, _ in page.loss.curves["train"]] == [1, 2, 3]
    assert [x for x, _ in page.loss.curves["validation"]] == [1, 2, 3]
    assert {"bag", "rank"} <= set(page.loss.curves)
    assert [x for x, _ in page.figures.curves["AUROC"]] == [1, 2, 3]
    assert "balanced accuracy" in page.figures.curves
    assert "3 epochs, the best is" in page.outcome.text()
    assert len(session.models.runs) == before + 1
    assert "is finished" in page.resume.reason
    assert page.hint.text().startswith("Go on to Maps")
    live = page.loss.curves
    choose(page, session.models.runs[1])
    assert page.loss.curves != live
    choose(page, session.models.runs[0])
    assert page.loss.curves == live  # what came live is what is on disk


def test_stop_keeps_what_is_asked_for_and_a_run_resumes(page: Any, until: Until) -> None:
    session = page.session
    run = begin(page, until)
    choose(page, session.models.runs[1])  # an older run is looked at meanwhile
    assert len(session.models.epochs) == 3
    choose(page, run)
    assert session.models.save_obstacle == "It is still in training; stop it or wait."
    stop(page, "last", until)
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["use"] == "last"
    done = len(session.models.epochs)
    assert done >= 2
    click(page.resume)
    until(lambda: len(session.models.epochs) > done, 30)
    assert [e["epoch"] for e in session.models.epochs] == list(range(1, len(session.models.epochs) + 1))
    stop(page, "best", until)
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["use"] == "best"
    assert session.models.run == run
    discarded = begin(page, until)
    assert discarded != run
    stop(page, "discard", until)
    assert not discarded.exists()
    assert session.models.run == run
    assert discarded not in [page.runs.itemData(i) for i in range(page.runs.count())]


def test_a_killed_child_leaves_window_and_drawings_alive_and_the_run_resumes(page: Any, until: Until) -> None:
    session = page.session
    session.stage.show(next(r.slide_id for r in session.project.slides if r.role == "test"))
    until(lambda: session.stage.outlines.layer is not None)
    run = begin(page, until)
    layer = session.stage.outlines.layer
    drawn = len(layer.lesions)
    layer.add([Lesion(box(0, 0, 300, 300))])
    psutil.Process(session.desk.runner.child_pid).kill()
    until(lambda: session.desk.running is None, 10)
    dock = page.window()
    assert "was ended from outside" in dock.sentence.text()
    assert "Drawings and everything that was already saved are safe" in dock.sentence.text()
    assert len(layer.lesions) == drawn + 1
    until(lambda: len(session.project.lesions(session.stage.slide_id)) == drawn + 1, 6)
    assert dock.jobs.text.text() == "Interrupted: Training. It can go on where it stopped."
    done = len(session.models.epochs)
    click(dock.jobs.resume)
    until(lambda: len(session.models.epochs) > done, 60)
    assert session.models.run == run
    assert [e["epoch"] for e in session.models.epochs] == list(range(1, len(session.models.epochs) + 1))
    stop(page, "best", until)
    assert not dock.jobs.isVisible()


def test_a_training_goes_on_when_the_window_is_opened_again(
    page: Any, new_dock: Callable[[], MilDock], until: Until
) -> None:
    run = begin(page, until)
    folder, done = page.session.project.folder, len(page.session.models.epochs)
    child = page.session.desk.runner.child_pid
    page.session.close()
    assert not psutil.pid_exists(child)
    dock = new_dock()
    dock.session.open_project(folder)
    until(lambda: dock.session.models.training)
    assert dock.session.models.run == run
    assert dock.page.title == "Train"
    until(lambda: len(dock.session.models.epochs) > done, 60)
    stop(dock.page, "best", until)
    dock.session.close()
    again = new_dock()
    again.session.open_project(folder)
    assert again.session.desk.running is None
    assert not again.jobs.isVisible()


def test_an_interrupted_job_is_offered_or_dismissed(page: Any, new_dock: Callable[[], MilDock], until: Until) -> None:
    begin(page, until)
    folder = page.session.project.folder
    page.session.close()
    project = Project.open(folder)  # as if the power had gone: nobody noted that a job ran
    project.save_view({k: v for k, v in project.config.view.items() if k != "job_was_running"})
    dock = new_dock()
    dock.session.open_project(folder)
    assert dock.session.desk.running is None
    assert dock.jobs.isVisible()
    assert "can go on" in dock.jobs.text.text()
    click(dock.jobs.dismiss)
    assert not dock.jobs.isVisible()
    dock.session.open_project(folder)
    assert not dock.jobs.isVisible()


def test_a_plain_run_comes_first_and_is_told_apart(page: Any, until: Until) -> None:
    session = page.session
    page.preset.choose("mhim_abmil_c16")
    assert "Needs a plain run for its teacher" in page.preset_note.text()
    session.method.form.put("training.epochs", 3)
    hints, titles = [], []

    def note() -> None:
        hints.append(page.hint.text())
        titles.append(page.loss.title)

    session.models.epochs_changed.connect(note)
    click(page.train)
    until(lambda: session.models.training)
    until(lambda: session.desk.running is None, 60)
    assert any(hint.startswith("First a plain run for the teacher: epoch 2 of 3.") for hint in hints)
    own = titles.index("Loss", titles.index("Loss of the plain run"))
    assert "Loss of the plain run" not in titles[own:]
    assert page.loss.title == "Loss"
    assert [x for x, _ in page.loss.curves["train"]] == [1, 2, 3]  # its own epochs, not those of the plain run
    assert "consistency × 0.1" in page.loss.curves  # as it counts in the whole
    assert page.outcome.text().startswith("Plain run before it: 3 epochs")
    assert session.models.run.name.endswith("mhim_abmil_c16")
    assert not [run for run in session.models.runs if run.name == "plain"]  # no run of the project's


def test_survival_needs_times_in_place_of_labels_and_shows_its_own_figure(page: Any, until: Until) -> None:
    session = page.session
    page.preset.choose("abmil_survival")
    until(lambda: page.train.reason.startswith("No slide has a time and an event yet"))
    for k, slide in enumerate(session.project.slides):
        session.slides.update([slide.slide_id], time=10.0 + k, event=k != 3, patient_id=f"patient {k}")
    session.slides.update(session.project.slide_ids, label=None)
    assert session.method.recommended == "abmil_survival"
    session.slides.propose_split()
    session.method.form.put_all({"training.epochs": 2, "task.n_bins": 3})
    until(page.train.isEnabled)
    click(page.train)
    until(lambda: session.models.training)
    until(lambda: session.desk.running is None, 60)
    assert set(page.figures.curves) <= {"C-index"}
    assert "AUROC" not in page.outcome.text()
    assert session.models.facts.facts["method"]["task"]["kind"] == "survival"


def test_stopping_in_the_plain_run_keeps_it_as_a_run(page: Any, until: Until) -> None:
    session = page.session
    page.preset.choose("mhim_abmil_c16")
    run = begin(page, until)
    assert session.models.stage == "plain"
    assert page.stop_menu.actions()[0].toolTip() == "During the plain run: its model stays as a run of its own"
    stop(page, "best", until)
    assert not run.exists()
    assert session.models.run.name == f"{run.name}-plain"
    assert session.models.facts.facts["method"]["mining"]["kind"] == "none"
    assert page.loss.curves["train"]
    assert page.resume.isEnabled()  # it can go on as what it is


def test_a_job_of_a_closed_project_does_not_reach_the_next_one(page: Any, until: Until, cohort: Path) -> None:
    session = page.session
    begin(page, until)
    session.open_or_create(cohort / "slides.csv")
    until(lambda: session.project.folder == cohort / "slides-mil")
    assert not session.models.training
    assert session.models.run is None
    assert session.models.epochs == []
    dock = page.window()
    assert dock.jobs.isVisible()  # it still works, and can be stopped
    count = len(session.desk.running.reports)
    until(lambda: len(session.desk.running.reports) > count + 1)
    assert session.models.epochs == []
    click(dock.jobs.cancel)
    until(lambda: session.desk.running is None, 10)
    assert session.models.runs == []
