"""Refines an approximate neighbour graph: neighbours of a point's neighbours are likely its own (compiled).

Source: Dong, Moses and Li 2011, "Efficient k-nearest neighbor graph construction for generic similarity measures".

Shapes: N points, D dimensions, K neighbours, R reverse neighbours.
"""

import numpy as np
from numba import njit, prange


@njit(cache=True)
def reverse_graph(index: np.ndarray, is_new: np.ndarray, max_reverse: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each point up to R others that have it among their neighbours, those of the nearest ranks first.

    ``index`` is int32 ``(N, K)``, -1 if there is no neighbour; ``is_new``, bool ``(N, K)``, marks entries that the last
    round added. Likewise returns int32 ``(N, R)`` and bool ``(N, R)``.
    """
    n, k = index.shape
    reverse = np.full((n, max_reverse), -1, np.int32)
    reverse_is_new = np.zeros((n, max_reverse), np.bool_)
    count = np.zeros(n, np.int64)
    for rank in range(k):
        for i in range(n):
            j = index[i, rank]
            if j >= 0 and count[j] < max_reverse:
                reverse[j, count[j]] = i
                reverse_is_new[j, count[j]] = is_new[i, rank]
                count[j] += 1
    return reverse, reverse_is_new


@njit(cache=True)
def _contains(row: np.ndarray, value: int) -> bool:
    for entry in row:  # noqa: SIM110 - numba does not compile any() of a generator
        if entry == value:
            return True
    return False


@njit(cache=True, fastmath=True, parallel=True)
def refine_graph(
    x: np.ndarray,
    index: np.ndarray,
    squared: np.ndarray,
    is_new: np.ndarray,
    reverse: np.ndarray,
    reverse_is_new: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compares each point with the neighbours of its neighbours, along edges and against them.

    Pairs of edges that both existed in the previous round are skipped. Every point reads the graph of the previous
    round, so the result does not depend on the number of threads.

    ``index``, int32 ``(N, K)``, has the nearest first, -1 if there is no neighbour; ``squared``, float32 ``(N, K)``,
    their squared distances to ``x``, float32 ``(N, D)``; ``is_new``, bool ``(N, K)``, which entries the previous round
    added (all of them in the first). ``reverse`` and ``reverse_is_new`` are from :func:`reverse_graph`. Returns the
    refined ``index`` and ``squared``, and which entries are new.
    """
    n, k = index.shape
    d, r = x.shape[1], reverse.shape[1]
    refined, refined_squared = index.copy(), squared.copy()
    refined_is_new = np.zeros((n, k), np.bool_)
    for i in prange(n):
        near = np.empty(k + r, np.int32)
        near_is_new = np.empty(k + r, np.bool_)
        count = 0
        for a in range(k + r):
            j = index[i, a] if a < k else reverse[i, a - k]
            if j >= 0:
                near[count] = j
                near_is_new[count] = is_new[i, a] if a < k else reverse_is_new[i, a - k]
                count += 1
        for hop in range(count):
            j = near[hop]
            for b in range(k + r + 1):
                c = j if b == k + r else (index[j, b] if b < k else reverse[j, b - k])
                if c < 0 or c == i:
                    continue
                if not near_is_new[hop] and b < k + r and not (is_new[j, b] if b < k else reverse_is_new[j, b - k]):
                    continue
                total = np.float32(0.0)
                for q in range(d):
                    difference = x[i, q] - x[c, q]
                    total += difference * difference
                if total >= refined_squared[i, k - 1]:
                    continue
                if _contains(refined[i], c):
                    continue
                at = k - 1
                while at > 0 and refined_squared[i, at - 1] > total:
                    refined_squared[i, at] = refined_squared[i, at - 1]
                    refined[i, at] = refined[i, at - 1]
                    refined_is_new[i, at] = refined_is_new[i, at - 1]
                    at -= 1
                refined_squared[i, at] = total
                refined[i, at] = c
                refined_is_new[i, at] = True
    return refined, refined_squared, refined_is_new


@njit(cache=True, fastmath=True)
def keep_nearest(
    distances: np.ndarray, own: np.ndarray, others: np.ndarray, index: np.ndarray, nearest: np.ndarray
) -> None:
    """Keeps the K nearest of a block of candidates for each of some points, sorted.

    ``distances``, float32 ``(A, B)``, increase with those between the points ``own`` ``(A,)`` and the candidates
    ``others`` ``(B,)``; a point itself is skipped. The rows ``own`` of ``index``, int32 ``(N, K)``, and ``nearest``,
    float32 ``(N, K)``, are written; -1 and infinity stay where there are fewer than K candidates.
    """
    k = index.shape[1]
    for i in range(len(own)):
        row = own[i]
        worst = np.float32(np.inf)
        for j in range(len(others)):
            value = distances[i, j]
            if value >= worst or others[j] == row:
                continue
            at = k - 1
            while at > 0 and nearest[row, at - 1] > value:
                nearest[row, at] = nearest[row, at - 1]
                index[row, at] = index[row, at - 1]
                at -= 1
            nearest[row, at] = value
            index[row, at] = others[j]
            worst = nearest[row, k - 1]
