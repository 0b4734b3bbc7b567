"""A depthwise convolution of tokens on a square: one kernel per channel, channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def depthwise_conv(image: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Image (Y, X, D) → (Y, X, D), kernel (D, 1, s, s) with s odd, zeros around the image."""
    return _DepthwiseConv.apply(image, kernel, bias)  # type: ignore[no-any-return]


class _DepthwiseConv(torch.autograd.Function):
    """Torch's own but for the kernel's gradient on a processor, where that takes five times as long."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(image, kernel)
        ctx.bias_dtype = bias.dtype
        with torch.autocast(image.device.type, enabled=False):
            return _convolve(image, kernel.to(image.dtype), bias.to(image.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, kernel = ctx.saved_tensors
        to_out = to_out.contiguous()
        with torch.autocast(image.device.type, enabled=False):
            to_image = _convolve(to_out, kernel.to(image.dtype).flip(2, 3), None)
            find = _kernel_gradient_by_lines if image.device.type == "cpu" else _kernel_gradient
            to_kernel = find(image, to_out, kernel)
        return to_image, to_kernel.to(kernel.dtype), to_out.sum(dim=(0, 1)).to(ctx.bias_dtype)


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
    coming = F.pad(to_out, (0, 0, 0, 2 * reach)).view(1, 1, -1, channels).permute(0, 3, 2, 1)  # (1, D, Y·span, 1)
    length = height * span
    taps = kernel.new_empty(channels, 1, size, 1).to(image.dtype)
    found = []
    for y in range(size):
        shifted = lines[y * span : y * span + length + 2 * reach].view(1, 1, -1, channels).permute(0, 3, 2, 1)
        found.append(_backward(shifted, coming, taps, 0)[..., 0])
    return torch.stack(found, dim=2)


def _backward(image: Tensor, to_out: Tensor, kernel: Tensor, padding: int) -> Tensor:
    sides, zeros = [padding, padding], [0, 0]
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        to_out, image, kernel, None, [1, 1], sides, [1, 1], False, zeros, len(kernel), [False, True, False]
    )[1]


def _for_torch(image: Tensor) -> Tensor:
    """(Y, X, D) → (1, D, Y, X) with channels last: nothing is copied."""
    return image.permute(2, 0, 1)[None]
