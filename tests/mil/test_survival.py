"""Survival: bins, loss, risk and C-index against the published numbers and against their definitions."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import MethodError, TrainingError
from napari_mil.mil import (
    Bag,
    Method,
    Run,
    balanced_accuracy,
    c_index,
    fit,
    patient_bags,
    predict,
    survival_bins,
    survival_nll,
)
from napari_mil.mil.sampler import epoch_order
from napari_mil.mil.survival import bin_probabilities, bins_of, risk_gradient, survival_curve, survival_risk

from .conftest import finish, load_golden, quick

GOLDEN = load_golden("survival.npz")


def cohort(count: int = 16, seed: int = 0, prefix: str = "s", patients: bool = True, **fields) -> list[Bag]:
    """Slides, two of each patient: the larger the share of shifted patches, the sooner the event."""
    rng = np.random.default_rng(seed)
    bags = []
    for index in range(count):
        who = index // 2
        n, severity = 10 + index % 3, (who % 4) / 4
        x = rng.normal(size=(n, 6)).astype(np.float32)
        lesion = np.arange(n) < round(severity * n)
        x[lesion] += 2
        case = np.random.default_rng([seed, who])
        case = {"time": 40 - 36 * severity + 3 * case.random(), "event": bool(who % 3 or severity > 0.6)}
        patient = f"{prefix}-patient {who}" if patients else None
        bags.append(Bag(f"{prefix}{index}", x, None, None, lesion.astype(np.int8), patient, **{**case, **fields}))
    return bags


def survival(preset: str = "ab_mil", **settings: object) -> Method:
    return quick(preset, **{"task__kind": "survival", "training__epochs": 3, **settings})


TRAIN, VALIDATION = cohort(24, 1, "t"), cohort(12, 2, "v")


class TestPublished:
    @pytest.mark.parametrize("case", range(6))
    def test_loss_gradient_curve_and_risk(self, case: int) -> None:
        g = {name: GOLDEN[f"nll/{case}/{name}"] for name in ("logits", "Y", "c", "loss", "dlogits", "S", "risk")}
        logits = torch.tensor(g["logits"], requires_grad=True)
        loss = survival_nll(logits, int(g["Y"]), event=not g["c"])
        loss.backward()
        np.testing.assert_allclose(loss.item(), g["loss"], rtol=1e-9)
        np.testing.assert_allclose(logits.grad, g["dlogits"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(survival_curve(logits).detach(), g["S"], rtol=1e-9)
        np.testing.assert_allclose(survival_risk(logits).item(), g["risk"], rtol=1e-9)
        low = survival_nll(logits.detach().float(), int(g["Y"]), event=not g["c"])
        np.testing.assert_allclose(low.item(), g["loss"], rtol=1e-4)

    def test_loss_of_a_batch(self) -> None:
        rows = zip(torch.tensor(GOLDEN["nll_batch/logits"]), GOLDEN["nll_batch/Y"], GOLDEN["nll_batch/c"], strict=True)
        losses = [survival_nll(logits, int(y), event=not c).item() for logits, y, c in rows]
        np.testing.assert_allclose(np.mean(losses), GOLDEN["nll_batch/alpha0.0"], rtol=1e-9)

    @pytest.mark.parametrize("cohort", ["blca", "luad", "lusc"])
    def test_bins_of_real_cohorts(self, cohort: str) -> None:
        time, event = GOLDEN[f"bins/{cohort}/event_months"], GOLDEN[f"bins/{cohort}/status_1_is_event"]
        bins, edges = survival_bins(time, event)
        np.testing.assert_array_equal(bins, GOLDEN[f"bins/{cohort}/label"])
        assert edges[0] < time.min()
        assert edges[-1] > time.max()
        assert np.ptp(np.bincount(bins[event == 1])) <= 3  # equally many events, but for equal times


class TestBins:
    def test_a_bin_holds_its_left_edge(self) -> None:
        bins, edges = survival_bins([0, 1, 2, 3, 4, 9], [0, 1, 1, 1, 1, 0], n_bins=3)
        np.testing.assert_allclose(edges, [-1e-6, 2, 3, 9 + 1e-6])
        assert bins.tolist() == [0, 0, 1, 2, 2, 2]
        assert bins_of([-5, 2, 1e9], edges).tolist() == [0, 1, 2]  # validation may lie outside

    @pytest.mark.parametrize(
        ("time", "event", "sentence"),
        [
            ([1, 2, 3, 4], [0, 0, 0, 0], "4 bins.*no event was seen in training"),
            ([1, 2, 3, 4, 5], [1, 1, 1, 0, 0], "only 3 different times"),
            ([5, 5, 5, 5], [1, 1, 1, 1], "only 1 different times"),
            ([1, 1, 1, 1, 1, 1, 2, 3, 4], [1] * 9, "So many events.*the same time"),
            ([1, np.nan], [1, 1], "all numbers: False"),
            ([1, 2], [1], "needs a time and an event for each"),
        ],
    )
    def test_refused(self, time: list, event: list, sentence: str) -> None:
        with pytest.raises(TrainingError, match=sentence):
            survival_bins(time, event)


class TestCurve:
    @given(st.lists(st.floats(-60, 60), min_size=3, max_size=8))
    @settings(max_examples=50, deadline=None)
    def test_bins_add_up_and_nothing_is_lost(self, values: list[float]) -> None:
        logits = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        p = bin_probabilities(logits).detach()
        hazard, curve = torch.sigmoid(logits).detach(), survival_curve(logits).detach()
        assert p.sum().item() == pytest.approx(1, abs=1e-12)
        assert (p >= 0).all()
        np.testing.assert_allclose(p[0], hazard[0], rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(p[1:-1], (hazard[1:] * curve[:-1])[:-1], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(p[-1], curve[-2])
        survival_risk(logits).backward()
        np.testing.assert_allclose(risk_gradient(logits.detach()), logits.grad, rtol=1e-6, atol=1e-12)
        for bin_ in range(len(values)):
            for event in (False, True):
                assert survival_nll(logits.float(), bin_, event).isfinite()

    def test_loss_is_the_likelihood(self) -> None:
        logits = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        seen = [survival_nll(logits, k, event=True).exp().reciprocal().item() for k in range(4)]
        np.testing.assert_allclose(seen[:3], bin_probabilities(logits)[:3])
        unseen = [survival_nll(logits, k, event=False).exp().reciprocal().item() for k in range(4)]
        np.testing.assert_allclose(unseen, survival_curve(logits))


def slow_c_index(time: list[float], event: list[bool], risk: list[float]) -> float | None:
    won = pairs = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                pairs += 1
                won += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return won / pairs if pairs else None


class TestMetrics:
    @given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 4)), max_size=25))
    @settings(max_examples=100, deadline=None)
    def test_c_index_by_its_definition(self, cases: list) -> None:
        time, event, risk = (list(column) for column in zip(*cases, strict=True)) if cases else ([], [], [])
        assert c_index(time, event, risk) == pytest.approx(slow_c_index(time, event, risk))

    def test_c_index_of_perfect_and_of_none(self) -> None:
        assert c_index([1, 2, 3], [True, True, False], [3, 2, 1]) == 1
        assert c_index([1, 2, 3], [True, True, False], [1, 2, 3]) == 0
        assert c_index([1, 2, 3], [True, True, False], [1, 1, 1]) == 0.5
        assert c_index([1, 2, 3], [False, False, True], [1, 2, 3]) is None

    def test_balanced_accuracy(self) -> None:
        p = np.eye(3)[[0, 0, 0, 1, 0]]
        assert balanced_accuracy([0, 0, 0, 1, 1], p) == pytest.approx((1 + 0.5) / 2)
        assert balanced_accuracy([2, 2, 0, 1, 0], p) == pytest.approx((0 + 1 + 1) / 3)
        assert balanced_accuracy([], np.zeros((0, 2))) is None


class TestTraining:
    def test_it_learns_who_dies_first(self, tmp_path) -> None:
        method = survival(training__epochs=15, training__monitor="val_c_index", training__accumulate=4)
        reports, run = finish(fit(method, TRAIN, VALIDATION, out=tmp_path))
        first = reports[0]
        assert first.val_auroc is None
        assert set(first.val_metrics) == {"c_index"}
        best = max(reports, key=lambda r: (r.val_metrics["c_index"], -r.val_loss))
        assert run.best_epoch == best.epoch
        assert best.val_metrics["c_index"] > 0.75
        # edges are those of the training patients, in run.json and in the loaded run
        cases = patient_bags(TRAIN, "survival")
        edges = survival_bins([bag.time for bag in cases], [bag.event for bag in cases])[1]
        assert run.time_edges == Run.load(tmp_path).time_edges == tuple(edges.tolist())
        assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["time_edges"] == edges.tolist()
        assert (tmp_path / "epochs.csv").read_text().startswith("epoch,train_loss,val_loss,val_auroc,val_c_index,")
        # and the risk that is handed out is what was judged
        pairs = [(bag, predict(run, bag)) for bag in patient_bags(VALIDATION, "survival")]
        times, events = [bag.time for bag, _ in pairs], [bag.event for bag, _ in pairs]
        judged = c_index(times, events, [p.risk for _, p in pairs])
        assert judged == pytest.approx(best.val_metrics["c_index"])

    def test_loss_is_that_of_the_bins(self) -> None:
        method = survival(training__epochs=1, training__learning_rate=1e-12, training__sampler="in_order")
        reports, run = finish(fit(method, TRAIN, VALIDATION))
        cases = patient_bags(VALIDATION, "survival")
        logits = [torch.from_numpy(predict(run, bag).logits) for bag in cases]
        losses = [
            survival_nll(z, int(bins_of(b.time, run.time_edges)), b.event) for z, b in zip(logits, cases, strict=True)
        ]
        assert reports[0].val_loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)

    @pytest.mark.parametrize("preset", ["ab_mil", "mean", "mhim_abmil_c16", "rank_induction", "attention_induction"])
    def test_other_methods_have_it_too(self, preset: str) -> None:
        copy = {"mining__teacher": "copy"} if preset.startswith("mhim") else {}
        reports, run = finish(fit(survival(preset, training__monitor="val_loss", **copy), TRAIN, VALIDATION))
        prediction = predict(run, VALIDATION[0])
        assert prediction.probabilities.shape == prediction.survival.shape == (4,)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert prediction.risk == pytest.approx(-prediction.survival.sum(), rel=1e-5)
        assert (np.diff(prediction.survival) <= 0).all()
        assert prediction.instance_probability is None
        assert len(prediction.attention) == len(VALIDATION[0])
        if preset in ("rank_induction", "attention_induction"):
            name = "rank" if preset == "rank_induction" else "attention"
            assert reports[0].parts[name] > 0  # outlines teach whatever the label is

    @pytest.mark.parametrize(
        ("aggregator", "mining"),
        [
            *itertools.product(
                [
                    {"name": "dsmil", "fusion": "logits"},
                    {"name": "trans_mil", "stem_dim": 16, "heads": 2},
                    {"name": "clam_sb", "instance_weight": 0},
                    {"name": "clam_mb", "instance_weight": 0},
                ],
                ["none", "mhim", "mhim2"],
            ),
            ({"name": "dtfd", "distillation": "afs"}, "none"),
            ({"name": "dtfd", "distillation": "mas"}, "mhim"),
        ],
        ids=lambda value: value["name"] if isinstance(value, dict) else value,
    )
    def test_every_aggregator(self, aggregator: dict, mining: str) -> None:
        settings = {"kind": mining, **({"teacher": "copy"} if mining != "none" else {})}
        task, training = {"kind": "survival"}, {"epochs": 1, "monitor": "val_c_index"}
        method = Method(aggregator=aggregator, mining=settings, task=task, training=training)
        reports, run = finish(fit(method, TRAIN[:16], VALIDATION))
        bag = patient_bags(VALIDATION, "survival")[0]
        prediction = predict(run, bag)
        assert np.isfinite(reports[0].val_loss)
        assert prediction.attention.shape == prediction.scores.shape == (len(bag),)
        assert prediction.attention.sum() == pytest.approx(1, abs=1e-4)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)

    def test_contribution_is_towards_the_risk(self) -> None:
        _, run = finish(fit(survival("ab_mil_rank"), TRAIN, VALIDATION))
        bag = VALIDATION[0]
        prediction, model = predict(run, bag), run.build()
        with torch.no_grad():
            each = model.instance_logits(bag.tensor())  # (N, bins)
            step = torch.from_numpy(prediction.attention)[:, None] * each
            base, moved = torch.from_numpy(prediction.logits).double(), 1e-6
            for k in (0, len(bag) - 1):
                change = (survival_risk(base + moved * step[k].double()) - survival_risk(base)) / moved
                assert prediction.contribution[k] == pytest.approx(change.item(), rel=1e-3, abs=1e-5)

    def test_balanced_draws_go_by_event(self) -> None:
        from napari_mil.mil.objective import Objective

        objective = Objective(survival(), TRAIN, 0)
        strata = [objective.stratum(bag) for bag in TRAIN]
        assert strata == [int(bag.event) for bag in TRAIN]
        drawn = [
            strata[i] for k in range(50) for i in epoch_order("balanced", strata, torch.Generator().manual_seed(k))
        ]
        assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)

    def test_resumed_is_the_same(self, tmp_path) -> None:
        method = survival(training__monitor="val_c_index")
        _, whole = finish(fit(method, TRAIN, VALIDATION))
        training = fit(method, TRAIN, VALIDATION, out=tmp_path)
        next(training)
        training.close()
        _, run = finish(fit(method, TRAIN, VALIDATION, out=tmp_path, resume=True))
        assert all(torch.equal(run.weights[key], value) for key, value in whole.weights.items())
        assert run.time_edges == whole.time_edges
        with pytest.raises(TrainingError, match="other training or validation slides"):
            finish(fit(method, TRAIN[:-1], VALIDATION, out=tmp_path, resume=True))


class TestRefused:
    @pytest.mark.parametrize(
        ("train", "validation", "sentence"),
        [
            (cohort(8, time=None), VALIDATION, r"needs time and event, which 4 of 4 training patients lack"),
            (TRAIN, cohort(4, 2, "v", event=None), r"which 2 of 2 validation patients lack \(v-patient 0"),
            (cohort(8, time=-1.0), VALIDATION, "time of s-patient 0 is -1.0"),
            (cohort(24, event=False), VALIDATION, "no event was seen in training"),
            ([], VALIDATION, "no training slide with features; give slides with time and event"),
            (TRAIN, TRAIN[:4], "t0 is given twice"),
        ],
    )
    def test_data(self, train: list[Bag], validation: list[Bag], sentence: str) -> None:
        with pytest.raises(TrainingError, match=sentence):
            next(fit(survival(), train, validation))

    def test_few_events_in_validation(self) -> None:
        note = next(fit(survival(), TRAIN, VALIDATION)).notes[0]
        assert "Validation holds only" in note
        assert "C-index" in note
        nobody = cohort(12, 2, "v", event=False)
        report = next(fit(survival(), TRAIN, nobody))
        assert "Validation holds 0 events" in report.notes[0]
        assert report.val_metrics == {"c_index": None}
        with pytest.raises(TrainingError, match=r"set training\.monitor val_loss"):
            next(fit(survival(training__monitor="val_c_index"), TRAIN, nobody))

    def test_settings(self) -> None:
        with pytest.raises(MethodError, match="figure of classes"):
            survival(training__monitor="val_auroc")
        with pytest.raises(MethodError, match="figure of survival"):
            quick("ab_mil", training__monitor="val_c_index")
        for distillation in ("max", "max_min"):
            with pytest.raises(MethodError, match="distillation to afs or mas"):
                Method(aggregator={"name": "dtfd", "distillation": distillation}, task="survival")

    def test_what_is_monitored_follows_the_task(self) -> None:
        """Unless somebody says what."""
        classes = Method.preset("mhim_abmil_c16")
        moved = classes.with_settings({"task.kind": "survival"})
        assert (classes.training.monitor, moved.training.monitor) == ("val_auroc", "val_c_index")
        assert moved.with_settings({"task.kind": "binary"}).training.monitor == "val_auroc"
        said = classes.with_settings({"training.monitor": "val_loss", "task.kind": "survival"})
        assert said.training.monitor == "val_loss"
        assert Method.preset("ab_mil").with_settings({"task.kind": "survival"}).training.monitor == "val_loss"
        with pytest.raises(MethodError, match="figure of classes"):
            classes.with_settings({"task.kind": "survival", "training.monitor": "val_auroc"})
