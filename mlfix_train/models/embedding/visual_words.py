"""The bag of visual words: the published measure of similarity, kept for comparison.

Features at every position of a feature map are scaled to length 1 and clustered; an image is the set of the clusters
("visual words") of its positions, a vector of zeros and ones. Sources: Collabora's MLfix (2022), after Sivic and
Zisserman 2003, "Video Google: a text retrieval approach to object matching in videos".

Shapes: N images, C channels, P positions, W visual words.
"""

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlfix_train.errors import ConfigError, DataError, check_range
from mlfix_train.models.embedding.base import TorchEmbedder, compute_features
from mlfix_train.models.embedding.network import TrainedEncoder
from mlfix_train.models.embedding.settings import VisualWordsSpec

N_POSITIONS = 50_000
"""Positions, at most, that visual words are learned from."""


class VisualWordsEmbedder(TorchEmbedder):
    """Bags of visual words, learned from a sample of the images.

    ``trained`` is the encoder whose feature maps are clustered; ``spec`` sets the number of words and the stage.
    """

    def __init__(
        self, trained: TrainedEncoder, spec: VisualWordsSpec | None = None, width: int | None = 128, device: str = "cpu"
    ) -> None:
        spec = spec or VisualWordsSpec()
        super().__init__(
            f"visual words of {trained.name}",
            width=width,
            unit_length=False,
            image_size=trained.image_size,
            device=device,
            settings=[trained.fingerprint, spec.count, spec.stage],
        )
        self.spec, self._network, self._encoder = spec, trained.name, trained.encoder
        self._words: Tensor | None = None

    def _feature_map(self, images: Tensor) -> Tensor:
        stages, stage = self._encoder.feature_maps(self._encoder.normalize(images)), self.spec.stage
        if not -len(stages) <= stage < len(stages):
            problem = f"visual_words.stage={stage} does not exist: the network has {len(stages)} stages"
            raise ConfigError(problem, "-1 is the last")
        return stages[stage]

    def fit(self, pixels: Any, rows: np.ndarray, *, seed: int = 0, bfloat16: bool = False) -> None:
        """Learns the visual words (in float32) and then the projection, each from a sample of the images."""
        rng = np.random.default_rng(seed)
        example = torch.zeros(1, 3, *pixels.shape[1:3], device=self.device)
        per_image = position_features(self._feature_map(example)).shape[1]
        sample = np.sort(rng.choice(rows, min(len(rows), max(1, N_POSITIONS // per_image)), replace=False))
        positions = compute_features(
            pixels, lambda images: position_features(self._feature_map(images)).flatten(1), sample, device=self.device
        )
        words = learn_visual_words(positions.reshape(len(sample) * per_image, -1), self.spec.count, seed=seed)
        self._words = torch.from_numpy(words)
        self.name = f"{len(words):,} visual words of {self._network}, {per_image} positions an image"
        super().fit(pixels, rows, seed=seed, bfloat16=bfloat16)

    def compute(self, images: Tensor) -> Tensor:
        """Maps images in 0..1 ``(n, 3, H, W)`` to their bags ``(n, W)``, on the CPU; after :meth:`fit`."""
        if self._words is None:
            raise RuntimeError("the visual words are not learned yet: call fit first")
        return bag_of_visual_words(self._feature_map(images), self._words)


def position_features(feature_map: Tensor) -> Tensor:
    """Returns the features of all positions of a map ``(N, C, h, w)``, scaled to length 1, ``(N, h * w, C)``."""
    return F.normalize(feature_map.float().flatten(2).transpose(1, 2), dim=2)


def learn_visual_words(positions: np.ndarray, count: int = 1024, iterations: int = 20, seed: int = 0) -> np.ndarray:
    """Clusters the features of positions, ``(P, C)`` of length 1, by k-means.

    Returns:
        The centers, float32 ``(W, C)``: ``count``, or fewer if there are fewer positions.

    Raises:
        DataError: No positions.
    """
    from scipy.cluster.vq import kmeans2

    check_range("visual_words.count", count, 1, 1_000_000)
    if not len(positions):
        raise DataError("there are no feature-map positions to learn visual words from", "pass images")
    rng = np.random.default_rng(seed)
    sample = positions[rng.choice(len(positions), min(len(positions), N_POSITIONS), replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster keeps its center, and no position gets its word
        centers, _ = kmeans2(sample, min(count, len(sample)), iter=iterations, minit="points", rng=rng)
    return np.ascontiguousarray(centers, dtype=np.float32)


def bag_of_visual_words(feature_map: Tensor, words: Tensor) -> Tensor:
    """Returns the bags ``(N, W)`` of zeros and ones, on the CPU, of maps ``(N, C, h, w)`` by the words ``(W, C)``."""
    positions = position_features(feature_map).cpu()
    distances = words.square().sum(1) - 2 * positions @ words.T
    return torch.zeros(len(positions), len(words)).scatter_(1, distances.argmin(2), 1.0)
