"""The global recycle network of MHIM-MIL's second version (Tang et al. 2025; METHODS §4.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mil.mil.aggregators.base import initialise


class RecycleNetwork(nn.Module):
    """A few rows made of many hidden patches; 1,050,112 parameters for dim=512.

    z = W_o MHA(q = LN(Q) W_q; k, v = LN(X) W_kv) + b_o

    Q are k global queries that no gradient moves: Q ← m Q + (1 − m) z. One LayerNorm for both sides, no residual, no
    feed-forward layer.

    k is small and N large, so keys and values are never formed: per head, q·(W_k x) = (W_kᵀ q)·x, and
    Σ p_i W_v x_i = W_v Σ p_i x_i. The same numbers for a tenth of the work.

    Parameters
    ----------
    dim : int
        Width of the patches after the stem, D.
    queries : int
        k.
    momentum : float
        m.
    dropout : float
        Of the attention weights and of z.
    heads, head_dim : int
    """

    def __init__(
        self,
        dim: int,
        queries: int = 5,
        momentum: float = 0.9999,
        dropout: float = 0.1,
        heads: int = 8,
        head_dim: int = 64,
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.momentum, self.dropout = momentum, dropout
        inner = heads * head_dim
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        bound = math.sqrt(6 / (768 + dim))
        self.queries: Tensor
        self.register_buffer("queries", torch.empty(queries, dim).uniform_(-bound, bound))
        initialise(self, "xavier")

    def forward(self, x: Tensor) -> Tensor:
        """x (N, D) → z (k, D)."""
        heads, d = self.heads, self.head_dim
        n = self.norm(x)  # (N, D)
        q = self.to_q(self.norm(self.queries)).unflatten(1, (heads, d))  # (k, H, d)
        to_k, to_v = self.to_kv.weight.view(2, heads, d, -1)  # (H, d, D) each
        asked = torch.einsum("khd,hdc->hkc", q, to_k).flatten(0, 1)  # (H·k, D)
        weights = torch.softmax(asked @ n.T / math.sqrt(d), dim=-1)  # (H·k, N)
        weights = F.dropout(weights, self.dropout, self.training)
        read = (weights @ n).view(heads, len(q), -1)  # (H, k, D)
        z = self.to_out(torch.einsum("hkc,hdc->khd", read, to_v).flatten(1))  # (k, D)
        return F.dropout(z, self.dropout, self.training)

    @torch.no_grad()
    def remember(self, z: Tensor) -> None:
        """Q ← m Q + (1 − m) z."""
        self.queries = torch.lerp(self.queries, z.to(self.queries), 1 - self.momentum)  # the old ones: for backward
