"""Training: reports, early stopping, refusals, and no setting without effect."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mil.errors import MilError
from napari_mil.mil import Bag, EpochReport, Method, Run, fit, predict
from napari_mil.mil.fit import plain_method
from napari_mil.mil.randomness import Randomness
from napari_mil.mil.sampler import epoch_order
from napari_mil.mil.trainer import BEST_IS_LAST, Trainer

from .conftest import finish, make_bags, quick, same


@pytest.mark.parametrize("preset", list(Method.presets()))
def test_every_preset_trains_and_predicts(preset: str, train, validation) -> None:
    method = quick(preset, training__epochs=2)
    if method.task.kind == "survival":
        train, validation = (
            [replace(bag, event=True, time=float(index + 1)) for index, bag in enumerate(bags)]
            for bags in (train, validation)
        )
    reports, run = finish(fit(method, train, validation))
    assert [report.epoch for report in reports if not report.stage] == [1, 2]
    prediction = predict(run, validation[1])
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert len(prediction.attention) == len(prediction.scores) == len(validation[1])


def test_it_learns(train, validation) -> None:
    reports, run = finish(fit(quick(training__epochs=30, training__min_epochs=30), train, validation))
    assert reports[-1].train_loss < 0.7 * reports[0].train_loss
    assert max(report.val_auroc for report in reports) == 1.0
    lesion = validation[1].patch_labels == 1
    scores = predict(run, validation[1]).scores
    assert scores[lesion].mean() > scores[~lesion].mean()


def test_the_patch_classifier_is_trained_to_its_end() -> None:
    """A control that stops half-way makes what it is compared with look good."""
    rng = np.random.default_rng(0)
    spread, towards = np.geomspace(0.05, 1, 10), rng.normal(size=10)  # features on unlike scales, as an encoder's are
    bags = []
    for index in range(24):
        z = rng.normal(size=(60, 10))
        lesion = np.zeros(60, bool)
        if index % 2:
            lesion = z @ towards + rng.normal(size=60) > np.linalg.norm(towards)
        x = (z * spread).astype(np.float32)
        bags.append(Bag(f"s{index}", x, None, index % 2, lesion.astype(np.int8)))
    method = Method.preset("patch_classifier")
    _, run = finish(fit(method, bags[:16], bags[16:]))
    assert run.best_epoch < method.training.epochs
    assert BEST_IS_LAST not in run.notes
    # with the training of rank induction it is not
    as_rank = {f"training.{key}": value for key, value in Method.preset("rank_induction").training}
    _, unfinished = finish(fit(method.with_settings(as_rank), bags[:16], bags[16:]))
    assert BEST_IS_LAST in unfinished.notes
    reached, before = (r.history[r.best_epoch - 1]["val_loss"] for r in (run, unfinished))
    assert reached < 0.9 * before


def test_reports(train, validation) -> None:
    reports, run = finish(fit(quick(), train, validation))
    first = reports[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.epoch = 7
    assert set(first.parts) == {"bag", "rank", "val_bag", "val_rank"}
    assert first.train_loss == pytest.approx(first.parts["bag"] + first.parts["rank"])
    assert first.val_loss == pytest.approx(first.parts["val_bag"] + first.parts["val_rank"])
    assert json.loads(json.dumps(first.to_dict())) == first.to_dict()
    assert (first.best_epoch, first.improved, first.epochs) == (1, True, 4)
    assert first.memory_mb > 10
    assert reports[-1].seconds_left == 0
    assert any("fewer than 10" in note for note in first.notes)
    assert reports[1].notes == ()
    assert run.history == [report.to_dict() for report in reports]
    assert run.best_epoch == 1 + int(np.argmin([report.val_loss for report in reports]))
    assert run.finished


def test_a_report_of_numbers_that_are_none_stays_json() -> None:
    report = EpochReport(1, 2, float("nan"), {"bag": float("inf")}, 1.0, None, 1e-3, 1.0, 1.0, 1, True, 1.0)
    assert report.to_dict()["train_loss"] is None
    assert report.to_dict()["parts"] == {"bag": None}


def test_on_bag_counts_training_and_validation_slides(train, validation) -> None:
    calls: list[tuple[int, int]] = []
    finish(fit(quick(training__epochs=2), train, validation, on_bag=lambda done, total: calls.append((done, total))))
    assert calls == [(i, 12) for i in range(1, 13)] * 2


class TestRepeatable:
    @pytest.mark.parametrize("preset", ["rank_induction", "mhim_abmil_c16", "ab_mil", "patch_classifier"])
    def test_same_seed_same_bits(self, preset: str, train, validation) -> None:
        method = quick(preset)
        _, one = finish(fit(method, train, validation, seed=5))
        torch.randn(100)  # somebody else draws numbers in between
        _, other = finish(fit(method, train, validation, seed=5))
        assert same(one, other)
        _, third = finish(fit(method, train, validation, seed=6))
        assert not same(one, third)

    def test_the_callers_generator_is_left_alone_and_does_not_matter(self, train, validation) -> None:
        torch.manual_seed(1)
        expected = torch.randn(3)
        torch.manual_seed(1)
        training = fit(quick("ab_mil"), train, validation)
        for _ in range(3):
            next(training)
        torch.testing.assert_close(torch.randn(3), expected, rtol=0, atol=0)
        torch.manual_seed(99)
        _, run = finish(training)
        assert same(run, finish(fit(quick("ab_mil"), train, validation))[1])

    def test_methods_of_one_seed_start_alike_and_see_the_same_order(self, train, validation) -> None:
        trainers = [
            Trainer(quick(preset), train, validation, 3, torch.device("cpu"), None, None, [], None, None)
            for preset in ("rank_induction", "ab_mil_rank", "attention_induction")
        ]
        starts = [trainer.learner.model.state_dict() for trainer in trainers]
        assert all(torch.equal(starts[0][key], state[key]) for state in starts[1:] for key in state)
        orders = [epoch_order("shuffled", [0, 1] * 4, trainer.random.order) for trainer in trainers]
        assert orders[0] == orders[1] == orders[2]

    def test_validation_twice_is_the_same(self, train, validation) -> None:
        method = quick("mhim_abmil_c16")
        trainer = Trainer(method, train, validation, 3, torch.device("cpu"), None, None, [], None, None)
        first, second = (trainer.learner.evaluate(validation, lambda i: None) for _ in range(2))
        assert first == second
        assert not trainer.learner.model.training

    def test_state_of_the_generators(self) -> None:
        one, other = Randomness(3, torch.device("cpu")), Randomness(4, torch.device("cpu"))
        with one.installed():
            torch.rand(5)
        other.load_state_dict({key: value.clone() for key, value in one.state_dict().items()})
        with one.installed():
            expected = torch.rand(3)
        with other.installed():
            assert torch.equal(torch.rand(3), expected)
        assert torch.equal(torch.rand(3, generator=one.order), torch.rand(3, generator=other.order))
        assert torch.equal(torch.rand(3, generator=one.draws), torch.rand(3, generator=other.draws))


class TestEarlyStopping:
    def test_patience_counts_from_the_best_epoch(self, train, validation) -> None:
        method = quick(training__epochs=50, training__patience=2, training__min_epochs=0, training__learning_rate=0.5)
        reports, run = finish(fit(method, train, validation))
        assert len(reports) < 50
        assert len(reports) == run.best_epoch + 2

    def test_not_before(self, train, validation) -> None:
        method = quick(training__epochs=50, training__patience=2, training__min_epochs=30, training__learning_rate=0.5)
        reports, _ = finish(fit(method, train, validation))
        assert len(reports) > 30

    def test_never(self, train, validation) -> None:
        method = quick(training__epochs=25, training__patience=None, training__learning_rate=0.5)
        assert len(finish(fit(method, train, validation))[0]) == 25

    def test_by_auroc_ties_go_to_the_lower_loss(self, train, validation) -> None:
        method = quick(training__epochs=12, training__monitor="val_auroc")
        reports, run = finish(fit(method, train, validation))
        best = max(reports, key=lambda report: (report.val_auroc, -report.val_loss))
        assert run.best_epoch == best.epoch


class TestBestIsLast:
    """Training that ended by its number of epochs while it still got better says so."""

    def test_said_in_the_last_report_and_in_the_run(self, train, validation, tmp_path: Path) -> None:
        reports, run = finish(fit(quick(training__learning_rate=1e-4), train, validation, out=tmp_path))
        assert run.best_epoch == 4
        assert [BEST_IS_LAST in report.notes for report in reports] == [False, False, False, True]
        assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["notes"] == run.notes
        assert Run.load(tmp_path).notes.count(BEST_IS_LAST) == 1
        assert finish(fit(run.method, train, validation, out=tmp_path, resume=True))[1].notes == run.notes

    def test_said_once_after_a_resumption(self, train, validation, tmp_path: Path) -> None:
        method = quick(training__learning_rate=1e-4)
        training = fit(method, train, validation, out=tmp_path)
        for _ in range(3):
            next(training)
        training.close()
        reports, run = finish(fit(method, train, validation, out=tmp_path, resume=True))
        assert [BEST_IS_LAST in report.notes for report in reports] == [True]
        assert run.notes.count(BEST_IS_LAST) == 1

    @pytest.mark.parametrize("patience", [2, None])
    def test_not_said_when_an_earlier_epoch_was_best(self, patience: int | None, train, validation) -> None:
        settings = {"training__patience": patience, "training__min_epochs": 0, "training__learning_rate": 0.5}
        reports, run = finish(fit(quick(training__epochs=25, **settings), train, validation))
        assert run.best_epoch < len(reports)
        assert BEST_IS_LAST not in run.notes
        assert not any(BEST_IS_LAST in report.notes for report in reports)


class TestSteps:
    def test_learning_rates(self, train, validation) -> None:
        method = quick(training__schedule="cosine", training__min_learning_rate=0.001)
        rates = [report.learning_rate for report in finish(fit(method, train, validation))[0]]
        expected = [0.001 + 0.5 * 0.009 * (1 + np.cos(np.pi * t / 4)) for t in range(4)]
        assert rates == pytest.approx(expected)

    def test_balanced_draws(self) -> None:
        labels = [0] * 90 + [1] * 10
        drawn = [
            labels[i] for k in range(40) for i in epoch_order("balanced", labels, torch.Generator().manual_seed(k))
        ]
        assert len(drawn) == 4000
        assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)

    def test_shuffled_shows_every_slide_once(self) -> None:
        generator = torch.Generator().manual_seed(0)
        first, second = (epoch_order("shuffled", [0, 1] * 10, generator) for _ in range(2))
        assert sorted(first) == sorted(second) == list(range(20))
        assert first != second

    def test_a_group_of_slides_is_one_step_over_their_mean(self, validation) -> None:
        """accumulate=2 over two slides = one plain SGD step along the mean gradient."""
        train = make_bags(2)
        method = quick(
            "ab_mil_rank",
            training__optimizer="sgd",
            training__epochs=1,
            training__sampler="in_order",
            training__weight_decay=0.0,
        )
        method = method.with_settings({"task.class_weight": "none"})
        model = method.build(6)
        start = {key: value.clone() for key, value in model.state_dict().items()}
        logits = torch.cat([model(bag.tensor()).logits for bag in train])
        torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1.0])).backward()
        _, run = finish(fit(method, train, validation, initial=start))
        for name, p in model.named_parameters():
            torch.testing.assert_close(run.weights[name], start[name] - 0.01 * p.grad, rtol=1e-4, atol=1e-6)


class TestPlainRun:
    """MHIM's teacher starts from a plain run: handed in, in a folder, or trained first."""

    def test_trained_first(self, train, validation, tmp_path: Path) -> None:
        method = quick("mhim_abmil_c16")
        reports, run = finish(fit(method, train, validation, seed=3, out=tmp_path / "run"))
        assert [(report.stage, report.epoch) for report in reports] == [
            *(("plain", epoch) for epoch in range(1, 5)),
            *(("", epoch) for epoch in range(1, 5)),
        ]
        plain = Run.load(tmp_path / "run" / "plain")
        assert plain.finished
        assert plain.method == plain_method(method)
        assert same(plain, finish(fit(plain_method(method), train, validation, seed=3))[1])
        assert f"The teacher starts from run/plain (best epoch {plain.best_epoch})." in run.notes
        assert same(finish(fit(method, train, validation, seed=3, plain=plain))[1], run)
        copied = method.with_settings({"mining.teacher": "copy"})
        assert not same(finish(fit(copied, train, validation, seed=3))[1], run)

    def test_given(self, train, validation, baseline: Path) -> None:
        method = quick("mhim_abmil_c16")
        reports, handed = finish(fit(method, train, validation, plain=Run.load(baseline)))
        assert not any(report.stage for report in reports)
        assert any("The teacher starts from" in note and "best epoch" in note for note in reports[0].notes)
        by_path = method.with_settings({"mining.teacher": str(baseline)})
        assert same(finish(fit(by_path, train, validation))[1], handed)
        with pytest.raises(MilError, match="holds no run"):
            next(fit(method.with_settings({"mining.teacher": "nowhere"}), train, validation))

    def test_copy(self, train, validation) -> None:
        method = quick("mhim_abmil_c16", mining__teacher="copy")
        report = next(fit(method, train, validation))
        assert report.stage == ""
        assert any("copy of the untrained student" in note for note in report.notes)


