"""MHIM's masks, teacher and consistency, beyond the golden vectors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mil.errors import MethodError
from napari_mil.mil import MaskRatios, consistency_loss, ema_update, mask_instances
from napari_mil.mil.mining import MhimMiner

from .conftest import quick

share = st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.99, 1.0])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 80), st.integers(0, 2), share, share, share, st.sampled_from([0.3, 0.5, 1.0]), st.integers(0, 99))
def test_what_always_holds(n: int, heads: int, high: float, low: float, random: float, r: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand((heads, n) if heads else (n,), generator=generator)
    bag = mask_instances(scores, MaskRatios(high, low, random, r), generator=generator)
    assert len(bag.kept) >= 1
    for index in bag:
        assert (index.diff() > 0).all()
    masked = set(torch.cat(bag[1:]).tolist())
    assert masked | set(bag.kept.tolist()) == set(range(n))
    assert not masked & set(bag.kept.tolist())
    if n > 1 and masked != set(range(n)) and len(bag.kept) > 1:
        assert len(bag.masked_random) == math.ceil(n * random)
        assert len(bag.masked_low) == math.ceil(n * low)
        assert len(bag.masked_high) == MaskRatios(high, high_random=r).high_counts(n)[1]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2), share, share, share, st.sampled_from([0.5, 1.0]), st.integers(0, 99))
def test_what_labels_spare(n: int, heads: int, high: float, low: float, random: float, r: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand((heads, n) if heads else (n,), generator=generator)
    labels = torch.randint(-1, 2, (n,), generator=generator)
    ratios = MaskRatios(high, low, random, r)
    without = mask_instances(scores, ratios, generator=torch.Generator().manual_seed(seed))
    bag = mask_instances(scores, ratios, generator=torch.Generator().manual_seed(seed), labels=labels)
    masked = torch.cat(bag[1:]).unique()
    assert torch.equal(torch.cat([masked, bag.kept]).sort().values, torch.arange(n))
    assert len(bag.kept) >= 1
    assert not (labels[masked] == 1).any()
    assert not (labels == 0).any() or (labels[bag.kept] == 0).any()
    # the masks are those without labels, less the lesions and at most one other patch
    for with_labels, plain in zip(bag[1:], without[1:], strict=True):
        left_out = set(plain[labels[plain] != 1].tolist()) - set(with_labels.tolist())
        assert len(left_out) <= 1
    unknown = mask_instances(
        scores, ratios, generator=torch.Generator().manual_seed(seed), labels=torch.full((n,), -1, dtype=torch.int8)
    )
    for one, other in zip(unknown, without, strict=True):
        assert torch.equal(one, other)


def test_which_patch_without_lesion_is_given_back() -> None:
    scores = torch.tensor([0.9, 0.8, 0.1, 0.2, 0.3, 0.7])
    lesion_first = torch.tensor([1, 0, 0, 0, 0, -1])
    bag = mask_instances(scores, MaskRatios(high=0.5, low=0.5), labels=lesion_first)
    assert bag.kept.tolist() == [0, 4]  # the best of the low mask, and the lesion
    assert bag.masked_high.tolist() == [1, 5]
    only_hard = torch.tensor([0, 0, 1, 1, 1, -1])
    bag = mask_instances(scores, MaskRatios(high=0.5), labels=only_hard)
    assert bag.kept.tolist() == [1, 2, 3, 4]  # both are in the high mask: the lower of them
    with pytest.raises(MethodError, match="one per patch"):
        mask_instances(scores, MaskRatios(0.1), labels=torch.zeros(4))


def test_the_four_masks() -> None:
    scores = torch.arange(10.0)
    ham = mask_instances(scores, MaskRatios(high=0.2))
    assert ham.masked_high.tolist() == [8, 9]
    assert ham.kept.tolist() == list(range(8))
    low = mask_instances(scores, MaskRatios(high=0.1, low=0.25))
    assert low.masked_low.tolist() == [0, 1, 2]
    assert low.kept.tolist() == [3, 4, 5, 6, 7, 8]
    generator = torch.Generator().manual_seed(0)
    any_of = {
        mask_instances(scores, MaskRatios(0.2, high_random=0.5), generator=generator).masked_high.sum().item()
        for _ in range(30)
    }
    assert len(any_of) > 1  # two of the four highest
    assert max(any_of) <= 9 + 8
    assert min(any_of) >= 6 + 7


def test_masks_move_with_the_patches() -> None:
    scores = torch.rand(40, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for s in (scores, torch.stack([scores, scores.flip(0), scores.roll(7)])):
        one = mask_instances(s, MaskRatios(0.2, 0.3))
        other = mask_instances(s[..., order], MaskRatios(0.2, 0.3))
        assert sorted(order[other.kept].tolist()) == one.kept.tolist()


def test_mean_over_heads() -> None:
    scores = torch.tensor([[9.0, 1, 2, 3, 4, 5], [1, 9.0, 2, 3, 4, 5]])
    bag = mask_instances(scores, MaskRatios(high=0.5), fusion="mean")  # 3 // 2 heads = 1 each
    assert bag.masked_high.tolist() == [0, 1]


def test_one_is_always_kept() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.3])
    assert mask_instances(torch.tensor([1.0]), MaskRatios(1.0, 1.0, 1.0)).kept.tolist() == [0]
    everything = mask_instances(scores, MaskRatios(high=0.25, low=1.0))
    assert everything.kept.tolist() == [2]  # the best of those that the high mask does not hide
    assert everything.masked_high.tolist() == [1]
    assert mask_instances(scores, MaskRatios(high=1.0)).kept.tolist() == [0]


def test_refusals() -> None:
    with pytest.raises(MethodError, match=r"low is 1\.5"):
        MaskRatios(0.1, low=1.5)
    with pytest.raises(MethodError, match="high_random is 0"):
        MaskRatios(0.1, high_random=0)
    with pytest.raises(MethodError, match="fusion"):
        mask_instances(torch.ones(3), MaskRatios(0.1), fusion="median")
    with pytest.raises(MethodError, match="expected"):
        mask_instances(torch.ones(0), MaskRatios(0.1))


def test_consistency_is_least_for_the_teachers_own_view() -> None:
    teacher = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at_best = consistency_loss(teacher / 0.1, teacher, 0.1)
    assert at_best < consistency_loss(teacher, teacher, 0.1)
    student = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: consistency_loss(f, teacher.expand(2, 6), 0.1), (student,))


def test_ema() -> None:
    teacher, student = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    expected = 0.9 * teacher.weight + 0.1 * student.weight
    ema_update(teacher, student, 0.9)
    torch.testing.assert_close(teacher.weight, expected)
    ema_update(teacher, student, 0.0)
    torch.testing.assert_close(teacher.bias, student.bias)


class TestMiner:
    def test_schedules(self) -> None:
        method = quick("mhim_abmil_tcga")
        miner = MhimMiner(method.mining, method.build(6), steps=100)
        assert miner.ratios(0).high == pytest.approx(0.02)
        assert miner.ratios(50).high == pytest.approx(0.01)
        assert miner.ratios(100).high == pytest.approx(0.0)
        assert (miner.ratios(50).low, miner.ratios(50).random) == (0.2, 0.7)
        assert miner.momentum(0) == pytest.approx(0.9999)
        assert miner.momentum(100) == pytest.approx(1.0)
        constant = quick("mhim_abmil_tcga", mining__high_decay="none", mining__momentum_schedule="constant")
        still = MhimMiner(constant.mining, constant.build(6), steps=100)
        assert (still.ratios(99).high, still.momentum(99)) == (0.02, 0.9999)

    @pytest.mark.parametrize("init", ["stem", "none"])
    def test_teacher_starts_from_a_baseline_and_the_student_takes_its_stem(self, init: str) -> None:
        method = quick("mhim_abmil_c16", mining__student_init=init)
        baseline, student = method.build(6), method.build(6)
        miner = MhimMiner(method.mining, student, 10, baseline.state_dict())
        torch.testing.assert_close(miner.teacher.classifier.weight, baseline.classifier.weight)
        assert torch.equal(student.embed[0].weight, baseline.embed[0].weight) == (init == "stem")
        assert not torch.equal(student.classifier.weight, baseline.classifier.weight)
        assert not any(p.requires_grad for p in miner.teacher.parameters())

    def test_teacher_of_another_network(self) -> None:
        method = quick("mhim_abmil_c16")
        other = method.with_settings({"aggregator.gated": True}).build(6)
        with pytest.raises(MethodError, match="another network"):
            MhimMiner(method.mining, method.build(6), 10, other.state_dict())

    @pytest.mark.parametrize(("mode", "same"), [("eval", True), ("train", False)])
    def test_teacher_mode(self, mode: str, same: bool) -> None:
        method = quick("mhim_abmil_c16", mining__teacher_mode=mode)
        miner, x = MhimMiner(method.mining, method.build(6), 10), torch.randn(9, 6)
        first, second = (miner.mask(x, 0, torch.Generator())[1] for _ in range(2))
        assert torch.equal(first, second) == same

    def test_gathering_rows_before_the_stem_is_the_same(self) -> None:
        model = quick("mhim_abmil_c16").build(6).eval()
        x, kept = torch.randn(9, 6), torch.tensor([1, 4, 8])
        h = model.embed(x)[kept]
        s = model.attention(h)
        torch.testing.assert_close(model(x[kept]).embedding, torch.softmax(s, 0) @ h)
