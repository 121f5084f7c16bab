"""Embeds images by their pixels: needs no network, and no training."""

from torch import Tensor

from mlfix_train.models.embedding.base import TorchEmbedder


class PixelEmbedder(TorchEmbedder):
    """Whitened principal components, ``width`` of them, of standardized pixels."""

    def __init__(self, width: int | None = 128, device: str = "cpu") -> None:
        super().__init__("pixels, standardized", width=width, whiten=True, device=device)

    def compute(self, images: Tensor) -> Tensor:
        """Maps images in 0..1 ``(n, 3, H, W)`` to standardized pixels ``(n, 3 * H * W)``."""
        return standardize(images)


def standardize(images: Tensor) -> Tensor:
    """Scales images ``(N, 3, H, W)`` to mean 0 and standard deviation 1, so that light and contrast do not matter.

    Both are over pixels and channels together; the result is ``(N, 3 * H * W)``.
    """
    flat = images.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / (flat.square().mean(1, keepdim=True) + 1e-4).sqrt()
