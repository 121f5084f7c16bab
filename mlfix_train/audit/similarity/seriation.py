"""Seriation: an order that puts similar points side by side, as a short open path through their embeddings.

Nearest neighbours are the only candidates for the steps of the path. Fragments are joined greedily, shortest step
first, into one path, which local search with random kicks then shortens (see ``path_search``). The cost is the sum of
the lengths of the steps to the power 2.5, so that the longest steps, which catch the eye, weigh most.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from mlfix_train.audit.similarity.neighbours import Neighbours, check_embeddings, nearest_neighbours
from mlfix_train.errors import DataError, check_range

N_CANDIDATES = 10  # neighbours that a step of the path may lead to
MAX_REVERSAL = 50_000  # longest segment that one move may reverse; on larger data less


def seriate(
    embeddings: np.ndarray,
    *,
    initial_order: Sequence[int] | np.ndarray | None = None,
    search_effort: float = 0.7,
    seed: int = 0,
    device: str = "cpu",
    neighbours: Neighbours | None = None,
) -> np.ndarray:
    """Orders points so that similar ones are side by side.

    The same arguments give the same order on the same machine.

    Args:
        embeddings: ``(N, D)`` finite numbers; Euclidean distance measures how different two points are.
        initial_order: Earlier order to improve, a permutation of 0 to N - 1; the result never costs more.
        search_effort: Random kicks per point, 0 to 10,000. 0 stops at the first local optimum; 20 instead of 0.7
            shortens the path by another half percent.
        seed: Of the neighbour search and the kicks.
        device: Where neighbours are searched, such as ``cpu`` or ``cuda``.
        neighbours: Neighbours of these embeddings, if already known.

    Returns:
        int64 ``(N,)``, a permutation: the row of the first, second, ... point of the path.

    Raises:
        DataError: The embeddings are not a finite matrix, ``initial_order`` is not a permutation, or ``neighbours``
            belong to other data.
        ConfigError: ``search_effort`` is out of range.

    Example:
        >>> import numpy as np
        >>> from mlfix_train import seriate
        >>> order = seriate(np.array([[0.0], [2.0], [1.0], [3.0]]))
        >>> order.tolist() in ([0, 2, 1, 3], [3, 1, 2, 0])
        True
    """
    x = check_embeddings(embeddings)
    check_range("search_effort", search_effort, 0, 10_000)
    n = len(x)
    order = None if initial_order is None else check_order(initial_order, n)
    if n < 3:
        return np.arange(n, dtype=np.int64) if order is None else order
    if neighbours is None:
        neighbours = nearest_neighbours(x, N_CANDIDATES, device, seed=seed)
    elif len(neighbours.index) != n:
        problem = f"neighbours of {len(neighbours.index):,} points for {n:,} embeddings"
        raise DataError(problem, "pass the neighbours of these embeddings")
    x = x - x.mean(0)
    near = np.ascontiguousarray(neighbours.index[:, :N_CANDIDATES])
    distance = np.ascontiguousarray(neighbours.distance[:, :N_CANDIDATES])
    if order is None:
        order = greedy_path(x, near, distance, seed)
    if n < 8:
        return _shortest_permutation(x, order)
    from mlfix_train.audit.similarity.path_search import local_search

    max_reversal = MAX_REVERSAL if n <= MAX_REVERSAL else max(1_000, 200_000_000 // n)
    return np.asarray(local_search(x, near, order, int(search_effort * n), max_reversal, seed))


def check_order(order: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Returns an order as int64 ``(n,)``.

    Raises:
        DataError: It is not a permutation of 0 to n - 1.
    """
    found = np.asarray(order)
    if found.shape != (n,) or not np.issubdtype(found.dtype, np.integer):
        problem = f"an order of shape {found.shape} and type {found.dtype} for {n:,} images"
        raise DataError(problem, "pass a permutation of their row numbers; was it made for other images?")
    if n and not (np.sort(found) == np.arange(n)).all():
        raise DataError(f"the order of {n:,} images is not a permutation of 0 to {n - 1:,}", "sort them again")
    return found.astype(np.int64)


