from __future__ import annotations

from typing import Any

import pytest

from napari_mil.jobs._context import JobContext


class Outbox:
    """Keeps what a job says."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []

    def progress(self, frame: dict[str, Any], report: dict[str, Any] | None = None) -> None:
        self.frames.append(frame)

    @property
    def last(self) -> dict[str, Any]:
        return self.frames[-1]


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def context(outbox: Outbox) -> JobContext:
    return JobContext("job", outbox)  # type: ignore[arg-type]


def epoch(number: int, stage: str = "", **facts: Any) -> dict[str, Any]:
    return {"epoch": number, "epochs": 4, "seconds": 10.0, "seconds_left": 10.0 * (4 - number), "stage": stage, **facts}


def test_a_plain_run_is_the_first_half(context: JobContext, outbox: Outbox) -> None:
    context.expect_epochs(0, 4, "plain")
    context.on_bag(1, 2)
    assert outbox.last["message"] == "Plain run first, epoch 1 of 4: slide 1 of 2"
    assert outbox.last["fraction"] == pytest.approx(1 / 16)
    context.report(epoch(1, "plain", val_auroc=0.75))
    assert outbox.last["message"] == "Plain run first, epoch 1 of 4: validation AUROC 0.750"
    context.report(epoch(1, "plain", val_auroc=None, val_metrics={"c_index": 0.6}))
    assert outbox.last["message"] == "Plain run first, epoch 1 of 4: validation C-index 0.600"
    assert outbox.last["fraction"] == pytest.approx(1 / 8)
    assert outbox.last["seconds_left"] == pytest.approx(30 + 40)  # its own three epochs, and four of the training
    context.expect_epochs(0, 4)  # it ended early
    context.on_bag(1, 2)
    assert outbox.last["message"] == "Epoch 1 of 4: slide 1 of 2"
    assert outbox.last["fraction"] == pytest.approx(1 / 2 + 1 / 16)
    context.report(epoch(1))
    assert outbox.last["fraction"] == pytest.approx(1 / 2 + 1 / 8)
    context.report(epoch(4))
    assert outbox.last["fraction"] == 1.0


def test_a_plain_run_that_was_there_already_is_no_half(context: JobContext, outbox: Outbox) -> None:
    context.expect_epochs(0, 4, "plain")
    context.report(epoch(1))
    assert outbox.last["message"] == "Epoch 1 of 4"
    assert outbox.last["fraction"] == 0.25


def test_survival_is_told_by_its_own_figure(context: JobContext, outbox: Outbox) -> None:
    context.report(epoch(2, val_auroc=None, val_metrics={"c_index": 0.625}))
    assert outbox.last["message"] == "Epoch 2 of 4: validation C-index 0.625"
