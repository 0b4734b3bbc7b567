"""Landmarks of Nyström attention: what they gather of the tokens, and what they spread to them.

`Gather` and `Spread` keep no attention for the way back: they reckon it anew, head by head, in pieces that stay in the
processor's cache. On a graphics card the pieces are larger.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 2048
"""Tokens of one piece of `Spread` on a processor: 2 MB of attention to 256 landmarks."""

ALIGNED = 16
"""Rows of attention are so many numbers long, or a multiple of it."""


class LandmarkMeans(torch.autograd.Function):
    """Means (m, D) of consecutive rows of tokens (M, D) behind zero rows, and the first few tokens by themselves.

    Takes the tokens, m, and how many of the first tokens are wanted.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, landmarks: int, first: int) -> tuple[Tensor, Tensor]:
        ctx.of = len(tokens), landmarks
        length, empty, rest = _groups(*ctx.of)
        means = tokens.new_zeros(landmarks, tokens.shape[1])
        torch.sum(tokens[rest:].view(-1, length, tokens.shape[1]), dim=1, out=means[empty + bool(rest) :])
        if rest:
            torch.sum(tokens[:rest], dim=0, out=means[empty])
        return means.div_(length), tokens[:first].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_means: Tensor, to_first: Tensor) -> tuple[Tensor, None, None]:
        n, landmarks = ctx.of
        length, empty, rest = _groups(n, landmarks)
        to_means = to_means / length
        to_tokens = to_means.new_empty(n, to_means.shape[1])
        to_tokens[rest:].view(-1, length, to_means.shape[1]).copy_(to_means[empty + bool(rest) :, None])
        if rest:
            to_tokens[:rest] = to_means[empty]
        to_tokens[: len(to_first)] += to_first
        return to_tokens, None, None


def zero_rows(tokens: int, landmarks: int) -> int:
    """Zero rows in front of so many tokens, up to a multiple of the landmarks."""
    return -tokens % landmarks


def _groups(tokens: int, landmarks: int) -> tuple[int, int, int]:
    """Rows of one landmark, landmarks of zero rows alone, and tokens of the landmark that has both."""
    length = -(-tokens // landmarks)
    padding = zero_rows(tokens, landmarks)
    return length, padding // length, -padding % length


class Gather(torch.autograd.Function):
    """What landmarks gather of the tokens: A3 v and w A3, with A3 = softmax(q̃ kᵀ) over tokens and zero rows.

    Takes q̃ (H, m, d), k (M, D), v (M, D) or None, w (H, m), and the number of zero rows; gives (H, m, d) or None and
    (H, M).
    """

    @staticmethod
    def forward(
        ctx: Any, q_m: Tensor, k: Tensor, v: Tensor | None, weights: Tensor, padding: int
    ) -> tuple[Tensor | None, Tensor]:
        heads, m, d = q_m.shape
        ctx.save_for_backward(q_m, k, v, weights)
        ctx.padding = padding
        ctx.set_materialize_grads(False)
        read = None if v is None else torch.empty_like(q_m)
        row = q_m.new_empty(heads, len(k))
        a, of_zero_rows = _room(q_m, m, len(k)), _logarithm(padding)
        for h in range(heads):
            of_tokens = _gathered(a, q_m[h], _head(k, h, d), of_zero_rows)  # (m, M)
            if v is not None and read is not None:
                _product(of_tokens, _head(v, h, d), v.dtype, out=read[h])
            torch.mv(of_tokens.t(), weights[h], out=row[h])
        return read, row

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_read: Tensor | None, to_row: Tensor | None) -> tuple[Tensor | None, ...]:
        if to_read is None and to_row is None:
            return None, None, None, None, None
        q_m, k, v, weights = ctx.saved_tensors
        heads, m, d = q_m.shape
        low, n = k.dtype, len(k)
        to_q, to_k = torch.empty_like(q_m), torch.empty_like(k)
        to_v = torch.empty_like(v) if to_read is not None else None
        to_weights = torch.empty_like(weights) if to_row is not None else None
        a, g, of_zero_rows = _room(q_m, m, n), _room(q_m, m, n), _logarithm(ctx.padding)
        to_a = g[:, :n]
        for h in range(heads):
            key = _head(k, h, d)
            of_tokens = _gathered(a, q_m[h], key, of_zero_rows)
            g[:, n:] = 0
            if to_read is not None and to_v is not None:
                _product(to_read[h], _head(v, h, d).t(), low, out=to_a)
                _product(of_tokens.t(), to_read[h], low, out=_head(to_v, h, d))
            else:
                to_a.zero_()
            if to_row is not None and to_weights is not None:
                to_a.addr_(weights[h], to_row[h])
                torch.mv(of_tokens, to_row[h], out=to_weights[h])
            to_s = _through_softmax(g, a)[:, :n]
            _product(to_s, key, low, out=to_q[h])
            _product(to_s.t(), q_m[h], low, out=_head(to_k, h, d))
        return to_q, to_k, to_v, to_weights, None


