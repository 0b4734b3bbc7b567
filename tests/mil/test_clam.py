"""CLAM: attention branches, instance clustering, and its losses written out."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from napari_mil.mil import Aggregator, build_aggregator
from napari_mil.mil.aggregators.clam import smooth_svm

SMALL = {"stem_dim": 8, "attention_dim": 4, "instance_patches": 3}
BOTH = ["clam_sb", "clam_mb"]


def network(name: str, n_classes: int = 2, **options: object) -> Aggregator:
    torch.manual_seed(0)
    return build_aggregator(name, 6, n_classes, **{**SMALL, **options}).double().eval()


def bag(n: int = 11, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_label(label: int):
    return lambda logits: F.cross_entropy(logits[None], torch.tensor([label]))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_written_out(n_classes: int) -> None:
    x = bag()
    for name in BOTH:
        model = network(name, n_classes, temperature=0.7)
        output, h = model(x), model.instances(x)
        gate = model.attention
        hidden = torch.tanh(h @ gate.v.weight.T + gate.v.bias) * torch.sigmoid(h @ gate.u.weight.T + gate.u.bias)
        s = hidden @ gate.w.weight.T + gate.w.bias
        a = torch.softmax(s / 0.7, dim=0)
        if name == "clam_sb":
            torch.testing.assert_close(output.scores, s[:, 0])
            torch.testing.assert_close(output.embedding, a[:, 0] @ h)
            torch.testing.assert_close(output.logits, model.classifier(a[:, 0] @ h))
            continue
        assert output.scores.shape == output.attention.shape == (11, n_classes)
        assert output.embedding.shape == (n_classes, 8)
        for c in range(n_classes):
            torch.testing.assert_close(output.attention[:, c], a[:, c])
            z = a[:, c] @ h
            torch.testing.assert_close(output.embedding[c], z)
            torch.testing.assert_close(output.logits[c], model.classifier.weight[c] @ z + model.classifier.bias[c])


class TestSmoothSvm:
    @pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
    def test_formula(self, temperature: float) -> None:
        s = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        y = torch.tensor([0, 1, 2, 0, 1, 2])
        rows = []
        for row, target in zip(s, y, strict=True):
            terms = [torch.exp(((c != target) + row[c] - row[target]) / temperature) for c in range(3)]
            rows.append(temperature * torch.log(sum(terms)))
        torch.testing.assert_close(smooth_svm(s, y, temperature), torch.stack(rows).mean())

    def test_towards_the_hinge(self) -> None:
        s, y = torch.tensor([[2.0, 0.5], [0.3, 0.1]]), torch.tensor([1, 0])
        hinge = ((1 + 2.0 - 0.5) + (1 + 0.1 - 0.3)) / 2
        assert smooth_svm(s, y, 1e-3).item() == pytest.approx(hinge, abs=1e-4)

    def test_far_away(self) -> None:
        s = torch.tensor([[1e4, -1e4]], requires_grad=True)
        for target, wanted in ((0, 0.0), (1, 2e4 + 1)):
            loss = smooth_svm(s, torch.tensor([target]))
            assert loss.item() == pytest.approx(wanted)
            assert torch.isfinite(torch.autograd.grad(loss, s)[0]).all()


class TestClustering:
    @pytest.mark.parametrize("name", BOTH)
    @pytest.mark.parametrize("kind", ["svm", "ce"])
    @pytest.mark.parametrize("exclusive", [False, True])
    @pytest.mark.parametrize("label", [0, 2])
    def test_loss_written_out(self, name: str, kind: str, exclusive: bool, label: int) -> None:
        model, x = network(name, 3, instance_loss=kind, exclusive=exclusive, instance_weight=0.4), bag()
        output, h = model(x), model.instances(x)
        scores = output.scores.view(11, -1)
        weight, bias = model.instance_classifiers.weight.view(3, 2, 8), model.instance_classifiers.bias.view(3, 2)
        loss_of = smooth_svm if kind == "svm" else F.cross_entropy
        losses = []
        for c in range(3):
            order = scores[:, min(c, scores.shape[1] - 1)].argsort(descending=True)
            classifier = partial(F.linear, weight=weight[c], bias=bias[c])
            if c == label:
                rows = torch.cat([order[:3], order[-3:]])
                losses.append(loss_of(classifier(h[rows]), torch.tensor([1, 1, 1, 0, 0, 0])))
            elif exclusive:
                losses.append(loss_of(classifier(h[order[:3]]), torch.tensor([0, 0, 0])))
        instance = sum(losses) / len(losses)
        wanted = 0.6 * of_label(label)(output.logits) + 0.4 * instance
        torch.testing.assert_close(model.loss(output, of_label(label), label), wanted)

    @pytest.mark.parametrize("name", BOTH)
    @pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
    def test_fewer_patches_than_both_sides_need(self, name: str, n: int) -> None:
        model = network(name)
        output = model(bag(n))
        loss = model.loss(output, of_label(1), 1)
        assert torch.isfinite(loss)
        loss.backward()
        if n == 1:
            assert "clusters" not in output.extras
            torch.testing.assert_close(loss, 0.7 * of_label(1)(output.logits))
        else:
            assert output.extras["clusters"].shape[1] == 2 * min(3, n // 2)
            assert model.instance_classifiers.weight.grad.abs().sum() > 0

    @pytest.mark.parametrize("name", BOTH)
    def test_off(self, name: str) -> None:
        model, x = network(name, instance_weight=0.0), bag()
        output = model(x)
        assert not output.extras
        assert model.instance_probabilities(x) is None
        torch.testing.assert_close(model.loss(output, of_label(1), 1), of_label(1)(output.logits))
        torch.testing.assert_close(model.loss(output, of_label(1), None), of_label(1)(output.logits))  # survival

    @pytest.mark.parametrize("name", BOTH)
    def test_only_the_true_class_learns(self, name: str) -> None:
        model = network(name, 3)
        model.loss(model(bag()), of_label(1), 1).backward()
        moved = model.instance_classifiers.weight.grad.view(3, -1).abs().sum(1) > 0
        assert moved.tolist() == [False, True, False]


@pytest.mark.parametrize("name", BOTH)
def test_single_head_has_one_branch_and_a_classifier_for_either_class(name: str) -> None:
    model, x = network(name, binary_head="single"), bag()
    output = model(x)
    assert output.logits.shape == (1,)
    assert output.scores.shape == ((11,) if name == "clam_sb" else (11, 1))
    assert model.instance_probabilities(x).shape == (11, 2)
    for label in (0, 1):
        assert torch.isfinite(model.loss(output, lambda logits: logits.sum(), label))


@pytest.mark.parametrize("name", BOTH)
def test_instance_probability_is_that_of_in(name: str) -> None:
    model, x = network(name, 3), bag()
    weight, bias = model.instance_classifiers.weight, model.instance_classifiers.bias
    logits = model.instances(x) @ weight.T + bias  # out, in of each class
    for c in range(3):
        wanted = torch.sigmoid(logits[:, 2 * c + 1] - logits[:, 2 * c])
        torch.testing.assert_close(model.instance_probabilities(x)[:, c], wanted)


@pytest.mark.parametrize("name", BOTH)
def test_what_each_patch_adds(name: str) -> None:
    model, x = network(name, 3), bag()
    output = model(x)
    torch.testing.assert_close(model.contributions(x, output).sum(0), output.logits)
    aware = model.class_aware_logits(model.instances(x), output)
    torch.testing.assert_close(aware.sum(0) + model.classifier.bias, output.logits)


def test_miners_rank_by_the_highest_branch() -> None:
    model = network("clam_mb", 3)
    output = model(bag())
    torch.testing.assert_close(model.mining_scores(output), output.attention.amax(dim=1))
