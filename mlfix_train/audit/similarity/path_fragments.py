"""Fragments of a path, joined greedily: shortest edge first, no point with more than two, no rings; compiled.

Source: Bentley 1992, "Fast algorithms for geometric traveling salesman problems", ORSA Journal on Computing 4.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def join_greedily(first: np.ndarray, second: np.ndarray, links: np.ndarray, root: np.ndarray) -> int:
    """Joins fragments by edges, shortest first, wherever both ends are free and no ring closes.

    Args:
        first, second: ends of the E edges, in order of their length.
        links: ``N,2`` neighbours of each point so far, -1 where free; changed.
        root: N parents of a union-find forest; changed.

    Returns:
        Number of edges that were taken.
    """
    taken = 0
    for e in range(len(first)):
        a, b = first[e], second[e]
        if links[a, 1] >= 0 or links[b, 1] >= 0:
            continue
        i, j = a, b
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        while root[j] != j:
            root[j] = root[root[j]]
            j = root[j]
        if i == j:
            continue
        root[i] = j
        links[a, 0 if links[a, 0] < 0 else 1] = b
        links[b, 0 if links[b, 0] < 0 else 1] = a
        taken += 1
    return taken


@njit(cache=True)
def walk(links: np.ndarray) -> np.ndarray:
    """Returns the points in the order of the one path that ``links`` describes."""
    n = len(links)
    order = np.empty(n, np.int64)
    start = 0
    for i in range(n):
        if links[i, 1] < 0:
            start = i
            break
    before, now = -1, start
    for i in range(n):
        order[i] = now
        following = links[now, 0] if links[now, 0] != before else links[now, 1]
        before, now = now, following
    return order
