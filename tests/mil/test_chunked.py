"""AB-MIL by chunks: the same numbers and gradients as at once, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_mil.mil import Aggregator, BagOutput, build_aggregator
from napari_mil.mil.aggregators import chunked

VARIANTS = [
    ("ab_mil", {}),
    ("ab_mil", {"gated": True, "adaptive_weight": 0.5}),
    ("ab_mil", {"stem": "tabular", "gated": True}),
    ("ab_mil", {"stem": "none", "threshold": 0.8, "temperature": 0.5}),
    ("ab_mil_mhim", {"threshold": 0.5, "stem_dim": 9}),
    ("ab_mil_mhim", {"gated": True, "activation": "gelu", "stem_dim": 9}),
    ("ab_mil_rank", {"hidden": 5}),
    ("ab_mil_rank", {"hidden": 5, "threshold": 0.9}),
]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "CHUNK", 7)


def network(name: str, options: dict, dropout: float = 0.0) -> Aggregator:
    torch.manual_seed(0)
    rate = {} if name == "ab_mil_rank" else {"dropout": dropout}
    return build_aggregator(name, 6, 2, **options, **rate).double().train()


def bag(n: int = 23) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def objective(output: BagOutput) -> Tensor:
    """Through everything that a loss may look at."""
    by_patch = torch.linspace(-1, 1, len(output.scores), dtype=output.scores.dtype)
    return (
        output.logits.square().sum()
        + (output.scores.square() * by_patch).sum()
        + (output.attention.square() * by_patch).sum()
        + output.embedding.square().sum()
    )


def looked_at(model: Aggregator, x: Tensor, recompute: str) -> list[Tensor]:
    """Output and gradients."""
    model.recompute = recompute
    model.zero_grad()
    output = model(x)
    objective(output).backward()
    return [*output[:4], *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.parametrize("n", [1, 7, 23])
def test_same_as_at_once(name: str, options: dict, n: int) -> None:
    model, x = network(name, options), bag(n)
    for chunks, whole in zip(looked_at(model, x, "always"), looked_at(model, x, "never"), strict=True):
        torch.testing.assert_close(chunks, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), VARIANTS[2:])
def test_gradient_against_differences(name: str, options: dict) -> None:
    model, x = network(name, options), bag(9)
    model.recompute = "always"
    assert torch.autograd.gradcheck(lambda *_: objective(model(x)), tuple(model.parameters()), fast_mode=True)


@pytest.mark.parametrize(("name", "options"), [case for case in VARIANTS if case[0] != "ab_mil_rank"])
def test_dropout_is_the_same_in_both_passes(name: str, options: dict) -> None:
    """The gradient is that of the masks which were drawn."""
    model, x = network(name, options, dropout=0.4), bag()
    model.recompute = "always"

    def value(*_: Tensor) -> Tensor:
        torch.manual_seed(5)
        return objective(model(x))

    assert torch.autograd.gradcheck(value, tuple(model.parameters()), fast_mode=True)
    value().backward()
    first = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    value().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(first, model.parameters(), strict=True))


def test_backward_leaves_the_random_numbers_of_others_alone() -> None:
    model = network("ab_mil", {"stem": "tabular"}, dropout=0.4)
    model.recompute = "always"
    loss = objective(model(bag()))
    state = torch.get_rng_state()
    loss.backward()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_float16_is_cast_chunk_by_chunk(name: str, options: dict) -> None:
    model = network(name, options).float()
    x = bag().half()
    halved, raised = looked_at(model, x, "always"), looked_at(model, x.float(), "never")
    for chunks, whole in zip(halved, raised, strict=True):
        torch.testing.assert_close(chunks, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_bfloat16_is_near(name: str, options: dict) -> None:
    model, x = network(name, options).float(), bag().float()
    exact = looked_at(model, x, "never")
    model.recompute = "always"
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x.half())
    objective(output.full_precision()).backward()
    found = [*output[:4], *(parameter.grad for parameter in model.parameters())]
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    for near, whole in zip(found, exact, strict=True):
        assert (near.float() - whole).norm() <= 0.15 * whole.norm() + 0.02


def test_only_large_bags_and_no_gradient_of_the_features() -> None:
    model = network("ab_mil", {})
    assert not model.in_chunks(model.recompute_above)
    assert model.in_chunks(model.recompute_above + 1)
    model.recompute = "never"
    assert not model.in_chunks(10**6)
    model.recompute = "always"
    x = bag().requires_grad_()
    objective(model(x)).backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_what_is_kept_is_small() -> None:
    """Nothing of the features' own size lives on between the two passes: only the rows of the stem and N numbers."""
    model = network("ab_mil", {"gated": True}, dropout=0.2)
    model.recompute = "always"
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(bag(200))
    sizes = sorted((t.numel() for t in kept if t.shape[0] == 200), reverse=True)
    assert sizes[:2] == [200 * 512, 200 * 6]
    assert all(size <= 200 for size in sizes[2:])


@pytest.mark.parametrize("recompute", ["always", "never"])
def test_attention_of_bfloat16_layers_is_float32(recompute: str) -> None:
    model = network("ab_mil", {}).float()
    model.recompute = recompute
    with torch.autocast("cpu", torch.bfloat16):
        attention = model(bag(500).float()).attention
    assert attention.dtype == torch.float32
    assert attention.sum().item() == pytest.approx(1, abs=1e-5)
