"""Convolutions as matrix products, on CPUs and for small feature maps.

A ResNet50 sees pictures of 40 px as maps of 10, 5, 3 and 2 px. oneDNN's convolutions are made for large maps: on maps
of 2 px their backward pass stays far below what a matrix product reaches on the same processor (AMX, bfloat16). A
1x1 convolution over NHWC is a matrix product as it stands; one of 3x3 is, once its input is laid out in columns. The
numbers are the same but for rounding. ``scripts/bench_train.py`` measures what it gives.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 9
"""Positions of an output map (3x3 px) up to which a 3x3 convolution is laid out in columns."""


def worth_it() -> bool:
    """Whether this processor multiplies matrices so much faster than it convolves: one with AMX."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def use_matmul_convs(module: nn.Module) -> int:
    """Makes the convolutions of a network matrix products where it runs on a CPU; returns how many.

    Weights, their names and their layout stay as they are; on other devices the network is what it was.
    """
    changed = 0
    for part in module.modules():
        if type(part) is nn.Conv2d and _suits(part):
            part.__class__ = MatmulConv2d
            changed += 1
    return changed


def _suits(conv: nn.Conv2d) -> bool:
    square = conv.kernel_size in ((1, 1), (3, 3)) and conv.stride[0] == conv.stride[1]
    padded = conv.padding == (conv.kernel_size[0] // 2,) * 2 and conv.padding_mode == "zeros"
    return bool(square and padded and conv.groups == 1 and conv.dilation == (1, 1) and conv.in_channels >= 32)


class MatmulConv2d(nn.Conv2d):
    """A convolution that is computed as a matrix product on a CPU, in bfloat16, where its map is small."""

    def forward(self, images: Tensor) -> Tensor:
        """Maps ``N,C,H,W`` to ``N,O,H/stride,W/stride``."""
        half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if images.device.type != "cpu" or not (half or images.dtype == torch.bfloat16):
            return super().forward(images)
        step = self.stride[0]
        height, width = (-(-side // step) for side in images.shape[-2:])
        if self.kernel_size == (3, 3):
            if height * width > LARGEST:
                return super().forward(images)
            weight = self.weight.bfloat16()
            found: Tensor = _Columns.apply(images.bfloat16(), weight, step)
            return found if self.bias is None else found + self.bias[:, None, None].bfloat16()
        x = images.bfloat16().permute(0, 2, 3, 1)
        if step > 1:
            x = x[:, ::step, ::step]
        rows = F.linear(x.reshape(-1, x.shape[-1]), self.weight.flatten(1), self.bias)
        return rows.view(len(images), height, width, -1).permute(0, 3, 1, 2)


class _Columns(torch.autograd.Function):
    """A padded 3x3 convolution over NHWC, its input laid out as rows of nine neighbouring pixels."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, step: int) -> Tensor:
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        ctx.save_for_backward(padded, weight)
        ctx.step, ctx.shape = step, images.shape
        n, _, h, w = images.shape
        height, width = -(-h // step), -(-w // step)
        rows = _lay_out(padded, height, width, step) @ _flat(weight).t()
        return rows.view(n, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        padded, weight = ctx.saved_tensors
        n, channels, h, w = ctx.shape
        step = ctx.step
        height, width = grad.shape[-2:]
        rows = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])
        images = None
        if ctx.needs_input_grad[0]:
            back = (rows @ _flat(weight)).view(n, height, width, 3, 3, channels)
            whole = torch.zeros_like(padded)
            for i in range(3):
                for j in range(3):
                    whole[:, i : i + step * height : step, j : j + step * width : step] += back[:, :, :, i, j]
            images = whole[:, 1 : h + 1, 1 : w + 1].permute(0, 3, 1, 2)
        if not ctx.needs_input_grad[1]:
            return images, None, None
        found = rows.t() @ _lay_out(padded, height, width, step)
        return images, found.view(-1, 3, 3, channels).permute(0, 3, 1, 2), None


def _lay_out(padded: Tensor, height: int, width: int, step: int) -> Tensor:
    """Returns rows of nine neighbouring pixels: ``N*height*width, 9*C``."""
    n, _, _, channels = padded.shape
    a, b, c, d = padded.stride()
    view = padded.as_strided((n, height, width, 3, 3, channels), (a, b * step, c * step, b, c, d))
    return view.reshape(n * height * width, 9 * channels)


def _flat(weight: Tensor) -> Tensor:
    """Returns a weight ``O,C,3,3`` as ``O,9*C``, in the order of the rows."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