class Spread(torch.autograd.Function):
    """What landmarks hand back to the tokens: base + A1 x, with A1 = softmax(q k̃ᵀ) over landmarks.

    Takes q (M, D), k̃ (H, m, d), x (H, m, d) and base (M, D); gives (M, D).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k_m: Tensor, x: Tensor, base: Tensor) -> Tensor:
        ctx.save_for_backward(q, k_m, x)
        low, d = q.dtype, k_m.shape[2]
        k_m, x = k_m.to(low), x.to(low)
        out = torch.empty_like(q)
        for piece in _pieces(q):
            for h in range(len(k_m)):
                a = _spread(_head(q[piece], h, d), k_m[h])  # (rows, m)
                torch.addmm(_head(base[piece], h, d), a.to(low), x[h], out=_head(out[piece], h, d))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_out: Tensor) -> tuple[Tensor, ...]:
        q, k_m, x = ctx.saved_tensors
        low, d = q.dtype, k_m.shape[2]
        k_low, x_low = k_m.to(low), x.to(low)
        to_q, to_k, to_x = torch.empty_like(q), torch.zeros_like(k_m), torch.zeros_like(x)
        for piece in _pieces(q):
            for h in range(len(k_m)):
                query, coming = _head(q[piece], h, d), _head(to_out[piece], h, d)
                a = _spread(query, k_low[h])
                to_x[h] += torch.mm(a.to(low).t(), coming)
                to_s = _through_softmax(torch.mm(coming, x_low[h].t()).to(a.dtype), a).to(low)
                torch.mm(to_s, k_low[h], out=_head(to_q[piece], h, d))
                to_k[h] += torch.mm(to_s.t(), query)
        return to_q, to_k, to_x, to_out


def _head(tokens: Tensor, h: int, d: int) -> Tensor:
    """Columns of one head, (M, D) → (M, d)."""
    return tokens[:, h * d : (h + 1) * d]


def _pieces(tokens: Tensor) -> list[slice]:
    step = ROWS if tokens.device.type == "cpu" else len(tokens)
    return [slice(start, start + step) for start in range(0, len(tokens), step)]


def _room(like: Tensor, m: int, n: int) -> Tensor:
    """Room (m, n + 1 or more): a last column stands for all zero rows; rows begin where products like them to."""
    return like.new_empty(m, -(-(n + 1) // ALIGNED) * ALIGNED)


def _logarithm(padding: int) -> float:
    """What stands for so many zero rows in a softmax: e⁰ each."""
    return math.log(padding) if padding else -math.inf


def _gathered(room: Tensor, q: Tensor, k: Tensor, of_zero_rows: float) -> Tensor:
    """softmax(q̃ kᵀ) of one head, q̃ (m, d) and k (M, d), written into the room → its first M columns."""
    n = len(k)
    _product(q, k.t(), k.dtype, out=room[:, :n])
    room[:, n] = of_zero_rows
    room[:, n + 1 :] = -math.inf
    torch.softmax(room, dim=-1, out=room)
    return room[:, :n]


def _spread(q: Tensor, k_m: Tensor) -> Tensor:
    """softmax(q k̃ᵀ) of one head, q (n, d) and k̃ (m, d) → (n, m), in float32 at least."""
    s = torch.mm(q, k_m.t())
    if s.dtype in (torch.bfloat16, torch.float16):
        return torch.softmax(s, dim=-1, dtype=torch.float32)
    return torch.softmax(s, dim=-1, out=s)


def _through_softmax(gradient: Tensor, softmax: Tensor) -> Tensor:
    """Gradient before a softmax from that after it, in its place."""
    torch.ops.aten._softmax_backward_data.out(gradient, softmax, -1, softmax.dtype, grad_input=gradient)
    return gradient


def _product(x: Tensor, y: Tensor, dtype: torch.dtype, out: Tensor) -> None:
    """out = x y, multiplied in a dtype."""
    if x.dtype == y.dtype == out.dtype == dtype:
        torch.mm(x, y, out=out)
    else:
        out.copy_(torch.mm(x.to(dtype), y.to(dtype)))
