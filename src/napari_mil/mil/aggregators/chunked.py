"""Attention pooling of very large bags: chunk by chunk, with the same result and gradient in a fifth of the memory.

    r_k = stem(x_k);  s_k = score(r_k);  (a, w) = weigh(s);  z = Σ w_k r_k

Attention couples all patches, but only through N numbers: with g the gradient of z, that of w_k is r_k·g, and the graph
of `weigh` turns it into that of s_k. After that every patch can be gone through by itself. What is kept is the rows r
(N × R) and a few vectors of N numbers; everything between x and s is computed again, a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from napari_mil.mil.randomness import random_states, set_random_states

from .base import full_precision

CHUNK = 2048
"""Patches at a time: what a chunk needs fits into a processor's cache."""


class Rows:
    """The stem of one kind: x (n, D) → rows r (n, R)."""

    def make(self, x: Tensor) -> Tensor:
        """Rows of a chunk."""
        raise NotImplementedError

    def again(self, x: Tensor, rows: Tensor) -> Tensor:
        """The same rows once more, now with a graph; random numbers come as they did at first."""
        return self.make(x)


class ReluRows(Rows):
    """r = Dropout(ReLU(W x + b)): what the rows are tells how to go back through it, so nothing is computed again."""

    def __init__(self, linear: nn.Linear, dropout: float = 0.0) -> None:
        self.linear, self.dropout = linear, dropout

    def make(self, x: Tensor) -> Tensor:
        rows = F.relu(self.linear(x))
        return F.dropout(rows, self.dropout) if self.dropout else rows

    def again(self, x: Tensor, rows: Tensor) -> Tensor:
        return _KeptRelu.apply(x, self.linear.weight, self.linear.bias, rows, 1 / (1 - self.dropout))  # type: ignore[no-any-return]


class OtherRows(Rows):
    """Any stem."""

    def __init__(self, stem: Callable[[Tensor], Tensor]) -> None:
        self.stem = stem

    def make(self, x: Tensor) -> Tensor:
        return self.stem(x)


class Pooled(NamedTuple):
    """What comes out, all with gradients."""

    scores: Tensor
    """(N,)"""
    attention: Tensor
    """(N,)"""
    embedding: Tensor
    """(R,): Σ w_k r_k."""


class Parts(NamedTuple):
    """A model taken apart."""

    rows: Rows
    score: Callable[[Tensor], Tensor]
    """Rows (n, R) → scores (n,)."""
    weigh: Callable[[Tensor], tuple[Tensor, Tensor]]
    """Scores (N,) → attention (N,), and what the rows are added up with (N,)."""
    weight: Tensor
    """One of the weights: a chunk of the features is cast to their type."""


def pool_by_chunks(x: Tensor, parts: Parts, parameters: Iterator[nn.Parameter]) -> Pooled:
    """Pool a bag x (N, D) of any float type; gradients flow to the parameters, not to x.

    Parameters
    ----------
    x : (N, D) tensor
    parts : Parts
    parameters : iterator of Parameter
        All that `rows` and `score` may use.
    """
    return Pooled(*_Pooling.apply(x, parts, *parameters))


def as_weights(x: Tensor, weight: Tensor) -> Tensor:
    """Features of any float type in the one that layers of such weights compute in."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype)


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Parts, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kind = x.device.type
        ctx.autocast = {
            "device_type": kind,
            "enabled": torch.is_autocast_enabled(kind),
            "dtype": torch.get_autocast_dtype(kind),
            "cache_enabled": False,  # a cast kept from here would have no graph
        }
        ctx.random = random_states(x.device)
        kept: Tensor | None = None
        with torch.autocast(**ctx.autocast):
            for piece in _pieces(len(x)):
                part = as_weights(x[piece], parts.weight)
                rows = parts.rows.make(part)
                s = parts.score(rows)
                if piece.start == 0:
                    scores = full_precision(s).new_empty(len(x))
                    kept = None if rows is part else rows.new_empty(len(x), rows.shape[1])
                scores[piece] = s
                if kept is not None:
                    kept[piece] = rows
            with torch.enable_grad():
                leaf = scores.requires_grad_()
                attention, weights = parts.weigh(leaf)
            ctx.save_for_backward(x, kept, *parameters)
            ctx.parts, ctx.graph = parts, (leaf, attention, weights)
            w = weights.detach()
            z = sum(w[piece] @ rows for piece, rows in _kept_rows(x, kept, parts))
        assert isinstance(z, Tensor)
        return leaf.detach(), attention.detach(), z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_scores: Tensor, to_attention: Tensor, to_z: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, *parameters = ctx.saved_tensors
        parts: Parts = ctx.parts
        leaf, attention, weights = ctx.graph
        to_weights = torch.empty_like(weights)  # many small results would leave holes too small for the next chunk
        with torch.autocast(**ctx.autocast):
            for piece, rows in _kept_rows(x, kept, parts):
                to_weights[piece] = rows @ to_z
        (through,) = torch.autograd.grad([attention, weights], leaf, [to_attention, to_weights], retain_graph=True)
        to_scores = to_scores + through
        w = weights.detach().to(to_z.dtype)
        wanted = [index for index, parameter in enumerate(parameters) if parameter.requires_grad]
        totals: list[Tensor | None] = [None] * len(parameters)
        now = random_states(x.device)
        set_random_states(ctx.random, x.device)
        try:
            for piece, old in _kept_rows(x, kept, parts):
                with torch.enable_grad(), torch.autocast(**ctx.autocast):
                    # as at first: random numbers come in the same order
                    rows = old if kept is None else parts.rows.again(as_weights(x[piece], parts.weight), old)
                    s = parts.score(rows)
                outputs, gradients = [s], [to_scores[piece].to(s.dtype)]
                if rows.requires_grad:
                    outputs.append(rows)
                    gradients.append(torch.outer(w[piece], to_z).to(rows.dtype))
                found = torch.autograd.grad(outputs, [parameters[i] for i in wanted], gradients, allow_unused=True)
                for index, gradient in zip(wanted, found, strict=True):
                    if gradient is not None:
                        total = totals[index]
                        totals[index] = gradient.clone() if total is None else total.add_(gradient)
        finally:
            set_random_states(now, x.device)
        return None, None, *totals


class _KeptRelu(torch.autograd.Function):
    """Dropout(ReLU(W x + b)) whose result is known: where it is above 0 the gradient passes, times `scale`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rows: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, rows)
        ctx.scale, ctx.dtype = scale, weight.dtype
        return rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_rows: Tensor) -> tuple[Tensor | None, ...]:
        x, rows = ctx.saved_tensors
        before = (to_rows * ctx.scale).masked_fill_(rows <= 0, 0)  # (n, R)
        to_weight = before.T @ x.to(before.dtype)
        return None, to_weight.to(ctx.dtype), before.sum(dim=0, dtype=ctx.dtype), None, None


def _pieces(n: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK))


def _kept_rows(x: Tensor, kept: Tensor | None, parts: Parts) -> Iterator[tuple[slice, Tensor]]:
    """Chunk after chunk of the rows; without a stem they are the features."""
    for piece in _pieces(len(x)):
        yield piece, as_weights(x[piece], parts.weight) if kept is None else kept[piece]
