"""A map of images: embeddings projected to the plane, so that neighbours stay neighbours.

By UMAP (McInnes, Healy and Melville, 2018). Above :data:`MAX_FITTED` points, a random sample is fitted, and each
further point is placed among its nearest fitted neighbours. Shapes: N points, D dimensions.
"""

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.models.embedding.pca import fit_projection

MAX_FITTED = 50_000
WIDTH = 50  # principal components that are kept
SAMPLE = 5_000  # points that these are found by
N_NEIGHBORS = 15
N_PLACED_BY = 5  # fitted neighbours that further points are placed by
BLOCK = 2_048  # points placed at a time
PREPARED = 20  # percent of the time before UMAP moves points, and after which it has moved them: for progress
MOVED = 90


def project_to_plane(
    embeddings: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
    max_fitted: int = MAX_FITTED,
) -> np.ndarray:
    """Projects embeddings, float ``(N, D)``, to the plane.

    Args:
        embeddings: of the images, N of 4 or more.
        progress: called with (percent done, 100).
        seed: of the sample, the search and UMAP.
        max_fitted: points that UMAP moves.

    Returns:
        Places, float32 ``(N, 2)``; the same ones on the same machine.
    """
    report = progress or (lambda done, total: None)
    report(0, 100)
    rng, n = np.random.default_rng(seed), len(embeddings)
    sample = np.sort(rng.permutation(n)[:SAMPLE])
    project = fit_projection(np.asarray(embeddings[sample], np.float32), WIDTH)
    points = np.concatenate([project(embeddings[start : start + 8_192]) for start in range(0, n, 8_192)])
    fitted = np.sort(rng.permutation(n)[:max_fitted])
    places = np.empty((n, 2), np.float32)
    places[fitted] = _fit(points[fitted], seed, report)
    rest = np.setdiff1d(np.arange(n), fitted)
    for start in range(0, len(rest), BLOCK):
        rows = rest[start : start + BLOCK]
        places[rows] = _place(points[rows], points[fitted], places[fitted])
        report(MOVED + (100 - MOVED) * start // len(rest), 100)
    report(100, 100)
    return places


def _fit(points: np.ndarray, seed: int, report: Callable[[int, int], None]) -> np.ndarray:
    """Projects points by UMAP, from their first two principal components."""
    from umap import UMAP

    k = min(N_NEIGHBORS, len(points)) - 1
    found = nearest_neighbours(points, k, seed=seed)
    itself = np.arange(len(points), dtype=np.int32)[:, None]
    index, distance = np.hstack([itself, found.index]), np.hstack([np.zeros_like(itself, np.float32), found.distance])
    options: dict[str, Any] = {"n_neighbors": k + 1, "precomputed_knn": (index, distance), "init": points[:, :2]}
    steps = _Steps(lambda share: report(PREPARED + round((MOVED - PREPARED) * share), 100))
    options |= {"verbose": True, "tqdm_kwds": {"file": steps, "bar_format": "{n}/{total}"}}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        return np.asarray(UMAP(random_state=seed, **options).fit_transform(points), np.float32)


class _Steps:
    """A file for a progress bar of tqdm, which tells the share of steps that are done."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self.tell = tell

    def write(self, text: str) -> None:
        done, _, total = text.strip().partition("/")
        if done.isdecimal() and total.isdecimal():
            self.tell(int(done) / max(int(total), 1))

    def flush(self) -> None:
        """Does nothing: what is written is told at once."""


def _place(points: np.ndarray, fitted: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places points ``(n, D)`` at the mean of their nearest fitted ones, those nearer weighing more: ``(n, 2)``."""
    import torch

    distances = torch.cdist(torch.from_numpy(points), torch.from_numpy(fitted))
    near, index = distances.topk(min(N_PLACED_BY, len(fitted)), largest=False)
    weights = 1 / near.clamp_min(1e-6)
    return np.asarray(((weights / weights.sum(1, keepdim=True)).numpy()[:, :, None] * places[index.numpy()]).sum(1))
