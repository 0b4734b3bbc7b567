"""Patches in a square, convolved with one kernel per channel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def convolve_patches(tokens: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The patches among tokens (1 + N, D), convolved on a square; the first token stays as it is.

    Patches fill a square of side ⌈√N⌉ line by line, what is left of it is filled by the first patches again; a square
    smaller than the kernel is set into one of its size, zeros at the end.

    Parameters
    ----------
    tokens : (1 + N, D) tensor
    kernel : (D, 1, s, s) tensor
        s odd; zeros around the square.
    bias : (D,) tensor

    Returns
    -------
    (1 + N, D) tensor
    """
    return _ConvolvePatches.apply(tokens, kernel, bias)  # type: ignore[no-any-return]


class _ConvolvePatches(torch.autograd.Function):
    """Torch's own but for the kernel's gradient on a processor, where that takes five times as long."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, kernel)
        ctx.bias_dtype = bias.dtype
        n = len(tokens) - 1
        with torch.autocast(tokens.device.type, enabled=False):
            made = _convolve(_square(tokens[1:], kernel.shape[-1]), kernel.to(tokens.dtype), bias.to(tokens.dtype))
        return torch.cat([tokens[:1], made.flatten(0, 1)[:n]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens, kernel = ctx.saved_tensors
        n = len(tokens) - 1
        with torch.autocast(tokens.device.type, enabled=False):
            image = _square(tokens[1:], kernel.shape[-1])
            coming = F.pad(to_out[1:], (0, 0, 0, image.shape[0] * image.shape[1] - n)).view_as(image)
            to_square = _convolve(coming, kernel.to(tokens.dtype).flip(2, 3), None).flatten(0, 1)
            find = _kernel_gradient_by_lines if image.device.type == "cpu" else _kernel_gradient
            to_kernel = find(image, coming, kernel)
            again = _side(n) ** 2 - n  # patches that are in the square twice
            to_tokens = torch.cat([to_out[:1], to_square[:n]])
            to_tokens[1 : 1 + again] += to_square[n : n + again]
        return to_tokens, to_kernel.to(kernel.dtype), to_out[1:].sum(dim=0).to(ctx.bias_dtype)


def _side(n: int) -> int:
    """⌈√n⌉."""
    return math.isqrt(n - 1) + 1


def _square(patches: Tensor, smallest: int) -> Tensor:
    """Patches (N, D) → image (Y, Y, D)."""
    n, side = len(patches), _side(len(patches))
    again = side * side - n
    zeros = max(smallest, side) ** 2 - side**2
    if again or zeros:
        patches = torch.cat([patches, patches[:again], patches.new_zeros(zeros, patches.shape[1])])
    side = max(side, smallest)
    return patches.view(side, side, -1)


def _convolve(image: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """(Y, X, D) → (Y, X, D)."""
    channels = len(kernel)
    made = F.conv2d(_for_torch(image), kernel, bias, padding=kernel.shape[-1] // 2, groups=channels)
    return made[0].permute(1, 2, 0).contiguous()


def _kernel_gradient(image: Tensor, to_out: Tensor, kernel: Tensor) -> Tensor:
    """(D, 1, s, s) by torch."""
    return _backward(_for_torch(image), _for_torch(to_out), kernel.to(image.dtype), kernel.shape[-1] // 2)


def _kernel_gradient_by_lines(image: Tensor, to_out: Tensor, kernel: Tensor) -> Tensor:
    """(D, 1, s, s), a line of the kernel at a time.

    With the zeros beside each line the image's lines can be laid end to end, and a line of the kernel is a convolution
    along them, s taps in one direction: torch finds the gradient of that fast.
    """
    size, reach = kernel.shape[-1], kernel.shape[-1] // 2
    height, width, channels = image.shape
    span = width + 2 * reach  # of a line with its zeros
    lines = F.pad(image, (0, 0, reach, reach, reach, reach + 1)).view(-1, channels)
    coming = F.pad(to_out, (0, 0, 0, 2 * reach))
    coming = _for_torch(coming.view(-1, 1, channels))  # (1, D, Y·span, 1)
    length = height * span
    taps = kernel.new_empty(channels, 1, size, 1).to(image.dtype)
    found = []
    for y in range(size):
        shifted = lines[y * span : y * span + length + 2 * reach].view(-1, 1, channels)
        found.append(_backward(_for_torch(shifted), coming, taps, 0)[..., 0])
    return torch.stack(found, dim=2)


def _backward(image: Tensor, to_out: Tensor, kernel: Tensor, padding: int) -> Tensor:
    sides, zeros = [padding, padding], [0, 0]
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        to_out, image, kernel, None, [1, 1], sides, [1, 1], False, zeros, len(kernel), [False, True, False]
    )[1]


def _for_torch(image: Tensor) -> Tensor:
    """(Y, X, D) → (1, D, Y, X) with channels last: nothing is copied."""
    return image.view(1, *image.shape).permute(0, 3, 1, 2)
