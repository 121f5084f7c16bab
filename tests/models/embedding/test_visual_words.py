"""Visual words and bags of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlfix_train.errors import ConfigError, DataError
from mlfix_train.models.embedding.network import TrainedEncoder
from mlfix_train.models.embedding.settings import VisualWordsSpec
from mlfix_train.models.embedding.visual_words import (
    VisualWordsEmbedder,
    bag_of_visual_words,
    learn_visual_words,
    position_features,
)
from mlfix_train.models.ssl.encoder import Encoder


def test_words_are_the_centers_of_clusters_and_bags_are_their_sets() -> None:
    rng = np.random.default_rng(0)
    centers = np.eye(4, dtype=np.float32)
    places = centers[rng.integers(0, 4, 2000)] + rng.normal(0, 0.02, (2000, 4)).astype(np.float32)
    for seed in range(5):  # k-means may start twice in one cluster
        words = learn_visual_words(places, 4, seed=seed)
        if len(np.unique(words.argmax(1))) == 4:
            break
    assert np.sort(words, 1)[:, -1] == pytest.approx(np.ones(4), abs=0.05)
    grid = torch.zeros(1, 4, 1, 3)
    grid[0, 0, 0, 0], grid[0, 2, 0, 1], grid[0, 2, 0, 2] = 5.0, 0.1, 7.0  # words 0, 2 and 2, at any strength
    bag = bag_of_visual_words(grid, torch.from_numpy(words))[0]
    assert bag.sum() == 2 and {int(words[i].argmax()) for i in bag.nonzero().flatten()} == {0, 2}


def test_places_have_length_one_and_none_is_an_error() -> None:
    places = position_features(torch.rand(2, 5, 3, 4) + 0.1)
    assert places.shape == (2, 12, 5) and torch.allclose(places.norm(dim=2), torch.ones(2, 12))
    with pytest.raises(DataError, match="no feature-map positions"):
        learn_visual_words(np.empty((0, 5), np.float32))


def test_an_embedder_learns_its_words_first() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 24, 24, 3), dtype=np.uint8)
    trained = TrainedEncoder(Encoder("mlfix_small").eval(), "a network", 24, "")
    embedder = VisualWordsEmbedder(trained, VisualWordsSpec(count=16, stage=-2), width=None)
    with pytest.raises(RuntimeError, match="call fit first"):
        embedder.features(images)
    embedder.fit(images, np.arange(30), seed=1)
    bags = embedder.project(embedder.features(images))
    assert bags.shape == (30, 16) and set(np.unique(bags)) == {0.0, 1.0}
    assert embedder.name == "16 visual words of a network, 9 positions an image"
    with pytest.raises(ConfigError, match=r"visual_words\.stage=7 does not exist: the network has 4 stages"):
        VisualWordsEmbedder(trained, VisualWordsSpec(stage=7)).fit(images, np.arange(30))
