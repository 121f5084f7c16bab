"""Features in batches; what a base class of embedders makes of a function."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlfix_train.errors import ConfigError, DataError
from mlfix_train.models.embedding.base import Embedder, TorchEmbedder, compute_features, unit_rows


def pixels(n: int, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_embedding_in_batches_is_embedding_at_once() -> None:
    images, seen = pixels(23), []
    found = compute_features(
        images, lambda x: x.flatten(1), batch_size=5, progress=lambda n, total: seen.append((n, total))
    )
    assert found.dtype == np.float32
    assert found == pytest.approx(images.transpose(0, 3, 1, 2).reshape(23, -1) / 255.0, abs=1e-6)
    assert seen == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    some = compute_features(images, lambda x: x.flatten(1), np.array([7, 3]), batch_size=1)
    assert (some == found[[7, 3]]).all()
    out = np.zeros((23, 768), np.float16)
    assert compute_features(images, lambda x: x.flatten(1), out=out) is out and out == pytest.approx(found, abs=1e-3)


def test_bad_images_and_bad_networks_are_named() -> None:
    with pytest.raises(DataError, match="no images"):
        compute_features(pixels(3), lambda x: x.flatten(1), np.array([], dtype=int))

    def breaks(x: torch.Tensor) -> torch.Tensor:
        features = x.flatten(1).clone()
        features[1, 4] = torch.nan
        return features

    with pytest.raises(DataError, match="in row 8"):
        compute_features(pixels(10), breaks, np.array([2, 8, 5]))


class Flat(TorchEmbedder):
    def compute(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def test_an_embedder_of_ones_own_needs_one_method() -> None:
    images = pixels(60, 4)
    own: Embedder = Flat("flat", width=8)
    own.fit(images, np.arange(60), seed=1)
    embeddings = own.project(own.features(images, np.arange(60)))
    assert embeddings.dtype == np.float32 and embeddings.shape == (60, 8)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(60), abs=1e-6)
    notes = own.notes["projection"]
    assert (notes["from"], notes["to"], notes["measured_on"]) == (48, 8, 12)
    assert 0 < notes["variance_kept"] < 1 and 0 < notes["squared_distance_error_mean"] < 1
    assert (own.name, own.n_candidates, own.image_size, own.supports_bfloat16) == ("flat", 0, None, True)


def test_without_a_projection_embeddings_are_the_features() -> None:
    images = pixels(10, 4)
    own = Flat("flat", width=None, unit_length=False)
    own.fit(images, np.arange(10))
    features = own.features(images)
    assert (own.project(features) == features).all() and own.notes == {}
    with pytest.raises(ConfigError, match="width=0"):
        Flat("flat", width=0)


def test_a_fingerprint_is_that_of_what_decides_the_embeddings() -> None:
    prints = [
        Flat("flat", **options).fingerprint
        for options in ({}, {"width": 64}, {"whiten": True}, {"n_candidates": 3}, {"settings": "weights"})
    ]
    assert len(set(prints)) == 5
    assert Flat("another name", device="cpu").fingerprint == prints[0]


def test_unit_rows_leave_zeros() -> None:
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]
