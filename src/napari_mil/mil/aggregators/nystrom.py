"""Nyström attention (Xiong et al. 2021) as TransMIL has it, in O(N·m) time and memory (METHODS §1.4).

With queries q (scaled by d^-½), keys k and values v of the tokens, zero rows in front up to a multiple of m, and
landmarks q̃, k̃, the means of consecutive tokens:

    A1 = softmax(q k̃ᵀ)   A2 = softmax(q̃ k̃ᵀ)   A3 = softmax(q̃ kᵀ)
    out = A1 Z (A3 v) + conv(v),   Z ≈ A2⁺

The zero rows are never made: their outputs are dropped, and all they add to A3 is a number in its denominator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .landmarks import Gather, LandmarkMeans, Spread, zero_rows
from .pseudo_inverse import PseudoInverse

TAPS = 33
"""Of the convolution along the tokens."""


class NystromAttention(nn.Module):
    """Attention of tokens through m landmarks, with a convolution of the values beside it.

    Parameters
    ----------
    dim : int
        Width of a token; `heads` must divide it.
    heads : int
    landmarks : int
        m.
    pinv_iterations : int
        Of the pseudo-inverse, see `PseudoInverse`.
    """

    def __init__(self, dim: int, heads: int = 8, landmarks: int = 256, pinv_iterations: int = 6) -> None:
        super().__init__()
        self.heads, self.landmarks, self.pinv_iterations = heads, landmarks, pinv_iterations
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        # one kernel per head; used as a convolution of all channels, see `_along_tokens`
        self.res_conv = nn.Conv2d(heads, heads, (TAPS, 1), padding=(TAPS // 2, 0), groups=heads, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of all tokens.

        Parameters
        ----------
        tokens : (M, D) tensor
            Normed, the class token first.

        Returns
        -------
        out : (M, D) tensor
        row : (H, M) tensor
            What the class token attends to, for each head: (A1 Z A3)[cls]. May be negative, does not sum to 1.
        """
        w_q, w_k, w_v = self.to_qkv.weight.chunk(3)
        q, k, v = F.linear(tokens, w_q), F.linear(tokens, w_k), F.linear(tokens, w_v)  # (M, D) each
        q_m, k_m, inverse, near = self._landmarks(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            weights = self._weights(near[0], k_m, inverse)  # (H, m)
            # A3 v (H, m, d); A1[cls] Z A3 (H, M)
            read, row = Gather.apply(q_m, k, v, weights, zero_rows(len(tokens), self.landmarks))
            values = inverse.right(read)  # (H, m, d): Z A3 v
            mixed = Spread.apply(q, k_m * self._scale, values, self._along_tokens(v))  # (M, D)
        return F.linear(mixed, self.to_out.weight, self.to_out.bias), row

    def first(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` for the class token alone: out (D,) and row (H, M), without queries and values of the others."""
        _, w_k, w_v = self.to_qkv.weight.chunk(3)
        k = F.linear(tokens, w_k)  # (M, D)
        q_m, k_m, inverse, near = self._landmarks(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            weights = self._weights(near[0], k_m, inverse)  # (H, m)
            _, row = Gather.apply(q_m, k, None, weights, zero_rows(len(tokens), self.landmarks))
            # row (tokens W_vᵀ) = (row tokens) W_vᵀ
            gathered = (row @ tokens.to(row))[:, :, None]  # (H, D, 1)
            out = (w_v.view(self.heads, -1, w_v.shape[1]) @ gathered)[..., 0]  # (H, d)
            kernel = self.res_conv.weight[:, 0, TAPS // 2 : TAPS // 2 + len(near), 0]  # (H, taps from cls on)
            out = out + torch.einsum("ht,the->he", kernel, _split(F.linear(near, w_v), self.heads))
        return F.linear(out.flatten(), self.to_out.weight, self.to_out.bias), row

    @property
    def _scale(self) -> float:
        return math.sqrt(self.heads / self.to_out.in_features)  # d^-½

    def _landmarks(self, tokens: Tensor) -> tuple[Tensor, Tensor, PseudoInverse, Tensor]:
        """Scaled queries and keys of the landmarks (H, m, d), the pseudo-inverse of A2, and the first 17 tokens."""
        with torch.autocast(tokens.device.type, enabled=False):
            # the projections are linear: landmarks of q and k are projections of the tokens' means
            wide = tokens if tokens.dtype == torch.float64 else tokens.float()
            means, near = LandmarkMeans.apply(wide, self.landmarks, TAPS // 2 + 1)  # (m, D), (17, D)
            q_m, k_m = F.linear(means, self.to_qkv.weight[: 2 * means.shape[1]]).chunk(2, dim=1)
            q_m = _split(q_m * self._scale, self.heads).transpose(0, 1).contiguous()
            k_m = _split(k_m, self.heads).transpose(0, 1).contiguous()
            similar = torch.softmax(q_m @ k_m.transpose(1, 2), dim=-1)  # A2 (H, m, m)
            return q_m, k_m, PseudoInverse(similar, self.pinv_iterations), near

    def _weights(self, token: Tensor, k_m: Tensor, inverse: PseudoInverse) -> Tensor:
        """A1[cls] Z (H, m): what the class token (D,) takes of each landmark."""
        query = _split(F.linear(token, self.to_qkv.weight[: len(token)]), self.heads)  # (H, d)
        return inverse.left(torch.softmax(torch.einsum("he,hme->hm", query, k_m * self._scale), dim=-1))

    def _along_tokens(self, v: Tensor) -> Tensor:
        """conv(v) (M, D): each head's 33 taps along the tokens."""
        n, dim = v.shape
        kernel = self.res_conv.weight.to(v.dtype).repeat_interleave(dim // self.heads, dim=0)  # (D, 1, 33, 1)
        image = v.view(1, n, 1, dim).permute(0, 3, 1, 2)  # channels last: rows stay as they are
        return F.conv2d(image, kernel, padding=(TAPS // 2, 0), groups=dim).permute(0, 2, 3, 1).reshape(n, dim)


def _split(values: Tensor, heads: int) -> Tensor:
    """(…, D) → (…, H, d)."""
    return values.view(*values.shape[:-1], heads, -1)
