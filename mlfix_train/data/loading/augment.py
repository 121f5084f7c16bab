"""Augmentation and normalization of whole batches, on the device that holds the batch.

The recipe of the published experiment (blur, rotation, zoom, perspective warp, brightness and contrast), and crops and
flips for photos, with all geometry in one resampling. Random numbers are drawn on the CPU from a seed, so that a sample
looks the same on every device.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mlfix_train.data.loading.spec import AugmentSpec
from mlfix_train.data.loading.transfer import to_device

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Statistics of ImageNet's pixels, RGB in 0 to 1, that most pretrained backbones expect."""
ASPECT_RATIO = 4 / 3
"""Largest ratio of a crop's sides, that of torchvision's RandomResizedCrop."""


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtracts the mean of each channel and divides by its standard deviation: float32 ``(N, C, H, W)``.

    ``images`` are ``(N, C, H, W)``, uint8 in 0..255 or float in 0..1; ``mean`` and ``std`` are ``(C,)``, of pixels in
    0..1, on the device of the images.
    """
    return (as_float(images) - mean[:, None, None]) / std[:, None, None]


@lru_cache(maxsize=16)
def channel_tensors(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation as tensors ``(C,)`` on a device; copied once, since a copy makes it wait."""
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


def as_float(images: Tensor) -> Tensor:
    """Returns images in 0..1: uint8 ones are divided by 255."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def augment(images: Tensor, spec: AugmentSpec, seed: int) -> Tensor:
    """Returns a randomly changed copy of a batch: float32 ``(N, 3, H, W)`` in 0..1, the same for a seed on any device.

    ``images`` are ``(N, 3, H, W)``, uint8 in 0..255 or float in 0..1.
    """
    generator = torch.Generator().manual_seed(seed)
    x = _blur(as_float(images), spec, generator)
    maps = homographies(len(x), spec, generator)
    if spec.crop < 1 or spec.flip:
        maps = crops(len(x), spec.crop, ASPECT_RATIO if spec.crop < 1 else 1.0, spec.flip, generator) @ maps
    if spec.rotate or spec.zoom != 1 or spec.warp or spec.crop < 1 or spec.flip:
        x = resample(x, maps)
    return _change_lighting(x, spec, generator)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _sometimes(values: Tensor, p: float, neutral: float, generator: torch.Generator) -> Tensor:
    """Keeps each value with probability ``p``, else replaces it by ``neutral``."""
    return torch.where(torch.rand(len(values), generator=generator) < p, values, torch.tensor(neutral))


def homographies(n: int, spec: AugmentSpec, generator: torch.Generator) -> Tensor:
    """Draws the maps from output to input coordinates (both -1..1) of n images, float32 ``(n, 3, 3)`` on the CPU."""
    angle = _sometimes(_uniform(n, -spec.rotate, spec.rotate, generator), spec.p_affine, 0.0, generator)
    zoom = _sometimes(_uniform(n, 1.0, spec.zoom, generator), spec.p_affine, 1.0, generator)
    center = torch.rand(n, 2, generator=generator) * 2 - 1
    warp_x = _sometimes(_uniform(n, -spec.warp, spec.warp, generator), spec.p_affine, 0.0, generator)
    warp_y = _sometimes(_uniform(n, -spec.warp, spec.warp, generator), spec.p_affine, 0.0, generator)
    radians = angle * (math.pi / 180)
    rotation, scale = torch.eye(3).repeat(n, 1, 1), torch.eye(3).repeat(n, 1, 1)
    rotation[:, 0, 0] = rotation[:, 1, 1] = radians.cos()
    rotation[:, 0, 1], rotation[:, 1, 0] = -radians.sin(), radians.sin()
    scale[:, 0, 0] = scale[:, 1, 1] = 1 / zoom
    scale[:, :2, 2] = center * (1 - 1 / zoom)[:, None]
    return rotation @ scale @ _perspective(warp_x, warp_y)


def crops(n: int, smallest: float, aspect_ratio: float, flip: float, generator: torch.Generator) -> Tensor:
    """Draws maps from a view's coordinates to a rectangle of the image (both -1..1), float32 ``(n, 3, 3)`` on the CPU.

    The rectangle's area, ``smallest`` to 1, and the logarithm of the ratio of its sides, at most ``aspect_ratio``, are
    uniform; a side is cut to the length of the image. A share ``flip`` is mirrored.
    """
    area = torch.rand(n, generator=generator) * (1 - smallest) + smallest
    ratio = ((torch.rand(n, generator=generator) * 2 - 1) * math.log(aspect_ratio)).exp()
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp_max(1)
    center = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - sides)
    mirrored = torch.rand(n, generator=generator) < flip
    maps = torch.eye(3).repeat(n, 1, 1)
    maps[:, 0, 0] = torch.where(mirrored, -sides[:, 0], sides[:, 0])
    maps[:, 1, 1] = sides[:, 1]
    maps[:, :2, 2] = center
    return maps


def _perspective(x: Tensor, y: Tensor) -> Tensor:
    """Returns the maps ``(n, 3, 3)`` under which one side of the square grows by a share and the opposite one shrinks.

    Corners move by ``x`` vertically and ``y`` horizontally (fastai's definition); a map follows from its four corners.
    """
    u = torch.stack([-1 - y, -1 + y, 1 + y, 1 - y], 1)
    v = torch.stack([-1 - x, 1 + x, -1 + x, 1 - x], 1)
    n = len(x)
    system, target = torch.zeros(n, 8, 8), torch.zeros(n, 8)
    for k, (a, b) in enumerate(((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))):
        for row, moved, column in ((2 * k, u[:, k], 0), (2 * k + 1, v[:, k], 3)):
            system[:, row, column], system[:, row, column + 1], system[:, row, column + 2] = a, b, 1.0
            system[:, row, 6], system[:, row, 7] = -a * moved, -b * moved
            target[:, row] = moved
    solved = torch.linalg.solve(system, target)
    return torch.cat([solved, torch.ones(n, 1)], 1).view(n, 3, 3)


def resample(x: Tensor, maps: Tensor) -> Tensor:
    """Resamples float images ``(N, 3, H, W)`` by maps ``(N, 3, 3)`` from output to input coordinates, both -1..1.

    Bilinear, reflected at the border.
    """
    n, _, h, w = x.shape
    mapped = to_device(maps, x.device) @ _pixel_centers(h, w, x.device)
    grid = (mapped[:, :2] / mapped[:, 2:]).transpose(1, 2).reshape(n, h, w, 2)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@lru_cache(maxsize=16)
def _pixel_centers(h: int, w: int, device: torch.device) -> Tensor:
    """Returns the homogeneous coordinates (-1..1) of the centers of all pixels, float32 ``(3, h * w)``."""
    ys = (torch.arange(h) * 2 + 1) / h - 1
    xs = (torch.arange(w) * 2 + 1) / w - 1
    return torch.stack([xs.repeat(h), ys.repeat_interleave(w), torch.ones(h * w)]).to(device)


def _change_lighting(x: Tensor, spec: AugmentSpec, generator: torch.Generator) -> Tensor:
    """Shifts and scales the logit of every pixel, so that nothing is clipped (fastai's definition)."""
    if spec.lighting == 0:
        return x
    m, n = spec.lighting, len(x)
    brightness = _sometimes(_uniform(n, 0.5 * (1 - m), 0.5 * (1 + m), generator), spec.p_lighting, 0.5, generator)
    contrast = _uniform(n, math.log(1 - m), -math.log(1 - m), generator).exp()
    contrast = _sometimes(contrast, spec.p_lighting, 1.0, generator)
    both = to_device(torch.stack([contrast, brightness.logit()]), x.device)
    scale, shift = both[:, :, None, None, None]
    return x.clamp(0.002, 0.998).logit_().mul_(scale).add_(shift).sigmoid_()


def _blur(x: Tensor, spec: AugmentSpec, generator: torch.Generator) -> Tensor:
    """Blurs a share of the images by separable Gaussians of 3 or 5 taps."""
    chosen = torch.nonzero(torch.rand(len(x), generator=generator) < spec.blur).flatten()
    wide = torch.rand(len(x), generator=generator) < 0.5
    if not len(chosen):
        return x
    taps = torch.stack([_gaussian(3), _gaussian(5)])[wide[chosen].long()]
    taps, rows = to_device(taps, x.device), to_device(chosen, x.device)
    h, w = x.shape[-2:]
    padded = F.pad(x[rows], (2, 2, 2, 2), mode="reflect")
    weights = taps[:, :, None, None, None].unbind(1)
    across = torch.stack([weight * padded[..., k : k + w] for k, weight in enumerate(weights)]).sum(0)
    down = torch.stack([weight * across[..., k : k + h, :] for k, weight in enumerate(weights)]).sum(0)
    return x.index_copy(0, rows, down)


def _gaussian(size: int) -> Tensor:
    """Returns 5 weights of sum 1: a Gaussian over ``size`` taps, zero outside; sigma as OpenCV derives it from size."""
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    offsets = torch.arange(5) - 2.0
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2) * (offsets.abs() <= size // 2)
    return weights / weights.sum()
