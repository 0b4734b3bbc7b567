"""TransMIL: the definition written out with every N × N matrix, published numbers, gradients, order, extremes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mil.mil import build_aggregator, convert_state_dict
from napari_mil.mil.aggregators import landmarks
from napari_mil.mil.aggregators.trans_mil import TransMil

SIZES = [1, 2, 7, 48, 49, 255, 256, 300]


def network(dim: int = 6, n_classes: int = 2, seed: int = 0, **options: object) -> TransMil:
    """A small one in float64, with weights large enough to make attention uneven."""
    torch.manual_seed(seed)
    small = {"stem_dim": 16, "heads": 4, "landmarks": 8, **options}
    model = build_aggregator("trans_mil", dim, n_classes, **small).double().eval()
    with torch.no_grad():
        for layer in (model.layer1, model.layer2):
            layer.attn.to_qkv.weight *= 3
            layer.norm.bias.normal_(std=0.1)
    return model


def bag(n: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------ METHODS §1.4, word for word
def attention_as_defined(layer: torch.nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Nyström attention of T (M, D) and the whole attention (H, M, M)."""
    attn = layer.attn
    heads, m = attn.heads, attn.landmarks
    x = layer.norm(tokens)
    pad = -len(x) % m
    x = torch.cat([x.new_zeros(pad, x.shape[1]), x])
    q, k, v = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in attn.to_qkv(x).chunk(3, dim=1))
    q = q * q.shape[2] ** -0.5
    q_m, k_m = (t.unflatten(1, (m, -1)).mean(dim=2) for t in (q, k))
    a1, a2, a3 = (torch.softmax(a @ b.transpose(1, 2), -1) for a, b in ((q, k_m), (q_m, k_m), (q_m, k)))
    z = a2.transpose(1, 2) / (a2.abs().sum(-1).max() * a2.abs().sum(-2).max())
    eye = torch.eye(m, dtype=z.dtype)
    for _ in range(attn.pinv_iterations):
        az = a2 @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    whole = a1 @ z @ a3
    out = whole @ v + F.conv2d(v[None], attn.res_conv.weight, padding=(16, 0), groups=heads)[0]
    return attn.to_out(out.transpose(0, 1).flatten(1))[pad:], whole[:, pad:, pad:]


def positions_as_defined(ppeg: torch.nn.Module, x: Tensor) -> Tensor:
    n, side = len(x), math.ceil(math.sqrt(len(x)))
    square = torch.cat([x, x[: side**2 - n]])
    if side < 7:
        square, side = torch.cat([square, square.new_zeros(49 - len(square), square.shape[1])]), 7
    image = square.T.reshape(1, -1, side, side)
    image = image + ppeg.proj(image) + ppeg.proj1(image) + ppeg.proj2(image)
    return image[0].flatten(1).T[:n]


