"""The encoder: pooled features, feature maps, contrast, statistics; the projector."""

from __future__ import annotations

import pytest
import torch

from mlfix_train.data.loading.augment import IMAGENET_MEAN, IMAGENET_STD, normalize
from mlfix_train.errors import ConfigError
from mlfix_train.models.ssl.encoder import Encoder, Projector


def test_an_encoder_gives_pooled_features_and_grids() -> None:
    encoder = Encoder("resnet10t", input_size=64).eval()
    x = torch.rand(2, 3, 20, 20)
    assert encoder(x).shape == (2, encoder.features) == (2, 512)
    grids = encoder.feature_maps(x)
    assert [grid.shape[-1] for grid in grids][-2:] == [4, 2] and grids[-1].shape[1] == 512
    assert torch.allclose(encoder(x), grids[-1].mean((2, 3)), atol=1e-4)


def test_contrast_takes_light_away_and_keeps_color() -> None:
    encoder = Encoder("mlfix_small", contrast=True).eval()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 4 - 2
    with torch.inference_mode():
        assert torch.allclose(encoder(x), encoder(3 * x + 1), atol=2e-2)
        assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=2e-2)  # another color


def test_a_backbone_without_grids_says_so() -> None:
    encoder = Encoder("mlfix_small")
    encoder.backbone = torch.nn.Flatten()
    with pytest.raises(ConfigError, match="mlfix_small returns no feature maps"):
        encoder.feature_maps(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(("layers", "count"), [(1, 1), (2, 4), (3, 7)])
def test_the_projector_has_its_layers(layers: int, count: int) -> None:
    projector = Projector(12, 20, layers)
    assert len(projector) == count and projector(torch.rand(4, 12)).shape == (4, 20)
    with pytest.raises(ConfigError, match="projector_layers"):
        Projector(12, 20, 0)


def test_images_are_normalized_by_what_the_backbone_was_trained_with() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(
        Encoder("mlfix_small").normalize(images), normalize(images, *map(torch.tensor, (IMAGENET_MEAN, IMAGENET_STD)))
    )
    assert torch.allclose(Encoder("tf_efficientnet_lite0").normalize(images), 2 * images - 1)
