"""The names of `napari_mil.mil` that scripts rely on: called as documented, held against the formulas of METHODS."""

from __future__ import annotations

import dataclasses
import json
import types
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import napari_mil
from napari_mil import Bag, EpochReport, Method, PatchGrid, Prediction, Run, fit, mil, predict

PRESETS = (
    *("rank_induction", "attention_induction", "ab_mil", "mhim_abmil_c16", "mhim_abmil_tcga", "patch_classifier"),
    *("shuffled_outlines", "random_mask_only", "mean", "max"),
)


def drained(job: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """Reports of a generator, and what it returns."""
    reports = []
    while True:
        try:
            reports.append(next(job))
        except StopIteration as end:
            return reports, end.value


def frozen(report: Any) -> bool:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(report, dataclasses.fields(report)[0].name, None)
    return True


def bag(k: int, label: int, dim: int = 8) -> Bag:
    """40 patches; in a positive bag the first ten are shifted, and outlined."""
    rng = np.random.default_rng(k)
    features = rng.normal(size=(40, dim)).astype(np.float32)
    if label:
        features[:10, 0] += 3
    grid = PatchGrid([[i % 8 * 256, i // 8 * 256] for i in range(40)], 256, 256, 0.5)
    outlined = np.where(np.arange(40) < 10 * label, 1, 0).astype(np.int8)
    return Bag(f"slide {k}", features, grid, label, outlined, f"patient {k}")


BAGS = [bag(k, k % 2) for k in range(12)]


@pytest.fixture(scope="module")
def trained() -> tuple[list[Any], Run]:
    method = Method.preset("rank_induction").with_settings({"training.epochs": 8, "training.learning_rate": 1e-2})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return drained(fit(method, BAGS[:8], BAGS[8:], seed=3, device="cpu", out=None))


class TestTraining:
    def test_bag_by_position(self) -> None:
        grid = PatchGrid([[0, 0], [256, 0]], 256, 256, 0.5)
        made = Bag("s", np.zeros((2, 3), np.float32), grid, 1, np.array([1, -1], np.int8), "p", True, 12.5)
        assert (made.slide_id, made.grid, made.label, made.patient_id) == ("s", grid, 1, "p")
        assert (made.event, made.time) == (True, 12.5)
        assert made.patch_labels is not None
        assert made.patch_labels.tolist() == [1, -1]
        assert frozen(made)

    def test_method_composes_and_forbids_extras(self) -> None:
        method = Method(
            aggregator={"name": "ab_mil_rank", "threshold": 1.0},
            supervision={"kind": "rank", "margin": 0.5},
            mining={"kind": "mhim"},
            task={"kind": "multiclass", "classes": ["a", "b", "c"]},
            training={"epochs": 3},
        )
        assert Method.model_validate_json(method.model_dump_json()) == method
        assert method.build(16, 3)(torch.zeros(5, 16)).logits.shape == (3,)
        for wrong in ({"agregator": "ab_mil"}, {"training": {"epoch": 3}}, {"aggregator": "no_such"}):
            with pytest.raises(napari_mil.MilError):
                Method(**wrong)

    @pytest.mark.parametrize("name", PRESETS)
    def test_presets(self, name: str) -> None:
        method = Method.preset(name)
        network = method.build(in_dim=16, n_classes=2)
        out = network(torch.randn(7, 16))
        assert isinstance(out, mil.BagOutput)
        assert out._fields == ("logits", "scores", "attention", "embedding", "head_scores", "extras")
        assert out.logits.shape in ((1,), (2,))
        assert len(out.scores) == len(out.attention) == 7

    def test_fit_is_a_generator_that_returns_a_run(self, trained: tuple[list[Any], Run]) -> None:
        reports, run = trained
        assert isinstance(fit(Method(), BAGS[:8], BAGS[8:]), types.GeneratorType)
        assert len(reports) == 8
        assert all(isinstance(report, EpochReport) for report in reports)
        assert frozen(reports[0])
        assert json.loads(json.dumps(dataclasses.asdict(reports[0]), allow_nan=False))["epoch"] == 1
        assert isinstance(run, Run)
        assert 1 <= run.best_epoch <= 8

    def test_same_seed_same_weights_also_in_files(self, trained: tuple[list[Any], Run], tmp_path: Path) -> None:
        _, run = trained
        _, again = drained(
            fit(run.method, train=BAGS[:8], validation=BAGS[8:], seed=3, device="cpu", out=tmp_path / "run")
        )
        loaded = Run.load(tmp_path / "run")
        for key, value in run.build().state_dict().items():
            assert torch.equal(value, again.build().state_dict()[key])
            assert torch.equal(value, loaded.build().state_dict()[key])
        assert {"run.json", "epochs.csv", "best.safetensors", "last.safetensors"} <= {
            p.name for p in (tmp_path / "run").iterdir()
        }

    def test_predict(self, trained: tuple[list[Any], Run]) -> None:
        _, run = trained
        said = predict(run, BAGS[9])
        assert isinstance(said, Prediction)
        assert said.logits.shape == (1,)
        assert said.probabilities.shape == (2,)
        assert said.probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert said.scores.shape == said.attention.shape == (40,)
        assert said.attention.sum() == pytest.approx(1, abs=1e-5)
        assert said.contribution is None or said.contribution.shape == (40,)
        assert said.instance_probability is None or said.instance_probability.shape == (40,)
        assert said.scores[:10].mean() > said.scores[10:].mean()


def softplus(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.logaddexp(0, x)


class TestMil:
    @pytest.mark.parametrize("name", ["ab_mil", "ab_mil_rank", "ab_mil_mhim", "mean", "max", "patch_classifier"])
    @pytest.mark.parametrize("n", [1, 2, 9])
    def test_build_aggregator(self, name: str, n: int) -> None:
        out = mil.build_aggregator(name, 12, 2)(torch.randn(n, 12))
        assert isinstance(out, mil.BagOutput)
        assert out.logits.ndim == 1
        assert out.attention.shape[0] == n
        assert out.attention.sum().item() == pytest.approx(1, abs=1e-5)

    def test_build_aggregator_options(self) -> None:
        assert mil.build_aggregator("ab_mil_rank", 12, 2, binary_head="two")(torch.zeros(3, 12)).logits.shape == (2,)
        published = mil.build_aggregator("ab_mil_rank", 1024, 2)
        assert sum(p.numel() for p in published.parameters()) == 527_618
        with pytest.raises(napari_mil.MilError, match="no_such"):
            mil.build_aggregator("ab_mil", 12, 2, no_such=1)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
    def test_rank_loss_is_the_papers(self, dtype: torch.dtype) -> None:
        rng = np.random.default_rng(0)
        s = rng.normal(size=30) * 4
        y = rng.integers(0 if dtype == torch.uint8 else -1, 2, 30)
        d = s[y == 1][:, None] - s[y == 0][None, :]
        scores, labels = torch.tensor(s), torch.tensor(y).to(dtype)
        loss = mil.rank_loss(scores, labels, sigma=1.5, margin=0.3)
        assert loss.item() == pytest.approx(softplus(-1.5 * (d - 0.3)).mean(), rel=1e-9)
        both = (softplus(-1.5 * (d - 0.3)) + softplus(-1.5 * (d + 0.3))).mean() / 2
        loss = mil.rank_loss(scores, labels, sigma=1.5, margin=0.3, pairs="symmetric")
        assert loss.item() == pytest.approx(both, rel=1e-9)

    def test_rank_loss_without_pairs_is_zero_with_a_gradient(self) -> None:
        for labels in ([1, 1, -1], [0, 0, -1], [-1, -1, -1]):
            scores = torch.randn(3, requires_grad=True)
            loss = mil.rank_loss(scores, torch.tensor(labels))
            loss.backward()
            assert loss.item() == 0
            assert scores.grad is not None
            assert scores.grad.tolist() == [0, 0, 0]

    def test_rank_loss_keeps_the_gradient_of_the_worst_pairs(self) -> None:
        scores = torch.tensor([-200.0, 200.0], requires_grad=True)
        mil.rank_loss(scores, torch.tensor([1, 0])).backward()
        assert scores.grad is not None
        assert scores.grad.tolist() == pytest.approx([-1, 1])

    def test_attention_target_and_loss(self) -> None:
        labels, tissue = torch.tensor([1, 0, 1, -1]), torch.tensor([30, 50, 10, 70])
        target = mil.attention_target(labels, tissue)
        assert target.tolist() == pytest.approx([0.75, 0, 0.25, 0])
        attention = torch.tensor([0.5, 0.1, 0.2, 0.2])
        loss = mil.attention_induction_loss(attention, target)
        assert loss.item() == pytest.approx(0.25**2 + 0.1**2 + 0.05**2 + 0.2**2, abs=1e-6)
        nothing = mil.attention_target(torch.zeros(4, dtype=torch.int8), tissue)
        assert nothing.tolist() == [0, 0, 0, 0]
        assert mil.attention_induction_loss(attention, nothing).item() == 0

    def test_threshold_attention(self) -> None:
        attention = torch.tensor([0.5, 0.3, 0.15, 0.05])
        cut = mil.threshold_attention(attention, 1.0)
        assert cut.tolist() == pytest.approx([0.25 / 0.3, 0.05 / 0.3, 0, 0], abs=1e-6)
        assert mil.threshold_attention(attention, None).tolist() == attention.tolist()
        same = torch.full((8,), 1 / 8)
        assert mil.threshold_attention(same, 1.0).tolist() == same.tolist()
        assert mil.threshold_attention(torch.ones(1), 1.0).tolist() == [1]

    def test_mask_instances_counts_and_order(self) -> None:
        scores = torch.randn(101, generator=torch.Generator().manual_seed(0))
        found = mil.mask_instances(
            scores, mil.MaskRatios(0.05, 0.2, 0.3, 0.5), generator=torch.Generator().manual_seed(1)
        )
        assert isinstance(found, mil.MaskedBag)
        assert found._fields == ("kept", "masked_high", "masked_low", "masked_random")
        assert [len(part) for part in found[1:]] == [6, 21, 31]
        for part in found:
            assert part.dtype == torch.int64
            assert torch.equal(part, part.unique())
        masked = torch.cat(found[1:]).unique()
        assert torch.equal(torch.cat([found.kept, masked]).sort().values, torch.arange(101))
        order = scores.argsort()
        assert set(found.masked_low.tolist()) == set(order[:21].tolist())
        assert set(found.masked_high.tolist()) <= set(order[-11:].tolist())  # ⌈101 · .05 / .5⌉ candidates

    def test_mask_instances_replays_recorded_draws(self) -> None:
        scores = torch.tensor([0.1, 0.9, 0.3, 0.7, 0.5, 0.2, 0.8, 0.4, 0.6, 0.0])
        draws = [torch.tensor([9, 0, 4, 1, 2, 3, 5, 6, 7, 8]), torch.tensor([3, 1, 0, 2])]
        found = mil.mask_instances(scores, mil.MaskRatios(0.2, 0.1, 0.2, 0.5), permutations=draws)
        # ascending order of score is 9 0 5 2 7 4 8 3 6 1: places 9 and 0 of it; high candidates are 1 6 3 8
        assert found.masked_random.tolist() == [1, 9]
        assert found.masked_low.tolist() == [9]
        assert found.masked_high.tolist() == [6, 8]
        assert found.kept.tolist() == [0, 2, 3, 4, 5, 7]

    @pytest.mark.parametrize("fusion", ["vote", "mean"])
    def test_mask_instances_of_several_heads(self, fusion: str) -> None:
        scores = torch.zeros(4, 20)
        scores[:, 3], scores[:, 7], scores[0, 5] = 5, 4, 9
        found = mil.mask_instances(scores, mil.MaskRatios(0.1 if fusion == "vote" else 0.2), fusion=fusion)
        assert {"vote": [3, 7], "mean": [3, 5]}[fusion] == found.masked_high.tolist()

    def test_at_least_one_patch_is_kept(self) -> None:
        for n in (1, 2, 5):
            found = mil.mask_instances(torch.randn(n), mil.MaskRatios(1.0, 1.0, 1.0))
            assert len(found.kept) == 1
        assert len(mil.mask_instances(torch.randn(1), mil.MaskRatios(0.9, 0, 0.9)).kept) == 1

    @pytest.mark.parametrize("name", ["ab_mil", "ab_mil_rank", "ab_mil_mhim"])
    @pytest.mark.parametrize("classes", [2, 4])
    def test_class_aware_score(self, name: str, classes: int) -> None:
        network, x = mil.build_aggregator(name, 12, classes).eval(), torch.randn(9, 12)
        with torch.no_grad():
            network.classifier.weight *= 20
        score = mil.class_aware_score(network, x)
        assert score.shape == (9,)
        assert score.dtype == torch.float64
        with torch.no_grad():
            terms = network(x).attention[:, None] * (network.instances(x) @ network.classifier.weight.T)
        if terms.shape[1] == 1:
            terms = torch.cat([torch.zeros_like(terms), terms], dim=1)
        assert torch.allclose(score.exp().float(), torch.softmax(terms, 1).amax(1), atol=1e-5)

    def test_recycle_network(self) -> None:
        network = mil.RecycleNetwork(16, queries=3).eval()
        assert sum(p.numel() for p in mil.RecycleNetwork(512).parameters()) == 1_050_112
        x, heads, d = torch.randn(11, 16), 8, 64
        n, q = network.norm(x), network.to_q(network.norm(network.queries))
        k, v = network.to_kv(n).chunk(2, dim=1)
        q, k, v = (t.reshape(len(t), heads, d).transpose(0, 1) for t in (q, k, v))
        mixed = (torch.softmax(q @ k.transpose(1, 2) / 8, dim=-1) @ v).transpose(0, 1).reshape(3, -1)
        assert torch.allclose(network(x), network.to_out(mixed), atol=1e-5)
        before = network.queries.clone()
        network.remember(network(x))
        assert torch.allclose(network.queries, 0.9999 * before + 0.0001 * network(x), atol=1e-4)
        assert not network.queries.requires_grad

    def test_consistency_loss(self) -> None:
        student, teacher = torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True)
        loss = mil.consistency_loss(student, teacher, 0.1)
        p = torch.softmax(teacher.detach() / 0.1, 0)
        assert loss.item() == pytest.approx(-(p * torch.log_softmax(student, 0)).sum().item(), abs=1e-6)
        loss.backward()
        assert student.grad is not None
        assert teacher.grad is None
        rows = mil.consistency_loss(torch.stack([student, student]), torch.stack([teacher, teacher]), temperature=0.1)
        assert rows.item() == pytest.approx(loss.item(), abs=1e-6)

    def test_ema_update(self) -> None:
        teacher, student = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        expected = 0.9 * teacher.weight + 0.1 * student.weight
        before = student.weight.clone()
        mil.ema_update(teacher, student, 0.9)
        assert torch.allclose(teacher.weight, expected, atol=1e-6)
        assert torch.equal(student.weight, before)

    def test_published_checkpoints_load_strictly(self) -> None:
        d, a = 24, 6
        rank = {
            "adaptor.0.weight": torch.randn(a, d), "adaptor.0.bias": torch.randn(a),
            "adaptor.2.weight": torch.randn(d, a), "adaptor.2.bias": torch.randn(d),
            "attention_layer.linear.weight": torch.randn(1, d), "attention_layer.linear.bias": torch.randn(1),
            "classifier.weight": torch.randn(1, d), "classifier.bias": torch.randn(1),
        }  # fmt: skip
        name, options, state = mil.convert_state_dict(rank, source="rank_induction")
        assert not {"in_dim", "n_classes"} & options.keys()
        network = mil.build_aggregator(name, d, 2, **options)
        network.load_state_dict(state, strict=True)
        x = torch.randn(5, d)
        h = torch.relu(x @ rank["adaptor.0.weight"].T + rank["adaptor.0.bias"])
        h = h @ rank["adaptor.2.weight"].T + rank["adaptor.2.bias"]
        s = (h @ rank["attention_layer.linear.weight"].T + rank["attention_layer.linear.bias"])[:, 0]
        out = network(x)
        assert torch.allclose(out.scores, s, atol=1e-4)
        z = torch.softmax(s, 0) @ h
        assert torch.allclose(out.logits, z @ rank["classifier.weight"].T + rank["classifier.bias"], atol=1e-4)

        mhim = {
            "patch_to_emb.0.weight": torch.randn(8, d), "patch_to_emb.0.bias": torch.randn(8),
            "online_encoder.attention.attention.0.weight": torch.randn(4, 8),
            "online_encoder.attention.attention.2.weight": torch.randn(1, 4),
            "predictor.weight": torch.randn(2, 8), "predictor.bias": torch.randn(2),
        }  # fmt: skip
        name, options, state = mil.convert_state_dict(mhim, "mhim_v1")
        network = mil.build_aggregator(name, d, 2, **options).eval()
        network.load_state_dict(state, strict=True)
        h = torch.relu(x @ mhim["patch_to_emb.0.weight"].T + mhim["patch_to_emb.0.bias"])
        e = torch.relu(h @ mhim["online_encoder.attention.attention.0.weight"].T)
        e = (e @ mhim["online_encoder.attention.attention.2.weight"].T)[:, 0]
        expected = torch.softmax(e, 0) @ h @ mhim["predictor.weight"].T + mhim["predictor.bias"]
        assert torch.allclose(network(x).logits, expected, atol=1e-4)
        with pytest.raises(napari_mil.MilError, match="no_such"):
            mil.convert_state_dict(mhim, "no_such")

    def test_survival_bins_and_loss(self) -> None:
        time, event = [2.0, 4, 6, 8, 10, 1, 20], [True] * 5 + [False] * 2
        bins, edges = mil.survival_bins(time, event)
        assert edges == pytest.approx([1 - 1e-6, 4, 6, 8, 20 + 1e-6])
        assert bins.tolist() == [0, 1, 2, 3, 3, 0, 3]  # a bin holds its left edge
        logits = torch.tensor([0.3, -0.4, 0.1, 0.8], dtype=torch.float64)
        hazard = torch.sigmoid(logits)
        curve = torch.cumprod(1 - hazard, 0)
        seen = -(curve[1].log() + hazard[2].log())
        assert mil.survival_nll(logits, 2, True).item() == pytest.approx(seen.item())
        assert mil.survival_nll(logits, 2, False).item() == pytest.approx(-curve[2].log().item())
        assert mil.survival_nll(logits, 0, True).item() == pytest.approx(-hazard[0].log().item())
        assert mil.c_index([1, 2, 3], [True, False, True], [0.9, 0.5, 0.1]) == 1
        with pytest.raises(napari_mil.MilError, match="no event was seen"):
            mil.survival_bins([1, 2, 3, 4], [False] * 4)

    def test_survival_of_patients(self) -> None:
        rng = np.random.default_rng(0)
        slides = [
            Bag(f"s{k}", rng.normal(size=(6, 5)), patient_id=f"p{k // 2}", time=1.0 + k // 2, event=True)
            for k in range(20)
        ]
        patients = mil.patient_bags(slides, "survival")
        assert [bag.slide_id for bag in patients] == [f"p{k}" for k in range(10)]
        method = Method(aggregator="ab_mil", task={"kind": "survival"}, training={"epochs": 1})
        reports, run = drained(fit(method, slides[:12], slides[12:]))
        assert 0 <= reports[0].val_metrics["c_index"] <= 1
        assert len(run.time_edges) == 5
        prediction = predict(run, patients[0])
        assert prediction.risk == pytest.approx(-prediction.survival.sum(), rel=1e-5)
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert [part.slide_id for part in prediction.of_slides(patients[0])] == ["s0", "s1"]
