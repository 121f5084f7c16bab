"""Convolutions as matrix products: faster on CPUs with AMX where feature maps are small.

At 40 px, the feature maps of a ResNet50 are 10, 5, 3 and 2 px wide. oneDNN's convolutions are made for large maps: on
maps of 2 px their backward pass stays far below what a matrix product reaches on the same processor (AMX, bfloat16). A
1x1 convolution over NHWC is a matrix product as it is; a 3x3 convolution is one once the neighborhoods of its input are
laid out as rows (im2col). Results are the same up to rounding. ``scripts/bench_train.py`` measures the speed.

Shapes: N images, C input channels, O output channels, H x W input and h x w output positions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_POSITIONS = 9
"""Positions h * w of an output map (3x3 px) up to which a 3x3 convolution is computed as a matrix product."""


def has_amx() -> bool:
    """Returns whether the CPU has AMX, which multiplies matrices much faster than oneDNN convolves small maps."""
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)
    return bool(get_capabilities and get_capabilities().get("amx_bf16"))


def use_fast_convs(module: nn.Module) -> int:
    """Replaces convolutions of a network, in place, by :class:`FastConv2d`; returns how many.

    Weights keep their names and their layout. On other devices, and in other types than bfloat16, the network computes
    what it did before.
    """
    suitable = [part for part in module.modules() if type(part) is nn.Conv2d and _is_suitable(part)]
    for conv in suitable:
        conv.__class__ = FastConv2d
    return len(suitable)


def _is_suitable(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size in ((1, 1), (3, 3))
        and conv.stride[0] == conv.stride[1]
        and conv.padding == (conv.kernel_size[0] // 2,) * 2
        and conv.padding_mode == "zeros"
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.in_channels >= 32
    )


class FastConv2d(nn.Conv2d):
    """A 1x1 or 3x3 convolution that is computed as a matrix product on a CPU in bfloat16 if its map is small."""

    def forward(self, images: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to ``(N, O, h, w)``."""
        autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if images.device.type != "cpu" or not (autocast or images.dtype == torch.bfloat16):
            return super().forward(images)
        stride = self.stride[0]
        height, width = (-(-side // stride) for side in images.shape[-2:])
        if self.kernel_size == (3, 3):
            if height * width > MAX_POSITIONS:
                return super().forward(images)
            maps: Tensor = Im2ColConv3x3.apply(images.bfloat16(), self.weight.bfloat16(), stride)  # type: ignore[no-untyped-call]
            return maps if self.bias is None else maps + self.bias[:, None, None].bfloat16()
        x = images.bfloat16().permute(0, 2, 3, 1)
        if stride > 1:
            x = x[:, ::stride, ::stride]
        rows = F.linear(x.reshape(-1, x.shape[-1]), self.weight.flatten(1), self.bias)
        return rows.view(len(images), height, width, -1).permute(0, 3, 1, 2)


class Im2ColConv3x3(torch.autograd.Function):
    """A 3x3 convolution with padding 1 as one matrix product; its input and output are laid out as NHWC."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Maps images ``(N, C, H, W)`` and a weight ``(O, C, 3, 3)`` to ``(N, O, h, w)``."""
        padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        ctx.save_for_backward(padded, weight)
        ctx.stride, ctx.shape = stride, images.shape
        height, width = (-(-side // stride) for side in images.shape[-2:])
        rows = _patches(padded, height, width, stride) @ _flatten_weight(weight).t()
        return rows.view(len(images), height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Maps the gradient of the output to those of images and weight."""
        padded, weight = ctx.saved_tensors
        n, channels, image_height, image_width = ctx.shape
        stride, (height, width) = ctx.stride, grad.shape[-2:]
        rows = grad.permute(0, 2, 3, 1).reshape(-1, grad.shape[1])
        image_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            columns = (rows @ _flatten_weight(weight)).view(n, height, width, 3, 3, channels)
            padded_grad = torch.zeros_like(padded)
            for i in range(3):
                for j in range(3):
                    target = padded_grad[:, i : i + stride * height : stride, j : j + stride * width : stride]
                    target += columns[:, :, :, i, j]
            image_grad = padded_grad[:, 1 : image_height + 1, 1 : image_width + 1].permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            flat = rows.t() @ _patches(padded, height, width, stride)
            weight_grad = flat.view(-1, 3, 3, channels).permute(0, 3, 1, 2)
        return image_grad, weight_grad, None


def _patches(padded: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Returns the 3x3 neighborhoods of padded maps ``(N, H + 2, W + 2, C)`` as rows, ``(N * h * w, 9 * C)``."""
    n, _, _, channels = padded.shape
    a, b, c, d = padded.stride()
    view = padded.as_strided((n, height, width, 3, 3, channels), (a, b * stride, c * stride, b, c, d))
    return view.reshape(n * height * width, 9 * channels)


def _flatten_weight(weight: Tensor) -> Tensor:
    """Returns a weight ``(O, C, 3, 3)`` as ``(O, 9 * C)``, in the order of the rows of :func:`_patches`."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
