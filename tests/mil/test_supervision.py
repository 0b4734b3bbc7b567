"""Attention induction, the patch loss, shuffled outlines, and how they enter the objective."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mil.errors import MethodError
from napari_mil.mil import (
    Bag,
    Method,
    attention_induction_loss,
    attention_target,
    instance_bce_loss,
    rank_loss,
    shuffle_labels,
)
from napari_mil.mil.objective import Loss, Objective

from .conftest import make_bags, quick


class TestAttentionInduction:
    def test_target(self) -> None:
        y, tissue = torch.tensor([1, 0, 1, -1]), torch.tensor([30, 50, 10, 99])
        assert attention_target(y, tissue).tolist() == [0.75, 0, 0.25, 0]
        assert attention_target(y).tolist() == [0.5, 0, 0.5, 0]
        assert attention_target(torch.tensor([0, -1])).tolist() == [0, 0]
        assert attention_target(y, torch.zeros(4)).tolist() == [0, 0, 0, 0]
        with pytest.raises(MethodError, match="4 patch labels and tissue pixels"):
            attention_target(y, torch.ones(3))

    def test_loss(self) -> None:
        a = torch.tensor([0.5, 0.3, 0.2], requires_grad=True)
        target = torch.tensor([1.0, 0, 0])
        loss = attention_induction_loss(a, target)
        assert loss.item() == pytest.approx(0.25 + 0.09 + 0.04)
        known = attention_induction_loss(a, target, known=torch.tensor([True, True, False]))
        assert known.item() == pytest.approx(0.25 + 0.09)

    def test_without_a_target_it_is_zero(self) -> None:
        a = torch.tensor([0.5, 0.5], requires_grad=True)
        loss = attention_induction_loss(a, torch.zeros(2))
        loss.backward()
        assert loss.item() == 0
        assert (a.grad == 0).all()


class TestPatchLoss:
    def test_value(self) -> None:
        s, y = torch.tensor([2.0, -1.0, 7.0]), torch.tensor([1, 0, -1])
        expected = (3 * np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2
        assert instance_bce_loss(s, y, pos_weight=3.0).item() == pytest.approx(expected)

    def test_nothing_known(self) -> None:
        s = torch.ones(3, requires_grad=True)
        loss = instance_bce_loss(s, torch.full((3,), -1))
        loss.backward()
        assert loss.item() == 0
        assert (s.grad == 0).all()


class TestShuffledOutlines:
    labels = np.array([1, 1, 0, 0, 0, -1, 0, 0, -1, 0] * 5, np.int8)

    def test_permutes_the_known(self) -> None:
        shuffled = shuffle_labels(self.labels, "a", seed=0)
        assert (shuffled != self.labels).any()
        assert ((shuffled == -1) == (self.labels == -1)).all()
        assert np.bincount(shuffled + 1).tolist() == np.bincount(self.labels + 1).tolist()

    def test_by_slide_and_seed(self) -> None:
        first = shuffle_labels(self.labels, "a", seed=0)
        np.testing.assert_array_equal(first, shuffle_labels(self.labels, "a", seed=0))
        assert (first != shuffle_labels(self.labels, "b", seed=0)).any()
        assert (first != shuffle_labels(self.labels, "a", seed=1)).any()


def evaluate(method: Method, bag: Bag, train: list[Bag], training: bool = False) -> Loss:
    torch.manual_seed(0)
    model = method.build(bag.dim).train(training)
    objective = Objective(method, train, seed=0)
    return objective(model, model(bag.tensor()), bag, torch.Generator().manual_seed(0))


SUPERVISED = ["rank_induction", "attention_induction", "patch_classifier"]


class TestObjective:
    @pytest.mark.parametrize("preset", SUPERVISED)
    @pytest.mark.parametrize(
        "labels",
        [[0] * 6, [1] * 6, [-1] * 6, [1, 0, -1, -1, -1, -1], None],
        ids=["no lesion", "all lesion", "unknown", "mostly unknown", "no labels"],
    )
    @pytest.mark.parametrize("identical", [False, True])
    def test_every_kind_of_slide_gives_a_number(self, preset: str, labels: list[int] | None, identical: bool) -> None:
        x = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
        x = x[[0] * 6] if identical else x
        bag = Bag("a", x, None, 1, None if labels is None else np.array(labels))
        method = quick(preset)
        torch.manual_seed(0)
        model = method.build(6)
        loss = Objective(method, make_bags(), 0)(model, model(bag.tensor()), bag, torch.Generator())
        assert torch.isfinite(loss.total)
        loss.total.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    @pytest.mark.parametrize("preset", SUPERVISED)
    def test_one_patch(self, preset: str) -> None:
        bag = Bag("a", np.ones((1, 6), np.float32), None, 1, np.array([1]))
        assert torch.isfinite(evaluate(quick(preset), bag, make_bags()).total)

    @pytest.mark.parametrize("preset", ["rank_induction", "attention_induction"])
    def test_lesions_teach_on_positive_slides_only(self, preset: str) -> None:
        positive = make_bags()[1]
        term = quick(preset).supervision.kind
        assert evaluate(quick(preset), positive, make_bags()).parts[term] > 0
        wrong = Bag("n", positive.features, None, 0, positive.patch_labels)
        assert evaluate(quick(preset), wrong, make_bags()).parts[term] == 0

    def test_the_patch_loss_takes_negative_slides_as_free_of_lesion(self) -> None:
        negative = Bag("n", make_bags()[0].features, None, 0, None)
        assert evaluate(quick("patch_classifier"), negative, make_bags()).parts["instance"] > 0

    def test_unknown_patches_are_in_no_pair(self) -> None:
        positive = make_bags()[1]
        labels = positive.patch_labels.copy()
        labels[5:] = -1
        partial = Bag("p", positive.features, None, 1, labels)
        torch.manual_seed(0)
        model = quick().build(6)
        scores = model(partial.tensor()).scores
        loss = Objective(quick(), make_bags(), 0)(model, model(partial.tensor()), partial, torch.Generator())
        assert loss.parts["rank"].item() == pytest.approx(
            rank_loss(scores[:5], torch.from_numpy(labels[:5])).item(), rel=1e-6
        )

    def test_partners_of_negative_slides(self) -> None:
        """A slide of which only lesions are known teaches through the patches of negative slides."""
        positive = make_bags()[1]
        partial = Bag("p", positive.features, None, 1, np.where(positive.patch_labels == 1, 1, -1))
        train = [*make_bags(), partial]
        assert evaluate(quick(), partial, train).parts["rank"] == 0
        method = quick(supervision__cross_slide_negatives=7)
        assert evaluate(method, partial, train).parts["rank"] > 0
        # exactly the patches drawn, scored by the same network
        model = method.build(6).eval()
        objective = Objective(method, train, 0)
        loss = objective(model, model(partial.tensor()), partial, torch.Generator().manual_seed(4))
        drawn = objective._draw_negatives(7, torch.zeros(1), torch.Generator().manual_seed(4))
        own = model(partial.tensor()).scores[partial.patch_labels == 1]
        scores = torch.cat([own, model.instance_scores(drawn)])
        labels = torch.tensor([1] * len(own) + [0] * 7)
        assert loss.parts["rank"].item() == pytest.approx(rank_loss(scores, labels).item(), rel=1e-6)

    def test_samples_in_training_all_pairs_in_validation(self) -> None:
        positive, method = make_bags(size=40)[1], quick(supervision__sample=2)
        whole = evaluate(quick(), positive, make_bags()).parts["rank"]
        assert evaluate(method, positive, make_bags()).parts["rank"] == whole
        assert evaluate(method, positive, make_bags(), training=True).parts["rank"] != whole

    def test_weights_of_patches(self) -> None:
        bags = make_bags()
        lesion = sum((b.patch_labels == 1).sum() for b in bags)
        other = sum((b.patch_labels == 0).sum() for b in bags)
        assert Objective(quick("patch_classifier"), bags, 0).patch_pos_weight == pytest.approx(other / lesion)
        assert Objective(quick("patch_classifier", supervision__balanced=False), bags, 0).patch_pos_weight == 1

    def test_class_weights_of_many_classes(self) -> None:
        bags = [Bag(str(i), np.ones((1, 2)), None, label) for i, label in enumerate([0, 0, 0, 1, 1, 2])]
        task = {"kind": "multiclass", "classes": ["a", "b", "c"]}
        assert Objective(Method(task=task), bags, 0).weights == (1, 1, 1)
        balanced = Objective(Method(task={**task, "class_weight": "balanced"}), bags, 0).weights
        assert balanced == pytest.approx((6 / 9, 6 / 6, 6 / 3))
        assert Objective(Method(task={**task, "class_weight": [1, 2, 3]}), bags, 0).weights == (1, 2, 3)