def test_many_classes(validation) -> None:
    rng = np.random.default_rng(0)
    bags = [Bag(f"m{i}", rng.normal(size=(8, 6)) + i % 3, None, i % 3, np.array([1] * 2 + [0] * 6)) for i in range(12)]
    task = {"kind": "multiclass", "classes": ["a", "b", "c"], "class_weight": "balanced"}
    method = Method(aggregator="ab_mil_rank", supervision="rank", task=task, training={"epochs": 3})
    reports, run = finish(fit(method, bags[:9], bags[9:]))
    assert reports[0].val_auroc is not None
    assert reports[0].parts["rank"] > 0
    assert predict(run, bags[9]).probabilities.shape == (3,)


@pytest.mark.parametrize("mining", ["mhim", "mhim2"])
@pytest.mark.parametrize("kind", ["rank", "attention", "instance_bce"])
def test_outlines_with_mining(kind: str, mining: str, train, validation) -> None:
    """Most patches are hidden, and yet every slide with lesions teaches by them."""
    settings = {"mhim": {"mining.random": 0.9}, "mhim2": {"mining.keep": 0.1}}[mining]
    method = quick("mhim_abmil_c16", mining__kind=mining, mining__teacher="copy", supervision__kind=kind)
    method = method.with_settings({**settings, "task.class_weight": "none", "training.epochs": 1})
    part = {"rank": "rank", "attention": "attention", "instance_bce": "instance"}[kind]

    def lesions_taught(method: Method) -> list[bool]:
        trainer = Trainer(method, train, validation, 3, torch.device("cpu"), None, None, [], None, None)
        trainer.learner.model.train()
        losses = [trainer.learner.loss(bag) for bag in train if bag.label == 1]
        assert all({"bag", part, "consistency"} == set(loss.parts) for loss in losses)
        return [loss.parts[part].item() > 0 for loss in losses]

    assert all(lesions_taught(method))
    if kind == "rank":
        assert not all(lesions_taught(method.with_settings({"mining.spare_lesions": False})))
