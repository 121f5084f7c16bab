"""An embedder of the project's own, for ``mlfix sort``: what similar means for icons."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mlfix_train.models.embedding.base import TorchEmbedder


class BrightnessMap(TorchEmbedder):
    """Where an icon is bright, in ``cells`` x ``cells`` cells; its colour does not count."""

    def __init__(self, cells: int = 8) -> None:
        super().__init__("brightness map", width=None, settings={"cells": cells})
        self.cells = cells

    def compute(self, images: Tensor) -> Tensor:
        """Maps images in 0 to 1 ``(n, 3, H, W)`` to features ``(n, cells * cells)``."""
        bright = adaptive_avg_pool2d(images.amax(1, keepdim=True), self.cells).flatten(1)
        return bright - bright.mean(1, keepdim=True)
