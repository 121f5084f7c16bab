"""Views: random changes of an image that leave it, to a person, the same; what the sorting network learns from.

Two views of each image are drawn, a whole batch at a time, on the device that the batch lies on: a crop of random size
and shape, a turn, light, blur, and only where colour does not matter a change of colour. Random numbers are drawn on
the CPU from a seed, so that a sample looks the same on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mlfix_train.data.loading.augment import AugmentSpec, augment, homographies, resample
from mlfix_train.errors import ConfigError, check_choice, check_range

# From RGB to brightness and two axes of colour (YIQ, FCC 1953), in which a turn is a change of hue.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))

PARTNERS = ("image", "group")


@dataclass(frozen=True)
class ViewSpec:
    """How far two views of an image may differ.

    Args:
        crop: smallest crop, as a share of the image's area, above 0 to 1.
        stretch: largest ratio of a crop's sides, 1 or more.
        rotate: largest rotation, degrees.
        warp: largest perspective shift of a corner, see :class:`AugmentSpec`.
        lighting: largest change of brightness and of contrast, 0 to 0.9.
        blur: share of the views that are blurred, 0 to 1.
        keep_color: leave hue and saturation alone. Where colour tells things apart, as in signs, it must be on.
        hue: largest turn of the hue, degrees; where colour is not kept.
        saturation: largest change of saturation, 0 to 1; likewise.
        gray: share of the views without colour, 0 to 1; likewise.
        flip: share of the views that are mirrored, 0 to 1; 0 where left and right matter.
        partner: ``image`` (both views are of one image) or ``group`` (the second is of another image of its group,
            where there is one): where a group shows one thing a moment apart, as the frames of a track do, the network
            learns from real changes of light, size and sharpness. Wrong where a group is a photo of different things.
    """

    crop: float = 0.6
    stretch: float = 1.33
    rotate: float = 10.0
    warp: float = 0.1
    lighting: float = 0.7
    blur: float = 0.1
    keep_color: bool = True
    hue: float = 36.0
    saturation: float = 0.4
    gray: float = 0.2
    flip: float = 0.0
    partner: str = "image"

    def __post_init__(self) -> None:
        if not isinstance(self.keep_color, bool):
            raise ConfigError(f"views.keep_color={self.keep_color} is not true or false", "give true or false")
        check_choice("views.partner", self.partner, PARTNERS)
        check_range("views.crop", self.crop, 0.01, 1)
        check_range("views.stretch", self.stretch, 1, 4)
        check_range("views.rotate", self.rotate, 0, 180)
        check_range("views.warp", self.warp, 0, 0.4)
        check_range("views.lighting", self.lighting, 0, 0.9)
        check_range("views.hue", self.hue, 0, 180)
        for name in ("blur", "saturation", "gray", "flip"):
            check_range(f"views.{name}", getattr(self, name), 0, 1)


def two_views(images: Tensor, spec: ViewSpec, seed: int, partners: Tensor | None = None) -> Tensor:
    """Returns two random views of each image.

    Args:
        images: ``N,3,H,W``, uint8 in 0..255 or float in 0..1.
        spec: how far they may differ.
        seed: the same seed gives the same views, on any device.
        partners: what the second views are of, as ``images``; by default the images themselves.

    Returns:
        float32 ``2,N,3,H,W`` in 0..1.
    """
    seeds = torch.Generator().manual_seed(seed)
    pair = (images, images if partners is None else partners)
    return torch.stack([view(as_float(x), spec, int(torch.randint(2**62, (1,), generator=seeds))) for x in pair])


def as_float(images: Tensor) -> Tensor:
    """Returns images in 0..1: uint8 ones are divided by 255."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def view(x: Tensor, spec: ViewSpec, seed: int) -> Tensor:
    """Returns one random view of each image: float ``N,3,H,W`` in 0..1, as is ``x``."""
    generator = torch.Generator().manual_seed(seed)
    turned = AugmentSpec(rotate=spec.rotate, warp=spec.warp, zoom=1.0)
    x = resample(x, crops(len(x), spec, generator) @ homographies(len(x), turned, generator))
    shine = AugmentSpec(blur=spec.blur, rotate=0.0, zoom=1.0, warp=0.0, lighting=spec.lighting, p_lighting=0.8)
    x = augment(x, shine, int(torch.randint(2**62, (1,), generator=generator)))
    if spec.keep_color:
        return x
    return torch.einsum("nij,njhw->nihw", color_maps(len(x), spec, generator).to(x.device), x).clamp_(0, 1)


def crops(n: int, spec: ViewSpec, generator: torch.Generator) -> Tensor:
    """Draws maps from a view's coordinates to a rectangle of the image (both -1..1), float32 ``n,3,3``.

    The rectangle's area is uniform, the logarithm of its sides' ratio too; a side that would be longer than the image
    is as long as it.
    """
    area = torch.rand(n, generator=generator) * (1 - spec.crop) + spec.crop
    ratio = ((torch.rand(n, generator=generator) * 2 - 1) * math.log(spec.stretch)).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp_max(1)
    centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - sides)
    mirrored = torch.rand(n, generator=generator) < spec.flip
    maps = torch.eye(3).repeat(n, 1, 1)
    maps[:, 0, 0] = torch.where(mirrored, -sides[:, 0], sides[:, 0])
    maps[:, 1, 1] = sides[:, 1]
    maps[:, :2, 2] = centre
    return maps


def color_maps(n: int, spec: ViewSpec, generator: torch.Generator) -> Tensor:
    """Draws 3x3 matrices on RGB that turn the hue and change the saturation, float32 ``n,3,3``; greys stay as they are.

    Source: a turn and a scaling of the colour plane of YIQ.
    """
    to_yiq = torch.tensor(YIQ)
    angle = (torch.rand(n, generator=generator) * 2 - 1) * math.radians(spec.hue)
    strength = 1 + (torch.rand(n, generator=generator) * 2 - 1) * spec.saturation
    strength = torch.where(torch.rand(n, generator=generator) < spec.gray, 0.0, strength)
    change = torch.eye(3).repeat(n, 1, 1)
    change[:, 1, 1] = change[:, 2, 2] = strength * angle.cos()
    change[:, 1, 2], change[:, 2, 1] = -strength * angle.sin(), strength * angle.sin()
    return torch.linalg.inv(to_yiq) @ change @ to_yiq
