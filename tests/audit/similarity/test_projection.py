"""Embeddings in the plane: neighbours stay neighbours, also of points that were placed later; the same each time."""

from __future__ import annotations

import numpy as np

from mlfix_train.audit.similarity.projection import project_to_plane


def test_clusters_stay_together() -> None:
    rng = np.random.default_rng(0)
    cluster = np.arange(300) % 6
    embeddings = (8 * rng.standard_normal((6, 20)))[cluster] + rng.standard_normal((300, 20))
    told: list[int] = []
    places = project_to_plane(embeddings.astype(np.float16), lambda done, total: told.append(done), max_fitted=200)
    assert places.shape == (300, 2) and places.dtype == np.float32 and np.isfinite(places).all()
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :10]
    assert (cluster[nearest] == cluster[:, None]).mean() > 0.98
    assert told[0] == 0 and told[-1] == 100 and told == sorted(told) and len(set(told)) > 10
    np.testing.assert_array_equal(places, project_to_plane(embeddings.astype(np.float16), max_fitted=200))
