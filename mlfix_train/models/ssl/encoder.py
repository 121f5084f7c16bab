"""An encoder: a timm backbone without a classifier, from images to features, pooled or as maps.

Shapes: N images of H x W pixels, D features, C channels of a feature map of h x w positions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlfix_train.errors import ConfigError, check_range
from mlfix_train.models.backbones.fit import KEYS, size_error, to_channels, why_not
from mlfix_train.models.backbones.network import create_backbone, image_statistics, input_channels

MIN_CONTRAST = 0.05
"""Standard deviation, of normalized pixels, below which an image counts as flat: its noise is not amplified."""


class Encoder(nn.Module):
    """Normalized images to features.

    Args:
        backbone: Name of a timm model.
        input_size: Side that images are scaled to before the backbone, px; ``None`` leaves them as they are. Backbones
            made for large images shrink a small one to a single position; scaled up, it keeps a map.
        contrast: First bring every image to mean 0 and standard deviation 1, over its pixels and channels together: its
            brightness and contrast no longer matter, its colors do.
        pretrained, weights, backbone_args, channels_last, image_size: See :class:`.Network`, also for ``mean``, ``std``
            and errors.

    Attributes:
        features: Number of pooled features D.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        input_size: int | None = None,
        contrast: bool = False,
        pretrained: bool = False,
        weights: str | Path | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        channels_last: bool = True,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        if input_size is not None:
            check_range("model.input_size", input_size, 8, 1024)
        arguments, size = backbone_args or {}, input_size or image_size
        self.channels = input_channels(arguments)
        self.backbone = create_backbone(backbone, pretrained, arguments, weights, size)
        self.mean, self.std = image_statistics(self.backbone)
        self.name, self.input_size, self.contrast, self.channels_last = backbone, input_size, contrast, channels_last
        self.features = int(getattr(self.backbone, "head_hidden_size", self.backbone.num_features))  # type: ignore[arg-type]
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if size is not None and (reason := why_not(self, size)):
            keys = KEYS if input_size is None else (*KEYS[:2], "model.input_size")
            raise size_error(backbone, size, reason, arguments, keys)

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalized images ``(N, 3, H, W)`` to pooled features ``(N, D)``."""
        features: Tensor = self.backbone(self._prepare(images))
        return features

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Maps normalized images ``(N, 3, H, W)`` to the maps ``(N, C, h, w)`` of all stages, finest first.

        Raises:
            ConfigError: The backbone has no feature maps.
        """
        try:
            return list(self.backbone.forward_intermediates(self._prepare(images), intermediates_only=True))  # type: ignore[operator]
        except (AttributeError, AssertionError) as error:
            raise ConfigError(
                f"model.backbone={self.name} returns no feature maps of its stages: {error}",
                "use pooled features, or a timm backbone with forward_intermediates, such as resnet18",
            ) from error

    def normalize(self, images: Tensor) -> Tensor:
        """Normalizes images in 0..1, ``(N, 3, H, W)``, by ``mean`` and ``std``."""
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    def _prepare(self, images: Tensor) -> Tensor:
        if self.contrast:
            images = images - images.mean((1, 2, 3), keepdim=True)
            images = images / (images.square().mean((1, 2, 3), keepdim=True) + MIN_CONTRAST**2).sqrt()
        images = to_channels(resize(images, self.input_size), self.channels)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


def resize(images: Tensor, side: int | None) -> Tensor:
    """Returns images ``(N, 3, H, W)`` scaled to ``side`` px; ``None`` leaves them."""
    if side is None or images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)


class Projector(nn.Sequential):
    """Layers on an encoder that only training uses: maps ``(N, features)`` to ``(N, width)``.

    Source: the projector of Barlow Twins, whose linear layers (1 to 8, 2 to 65,536 wide) but the last are followed by
    batch norm and ReLU.
    """

    def __init__(self, features: int, width: int = 2048, layers: int = 3) -> None:
        check_range("model.projector_width", width, 2, 65_536)
        check_range("model.projector_layers", layers, 1, 8)
        parts: list[nn.Module] = [nn.Linear(features, width, bias=False)]
        for _ in range(layers - 1):
            parts += [nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, width, bias=False)]
        super().__init__(*parts)
