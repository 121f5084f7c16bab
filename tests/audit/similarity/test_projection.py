"""Embeddings in the plane: neighbours stay neighbours, also of points that were placed later; the same each time."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlfix_train.audit.similarity.projection import project_to_plane


def clusters(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    cluster = np.arange(300) % 6
    return cluster, (8 * rng.standard_normal((6, 20)))[cluster] + rng.standard_normal((300, 20))


def check(places: np.ndarray, cluster: np.ndarray, told: list[int]) -> None:
    assert places.shape == (300, 2) and places.dtype == np.float32 and np.isfinite(places).all()
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :10]
    assert (cluster[nearest] == cluster[:, None]).mean() > 0.95
    assert told[0] == 0 and told[-1] == 100 and told == sorted(told) and len(set(told)) > 10


class Umap:
    """Stands for UMAP, which takes a minute to compile: the corners of a hexagon, by the first component."""

    def __init__(self, tqdm_kwds: dict[str, Any], precomputed_knn: Any, n_neighbors: int, **options: Any) -> None:
        self.file, (self.index, self.distance) = tqdm_kwds["file"], precomputed_knn
        assert self.index.shape == (200, n_neighbors) and (self.index[:, 0] == np.arange(200)).all()
        assert (np.diff(self.distance, axis=1) >= 0).all()

    def fit_transform(self, points: np.ndarray) -> np.ndarray:
        for step in range(21):
            self.file.write(f"\r{step}/20")
        cluster = np.unique(np.round(points @ points[:6].T).argmax(1), return_inverse=True)[1]
        return np.stack([np.cos(cluster), np.sin(cluster)], 1) + points[:, :2] / 1e3


def test_points_are_placed_among_their_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    cluster, embeddings = clusters(np.random.default_rng(0))
    told: list[int] = []
    check(project_to_plane(embeddings, lambda done, total: told.append(done), max_fitted=200), cluster, told)


@pytest.mark.slow  # UMAP takes a minute to compile
def test_clusters_stay_together() -> None:
    cluster, embeddings = clusters(np.random.default_rng(0))
    told: list[int] = []
    halved = embeddings.astype(np.float16)
    places = project_to_plane(halved, lambda done, total: told.append(done), max_fitted=200)
    check(places, cluster, told)
    np.testing.assert_array_equal(places, project_to_plane(halved, max_fitted=200))
