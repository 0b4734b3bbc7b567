"""TransMIL (Shao et al. 2021) as MHIM-MIL uses it (Tang et al. 2023; METHODS §1.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .base import BagOutput, initialise, threshold_attention
from .depthwise import convolve_patches
from .nystrom import NystromAttention
from .stem import OverStem


class Ppeg(nn.Module):
    """Position of a patch from its place in the bag's order: x ← x + DW7(x) + DW5(x) + DW3(x).

    The patches lie in a square, line by line (see `convolve_patches`). The three depthwise convolutions and the
    identity are one with 7 × 7 taps.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.proj1 = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.proj2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (1 + N, D) → the same, the class token untouched."""
        kernel = self.proj.weight + F.pad(self.proj1.weight, (1, 1, 1, 1)) + F.pad(self.proj2.weight, (2, 2, 2, 2))
        identity = F.pad(kernel.new_ones(1, 1, 1, 1), (3, 3, 3, 3))
        biases = [proj.bias for proj in (self.proj, self.proj1, self.proj2) if proj.bias is not None]
        return convolve_patches(tokens, kernel + identity, torch.stack(biases).sum(dim=0))


class Layer(nn.Module):
    """T + Dropout(Nyström(LN(T))), for all tokens or for the first alone."""

    def __init__(self, dim: int, heads: int, landmarks: int, pinv_iterations: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attn = NystromAttention(dim, heads, landmarks, pinv_iterations)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (M, D) → tokens (M, D), the class token's attention row (H, M)."""
        out, row = self.attn(self.norm(tokens))
        out = self.dropout(out)
        return (tokens + out if torch.is_grad_enabled() else out.add_(tokens)), row

    def first(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (M, D) → the first token (D,), its attention row (H, M)."""
        out, row = self.attn.first(self.norm(tokens))
        return tokens[0] + self.dropout(out), row


class TransMil(OverStem):
    """TransMIL: 2,672,146 parameters for D=1024, C=2.

    h = Dropout(act(Linear(D→512)(x)));  T = [cls; h_1 … h_N]

    T ← T + Nys₁(LN(T));  T[1:] ← PPEG(T[1:]);  T ← T + Nys₂(LN(T));  z = LN(T)[0];  logits = W z + b

    Only the class token leaves the second layer, so only its row of it is reckoned. There is no score before a softmax:
    `head_scores` are the class token's row of layer 1 for each head, `scores` N times their mean, `attention` the same
    row without its negative values, adding up to 1 (uniform where nothing is positive).

    Parameters
    ----------
    heads : int
        Must divide `stem_dim`.
    landmarks : int or None
        m; None: half of `stem_dim`.
    pinv_iterations : int
    attention_dropout : float
        After each attention layer.
    """

    def __init__(
        self,
        in_dim: int,
        n_classes: int,
        activation: str = "relu",
        stem_dim: int = 512,
        dropout: float = 0.25,
        threshold: float | None = None,
        binary_head: str = "two",
        initialisation: str = "xavier",
        heads: int = 8,
        landmarks: int | None = None,
        pinv_iterations: int = 6,
        attention_dropout: float = 0.1,
    ) -> None:
        super().__init__(in_dim, n_classes, binary_head, activation, stem_dim, dropout, threshold)
        self.cls_token = nn.Parameter(torch.randn(1, stem_dim))
        m = landmarks or max(stem_dim // 2, 1)
        self.layer1 = Layer(stem_dim, heads, m, pinv_iterations, attention_dropout)
        self.pos_embedding = Ppeg(stem_dim)
        self.layer2 = Layer(stem_dim, heads, m, pinv_iterations, attention_dropout)
        self.norm = nn.LayerNorm(stem_dim)
        self.classifier = nn.Linear(stem_dim, self.n_logits)
        initialise(self, initialisation)

    def pool(self, h: Tensor) -> BagOutput:
        n = len(h)
        again = self.recomputes(n)
        if again:
            tokens, row = checkpoint(self._first_half, h, use_reentrant=False)
            token = checkpoint(self._second_half, tokens, use_reentrant=False)
        else:
            tokens, row = self._first_half(h)
            token = self._second_half(tokens)
        z = self.norm(token)  # (D',)
        heads = row[:, 1:]  # (H, N)
        mean = heads.mean(dim=0)  # (N,)
        return BagOutput(self.classifier(z), mean * n, self._attention(mean), z, heads)

    def class_aware_logits(self, h: Tensor, output: BagOutput) -> Tensor:
        """W_cls (W_O u_i + b_O), u_i = concat_h(a_hi v_hi) of layer 1 (Tang et al. 2025).

        The values are linear in LN(h), so each head's part is one product (D' × C) with it, and nothing is kept for it.
        """
        assert output.head_scores is not None
        attn = self.layer1.attn
        dim = h.shape[1]
        with torch.autocast(h.device.type, enabled=False):
            tokens = self.layer1.norm(h.to(self.classifier.weight.dtype))  # (N, D')
            through = self.classifier.weight @ attn.to_out.weight  # (C, D')
            values = attn.to_qkv.weight[2 * dim :].view(attn.heads, -1, dim)  # (H, d, D')
            parts = through.view(len(through), attn.heads, -1).transpose(0, 1) @ values  # (H, C, D')
            each = (tokens @ parts.flatten(0, 1).t()).view(len(h), attn.heads, -1)  # (N, H, C)
            weighed = torch.einsum("nhc,hn->nc", each, output.head_scores.to(each))
            return weighed + self.classifier.weight @ attn.to_out.bias

    def _first_half(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """h (N, D') → tokens behind the positions (1 + N, D'), row of layer 1 (H, 1 + N)."""
        tokens, row = self.layer1(torch.cat([self.cls_token.to(h), h]))
        return self.pos_embedding(tokens), row

    def _second_half(self, tokens: Tensor) -> Tensor:
        token: Tensor = self.layer2.first(tokens)[0]
        return token

    def _attention(self, row: Tensor) -> Tensor:
        positive = row.clamp(min=0)
        total = positive.sum()
        uniform = torch.full_like(row, 1 / len(row))
        shares = torch.where(total > 0, positive / torch.where(total > 0, total, torch.ones_like(total)), uniform)
        return threshold_attention(shares, self.threshold)
