"""Standardized pixels."""

from __future__ import annotations

import torch

from mlfix_train.models.embedding.pixels import PixelEmbedder, standardize


def test_standardized_pixels_do_not_know_light_or_contrast() -> None:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4
    plain, lit = standardize(x), standardize(2 * x + 0.1)
    assert torch.allclose(plain, lit, atol=1e-2)
    assert plain.mean(1).abs().max() < 1e-5 and standardize(torch.zeros(1, 3, 8, 8)).abs().max() == 0


def test_pixels_are_whitened_and_any_size_will_do() -> None:
    embedder = PixelEmbedder()
    assert embedder.whiten and not embedder.supports_bfloat16 and embedder.image_size is None
