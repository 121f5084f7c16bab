"""Seriation: an order in which neighbours look alike, as a short open path through embeddings.

Three steps: nearest neighbours as the only candidates for steps of the path; fragments joined greedily, shortest step
first, until one path is left; then local search with small kicks (see ``path_search``). What is minimised is the sum of
the steps' lengths to the power 2.5, so that the longest steps, over which the eye stumbles, weigh most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlfix_train.audit.similarity.neighbours import Neighbours, check_embeddings, nearest_neighbours
from mlfix_train.errors import ConfigError, DataError, check_range

CANDIDATES = 10
"""Neighbours that a step of the path may lead to."""
LONGEST = 50_000
"""Longest stretch of the path that one change may turn, on large data 1,000."""


def seriate(
    embeddings: np.ndarray,
    *,
    start: Sequence[int] | np.ndarray | None = None,
    effort: float = 0.7,
    seed: int = 0,
    device: str = "cpu",
    neighbours: Neighbours | None = None,
) -> np.ndarray:
    """Orders points so that neighbours are alike.

    The same embeddings, arguments and machine give the same order.

    Args:
        embeddings: ``N,D`` finite numbers; distances are Euclidean.
        start: an earlier order to begin with (a permutation of 0 to N - 1); the result is never dearer.
        effort: kicks for each point; 0 stops at the first local optimum, 0.7 is quick, 20 gains another half percent.
        seed: of cells and kicks.
        device: where neighbours are searched, such as ``cpu`` or ``cuda``.
        neighbours: found before for these very embeddings.

    Returns:
        int64 N, a permutation: the row of the first, second, ... point of the path.

    Raises:
        DataError: embeddings that are no finite matrix, a start that is no permutation, or neighbours of other data.
        ConfigError: an effort out of range.
    """
    x = check_embeddings(embeddings)
    check_range("effort", effort, 0, 10_000)
    n = len(x)
    order = None if start is None else check_order(start, n)
    if n < 3:
        return np.arange(n, dtype=np.int64) if order is None else order
    if neighbours is None:
        neighbours = nearest_neighbours(x, CANDIDATES, device, seed=seed)
    elif len(neighbours.index) != n:
        raise DataError(f"neighbours of {len(neighbours.index):,} points for {n:,} embeddings", "find them anew")
    x = x - x.mean(0)
    near = np.ascontiguousarray(neighbours.index[:, :CANDIDATES])
    far = np.ascontiguousarray(neighbours.distance[:, :CANDIDATES])
    if order is None:
        order = greedy_path(x, near, far, seed)
    if n < 8:
        return _shortest_of_few(x, order)
    from mlfix_train.audit.similarity.path_search import improve

    longest = LONGEST if n <= LONGEST else max(1_000, 5 * 10**9 // n // 25)
    return np.asarray(improve(x, near, order, int(effort * n), longest, seed))


def check_order(order: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Returns an order as int64 N.

    Raises:
        DataError: it is no permutation of 0 to N - 1.
    """
    found = np.asarray(order)
    if found.shape != (n,) or not np.issubdtype(found.dtype, np.integer):
        raise DataError(f"an order of shape {found.shape} and type {found.dtype} for {n:,} images",
                        "give a permutation of their row numbers: was it made for other images?")  # fmt: skip
    if n and not (np.sort(found) == np.arange(n)).all():
        raise DataError(f"the order of {n:,} images is no permutation of 0 to {n - 1:,}", "make it anew")
    return found.astype(np.int64)


