"""History and autosave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qtpy.QtTest import QTest

from napari_mil.errors import ProjectError
from napari_mil.viewer import Autosave
from napari_mil.viewer.history import History


@given(st.lists(st.sampled_from(["do", "undo", "redo"]), max_size=60))
def test_history_is_a_line_one_walks_on(moves):
    history: History[int] = History(0, depth=1000)
    line, place = [0], 0
    for number, move in enumerate(moves, start=1):
        if move == "do":
            history.do(str(number), number)
            line, place = [*line[: place + 1], number], place + 1
        elif move == "undo":
            assert (history.undo() is None) == (place == 0)
            place = max(0, place - 1)
        else:
            assert (history.redo() is None) == (place == len(line) - 1)
            place = min(len(line) - 1, place + 1)
        assert history.present == line[place]
        assert (history.undo_label is None) == (place == 0)
        assert (history.redo_label is None) == (place == len(line) - 1)


def test_history_keeps_so_many_steps():
    history: History[int] = History(0, depth=3)
    for number in range(1, 10):
        history.do("step", number)
    assert [history.undo() for _ in range(5)] == ["step"] * 3 + [None, None]
    assert history.present == 6


class Disk:
    def __init__(self, failures=0, error=None):
        self.saves, self.failures, self.error = 0, failures, error or OSError("disk is full")

    def __call__(self):
        if self.failures:
            self.failures -= 1
            raise self.error
        self.saves += 1


def test_saves_once_after_a_burst(qapp):
    disk = Disk()
    save = Autosave(disk, delay_s=0.3, quiet_s=0.05)
    for _ in range(5):
        save.touch("some", "signal's arguments")
        QTest.qWait(10)
    assert disk.saves == 0
    assert save.dirty
    QTest.qWait(120)
    assert disk.saves == 1
    assert not save.dirty
    QTest.qWait(350)
    assert disk.saves == 1


def test_saves_in_time_though_it_is_never_quiet(qapp):
    disk = Disk()
    save = Autosave(disk, delay_s=0.15, quiet_s=0.1)
    for _ in range(20):
        save.touch()
        QTest.qWait(20)
    assert disk.saves >= 2
    save.close()


@pytest.mark.parametrize("error", [OSError("disk is full"), ProjectError("no folder"), ZeroDivisionError()])
def test_a_failure_is_told_and_tried_again(qapp, error):
    disk = Disk(failures=2, error=error)
    save = Autosave(disk, delay_s=0.05, quiet_s=0.02)
    told: list[str] = []
    saved: list[bool] = []
    save.failed.connect(told.append)
    save.saved.connect(lambda: saved.append(True))
    save.touch()
    QTest.qWait(400)
    assert disk.saves == 1
    assert len(told) == 2
    assert all("trying again" in text for text in told)
    assert saved == [True]
    assert save.error is None


def test_flush_and_close(qapp):
    disk = Disk()
    save = Autosave(disk, delay_s=5)
    assert save.flush()
    assert disk.saves == 0
    save.touch()
    assert save.flush()
    assert disk.saves == 1
    save.touch()
    assert save.close()
    assert disk.saves == 2
    save.touch()  # after closing nothing waits
    assert disk.saves == 3
    failing = Autosave(Disk(failures=1), delay_s=5)
    failing.touch()
    assert not failing.close()
    with pytest.raises(ValueError, match="5 s at most"):
        Autosave(disk, delay_s=6)
