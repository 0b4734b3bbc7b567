"""Aggregators: one contract, the attention threshold, order, edge cases."""

from __future__ import annotations

import pytest
import torch

from napari_mil.mil import Aggregator, build_aggregator, threshold_attention

SMALL = {
    "ab_mil_rank": {"hidden": 4},
    "ab_mil_mhim": {"stem_dim": 8, "attention_dim": 4},
    "ab_mil": {"attention_dim": 4},
    "mean": {"stem_dim": 8},
    "max": {"stem_dim": 8},
    "patch_classifier": {"top_k": 3},
}
VARIANTS = [
    *SMALL.items(),
    ("ab_mil_mhim", {"gated": True, "activation": "gelu", "stem_dim": 8}),
    ("ab_mil", {"gated": True, "stem": "tabular"}),
    ("ab_mil", {"stem": "none", "binary_head": "two", "temperature": 0.5, "threshold": 1.0}),
    ("ab_mil_rank", {"hidden": 4, "threshold": 1.0}),
    ("patch_classifier", {"hidden": 5}),
]
ATTENDING = ["ab_mil", "ab_mil_rank", "ab_mil_mhim"]


def network(name: str, options: dict, n_classes: int = 2, seed: int = 0) -> Aggregator:
    torch.manual_seed(seed)
    return build_aggregator(name, 6, n_classes, **options).double().eval()


def bag(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("n", [1, 2, 17])
def test_contract(name: str, options: dict, n: int) -> None:
    model = network(name, options)
    output = model(bag(n))
    assert output.logits.shape == (model.n_logits,)
    assert output.scores.shape == output.attention.shape == (n,)
    assert output.embedding.ndim == 1
    assert output.attention.sum().item() == pytest.approx(1, abs=1e-4)  # the threshold adds 1e-8 to a sum
    assert (output.attention >= 0).all()
    assert all(torch.isfinite(t).all() for t in output[:4])
    assert model.instance_logits(bag(n)).shape == (n, model.n_logits)
    if name not in ("mean", "max"):
        torch.testing.assert_close(model.instance_scores(bag(n)), output.scores)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_order_of_patches_does_not_matter(name: str, options: dict) -> None:
    model, x = network(name, options), bag(23)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))
    one, other = model(x), model(x[order])
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.embedding, other.embedding)
    torch.testing.assert_close(one.scores[order], other.scores)
    torch.testing.assert_close(one.attention[order], other.attention)


@pytest.mark.parametrize("name", [n for n in SMALL if n != "patch_classifier"])
def test_more_than_two_classes(name: str) -> None:
    model = network(name, SMALL[name], n_classes=4)
    assert model(bag(5)).logits.shape == (4,)


@pytest.mark.parametrize("name", ["ab_mil", "ab_mil_rank", "ab_mil_mhim", "mean", "max"])
def test_heads(name: str) -> None:
    assert network(name, {**SMALL[name], "binary_head": "single"})(bag(3)).logits.shape == (1,)
    assert network(name, {**SMALL[name], "binary_head": "two"})(bag(3)).logits.shape == (2,)


@pytest.mark.parametrize("name", ATTENDING)
def test_written_out(name: str) -> None:
    """Logits from attention and the instances: z = Σ a_k h_k; logits = W z + b."""
    model, x = network(name, {**SMALL[name], "threshold": 0.7, "temperature": 0.8}), bag(11)
    output = model(x)
    h = model.instances(x) if name == "ab_mil_rank" else model.embed(x)
    a = threshold_attention(torch.softmax(output.scores / 0.8, 0), 0.7)
    torch.testing.assert_close(output.attention, a)
    torch.testing.assert_close(output.embedding, a @ h)
    torch.testing.assert_close(output.logits, model.classifier(a @ h))
    torch.testing.assert_close(model.instance_logits(x), model.classifier(h))


