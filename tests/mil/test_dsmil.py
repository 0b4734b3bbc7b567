"""DSMIL: against the published numbers, and against its formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_mil.mil import Aggregator, Method, build_aggregator, fit, predict
from napari_mil.mil.aggregators.dsmil import mean_probability_logits

from .conftest import finish, make_bags

SMALL = {"stem_dim": 8, "query_dim": 4}
PUBLISHED = {
    "patch_to_emb.0": "embed.0",
    "online_encoder.i_classifier.0": "instance_classifier",
    "online_encoder.b_classifier.q": "query",
    "online_encoder.b_classifier.v": "value",
    "online_encoder.b_classifier.fcc": "bag_classifier",
}


def network(n_classes: int = 2, **options: object) -> Aggregator:
    torch.manual_seed(0)
    return build_aggregator("dsmil", 6, n_classes, **{**SMALL, **options}).double().eval()


def bag(n: int = 11, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_at_full_size(shared_data, dtype: torch.dtype) -> None:
    with np.load(shared_data / "golden" / "mhim_golden_v1_fwd_dsmil.npz") as file:
        g = {key: file[key] for key in file.files}
    weights = {}
    for key, value in g.items():
        for theirs, ours in PUBLISHED.items():
            if key.startswith(f"w/{theirs}."):
                weights[ours + key.removeprefix(f"w/{theirs}")] = torch.from_numpy(value)
    model = build_aggregator("dsmil", 1024, 2)
    model.load_state_dict(weights)  # but the unused head of the published code
    model.eval().to(dtype)
    # the published code rounds √128 to float32: no closer in what comes after the attention
    after = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-6, "atol": 1e-8}
    before = after if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-11}
    for n in (300, 255, 49, 30, 7, 2):
        output = model(torch.from_numpy(g["x"][:n]).to(dtype))
        found = {
            "inst_logits": (output.scores, before),
            "ins_logits_max": (output.extras["max"], before),
            "attn": (model.mining_scores(output), before),
            "A": (output.attention, after),
            "B": (output.embedding, after),
            "bag_logits": (output.extras["bag"], after),
            "prob": (output.logits.softmax(0), after),
        }
        for key, (got, tolerance) in found.items():
            np.testing.assert_allclose(got.detach().numpy(), g[f"{key}/n{n}@f64"], **tolerance, err_msg=f"{key} {n}")


@pytest.mark.parametrize("n_classes", [2, 4])
def test_written_out(n_classes: int) -> None:
    model, x = network(n_classes), bag()
    output = model(x)
    h = F.relu(x @ model.embed[0].weight.T + model.embed[0].bias)
    c = h @ model.instance_classifier.weight.T + model.instance_classifier.bias
    q = torch.tanh(model.query[2](F.relu(model.query[0](h))))
    v = F.relu(model.value[1](h))
    torch.testing.assert_close(output.scores, c)
    for k in range(n_classes):
        likeness = torch.stack([q_i @ q[c[:, k].argmax()] for q_i in q]) / 2  # √4
        torch.testing.assert_close(output.attention[:, k], torch.softmax(likeness, 0))
        torch.testing.assert_close(output.embedding[k], (torch.softmax(likeness, 0)[:, None] * v).sum(0))
    logits = torch.nn.functional.conv1d(
        output.embedding[None], model.bag_classifier.weight, model.bag_classifier.bias
    ).view(-1)
    torch.testing.assert_close(output.extras["bag"], logits)
    p = (torch.softmax(logits, 0) + torch.softmax(c.amax(0), 0)) / 2
    torch.testing.assert_close(torch.softmax(output.logits, 0), p)


def test_two_losses() -> None:
    x = bag()
    for label in (0, 1):

        def slide_loss(logits: torch.Tensor, label: int = label) -> torch.Tensor:
            return F.cross_entropy(logits[None], torch.tensor([label]))

        model = network()
        output = model(x)
        each = [slide_loss(output.extras["bag"]), slide_loss(output.extras["max"])]
        torch.testing.assert_close(model.loss(output, slide_loss, label), (each[0] + each[1]) / 2)
        model = network(fusion="logits")
        output = model(x)
        mean = (output.extras["bag"] + output.extras["max"]) / 2
        torch.testing.assert_close(output.logits, mean)
        torch.testing.assert_close(model.loss(output, slide_loss, label), slide_loss(mean))


def test_a_single_logit_for_two_classes() -> None:
    model = network(binary_head="single")
    output = model(bag())
    assert (output.logits.shape, output.scores.shape, output.embedding.shape) == ((1,), (11, 1), (1, 8))
    p = (torch.sigmoid(output.extras["bag"]) + torch.sigmoid(output.extras["max"])) / 2
    torch.testing.assert_close(torch.sigmoid(output.logits), p)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("size", [1e-6, 1.0, 300.0, 1e4])
def test_the_mean_of_two_probabilities_as_logits_stays_finite(n: int, size: float) -> None:
    one = (torch.arange(n) - 0.5).mul(size).requires_grad_()
    other = (0.3 - torch.arange(n)).mul(size).requires_grad_()
    logits = mean_probability_logits(one, other)
    logits.sum().backward()
    for values in (logits, one.grad, other.grad):
        assert torch.isfinite(values).all()
    both = [torch.sigmoid(v) if n == 1 else torch.softmax(v, 0) for v in (one, other)]
    got = torch.sigmoid(logits) if n == 1 else torch.softmax(logits, 0)
    torch.testing.assert_close(got, (both[0] + both[1]) / 2)


def test_what_miners_rank_by() -> None:
    model, x = network(3), bag()
    output = model(x)
    torch.testing.assert_close(model.mining_scores(output), output.scores.amax(dim=1))
    torch.testing.assert_close(model.class_aware_logits(model.instances(x), output), output.scores)


def test_a_row_that_is_no_patch_can_be_the_critical_one() -> None:
    model, x = network(), bag()
    h = model.instances(x)
    c = model(x).scores[:, 1]
    loud = h[c.argmax()] * 10  # a recycled row of MHIM-MIL's second version, say
    output = model.pool(torch.cat([h, loud[None]]))
    assert output.scores[:, 1].argmax() == len(x)
    assert len(output.attention) == len(x) + 1


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("head", ["single", "two"])
def test_contributions_add_up_to_the_mean_of_the_streams(n_classes: int, head: str) -> None:
    model, x = network(n_classes, binary_head=head), bag()
    output = model(x)
    terms = model.contributions(x, output)
    assert terms.shape == (11, model.n_logits)
    torch.testing.assert_close(terms.sum(0), (output.extras["bag"] + output.extras["max"]) / 2)


def test_survival_with_averaged_logits() -> None:
    model = network(4, fusion="logits")
    output = model(bag())
    assert output.logits.shape == (4,)
    loss = model.loss(output, lambda logits: logits.square().sum(), None)
    torch.testing.assert_close(loss, output.logits.square().sum())


def test_it_learns_to_find_lesions() -> None:
    method = Method(
        aggregator={"name": "dsmil", **SMALL},
        supervision="rank",
        training={"epochs": 15, "learning_rate": 0.01, "accumulate": 1},
    )
    _, run = finish(fit(method, make_bags(10, seed=1), make_bags(6, seed=2, prefix="v")))
    found = predict(run, make_bags(6, seed=3)[3])
    labels = make_bags(6, seed=3)[3].patch_labels
    assert found.scores[labels == 1].mean() > found.scores[labels == 0].mean() + 0.5
    assert found.attention.sum() == pytest.approx(1, abs=1e-5)
