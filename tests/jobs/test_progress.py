from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mil.jobs._progress import ProgressMeter, fraction_of, is_milestone


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_fraction_is_found_in_any_report() -> None:
    assert fraction_of({"epoch": 5, "epochs": 20}) == 0.25
    assert fraction_of({"done": 3, "total": 4}) == 0.75
    assert fraction_of({"fraction": 1.5}) == 1.0
    assert fraction_of({"done": 3, "total": 0}) is None
    assert fraction_of({"note": "x"}) is None
    assert fraction_of({"done": 1, "total": 4, "epoch": {"epoch": 5, "epochs": 10}}) == 0.375
    assert fraction_of({"done": 1, "total": 4, "epoch": None}) == 0.25


def test_milestones_are_epochs_and_last_reports() -> None:
    assert is_milestone({"epoch": 1})
    assert not is_milestone({"done": 0, "total": 4, "epoch": {"epoch": 5}})
    assert is_milestone({"done": 4, "total": 4})
    assert is_milestone({"done": 3, "total": 4, "message": "coarser than asked for"})
    assert not is_milestone({"done": 3, "total": 4, "message": ""})


def test_steady_work_gives_the_true_time_left() -> None:
    clock = Clock()
    meter = ProgressMeter(clock)
    left = None
    for step in range(51):
        left = meter.update(step / 100)
        clock.now += 1.0
    assert left == pytest.approx(50, rel=0.05)
    # it counts down while nothing is reported
    before = meter.seconds_left()
    clock.now += 10
    after = meter.seconds_left()
    assert before is not None
    assert after == pytest.approx(before - 10)


def test_one_odd_step_does_not_make_it_jump() -> None:
    clock = Clock()
    meter = ProgressMeter(clock)
    for step in range(31):
        meter.update(step / 100)
        clock.now += 1.0
    before = meter.seconds_left()
    clock.now += 3.0  # one step of four seconds
    after = meter.update(0.31)
    assert before is not None
    assert after is not None
    assert abs(after - before) < 0.25 * before


def test_hints_are_taken_over() -> None:
    clock = Clock()
    meter = ProgressMeter(clock)
    assert meter.update(0.1, hint=30.0) == 30.0
    assert meter.update(0.1, hint=float("nan")) == 30.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 5)), max_size=30))
def test_time_left_is_never_negative(steps: list[tuple[float, float]]) -> None:
    clock = Clock()
    meter = ProgressMeter(clock)
    for fraction, pause in steps:
        clock.now += pause
        left = meter.update(fraction)
        assert left is None or left >= 0