@pytest.mark.parametrize("gated", [False, True])
def test_attention_of_ilse(gated: bool) -> None:
    model, x = network("ab_mil", {"stem": "none", "gated": gated, "attention_dim": 4}), bag(5)
    p = dict(model.attention.named_parameters())
    hidden = torch.tanh(x @ p["v.weight"].T + p["v.bias"])
    if gated:
        hidden = hidden * torch.sigmoid(x @ p["u.weight"].T + p["u.bias"])
    torch.testing.assert_close(model(x).scores, (hidden @ p["w.weight"].T + p["w.bias"])[:, 0])


def test_the_tabular_stem() -> None:
    model = build_aggregator("ab_mil", 166, 2, stem="tabular")
    widths = [
        (layer.in_features, layer.out_features) for layer in model.embed.modules() if hasattr(layer, "in_features")
    ]
    assert widths == [(166, 256), (256, 128), (128, 64)]
    assert {layer.p for layer in model.embed.modules() if isinstance(layer, torch.nn.Dropout)} == {0.5}
    assert model.attention.v.out_features == 64


def test_pooling_written_out() -> None:
    x = bag(9)
    mean, largest = network("mean", SMALL["mean"]), network("max", SMALL["max"])
    torch.testing.assert_close(mean(x).logits, mean.instance_logits(x).mean(dim=0))
    torch.testing.assert_close(largest(x).logits, largest.instance_logits(x).amax(dim=0))
    output = largest(x)
    k = int(output.attention.argmax())
    assert output.attention.tolist().count(1.0) == 1
    assert output.scores[k].item() == pytest.approx(output.logits.max().item())


def test_patch_classifier_speaks_by_its_highest_patches() -> None:
    for k in (1, 3, 50):
        model, x = network("patch_classifier", {"top_k": k}), bag(9)
        output = model(x)
        assert output.logits.item() == pytest.approx(output.scores.sort().values[-k:].mean().item())
        assert (output.attention > 0).sum() == min(k, 9)


def test_xavier_start() -> None:
    torch.manual_seed(0)
    model = build_aggregator("ab_mil_mhim", 512, 2)
    weight = model.embed[0].weight
    assert (model.embed[0].bias == 0).all()
    assert weight.std().item() == pytest.approx((2 / (512 + 512)) ** 0.5, rel=0.01)


class TestThreshold:
    def test_formula(self) -> None:
        a = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
        left = torch.tensor([0.15, 0.05, 0, 0], dtype=torch.float64)  # T/K = .25
        torch.testing.assert_close(threshold_attention(a, 1.0), left / (0.2 + 1e-8))
        torch.testing.assert_close(threshold_attention(a, 0.4), (a - 0.1) / (0.6 + 1e-8))

    @pytest.mark.parametrize("off", [None, 0.0])
    def test_off(self, off: float | None) -> None:
        a = torch.softmax(torch.arange(4.0), 0)
        assert threshold_attention(a, off) is a

    @pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 1000, 12_345])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_nothing_left_gives_the_attention_back(self, n: int, dtype: torch.dtype) -> None:
        s = torch.full((n,), 0.3, dtype=dtype, requires_grad=True)
        a = threshold_attention(torch.softmax(s, 0), 1.0)
        torch.testing.assert_close(a, torch.full_like(a, 1 / n))
        (a * torch.arange(n)).sum().backward()
        assert torch.isfinite(s.grad).all()

    def test_above_one_may_remove_everything(self) -> None:
        a = torch.softmax(torch.arange(4.0), 0)
        torch.testing.assert_close(threshold_attention(a, 4.0), a)

    @pytest.mark.parametrize("name", ATTENDING)
    def test_identical_patches_still_learn(self, name: str) -> None:
        model = network(name, {**SMALL[name], "threshold": 1.0})
        output = model(bag(1).expand(9, 6))
        torch.testing.assert_close(output.attention, torch.full((9,), 1 / 9, dtype=torch.float64))
        output.logits.sum().backward()
        assert model.classifier.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ATTENDING)
@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_extreme_features_give_numbers(name: str, scale: float) -> None:
    model = network(name, {**SMALL[name], "threshold": 1.0}).float()
    x = (bag(50) * scale).float()
    output = model(x)
    output.logits.sum().backward()
    assert all(torch.isfinite(t).all() for t in output[:4])
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