def path_steps(embeddings: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns the N - 1 distances between consecutive points of an order."""
    x = np.asarray(embeddings, dtype=np.float32)[order]
    return np.asarray(np.linalg.norm(np.diff(x, axis=0), axis=1))


def summarize_path(embeddings: np.ndarray, order: np.ndarray) -> dict[str, float]:
    """Returns the ``mean_step`` of an order, and its ratio to that of the rows as given and of a random order.

    Ratios are 0 to about 1, lower is better; 1 if there are fewer than two points.
    """
    if len(order) < 2:
        return {"mean_step": 0.0, "of_given_order": 1.0, "of_random_order": 1.0}
    orders = order, np.arange(len(order)), np.random.default_rng(0).permutation(len(order))
    mean, given, random = (float(path_steps(embeddings, each).mean()) for each in orders)
    ratios = {"of_given_order": mean / given if given else 1.0, "of_random_order": mean / random if random else 1.0}
    return {"mean_step": mean, **{key: round(value, 4) for key, value in ratios.items()}}


def greedy_path(x: np.ndarray, near: np.ndarray, distance: np.ndarray, seed: int = 0) -> np.ndarray:
    """Joins points, float32 ``(N, D)``, into one path, shortest steps first; a permutation, int64 ``(N,)``.

    Steps lead to neighbours ``near``, int32 ``(N, K)``, at distances ``(N, K)``. Fragments that none of these can join
    any more are joined through the neighbours among their ends.
    """
    from mlfix_train.audit.similarity.path_search import follow_links, join_fragments

    n = len(x)
    links = np.full((n, 2), -1, np.int64)
    parent = np.arange(n)

    def join(first: np.ndarray, second: np.ndarray, length: np.ndarray) -> int:
        order = np.lexsort((second, first, length))  # ties in the order of the points
        added: int = join_fragments(first[order].astype(np.int64), second[order].astype(np.int64), links, parent)
        return added

    missing = n - 1 - join(np.repeat(np.arange(n), near.shape[1]), near.ravel(), distance.ravel())
    k = N_CANDIDATES
    while missing:
        ends = np.flatnonzero(links[:, 1] < 0)
        found = nearest_neighbours(x[ends], min(k, len(ends) - 1), seed=seed)
        added = join(np.repeat(ends, found.index.shape[1]), ends[found.index.ravel()], found.distance.ravel())
        missing -= added
        k = k if added else 4 * k
    return np.asarray(follow_links(links))


def _shortest_permutation(x: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns the cheapest path through up to 7 points by trying all."""
    costs = np.linalg.norm(x[:, None] - x[None], axis=2) ** 2.5
    best, lowest = order, float(costs[order[:-1], order[1:]].sum())
    for candidate in itertools.permutations(range(len(x))):
        if candidate[0] < candidate[-1]:
            cost = float(costs[list(candidate[:-1]), list(candidate[1:])].sum())
            if cost < lowest * (1 - 1e-6):
                best, lowest = np.array(candidate), cost
    return np.asarray(best, dtype=np.int64)


def insert_new(positions: np.ndarray, neighbours: Neighbours) -> np.ndarray:
    """Inserts new points into an earlier order: each after its nearest neighbour that is in it, or at the end.

    ``positions`` ``(N,)`` are those in the earlier order, NaN for new points. Returns an ``initial_order`` for
    :func:`seriate`.
    """
    keys = np.asarray(positions, dtype=float).copy()
    new = np.flatnonzero(np.isnan(keys))
    end = float(np.nanmax(keys)) + 1 if len(new) < len(keys) else 0.0
    for row in new:
        known = positions[neighbours.index[row]]
        known = known[~np.isnan(known)]
        keys[row] = known[0] + 0.5 if len(known) else end
    return np.asarray(np.argsort(keys, kind="stable"), dtype=np.int64)


def outlier_score(
    embeddings: np.ndarray, k: int = 5, device: str = "cpu", neighbours: Neighbours | None = None
) -> np.ndarray:
    """Returns how far each point is from its nearest neighbours, compared with how far they are from theirs.

    Args:
        embeddings: ``(N, D)``.
        k: Neighbours that count, at least 1.
        device: Where neighbours are searched.
        neighbours: Neighbours of these embeddings, if already known, at least k of each point.

    Returns:
        ``(N,)``, 0 and up, higher is more of an outlier, about 1 is usual, see :func:`relative_distance`; 1 for fewer
        than three points.

    Raises:
        ConfigError: ``k`` is below 1.
    """
    x = check_embeddings(embeddings)
    check_range("k", k, 1, 4096)
    if len(x) < 3:
        return np.ones(len(x))
    return relative_distance(neighbours or nearest_neighbours(x, k, device), k)


def relative_distance(neighbours: Neighbours, k: int = 5) -> np.ndarray:
    """Returns each point's mean distance to its k nearest neighbours over the median of theirs, ``(N,)``.

    The ratio does not depend on the scale or the local density of the data (the idea of Breunig et al. 2000, "LOF:
    identifying density-based local outliers"). Points that coincide with k others have 0.
    """
    if not neighbours.index.size:
        return np.ones(len(neighbours.index))
    own = neighbours.distance[:, :k].mean(1)
    usual = np.median(own[neighbours.index[:, :k]], axis=1)
    floor = 1e-6 * max(float(own.mean()), 1e-30)
    return np.asarray(own / np.maximum(usual, floor))