def as_defined(model: TransMil, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (C,), embedding (D',) and the row of the class token in layer 1 (H, N)."""
    tokens = torch.cat([model.cls_token, h])
    out, whole = attention_as_defined(model.layer1, tokens)
    tokens = tokens + out
    tokens = torch.cat([tokens[:1], positions_as_defined(model.pos_embedding, tokens[1:])])
    tokens = tokens + attention_as_defined(model.layer2, tokens)[0]
    z = model.norm(tokens)[0]
    return model.classifier(z), z, whole[:, 0, 1:]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("m", "dim", "heads"), [(8, 16, 4), (5, 12, 1)])
def test_the_definition_and_its_gradient(n: int, m: int, dim: int, heads: int) -> None:
    model, h = network(stem_dim=dim, heads=heads, landmarks=m), bag(n, dim, seed=n)
    weights = bag(n, heads, seed=1).T

    def everything(logits: Tensor, z: Tensor, row: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = logits @ bag(2, 1)[:, 0] + z.square().sum() + (weights * row).sum()
        return total, dict(zip(("h", *dict(model.named_parameters())), gradient_of(total), strict=True))

    def gradient_of(total: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(total, [h, *model.parameters()], allow_unused=True)
        return [torch.zeros(()) if g is None else g for g in found]

    h.requires_grad_()
    output = model.pool(h)
    logits, z, row = as_defined(model, h)
    torch.testing.assert_close(output.logits, logits, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(output.embedding, z, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(output.head_scores, row, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(output.scores, row.mean(dim=0) * n, rtol=1e-9, atol=1e-11)
    assert output.head_scores is not None
    value, gradients = everything(output.logits, output.embedding, output.head_scores)
    wanted_value, wanted = everything(logits, z, row)
    torch.testing.assert_close(value, wanted_value, rtol=1e-9, atol=1e-11)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, wanted[name], rtol=1e-7, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_gradients_are_those_of_small_steps() -> None:
    model, x = network(dim=3, stem_dim=4, heads=2, landmarks=3, activation="gelu"), bag(5, 3).requires_grad_()

    def facts(x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        output = model(x)
        return output.logits, output.embedding, output.scores

    some = [model.layer1.attn.to_qkv.weight, model.layer2.attn.to_qkv.weight, model.pos_embedding.proj.weight]
    torch.autograd.gradcheck(facts, (x, *some, model.layer1.attn.res_conv.weight), atol=1e-6)


# ---------------------------------------------------------------------------------------------- published numbers
def test_as_many_parameters_as_published() -> None:
    model = build_aggregator("trans_mil", 1024, 2)
    assert sum(p.numel() for p in model.parameters()) == 2_672_146
    assert model.layer1.attn.landmarks == 256


@pytest.mark.parametrize(("dtype", "tag", "rtol", "atol"), [
    (torch.float64, "f64", 1e-9, 1e-11), (torch.float32, "f32", 1e-4, 1e-5),
])  # fmt: skip
def test_the_published_network_at_its_size(
    shared_data: Path, dtype: torch.dtype, tag: str, rtol: float, atol: float
) -> None:
    with np.load(shared_data / "golden" / "mhim_golden_v1_fwd_selfattn.npz") as golden:
        weights = {key[2:]: torch.from_numpy(golden[key]) for key in golden.files if key.startswith("w/")}
        model = build_aggregator("trans_mil", 1024, 2).to(dtype).eval()
        model.load_state_dict(convert_state_dict(weights, source="mhim_v1")[2])
        x = torch.from_numpy(golden["x"]).to(dtype)
        for n in (300, 255, 49, 30, 7, 2):
            with torch.no_grad():
                h = model.instances(x[:n])
                output = model.pool(h)
                tokens, _ = model.layer1(torch.cat([model.cls_token, h]))
                placed = model.pos_embedding(tokens)
                _, row = model.layer2.first(placed)
            found = {
                "logits": output.logits, "feat": output.embedding, "attn_layer0": output.head_scores,
                "attn_layer1": row[:, 1:], "after_layer1": tokens[:5], "ppeg": placed[1:6],
            }  # fmt: skip
            for name, got in found.items():
                wanted = torch.from_numpy(golden[f"{name}/n{n}@{tag}"])
                torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol, msg=lambda text, k=name: f"{k}: {text}")


# ------------------------------------------------------------------------------------------ scores and attention
def test_attention_is_the_row_without_its_negative_values() -> None:
    model = network(threshold=0.5)
    output = model(bag(40))
    row = output.head_scores.mean(dim=0)
    assert (row < 0).any(), "the case that matters"
    shares = row.clamp(min=0) / row.clamp(min=0).sum()
    cut = (shares - 0.5 / 40).clamp(min=0)
    torch.testing.assert_close(output.attention, cut / cut.sum(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(network()(bag(40)).attention, shares)


def test_attention_is_even_where_nothing_is_positive() -> None:
    model = network()
    torch.testing.assert_close(model._attention(-torch.ones(4)), torch.full((4,), 0.25))
    row = torch.tensor([-1.0, 0.0, -2.0], requires_grad=True)
    model._attention(row).square().sum().backward()
    assert torch.isfinite(row.grad).all()


@pytest.mark.parametrize("heads", [1, 4])
def test_class_aware_logits_written_out(heads: int) -> None:
    model, x = network(heads=heads, n_classes=3), bag(30)
    h = model.instances(x)
    output = model.pool(h)
    v = (model.layer1.norm(h) @ model.layer1.attn.to_qkv.weight[32:].T).unflatten(1, (heads, -1))  # (N, H, d)
    u = (v * output.head_scores.T[:, :, None]).flatten(1)
    wanted = model.layer1.attn.to_out(u) @ model.classifier.weight.T
    torch.testing.assert_close(model.class_aware_logits(h, output), wanted)


def test_patches_go_by_their_order_in_the_bag() -> None:
    """Positions come from the order, so a mask has to keep it: shown in another order, the same patches differ."""
    model, x = network(), bag(60)
    kept = torch.arange(60)[::3]
    again = model(x[kept])
    torch.testing.assert_close(again.logits, model(x[::3]).logits)
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))
    other = model(x[kept[order]])
    assert (again.logits - other.logits).abs().max() > 1e-4


def test_rows_of_a_miner_may_stand_at_the_end() -> None:
    model, h = network(), bag(20, 16)
    extra = bag(3, 16, seed=5).requires_grad_()
    output = model.pool(torch.cat([h, extra]))
    assert output.scores.shape == (23,)
    output.logits.sum().backward()
    assert extra.grad.abs().sum() > 0


# ---------------------------------------------------------------------------------------------- ways of reckoning
@pytest.mark.parametrize("n", [1, 30, 2049])
def test_less_memory_gives_the_same(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(attention_dropout=0.3, dropout=0.2).train(), bag(n)
    found = []
    for recompute, rows in (("never", landmarks.ROWS), ("always", 17)):
        monkeypatch.setattr(landmarks, "ROWS", rows)
        model.recompute = recompute
        model.zero_grad()
        torch.manual_seed(3)
        output = model(x)
        (output.logits.sum() + output.scores.square().sum()).backward()
        found.append([output.logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_twice_the_same() -> None:
    model, x = network().float().train(), bag(300).float()
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model.zero_grad()
        model(x).logits.sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("n", [1, 50, 700])
def test_bfloat16_is_near(n: int) -> None:
    model, x = network().float().train(), bag(n).float()
    model.embed[2].p = model.layer1.dropout.p = model.layer2.dropout.p = 0.0
    exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x).full_precision()
    output.logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(output.embedding, exact.embedding, rtol=0.05, atol=0.05)
    torch.testing.assert_close(output.attention, exact.attention, rtol=0.2, atol=0.2 / n)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_features_of_any_size_give_numbers(size: float) -> None:
    model = build_aggregator("trans_mil", 6, 2, stem_dim=16, landmarks=8)
    for x in (bag(100).float() * size, torch.zeros(20, 6), torch.ones(1, 6) * size):
        output = model(x)
        output.logits.sum().backward()
        assert all(torch.isfinite(t).all() for t in output[:5])
        assert output.attention.sum().item() == pytest.approx(1, abs=1e-5)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_first_weights() -> None:
    torch.manual_seed(0)
    model = build_aggregator("trans_mil", 64, 2, stem_dim=64)
    weight = model.layer1.attn.to_qkv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 + 192)), rel=0.05)
    assert model.layer1.attn.to_out.bias.abs().max() == 0
    assert model.cls_token.std().item() == pytest.approx(1, rel=0.3)
