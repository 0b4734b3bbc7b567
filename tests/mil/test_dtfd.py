"""DTFD-MIL: pseudo-bags, distillation, both tiers, written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_mil.mil import Aggregator, build_aggregator

SMALL = {"stem_dim": 8, "attention_dim": 4}
KINDS = ["max", "max_min", "mas", "afs"]


def network(n_classes: int = 2, **options: object) -> Aggregator:
    torch.manual_seed(0)
    return build_aggregator("dtfd", 6, n_classes, **{**SMALL, **options}).double().eval()


def bag(n: int = 23, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pseudo_bags(model: Aggregator, n: int, count: int) -> list[list[int]]:
    """Patches of each, by the fixed split."""
    order = model._split(n, torch.device("cpu")).tolist()
    sizes = [n // count + (g < n % count) for g in range(count)]
    starts = [sum(sizes[:g]) for g in range(count)]
    return [order[start : start + size] for start, size in zip(starts, sizes, strict=True)]


@pytest.mark.parametrize("distillation", KINDS)
@pytest.mark.parametrize(("n_classes", "head"), [(2, "two"), (2, "single"), (4, "two")])
def test_written_out(distillation: str, n_classes: int, head: str) -> None:
    model, x = network(n_classes, distillation=distillation, binary_head=head, temperature=0.6), bag()
    output, h = model(x), model.instances(x)
    weight, bias = model.classifier.weight, model.classifier.bias
    scores = model.attention(h)
    torch.testing.assert_close(output.scores, scores)
    distilled, owner, first_attention, probability = [], [], torch.zeros(23).double(), torch.zeros(23, n_classes)
    for g, part in enumerate(pseudo_bags(model, 23, 4)):
        a = torch.softmax(scores[part] / 0.6, 0)
        first_attention[part] = a
        torch.testing.assert_close(output.extras["pseudo_bags"][g], weight @ (a @ h[part]) + bias)
        activation = (a[:, None] * h[part]) @ weight.T  # no bias
        if head == "single":
            p = torch.cat([torch.sigmoid(-activation), torch.sigmoid(activation)], 1)
        else:
            p = torch.softmax(activation, 1)
        probability[part] = p.float()
        positive = 1 - p[:, 0]
        chosen = {"max": [positive.argmax()], "max_min": [positive.argmax(), positive.argmin()], "mas": [a.argmax()]}
        rows = [a @ h[part]] if distillation == "afs" else [h[part[int(k)]] for k in chosen[distillation]]
        distilled += rows
        owner += [g] * len(rows)
    f = torch.stack(distilled)
    b = torch.softmax(model.second_attention(f), 0)
    torch.testing.assert_close(output.embedding, b @ f)
    torch.testing.assert_close(output.logits, model.second_classifier(b @ f))
    share = [sum(v for v, o in zip(b, owner, strict=True) if o == g) for g in range(4)]
    for g, part in enumerate(pseudo_bags(model, 23, 4)):
        torch.testing.assert_close(output.attention[part], first_attention[part] * share[g])
    torch.testing.assert_close(model.instance_probabilities(x).float(), probability)
    torch.testing.assert_close(model.contributions(x, output).sum(0), output.logits)


def test_aggregated_features_are_pooled_with_the_attention() -> None:
    model, x = network(distillation="afs"), bag()
    output = model(x)
    torch.testing.assert_close(output.embedding, output.attention @ model.instances(x))
    torch.testing.assert_close(
        model.contributions(x, output), output.attention[:, None] * model.second_classifier(model.instances(x))
    )


@pytest.mark.parametrize("distillation", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_fewer_patches_than_pseudo_bags(distillation: str, n: int) -> None:
    model = network(distillation=distillation, pseudo_bags=4)
    for training in (False, True):
        output = model.train(training)(bag(n))
        assert len(output.extras["pseudo_bags"]) == min(n, 4)
        assert output.attention.sum().item() == pytest.approx(1)
        assert torch.isfinite(output.logits).all()
        loss = model.loss(output, lambda logits: F.cross_entropy(logits[None], torch.tensor([1])), 1)
        loss.backward()
        assert torch.isfinite(model.embed[0].weight.grad).all()


def test_loss_is_that_of_both_tiers() -> None:
    model = network()
    output = model(bag())
    each = [logits.square().sum() for logits in output.extras["pseudo_bags"]]
    wanted = torch.stack(each).mean() + output.logits.square().sum()
    torch.testing.assert_close(model.loss(output, lambda logits: logits.square().sum(), 1), wanted)


def test_split_is_drawn_in_training_and_fixed_otherwise() -> None:
    model, x = network(), bag()
    assert torch.equal(model(x).logits, model(x).logits)
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(state, torch.get_rng_state())  # evaluation draws nothing
    model = network(dropout=0.0).train()
    torch.manual_seed(3)
    first, second = model(x), model(x)
    torch.manual_seed(3)
    again = model(x)
    assert not torch.equal(first.extras["pseudo_bags"], second.extras["pseudo_bags"])
    assert torch.equal(first.logits, again.logits)


def test_pseudo_bags_share_the_patches_evenly() -> None:
    model = network(pseudo_bags=4)
    parts = pseudo_bags(model, 23, 4)
    assert sorted(k for part in parts for k in part) == list(range(23))
    first = model._first_tier(model.instances(bag()))
    assert [part.tolist() for part in first.parts] == parts
    assert all(first.member[part].unique().tolist() == [g] for g, part in enumerate(first.parts))


def test_suspicion_orders_as_probability_where_that_is_flat() -> None:
    """Attention of 1e-9 leaves softmax no digit to tell patches by; the log-odds still do."""
    model, h = network(3).float(), torch.rand(50, 8)
    first = model._first_tier(h)._replace(attention=torch.full((50,), 1e-9))
    double = network(3)
    exact = double._activation(h.double(), first._replace(attention=torch.full((50,), 1.0).double()))
    wanted = exact[:, 1:].mean(1) - exact[:, 0]  # to first order in the attention
    assert torch.equal(model._suspicion(h, first).argsort(), wanted.argsort())


def test_threshold_cuts_within_each_pseudo_bag() -> None:
    model = network(threshold=1.0, distillation="afs")
    x = bag()
    first = model._first_tier(model.instances(x))
    for part in first.parts:
        a = first.attention[part]
        assert a.sum().item() == pytest.approx(1, abs=1e-6)
        assert (a == 0).any()
