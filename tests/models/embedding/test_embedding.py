"""Encoder, embedding in batches, projection and visual words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlfix_train.errors import ConfigError, DataError
from mlfix_train.models.embedding.network import Standardize, embed
from mlfix_train.models.embedding.pca import distance_error, fit_projection
from mlfix_train.models.embedding.visual_words import bag_of_words, learn_words, place_features
from mlfix_train.models.ssl.encoder import Encoder, Projector


def pixels(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


# --- embed ---


def test_embedding_in_batches_is_embedding_at_once() -> None:
    images, seen = pixels(23), []
    found = embed(images, lambda x: x.flatten(1), batch_size=5, progress=lambda n, total: seen.append((n, total)))
    assert found.dtype == np.float32
    assert found == pytest.approx(images.transpose(0, 3, 1, 2).reshape(23, -1) / 255.0, abs=1e-6)
    assert seen == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    some = embed(images, lambda x: x.flatten(1), np.array([7, 3]), batch_size=1)
    assert (some == found[[7, 3]]).all()
    out = np.zeros((23, 768), np.float16)
    assert embed(images, lambda x: x.flatten(1), out=out) is out and out == pytest.approx(found, abs=1e-3)


def test_bad_images_and_bad_networks_are_named() -> None:
    with pytest.raises(DataError, match="no images"):
        embed(pixels(3), lambda x: x.flatten(1), np.array([], dtype=int))

    def breaks(x: torch.Tensor) -> torch.Tensor:
        features = x.flatten(1).clone()
        features[1, 4] = torch.nan
        return features

    with pytest.raises(DataError, match="in row 8"):
        embed(pixels(10), breaks, np.array([2, 8, 5]))


def test_standardised_pixels_do_not_know_light_or_contrast() -> None:
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4
    plain, lit = Standardize()(x), Standardize()(2 * x + 0.1)
    assert torch.allclose(plain, lit, atol=1e-2)
    assert plain.mean(1).abs().max() < 1e-5 and Standardize()(torch.zeros(1, 3, 8, 8)).abs().max() == 0


# --- encoder ---


def test_an_encoder_gives_pooled_features_and_grids() -> None:
    encoder = Encoder("resnet10t", input_size=64).eval()
    x = torch.rand(2, 3, 20, 20)
    assert encoder(x).shape == (2, encoder.features) == (2, 512)
    grids = encoder.feature_maps(x)
    assert [grid.shape[-1] for grid in grids][-2:] == [4, 2] and grids[-1].shape[1] == 512
    assert torch.allclose(encoder(x), grids[-1].mean((2, 3)), atol=1e-4)


def test_contrast_takes_light_away_and_keeps_colour() -> None:
    encoder = Encoder("mlfix_small", contrast=True).eval()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 4 - 2
    with torch.inference_mode():
        assert torch.allclose(encoder(x), encoder(3 * x + 1), atol=2e-2)
        assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=2e-2)  # another colour


def test_a_backbone_without_grids_says_so() -> None:
    encoder = Encoder("mlfix_small")
    encoder.backbone = torch.nn.Flatten()
    with pytest.raises(ConfigError, match="mlfix_small gives no feature maps"):
        encoder.feature_maps(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(("layers", "count"), [(1, 1), (2, 4), (3, 7)])
def test_the_projector_has_its_layers(layers: int, count: int) -> None:
    projector = Projector(12, 20, layers)
    assert len(projector) == count and projector(torch.rand(4, 12)).shape == (4, 20)
    with pytest.raises(ConfigError, match="projector_layers"):
        Projector(12, 20, 0)


# --- projection ---


@pytest.mark.parametrize("shape", [(40, 200), (300, 20)])
def test_a_projection_is_that_of_the_svd(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32) * np.linspace(3, 0.1, shape[1]) + 5
    found = fit_projection(x, 8)
    centred = x.astype(np.float64) - x.mean(0)
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    wanted = centred @ axes[:8].T
    ours = found(x)
    assert np.abs(ours) == pytest.approx(np.abs(wanted), abs=1e-2)
    assert found.kept == pytest.approx((s[:8] ** 2).sum() / (s**2).sum(), rel=1e-4) and found.width == 8
    white = fit_projection(x, 8, whiten=True)(x)
    variance = s[:8] ** 2 / len(x)
    assert white.std(0) == pytest.approx(np.sqrt(variance / (variance + 0.01 * variance[0])), rel=1e-2)


def test_a_full_projection_keeps_distances_and_a_narrow_one_says_what_it_costs() -> None:
    x = np.random.default_rng(1).normal(size=(500, 30)).astype(np.float32)
    full = distance_error(x, fit_projection(x, 30)(x))
    assert full["mean"] < 1e-4 and full["nearest"] > 0.99
    narrow = distance_error(x, fit_projection(x, 5)(x))
    before = ((x[:100, None] - x[None, 100:200]) ** 2).sum(2)
    p = fit_projection(x, 5)(x)
    after = ((p[:100, None] - p[None, 100:200]) ** 2).sum(2)
    assert narrow["mean"] == pytest.approx((np.abs(after - before) / before).mean(), abs=0.03)
    assert narrow["nearest"] < 0.6 and narrow["p95"] > narrow["mean"]


def test_equal_images_project_and_a_single_one_is_refused() -> None:
    same = np.ones((10, 6), np.float32)
    assert np.isfinite(fit_projection(same, 3, whiten=True)(same)).all()
    with pytest.raises(ConfigError, match="1 image"):
        fit_projection(same[:1], 3)


# --- words ---


def test_words_are_the_centres_of_clusters_and_bags_are_their_sets() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, dtype=np.float32)
    places = centres[rng.integers(0, 4, 2000)] + rng.normal(0, 0.02, (2000, 4)).astype(np.float32)
    for seed in range(5):  # k-means may start twice in one cluster
        words = learn_words(places, 4, seed=seed)
        if len(np.unique(words.argmax(1))) == 4:
            break
    assert np.sort(words, 1)[:, -1] == pytest.approx(np.ones(4), abs=0.05)
    grid = torch.zeros(1, 4, 1, 3)
    grid[0, 0, 0, 0], grid[0, 2, 0, 1], grid[0, 2, 0, 2] = 5.0, 0.1, 7.0  # words 0, 2 and 2, at any strength
    bag = bag_of_words(lambda _: grid, words)(torch.zeros(1, 3, 4, 4))[0]
    assert bag.sum() == 2 and {int(words[i].argmax()) for i in bag.nonzero().flatten()} == {0, 2}


def test_places_have_length_one_and_none_is_an_error() -> None:
    places = place_features(torch.rand(2, 5, 3, 4) + 0.1)
    assert places.shape == (2, 12, 5) and torch.allclose(places.norm(dim=2), torch.ones(2, 12))
    with pytest.raises(DataError, match="no places"):
        learn_words(np.empty((0, 5), np.float32))
