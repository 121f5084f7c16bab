"""Two random views of each image, from which a sorting network learns.

Views are random changes that leave the content of an image as it is: a crop of random size and aspect ratio, rotation,
warp, lighting, blur, and color only where it does not matter. A whole batch is changed at a time, on its device; random
numbers are drawn on the CPU from a seed, so that a sample looks the same on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlfix_train.data.loading.augment import as_float, augment, homographies, resample
from mlfix_train.data.loading.spec import AugmentSpec, ViewSpec

YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""From RGB to brightness and two axes of color (YIQ, FCC 1953), in which a rotation is a change of hue."""


def two_views(images: Tensor, spec: ViewSpec, seed: int, partners: Tensor | None = None) -> Tensor:
    """Returns two random views of each image.

    Args:
        images: ``(N, 3, H, W)``, uint8 in 0..255 or float in 0..1.
        spec: How much they may differ.
        seed: The same seed gives the same views, on any device.
        partners: Images that the second views are made of, as ``images``; by default ``images`` themselves.

    Returns:
        float32 ``(2, N, 3, H, W)`` in 0..1.
    """
    seeds = torch.Generator().manual_seed(seed)
    pair = (images, images if partners is None else partners)
    return torch.stack([view(as_float(x), spec, int(torch.randint(2**62, (1,), generator=seeds))) for x in pair])


def view(x: Tensor, spec: ViewSpec, seed: int) -> Tensor:
    """Returns one random view of each image; float ``(N, 3, H, W)`` in 0..1, as ``x``."""
    generator = torch.Generator().manual_seed(seed)
    geometry = AugmentSpec(rotate=spec.rotate, warp=spec.warp, zoom=1.0)
    x = resample(x, crops(len(x), spec, generator) @ homographies(len(x), geometry, generator))
    lighting = AugmentSpec(blur=spec.blur, rotate=0.0, zoom=1.0, warp=0.0, lighting=spec.lighting, p_lighting=0.8)
    x = augment(x, lighting, int(torch.randint(2**62, (1,), generator=generator)))
    if spec.keep_color:
        return x
    return torch.einsum("nij,njhw->nihw", color_maps(len(x), spec, generator).to(x.device), x).clamp_(0, 1)


def crops(n: int, spec: ViewSpec, generator: torch.Generator) -> Tensor:
    """Draws maps from a view's coordinates to a rectangle of the image (both -1..1), float32 ``(n, 3, 3)``.

    The rectangle's area and the logarithm of its aspect ratio are uniform; a side is cut to the length of the image.
    """
    area = torch.rand(n, generator=generator) * (1 - spec.crop) + spec.crop
    ratio = ((torch.rand(n, generator=generator) * 2 - 1) * math.log(spec.aspect_ratio)).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp_max(1)
    centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - sides)
    mirrored = torch.rand(n, generator=generator) < spec.flip
    maps = torch.eye(3).repeat(n, 1, 1)
    maps[:, 0, 0] = torch.where(mirrored, -sides[:, 0], sides[:, 0])
    maps[:, 1, 1] = sides[:, 1]
    maps[:, :2, 2] = centre
    return maps


def color_maps(n: int, spec: ViewSpec, generator: torch.Generator) -> Tensor:
    """Draws matrices ``(n, 3, 3)`` on RGB, float32, that shift the hue and change the saturation; greys stay.

    They rotate and scale the color plane of YIQ.
    """
    to_yiq = torch.tensor(YIQ)
    angle = (torch.rand(n, generator=generator) * 2 - 1) * math.radians(spec.hue)
    strength = 1 + (torch.rand(n, generator=generator) * 2 - 1) * spec.saturation
    strength = torch.where(torch.rand(n, generator=generator) < spec.gray, 0.0, strength)
    change = torch.eye(3).repeat(n, 1, 1)
    change[:, 1, 1] = change[:, 2, 2] = strength * angle.cos()
    change[:, 1, 2], change[:, 2, 1] = -strength * angle.sin(), strength * angle.sin()
    matrices: Tensor = torch.linalg.inv(to_yiq) @ change @ to_yiq
    return matrices
