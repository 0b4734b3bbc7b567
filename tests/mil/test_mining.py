"""Both versions of MHIM over every aggregator that they go with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mil.mil import Bag, Method, class_aware_score
from napari_mil.mil.learner import Learner, build_optimizer
from napari_mil.mil.mining import Mhim2Miner, build_miner, ema_update
from napari_mil.mil.mining.mhim2 import recycle_instances
from napari_mil.mil.objective import Objective

from .conftest import make_bags

SMALL = {"stem_dim": 16, "attention_dim": 4, "hidden": 5, "heads": 2, "query_dim": 4, "dropout": 0.0}
AGGREGATORS = {
    "ab_mil": {"stem": "tabular"},
    "gated": {"name": "ab_mil", "gated": True},
    "ab_mil_rank": {},
    "ab_mil_mhim": {},
    "dsmil": {},
    "dsmil logits": {"name": "dsmil", "fusion": "logits"},
    "trans_mil": {"landmarks": 4},
    "clam_sb": {"instance_patches": 2},
    "clam_mb": {"instance_patches": 2},
    "dtfd": {"pseudo_bags": 2},
}
SECOND = [name for name in AGGREGATORS if name != "dtfd"]
CASES = [("mhim", name) for name in AGGREGATORS] + [("mhim2", name) for name in SECOND]
BAG = make_bags(2, dim=6, size=40, seed=4)[1]


def learner(mining: dict, aggregator: str, classes: int = 2, **rest: object) -> Learner:
    options = {"name": aggregator, **AGGREGATORS[aggregator]}
    fields = Method(aggregator=options["name"]).aggregator.model_fields
    small = {key: value for key, value in SMALL.items() if key in fields}
    task = {"kind": "binary", "class_weight": "none"}
    if classes > 2:
        task = {"kind": "multiclass", "classes": list("abcdef"[:classes])}
    training = {"learning_rate": 0.01}
    method = Method(aggregator={**small, **options}, mining=mining, task=task, training=training, **rest)
    torch.manual_seed(3)
    model = method.build(6)
    miner = build_miner(method.mining, model, 10)
    draws = torch.Generator().manual_seed(0)
    made = Learner(model, Objective(method, [BAG], 0), build_optimizer(method.training, model, miner), draws, miner)
    model.train()
    return made


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("kind", "aggregator"), CASES)
def test_steps(kind: str, aggregator: str, classes: int) -> None:
    """A loss from what was left, gradients for the student and what the miner learns, none for the teacher."""
    taught = learner({"kind": kind, "teacher": "copy"}, aggregator, classes, supervision="rank")
    miner, x = taught.miner, BAG.tensor()
    lesson = miner.teach(taught.model, x, 0, torch.Generator().manual_seed(1), torch.from_numpy(BAG.patch_labels))
    n = len(lesson.kept)
    assert 0 < n < len(BAG)
    assert (lesson.kept.diff() > 0).all()
    assert len(lesson.output.scores) == len(lesson.output.attention) == n
    assert lesson.output.head_scores is None or lesson.output.head_scores.shape[1] == n
    assert lesson.teacher_embedding.shape == lesson.output.embedding.shape
    assert not lesson.teacher_embedding.requires_grad
    lesions = np.flatnonzero(BAG.patch_labels == 1)
    assert set(lesions) <= set(lesson.kept.tolist())
    loss = taught.loss(BAG)
    assert set(loss.parts) == {"bag", "rank", "consistency"}
    assert all(torch.isfinite(part) and part > 0 for part in loss.parts.values())
    loss.total.backward()
    learned = [*taught.model.parameters(), *miner.learned()]
    assert sum(p.grad is not None and bool((p.grad != 0).any()) for p in learned) > len(learned) / 2
    assert all(p.grad is None for p in miner.teacher.parameters())
    before = [p.clone() for p in learned]
    taught.bags_seen += 1
    taught.step()
    assert all(torch.isfinite(p).all() for p in learned)
    assert any(not torch.equal(a, b) for a, b in zip(before, learned, strict=True))


@pytest.mark.parametrize(("kind", "aggregator"), CASES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_bags(kind: str, aggregator: str, n: int) -> None:
    taught = learner({"kind": kind, "teacher": "copy"}, aggregator)
    bag = Bag("tiny", np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32), None, 1)
    loss = taught.loss(bag)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in taught.model.parameters())


@pytest.mark.parametrize(("kind", "aggregator"), [case for case in CASES if case[1] != "trans_mil"])
@pytest.mark.parametrize(("n", "recompute"), [(20_001, "auto"), (50, "always")])
def test_large_bags_as_they_are_stored(kind: str, aggregator: str, n: int, recompute: str) -> None:
    """Bags that are pooled by chunks come in float16; what is left of them need not be large."""
    taught = learner({"kind": kind, "teacher": "copy"}, aggregator)
    taught.model.recompute = recompute
    rows = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float16)
    loss = taught.loss(Bag("large", rows, None, 1))
    loss.total.backward()
    assert torch.isfinite(loss.total)


@pytest.mark.parametrize("aggregator", [name for name in SECOND if name != "trans_mil"])
def test_masks_move_with_the_patches(aggregator: str) -> None:
    """High and low masks hide the same patches, however the bag is ordered (TransMIL and DTFD go by the order)."""
    mining = {"kind": "mhim", "teacher": "copy", "high": 0.1, "low": 0.3, "random": 0.0, "high_random": 1.0}
    miner, x = learner(mining, aggregator).miner, BAG.tensor()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    kept = miner.mask(x, 0, torch.Generator())[0].kept
    moved = miner.mask(x[order], 0, torch.Generator())[0].kept
    assert sorted(order[moved].tolist()) == kept.tolist()
    one, other = class_aware_score(miner.teacher, x), class_aware_score(miner.teacher, x[order])
    torch.testing.assert_close(one[order], other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aggregator", SECOND)
@pytest.mark.parametrize("classes", [2, 4])
def test_class_aware_score(aggregator: str, classes: int) -> None:
    model = learner({"kind": "mhim2", "teacher": "copy"}, aggregator, classes).model.eval()
    score = class_aware_score(model, BAG.tensor())
    assert score.shape == (len(BAG),)
    assert score.dtype == torch.float64
    assert torch.isfinite(score).all()
    assert score.unique().numel() > len(BAG) / 2
    if not aggregator.startswith("dsmil"):
        assert (score <= 0).all()  # logarithms of probabilities
        assert (score >= -np.log(max(classes, 2)) - 1e-9).all()


class TestSecondVersion:
    def test_counts(self) -> None:
        scores = torch.rand(101, generator=torch.Generator().manual_seed(0))
        bag = recycle_instances(scores, 0.05, 0.2, generator=torch.Generator().manual_seed(1))
        assert [len(part) for part in bag] == [19, 6, 76]  # ⌈101 · .05⌉ = 6; ⌊95 · .2⌋ = 19
        assert set(bag.masked_high.tolist()) == set(scores.topk(6).indices.tolist())
        assert torch.equal(torch.cat(bag).sort().values, torch.arange(101))
        assert all((part.diff() > 0).all() for part in bag)
        alone = recycle_instances(scores, 0.05, 1e-3, generator=torch.Generator())
        assert len(alone.kept) == 1
        everything = recycle_instances(scores, 0.05, 1.0)
        assert (len(everything.kept), len(everything.recycled)) == (95, 0)

    def test_labels(self) -> None:
        labels = torch.zeros(50, dtype=torch.int8)
        labels[:10] = 1
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            bag = recycle_instances(torch.rand(50, generator=generator), 0.1, 0.02, generator=generator, labels=labels)
            assert set(range(10)) <= set(bag.kept.tolist())
            assert (labels[bag.kept] == 0).any()
            assert torch.equal(torch.cat(bag).sort().values, torch.arange(50))

    @pytest.mark.parametrize("settings", [{"queries": 0}, {"keep": 1.0}])
    def test_without_recycling_it_is_masking_alone(self, settings: dict) -> None:
        taught = learner({"kind": "mhim2", "teacher": "copy", "high": 0.2, **settings}, "ab_mil_mhim")
        miner, x = taught.miner, BAG.tensor()
        assert miner.recycle is None
        assert miner.learned() == []
        lesson = miner.teach(taught.model, x, 0, torch.Generator().manual_seed(0))
        torch.testing.assert_close(lesson.output.logits, taught.model(x[lesson.kept]).logits)

    def test_rows_of_the_recycled_reach_the_slide(self) -> None:
        taught = learner({"kind": "mhim2", "teacher": "copy", "recycle_dropout": 0.0}, "ab_mil_mhim")
        miner, model, x = taught.miner, taught.model, BAG.tensor()
        assert isinstance(miner, Mhim2Miner)
        bag, _ = miner.mask(x, torch.Generator().manual_seed(0))
        before = miner.recycle.queries
        rows = torch.cat([model.instances(x[bag.kept]), miner.recycle(model.instances(x[bag.recycled]))])
        output = miner.show(model, x, bag)
        torch.testing.assert_close(output.logits, model.pool(rows).logits)
        assert output.attention.sum() < 1  # the rest is on the recycled rows
        assert not torch.equal(miner.recycle.queries, before)
        assert {key for key in miner.state_dict() if "queries" in key} == {"recycle.queries"}
        output.logits.sum().backward()
        assert all(p.grad is not None for p in miner.learned())

    @pytest.mark.parametrize("aggregator", ["clam_sb", "clam_mb"])
    def test_recycled_rows_are_no_patches_to_clam(self, aggregator: str) -> None:
        """Its instance classifiers learn from the highest and the lowest patch, not from rows that lie beyond them."""
        model = learner({"kind": "mhim2", "teacher": "copy"}, aggregator).model
        h = model.instances(BAG.tensor())
        rows = torch.cat([30 * h, -30 * h])
        scores = model.pool(torch.cat([h, rows])).scores.view(3 * len(h), -1)
        n = len(h)
        assert ((scores.argmax(dim=0) >= n) | (scores.argmin(dim=0) >= n)).all()
        output = model.pool_with(h, rows)
        assert len(output.scores) == len(output.attention) == n
        torch.testing.assert_close(output.extras["clusters"], model.pool(h).extras["clusters"])


def test_a_teacher_that_never_changes_and_one_that_is_the_student() -> None:
    teacher, student = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    before = teacher.weight.clone()
    ema_update(teacher, student, 1.0)
    assert torch.equal(teacher.weight, before)
    ema_update(teacher, student, 0.0)
    assert torch.equal(teacher.weight, student.weight)


@pytest.mark.parametrize("fusion", ["vote", "mean"])
def test_heads_of_transmil_vote(fusion: str) -> None:
    mining = {"kind": "mhim", "teacher": "copy", "high": 0.2, "low": 0.4, "random": 0.0, "high_random": 1.0}
    miner, x = learner({**mining, "fusion": fusion}, "trans_mil").miner, BAG.tensor()
    heads = miner.teacher.mining_scores(miner.teacher(x))
    assert heads.shape == (2, len(BAG))
    bag, _ = miner.mask(x, 0, torch.Generator())
    k = {"vote": 9, "mean": 4}[fusion]  # ⌈41 · .2⌉, and half of it of each head
    nominated = set(heads.topk(k, dim=1).indices.flatten().tolist())
    assert set(bag.masked_high.tolist()) <= nominated
    assert len(bag.masked_high) == (9 if fusion == "vote" else len(nominated))
