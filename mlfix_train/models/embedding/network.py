"""Embeds many images by a network: batch by batch, in bounded memory, with progress.

Shapes: N images, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlfix_train.errors import DataError

Progress = Callable[[int, int], None]


def embed(
    pixels: Any,
    network: Callable[[Tensor], Tensor],
    rows: np.ndarray | None = None,
    batch_size: int = 256,
    device: str = "cpu",
    half: bool = False,
    out: np.ndarray | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Returns the features of images.

    Args:
        pixels: indexed by row numbers it returns uint8 ``n,H,W,3``, such as a pixel store.
        network: maps float images ``n,3,H,W`` in 0..1 to ``n,D``.
        rows: which images; by default all.
        batch_size: images at a time.
        device: where the network lies.
        half: let the device compute in bfloat16.
        out: array ``N,D`` to write to, such as a memory map; by default a new float32 one.
        progress: called with (images done, images in all) after each batch.

    Returns:
        ``out``.

    Raises:
        DataError: there are no images, or the network gives NaN or infinity for one, named by its row.
    """
    numbers = np.arange(len(pixels)) if rows is None else np.asarray(rows)
    if not len(numbers):
        raise DataError("there are no images to embed", "give a folder or a slice that holds some")
    for start in range(0, len(numbers), batch_size):
        part = numbers[start : start + batch_size]
        images = torch.from_numpy(pixels[part]).permute(0, 3, 1, 2).to(device).float().div_(255)
        try:
            with torch.inference_mode(), torch.autocast(device.split(":", maxsplit=1)[0], torch.bfloat16, enabled=half):
                features = network(images).float()
        except RuntimeError as error:
            if "too small" not in str(error) and "smaller" not in str(error):
                raise
            side = images.shape[-1]
            raise DataError(
                f"the network can't take images of {side} px: {error}", "give a larger pixels.size"
            ) from error
        found = features.cpu().numpy()
        if not np.isfinite(found).all():
            bad = part[np.flatnonzero(~np.isfinite(found).all(1))[0]]
            raise DataError(
                f"the network gives NaN or infinity for the image in row {bad}",
                "it has diverged in training, or its weights are damaged: train it again, or embed by another",
            )
        if out is None:
            out = np.empty((len(numbers), found.shape[1]), np.float32)
        out[start : start + len(part)] = found
        if progress:
            progress(start + len(part), len(numbers))
    assert out is not None
    return out


class Standardize:
    """Brings images to mean 0 and deviation 1 (over pixels and colours together) and lays them out as vectors."""

    def __call__(self, images: Tensor) -> Tensor:
        """Maps ``N,3,H,W`` in 0..1 to ``N,3*H*W``."""
        flat = images.flatten(1)
        flat = flat - flat.mean(1, keepdim=True)
        return flat / (flat.square().mean(1, keepdim=True) + 1e-4).sqrt()