def path_steps(embeddings: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns the N - 1 distances between neighbours of an order."""
    x = np.asarray(embeddings, dtype=np.float32)[order]
    return np.asarray(np.linalg.norm(np.diff(x, axis=0), axis=1))


def greedy_path(x: np.ndarray, near: np.ndarray, far: np.ndarray, seed: int = 0) -> np.ndarray:
    """Joins points to one path, shortest steps first; fragments are joined by neighbours among their ends.

    Args:
        x: float32 ``N,D``, N >= 2.
        near: int32 ``N,K`` neighbours.
        far: float32 ``N,K`` distances.
        seed: of the neighbours among the ends.
    """
    from mlfix_train.audit.similarity.path_fragments import join_greedily, walk

    n = len(x)
    links = np.full((n, 2), -1, np.int64)
    root = np.arange(n)
    left = n - 1 - _join(join_greedily, np.repeat(np.arange(n), near.shape[1]), near.ravel(), far.ravel(), links, root)
    k = CANDIDATES
    while left:
        ends = np.flatnonzero(links[:, 1] < 0)
        found = nearest_neighbours(x[ends], min(k, len(ends) - 1), seed=seed)
        first = np.repeat(ends, found.index.shape[1])
        taken = _join(join_greedily, first, ends[found.index.ravel()], found.distance.ravel(), links, root)
        left -= taken
        k = k if taken else 4 * k
    return np.asarray(walk(links))


def _join(
    join: object, first: np.ndarray, second: np.ndarray, length: np.ndarray, links: np.ndarray, root: np.ndarray
) -> int:
    """Hands edges over in order of their length; ties go by the numbers of the points."""
    order = np.lexsort((second, first, length))
    return int(join(first[order].astype(np.int64), second[order].astype(np.int64), links, root))  # type: ignore[operator]


def _shortest_of_few(x: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns the shortest path through up to 7 points: all are tried."""
    from itertools import permutations

    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    best, shortest = order, float((d[order[:-1], order[1:]] ** 2.5).sum())
    for tried in permutations(range(len(x))):
        if tried[0] < tried[-1]:
            length = float((d[list(tried[:-1]), list(tried[1:])] ** 2.5).sum())
            if length < shortest * (1 - 1e-6):
                best, shortest = np.array(tried), length
    return np.asarray(best, dtype=np.int64)


def seriate_slices(embeddings: np.ndarray, slices: Sequence[np.ndarray], **options: object) -> list[np.ndarray]:
    """Orders each of some slices by itself.

    Args:
        embeddings: ``N,D``.
        slices: row numbers of each slice.
        options: as of :func:`seriate`.

    Returns:
        For each slice its row numbers, in visual order.
    """
    x = check_embeddings(embeddings)
    return [np.asarray(rows)[seriate(x[rows], **options)] for rows in slices]  # type: ignore[arg-type]


def insert_new(places: np.ndarray, neighbours: Neighbours) -> np.ndarray:
    """Completes an earlier order by new points: each comes behind its nearest neighbour that was there, else last.

    Args:
        places: N places in the earlier order, NaN for new points.
        neighbours: of all N points.

    Returns:
        int64 N, a permutation, to start :func:`seriate` with.
    """
    keys = np.asarray(places, dtype=float).copy()
    new = np.flatnonzero(np.isnan(keys))
    last = float(np.nanmax(keys)) + 1 if len(new) < len(keys) else 0.0
    for row in new:
        known = places[neighbours.index[row]]
        known = known[~np.isnan(known)]
        keys[row] = known[0] + 0.5 if len(known) else last
    return np.asarray(np.argsort(keys, kind="stable"), dtype=np.int64)


def outlier_score(
    embeddings: np.ndarray, k: int = 5, device: str = "cpu", neighbours: Neighbours | None = None
) -> np.ndarray:
    """Returns how unlike its neighbours each point is, N numbers, 0 to infinity, higher is stranger.

    The mean distance to the k nearest others, over the median of that of these others: 1 is usual, whatever the scale
    or how dense the data are around it (the idea of Breunig et al. 2000, "LOF: identifying density-based local
    outliers"). Points that coincide with k others have 0; fewer than three points have 1.

    Args:
        embeddings: ``N,D``.
        k: neighbours that count.
        device: where they are searched.
        neighbours: found before, k or more of each point.

    Raises:
        ConfigError: ``k`` below 1.
    """
    x = check_embeddings(embeddings)
    if k < 1:
        raise ConfigError(f"k={k} is out of range", "ask for 1 neighbour or more")
    if len(x) < 3:
        return np.ones(len(x))
    return relative_distance(neighbours or nearest_neighbours(x, k, device), k)


def relative_distance(found: Neighbours, k: int = 5) -> np.ndarray:
    """Returns each point's mean distance to its k nearest over the median of theirs, ``N``; see :func:`outlier_score`."""
    if not found.index.size:
        return np.ones(len(found.index))
    own = found.distance[:, :k].mean(1)
    usual = np.median(own[found.index[:, :k]], axis=1)
    floor = 1e-6 * max(float(own.mean()), 1e-30)
    return np.asarray(own / np.maximum(usual, floor))
