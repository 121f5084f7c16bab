"""An encoder: a timm backbone without a classifier, images to features, pooled or on a grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlfix_train.errors import ConfigError, check_range
from mlfix_train.models.backbones.network import create_backbone, load_backbone

FLAT = 0.05
"""Deviation, in units of ImageNet's, below which an image is taken for flat: its noise is not blown up."""


class Encoder(nn.Module):
    """Normalised images to features.

    Args:
        backbone: name of a timm model.
        input_size: side to which images are scaled before the backbone, px; ``None`` leaves them as they are.
            Backbones made for large pictures shrink a small one to a point; scaled up it keeps a grid.
        contrast: bring every image to mean 0 and deviation 1 first (over its pixels and colours together, so that
            colour stays): how bright and how rich in contrast it is no longer matters.
        pretrained, weights, backbone_args, channels_last: see :class:`mlfix_train.models.backbones.network.Network`.

    Raises:
        ConfigError: an unknown backbone, or arguments that don't fit it.
        RunError: weights that can't be had or don't fit.
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
    ) -> None:
        super().__init__()
        if input_size is not None:
            check_range("model.input_size", input_size, 8, 1024)
        self.backbone = create_backbone(backbone, pretrained and not weights, backbone_args or {})
        if weights:
            load_backbone(self.backbone, Path(weights).expanduser())
        self.name, self.input_size, self.contrast, self.channels_last = backbone, input_size, contrast, channels_last
        self.features = int(getattr(self.backbone, "head_hidden_size", self.backbone.num_features))  # type: ignore[arg-type]
        if channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images ``N,3,H,W`` to pooled features ``N,D``."""
        features: Tensor = self.backbone(self._ready(images))
        return features

    def grids(self, images: Tensor) -> list[Tensor]:
        """Maps normalised images ``N,3,H,W`` to the feature maps ``N,C,h,w`` of all stages, finest first.

        Raises:
            ConfigError: the backbone has no feature maps.
        """
        try:
            return list(self.backbone.forward_intermediates(self._ready(images), intermediates_only=True))  # type: ignore[operator]
        except (AttributeError, AssertionError) as error:
            raise ConfigError(
                f"model.backbone={self.name} gives no feature maps of its stages: {error}",
                "use pooled features, or a backbone of timm that knows forward_intermediates, such as resnet18",
            ) from error

    def _ready(self, images: Tensor) -> Tensor:
        size = self.input_size
        if self.contrast:
            images = images - images.mean((1, 2, 3), keepdim=True)
            images = images / (images.square().mean((1, 2, 3), keepdim=True) + FLAT**2).sqrt()
        if size and images.shape[-2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


class Projector(nn.Sequential):
    """Layers on top of an encoder that training alone uses: ``N,features`` to ``N,width``.

    Source: Barlow Twins' projector: linear, batch norm and ReLU, twice, and a linear layer.

    Args:
        features: width of the encoder's features.
        width: of each layer.
        layers: 1 or more.
    """

    def __init__(self, features: int, width: int = 2048, layers: int = 3) -> None:
        check_range("model.projector_width", width, 2, 65_536)
        check_range("model.projector_layers", layers, 1, 8)
        parts: list[nn.Module] = []
        for number in range(layers):
            parts.append(nn.Linear(features if number == 0 else width, width, bias=False))
            if number < layers - 1:
                parts += [nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        super().__init__(*parts)
