"""Hard negative bags: which patches, which bags, and the second training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mil.errors import Cancelled, MethodError, TrainingError
from napari_mil.mil import Bag, Method, Run, build_aggregator, fit, hard_negative_bags, hard_negatives, predict

from .conftest import Stop, finish, quick, same


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestHardNegatives:
    @pytest.mark.parametrize("deviations", [0.0, 1.0, 2.0])
    def test_formula(self, deviations: float) -> None:
        w = np.random.default_rng(0).dirichlet(np.ones(200))
        expected = np.flatnonzero(w >= w.mean() + deviations * w.std())
        assert 0 < len(expected) < 200
        for given in (w, torch.from_numpy(w), w.astype(np.float32)):
            np.testing.assert_array_equal(hard_negatives(given, deviations=deviations), expected)

    def test_default_is_one_deviation(self) -> None:
        w = np.random.default_rng(1).random(50)
        assert torch.equal(hard_negatives(w), hard_negatives(w, deviations=1.0))
        assert hard_negatives(w).dtype == torch.long

    @pytest.mark.parametrize("n", [1, 3, 7, 1000])
    def test_equal_weights_are_all_hard(self, n: int) -> None:
        assert hard_negatives(np.full(n, 1 / n, np.float32)).tolist() == list(range(n))

    def test_none_may_be(self) -> None:
        assert len(hard_negatives(np.array([1.0] * 9 + [0.0]))) == 0

    @pytest.mark.parametrize("shape", [(0,), (3, 2)])
    def test_wrong_weights(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(MethodError, match="expected one for each patch"):
            hard_negatives(np.zeros(shape))


def false_positives(count: int = 3, n: int = 40, dtype: type = np.float32) -> tuple[list[Bag], list[np.ndarray]]:
    """Bags whose patches say where they come from, and weights with a clear top."""
    rng = np.random.default_rng(3)
    bags, weights = [], []
    for k in range(count):
        x = np.stack([np.full(n, k), np.arange(n), rng.integers(4, size=n) * 10], axis=1).astype(dtype)
        w = rng.random(n) * 0.1
        w[k : k + 6] += 1
        bags.append(Bag(f"fp{k}", x, label=0))
        weights.append(w / w.sum())
    return bags, weights


class TestBags:
    def test_only_hard_patches_as_negatives(self) -> None:
        bags, weights = false_positives()
        made = hard_negative_bags(bags, weights, n_clusters=4, n_bags=7, generator=seeded())
        hard = {(k, j) for k, w in enumerate(weights) for j in hard_negatives(w).tolist()}
        drawn = {(int(x[0]), int(x[1])) for bag in made for x in bag.features}
        assert drawn == hard  # 280 draws of 18 patches
        assert len(made) == 7
        assert all(bag.label == 0 and (bag.patch_labels == 0).all() for bag in made)
        assert len({bag.slide_id for bag in [*made, *bags]}) == 10

    def test_as_many_as_clusters_if_nothing_is_said(self) -> None:
        bags, weights = false_positives()
        assert len(hard_negative_bags(bags, weights, generator=seeded())) == 10
        assert len(hard_negative_bags(bags, weights, n_clusters=3, generator=seeded())) == 3

    def test_every_hard_patch_comes_equally_often(self) -> None:
        """A cluster by its size, then one of it: each patch with probability 1/n."""
        bags, weights = false_positives()
        made = hard_negative_bags(bags, weights, n_clusters=5, n_bags=30, sizes=[600], generator=seeded())
        rows = np.concatenate([bag.features for bag in made])
        _, counts = np.unique(rows[:, :2], axis=0, return_counts=True)
        expected = len(rows) / len(counts)
        assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()

    def test_sizes(self) -> None:
        bags, weights = false_positives()
        sizes = [100, 200, 300, 400]
        made = hard_negative_bags(bags, weights, n_bags=300, sizes=sizes, generator=seeded())
        drawn = np.array([len(bag) for bag in made])
        assert drawn.mean() == pytest.approx(np.mean(sizes), abs=4 * np.std(sizes) / np.sqrt(300))
        assert drawn.std() == pytest.approx(np.std(sizes), rel=0.15)
        assert {len(bag) for bag in hard_negative_bags(bags, weights, generator=seeded())} == {40}
        tiny = hard_negative_bags(bags, weights, n_bags=50, sizes=[1, 1, 9], generator=seeded())
        assert min(len(bag) for bag in tiny) == 1

    def test_the_seed_decides(self) -> None:
        bags, weights = false_positives()
        one, other, third = (hard_negative_bags(bags, weights, generator=seeded(s)) for s in (1, 1, 2))
        assert all(np.array_equal(a.features, b.features) for a, b in zip(one, other, strict=True))
        assert not all(np.array_equal(a.features, b.features) for a, b in zip(one, third, strict=True))

    def test_names_that_are_taken(self) -> None:
        bags, weights = false_positives()
        first = hard_negative_bags(bags, weights, n_bags=2, generator=seeded())
        taken = {bag.slide_id for bag in first}
        again = hard_negative_bags(bags, weights, n_bags=2, taken=taken, generator=seeded())
        assert not taken & {bag.slide_id for bag in again}

    def test_fewer_patches_than_clusters_and_identical_ones(self) -> None:
        bag = Bag("fp", np.ones((5, 3), np.float32), label=0)
        made = hard_negative_bags([bag], [np.full(5, 0.2)], n_clusters=10, n_bags=3, generator=seeded())
        assert [bag.features.shape for bag in made] == [(5, 3)] * 3

    def test_nothing_hard_nothing_made(self) -> None:
        bag = Bag("fp", np.ones((10, 3), np.float32), label=0)
        assert hard_negative_bags([bag], [np.array([1.0] * 9 + [0.0])], generator=seeded()) == []
        assert hard_negative_bags([], [], generator=seeded()) == []

    def test_half_precision_stays(self) -> None:
        bags, weights = false_positives(dtype=np.float16)
        assert hard_negative_bags(bags, weights, generator=seeded())[0].features.dtype == np.float16

    def test_refusals(self) -> None:
        bags, weights = false_positives()
        with pytest.raises(MethodError, match="2 lists of weights for 3 bags"):
            hard_negative_bags(bags, weights[:2])
        with pytest.raises(MethodError, match="fp1: 39 weights for 40 patches"):
            hard_negative_bags(bags, [weights[0], weights[1][:-1], weights[2]])


def test_adaptive_weighting_is_the_formula() -> None:
    """z = Σ_{w > w̄} w g + λ Σ_{w ≤ w̄} w g."""
    torch.manual_seed(0)
    plain = build_aggregator("ab_mil", 6, 2).double().eval()
    adaptive = build_aggregator("ab_mil", 6, 2, adaptive_weight=2.0).double().eval()
    adaptive.load_state_dict(plain.state_dict())
    x = torch.randn(30, 6, dtype=torch.float64)
    h, w = plain.instances(x), plain(x).attention
    above = w > w.mean()
    z = (w[above, None] * h[above]).sum(0) + 2.0 * (w[~above, None] * h[~above]).sum(0)
    output = adaptive(x)
    torch.testing.assert_close(output.embedding, z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(output.attention, w, rtol=0, atol=0)
    own = adaptive.class_aware_logits(h, output).sum(dim=0) + adaptive.classifier.bias
    torch.testing.assert_close(own, output.logits, rtol=1e-12, atol=1e-12)


HARD: dict[str, object] = {"mining.kind": "hard_negative", "mining.clusters": 3, "mining.bags": 4}


def hard_method(**settings: object) -> Method:
    """Two epochs, in which the first training calls slides positive that are not."""
    base = {"task.class_weight": 5.0, "training.sampler": "shuffled", **HARD}
    return quick("ab_mil", training__epochs=2).with_settings({**base, **settings})


class TestSecondTraining:
    def test_what_it_says_and_adds(self, train, validation, tmp_path: Path) -> None:
        method = hard_method()
        seen: list[tuple[int, int]] = []
        training = fit(method, train, validation, out=tmp_path / "run", on_bag=lambda a, b: seen.append((a, b)))
        reports, run = finish(training)
        assert [report.stage for report in reports] == ["plain", "plain", "", ""]
        first = Run.load(tmp_path / "run" / "plain")
        model = first.build()
        mistaken = [bag for bag in train if bag.label == 0 and predict(first, bag, model=model).predicted == 1]
        assert mistaken  # else this tests nothing
        hard = sum(len(hard_negatives(predict(first, bag).attention)) for bag in mistaken)
        note = f"took {len(mistaken)} of 4 negative slides for positive; {hard} hard patches of theirs make 4 new"
        assert any(note in text for text in reports[2].notes)
        assert any(note in text for text in run.notes)
        assert (4, 4) in seen  # negative slides between the trainings
        assert seen[-1] == (16, 16)  # 8 + 4 new + 4 in validation
        assert predict(run, validation[0]).probabilities.shape == (2,)

    def test_the_plain_run_may_be_given(self, train, validation, tmp_path: Path) -> None:
        method = hard_method()
        _, whole = finish(fit(method, train, validation, out=tmp_path / "whole"))
        first = Run.load(tmp_path / "whole" / "plain")
        reports, run = finish(fit(method, train, validation, plain=first))
        assert {report.stage for report in reports} == {""}
        assert same(run, whole)

    def test_anew_and_continued(self, train, validation) -> None:
        anew = finish(fit(hard_method(), train, validation))[1]
        continued = finish(fit(hard_method(**{"mining.second": "continued"}), train, validation))[1]
        assert not same(anew, continued)

    def test_new_bags_count_as_negatives(self, train, validation) -> None:
        """Balanced class weight: 4 + 4 negatives to 4 positives."""
        method = hard_method()
        first = finish(fit(method.with_settings({"mining.kind": "none"}), train, validation))[1]
        balanced = method.with_settings({"task.class_weight": "balanced"})
        by_hand = method.with_settings({"task.class_weight": 2.0})
        runs = [finish(fit(m, train, validation, plain=first))[1] for m in (balanced, by_hand)]
        assert same(*runs)

    def test_no_false_positive(self, train, validation) -> None:
        method = hard_method(**{"task.class_weight": 1e-3})
        reports, run = finish(fit(method, train, validation))
        assert any("none of the 4 negative slides for positive; no bag is added" in text for text in run.notes)
        assert same(run, finish(fit(method.with_settings({"mining.kind": "none"}), train, validation))[1])
        assert len(reports) == 4

    @pytest.mark.parametrize("second", ["anew", "continued"])
    @pytest.mark.parametrize("after", [5, 17, 26, 31, 50])  # plain, plain, between, second 1, second 2
    def test_cancelled_and_resumed(self, second: str, after: int, train, validation, tmp_path: Path) -> None:
        method = hard_method(**{"mining.second": second})
        _, whole = finish(fit(method, train, validation, seed=3))
        with pytest.raises(Cancelled):
            finish(fit(method, train, validation, seed=3, out=tmp_path / "cut", on_bag=Stop(after)))
        _, resumed = finish(fit(method, train, validation, seed=3, out=tmp_path / "cut", resume=True))
        assert same(whole, resumed)
        assert whole.notes == resumed.notes
        for one, other in zip(whole.history, resumed.history, strict=True):
            assert (one["train_loss"], one["val_loss"]) == (other["train_loss"], other["val_loss"])

    def test_resumed_without_the_first_training(self, train, validation, tmp_path: Path) -> None:
        method = hard_method()
        _, first = finish(fit(method.with_settings({"mining.kind": "none"}), train, validation))
        training = fit(method, train, validation, plain=first, out=tmp_path)
        next(training)
        training.close()
        with pytest.raises(TrainingError, match="hand it in again"):
            next(fit(method, train, validation, out=tmp_path, resume=True))
        _, resumed = finish(fit(method, train, validation, plain=first, out=tmp_path, resume=True))
        assert same(resumed, finish(fit(method, train, validation, plain=first))[1])

    def test_only_two_classes(self) -> None:
        task = {"kind": "multiclass", "classes": ["a", "b", "c"]}
        with pytest.raises(MethodError, match="false-positive slides"):
            Method(aggregator="ab_mil", mining="hard_negative", task=task)
