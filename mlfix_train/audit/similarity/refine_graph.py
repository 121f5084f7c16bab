"""Betters a graph of near neighbours: the neighbours of a point's neighbours are likely its own; compiled.

Source: Dong, Moses and Li 2011, "Efficient k-nearest neighbor graph construction for generic similarity measures".

Shapes: N points, D dimensions, K neighbours.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(cache=True)
def reverse_graph(index: np.ndarray, fresh: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each point up to ``most`` others that count it among their neighbours, nearest ranks first.

    Args:
        index: int32 ``N,K``, -1 where there is none.
        fresh: ``N,K`` booleans: which entries are new.
        most: kept of each point.

    Returns:
        int32 ``N,most``, -1 where there are no more, and which of them are new.
    """
    n, k = index.shape
    result = np.full((n, most), -1, np.int32)
    new = np.zeros((n, most), np.bool_)
    count = np.zeros(n, np.int64)
    for rank in range(k):
        for i in range(n):
            j = index[i, rank]
            if j >= 0 and count[j] < most:
                result[j, count[j]] = i
                new[j, count[j]] = fresh[i, rank]
                count[j] += 1
    return result, new


@njit(cache=True, fastmath=True, parallel=True)
def better_graph(
    x: np.ndarray, index: np.ndarray, distance: np.ndarray, fresh: np.ndarray, reverse: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Looks at the neighbours of each point's neighbours, forwards and backwards.

    Two steps that both were there in the round before lead nowhere new, and are left out. Every point reads the graph
    as it was, so that the result does not depend on the number of threads.

    Args:
        x: float32 ``N,D``.
        index: int32 ``N,K``, nearest first, -1 where there is none.
        distance: float32 ``N,K``, squared; infinite where there is none.
        fresh: ``N,K`` booleans: which entries are new since the round before; all, in the first.
        reverse, new: ``N,R``, from :func:`reverse_graph`.

    Returns:
        The bettered ``index`` and ``distance``, and which entries are new.
    """
    n, k = index.shape
    d, r = x.shape[1], reverse.shape[1]
    new_index, new_distance = index.copy(), distance.copy()
    news = np.zeros((n, k), np.bool_)
    for i in prange(n):
        seen = np.empty(k + r, np.int32)
        lately = np.empty(k + r, np.bool_)
        hops = 0
        for a in range(k + r):
            j = index[i, a] if a < k else reverse[i, a - k]
            if j >= 0:
                seen[hops] = j
                lately[hops] = fresh[i, a] if a < k else new[i, a - k]
                hops += 1
        for hop in range(hops):
            j = seen[hop]
            for b in range(k + r + 1):
                c = j if b == k + r else (index[j, b] if b < k else reverse[j, b - k])
                if c < 0 or c == i:
                    continue
                if not lately[hop] and b < k + r and not (fresh[j, b] if b < k else new[j, b - k]):
                    continue
                worst = new_distance[i, k - 1]
                total = np.float32(0.0)
                for q in range(d):
                    difference = x[i, q] - x[c, q]
                    total += difference * difference
                if total >= worst:
                    continue
                known = False
                for a in range(k):
                    if new_index[i, a] == c:
                        known = True
                        break
                if known:
                    continue
                at = k - 1
                while at > 0 and new_distance[i, at - 1] > total:
                    new_distance[i, at] = new_distance[i, at - 1]
                    new_index[i, at] = new_index[i, at - 1]
                    news[i, at] = news[i, at - 1]
                    at -= 1
                new_distance[i, at] = total
                new_index[i, at] = c
                news[i, at] = True
    return new_index, new_distance, news


@njit(cache=True, fastmath=True)
def best_of_block(d: np.ndarray, own: np.ndarray, others: np.ndarray, index: np.ndarray, distance: np.ndarray) -> None:
    """Keeps the nearest of a block of points for each of some points, sorted.

    Args:
        d: float32 ``A,B``: what to compare ``others`` by, for each of ``own``.
        own: A points.
        others: B points; a point itself among them is passed over.
        index: int32 ``N,K``, written at the rows ``own``, -1 where there are fewer than K others.
        distance: float32 ``N,K``, likewise.
    """
    k = index.shape[1]
    for i in range(len(own)):
        row = own[i]
        worst = np.float32(np.inf)
        for j in range(len(others)):
            value = d[i, j]
            if value >= worst or others[j] == row:
                continue
            at = k - 1
            while at > 0 and distance[row, at - 1] > value:
                distance[row, at] = distance[row, at - 1]
                index[row, at] = index[row, at - 1]
                at -= 1
            distance[row, at] = value
            index[row, at] = others[j]
            worst = distance[row, k - 1]
