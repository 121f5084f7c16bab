"""A short path through points by local search, compiled: greedy fragments, 2-opt and or-opt moves, and small kicks.

The tour is closed through a dummy point at distance 0 from all others, so that an open path is what is searched for.
All changes are reversals of a stretch of the tour; a list of them is all it takes to take a change back.

Sources: Bentley 1992, "Fast algorithms for geometric traveling salesman problems", ORSA J. Computing 4 (greedy
fragments, 2-opt and or-opt with neighbour lists and a queue of points to look at); Applegate, Cook and Rohe 2003,
"Chained Lin-Kernighan for large traveling salesman problems", INFORMS J. Computing 15 (kicks within one
neighbourhood).

Shapes: N points, D dimensions, K neighbours, M = N + 1 places of the tour.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SEGMENT = 10
"""Longest stretch that a kick moves, in places of the tour."""
TINY = 1e-7
"""Gains below this, relative to the mean step, are rounding."""


@njit(cache=True, fastmath=True)
def cost(x: np.ndarray, a: int, b: int) -> float:
    """Returns what a step between two points costs: its length to the power 2.5; 0 to the dummy, whose number is N.

    A power above 1 makes the longest steps, over which the eye stumbles, weigh most. Costs are rounded to float32:
    sums of such numbers are exact enough in float64 that a gain is never rounding, and the search can't go in circles.
    """
    n = x.shape[0]
    if a == n or b == n:
        return 0.0
    total = np.float32(0.0)
    for i in range(x.shape[1]):
        difference = x[a, i] - x[b, i]
        total += difference * difference
    return np.float64(np.float32(total * np.sqrt(np.sqrt(total))))


@njit(cache=True)
def measure(x: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Returns the costs of the steps to neighbours, ``N,K``, as :func:`cost` has them."""
    far = np.empty(near.shape, np.float64)
    for i in range(near.shape[0]):
        for k in range(near.shape[1]):
            far[i, k] = cost(x, i, near[i, k])
    return far


@njit(cache=True)
def _wrap(i: int, m: int) -> int:
    """Returns a place of the tour from one that may lie up to M past either end."""
    if i >= m:
        return i - m
    return i + m if i < 0 else i


@njit(cache=True)
def _flip(tour: np.ndarray, place: np.ndarray, i: int, j: int) -> None:
    """Reverses the tour from place i on to place j (past the end where j < i), by its shorter side."""
    m = len(tour)
    length = j - i + 1
    if length <= 0:
        length += m
    if 2 * length > m:
        i, j, length = _wrap(j + 1, m), _wrap(i - 1, m), m - length
    half = length // 2
    if i + half <= m and j - half >= -1:  # neither side passes an end: the usual case, without looking for it
        for k in range(half):
            a, b = tour[i + k], tour[j - k]
            tour[i + k], tour[j - k] = b, a
            place[a], place[b] = j - k, i + k
        return
    for _ in range(half):
        a, b = tour[i], tour[j]
        tour[i], tour[j] = b, a
        place[a], place[b] = j, i
        i, j = _wrap(i + 1, m), _wrap(j - 1, m)


@njit(cache=True)
def _turn(
    tour: np.ndarray, place: np.ndarray, u: int, v: int, length: int, log: np.ndarray, logged: int
) -> int:  # fmt: skip
    """Reverses the stretch of ``length`` points that has u at one end and v at the other, and logs it."""
    if length < 2:
        return logged
    i, j = place[u], place[v]
    if _wrap(i + length - 1, len(tour)) != j:
        i, j = j, i
    _flip(tour, place, i, j)
    log[logged, 0], log[logged, 1] = i, j
    return logged + 1


@njit(cache=True, fastmath=True)
def _best_change(
    x: np.ndarray,
    near: np.ndarray,
    far: np.ndarray,
    tour: np.ndarray,
    place: np.ndarray,
    t1: int,
    longest: int,
    least: float,
) -> tuple[float, int, int, int, int, int]:
    """Finds the best change that takes out an edge at t1 and puts in one to a near point.

    Changes are a reversal (2-opt), and the move of one to three points that begin at t1 to beside the near point,
    either way round (or-opt).

    Returns:
        The gain; the kind (0 none, 1 reversal, 2 move); the near point; the direction in which t1 is cut off (1 or
        -1); how many points move; and beside which side of the near point (0 or 1).
    """
    m = len(tour)
    best = least
    kind, best_c, best_step, best_len, best_side = 0, 0, 1, 0, 1
    for turn in range(2):
        step = 1 if turn == 0 else -1  # t2 lies one step from t1, the points that may move on the other side
        t2 = tour[_wrap(place[t1] + step, m)]
        out = cost(x, t1, t2)
        for k in range(near.shape[1]):
            gain = out - far[t1, k]
            if gain <= least:
                break
            c = near[t1, k]
            d = tour[_wrap(place[c] + step, m)]
            beside = tour[_wrap(place[c] - step, m)]
            to_d, to_beside = cost(x, c, d), cost(x, c, beside)
            if c != t2 and d != t1 and gain + to_d > best:  # else no new edge could be short enough
                value = gain + to_d - cost(x, t2, d)
                if value > best:
                    stretch = _wrap(place[c] - place[t2], m) if step == 1 else _wrap(place[t2] - place[c], m)
                    if min(stretch, m - stretch) <= longest:
                        best, kind, best_c, best_step = value, 1, c, step
            e = t1
            for length in range(1, 4):
                if length > 1:
                    e = tour[_wrap(place[e] - step, m)]
                if e == c or e == t2 or e == m - 1:
                    break
                n = tour[_wrap(place[e] - step, m)]
                if n == t2:
                    break
                freed = gain + cost(x, e, n)
                if freed + max(to_d, to_beside) <= best:
                    continue
                freed -= cost(x, t2, n)
                if (c == t2 and freed <= best) or freed + max(to_d, to_beside) <= best:
                    continue
                away = _wrap(place[c] - place[t1], m) if step == -1 else _wrap(place[t1] - place[c], m)
                if min(away, m - away) > longest:
                    break
                for side in range(2):
                    other, to_other = (d, to_d) if side == 0 else (beside, to_beside)
                    if other == t1 or other == e or (c == t2 and side == 1) or (c == n and side == 0):
                        continue
                    if freed + to_other <= best:
                        continue
                    value = freed + to_other - cost(x, e, other)
                    if value > best:
                        best, kind, best_c, best_step, best_len, best_side = value, 2, c, step, length, side
    return best, kind, best_c, best_step, best_len, best_side


@njit(cache=True, fastmath=True)
def _improve_at(
    x: np.ndarray, near: np.ndarray, far: np.ndarray, tour: np.ndarray, place: np.ndarray, t1: int, longest: int,
    least: float, log: np.ndarray, logged: int, touched: np.ndarray,
) -> tuple[float, int, int]:  # fmt: skip
    """Makes the best change that :func:`_best_change` finds.

    Returns:
        The gain (0 if there is none), the number of flips in ``log``, and of points in ``touched``.
    """
    m = len(tour)
    best, kind, best_c, best_step, best_len, best_side = _best_change(x, near, far, tour, place, t1, longest, least)
    if kind == 0:
        return 0.0, logged, 0
    step, c = best_step, best_c
    t2 = tour[_wrap(place[t1] + step, m)]
    touched[0], touched[1], touched[2] = t1, t2, c
    if kind == 1:
        d = tour[_wrap(place[c] + step, m)]
        touched[3] = d
        # From t2 on to c, in the direction of the step.
        length = (_wrap(place[c] - place[t2], m) if step == 1 else _wrap(place[t2] - place[c], m)) + 1
        return best, _turn(tour, place, t2, c, length, log, logged), 4
    e = t1
    for _ in range(best_len - 1):
        e = tour[_wrap(place[e] - step, m)]
    n = tour[_wrap(place[e] - step, m)]
    other = tour[_wrap(place[c] + (step if best_side == 0 else -step), m)]
    touched[3], touched[4], touched[5] = e, n, other
    # Seen against the step: t2, then t1..e, then n and on. What lies between the moved points and their new place is
    # turned with them, and turned back.
    onward = (_wrap(place[n] - place[c], m) if step == 1 else _wrap(place[c] - place[n], m)) + 1  # n .. c
    inner = c
    if best_side == 0 and onward <= m // 2:  # the other point lies on n's side of c: stop before c
        inner, onward = other, onward - 1
    backward = (_wrap(place[c] - place[t2], m) if step == 1 else _wrap(place[t2] - place[c], m)) + 1  # t2 .. c
    if onward <= backward:
        logged = _turn(tour, place, t1, inner, best_len + onward, log, logged)
        logged = _turn(tour, place, inner, n, onward, log, logged)
        if best_side == 1:
            logged = _turn(tour, place, e, t1, best_len, log, logged)
        return best, logged, 6
    inner = c
    if best_side == 1:
        inner, backward = other, backward - 1
    logged = _turn(tour, place, inner, e, best_len + backward, log, logged)
    logged = _turn(tour, place, t2, inner, backward, log, logged)
    if best_side == 1:
        logged = _turn(tour, place, e, t1, best_len, log, logged)
    return best, logged, 6


@njit(cache=True)
def _search(
    x: np.ndarray, near: np.ndarray, far: np.ndarray, tour: np.ndarray, place: np.ndarray, queue: np.ndarray,
    queued: np.ndarray, head: int, size: int, longest: int, least: float, log: np.ndarray, touched: np.ndarray,
    keep_log: bool,
) -> tuple[float, int]:  # fmt: skip
    """Improves the tour until no queued point has a better move; returns the gain and the number of flips logged."""
    total, logged, capacity = 0.0, 0, len(queue)
    while size > 0:
        t1 = queue[head]
        head = _wrap(head + 1, capacity)
        size -= 1
        queued[t1] = False
        again = True
        while again:
            gain, logged, n_touched = _improve_at(x, near, far, tour, place, t1, longest, least, log, logged, touched)
            again = gain > 0
            total += gain
            for i in range(n_touched):
                t = touched[i]
                if t < x.shape[0] and t != t1 and not queued[t]:
                    queue[_wrap(head + size, capacity)] = t
                    size += 1
                    queued[t] = True
            if not keep_log:
                logged = 0
            if keep_log and logged > len(log) - 8:
                again = False
                while size > 0:
                    queued[queue[head]] = False
                    head = _wrap(head + 1, capacity)
                    size -= 1
    return total, logged


@njit(cache=True)
def _random(state: np.ndarray, below: int) -> int:
    """Returns a number from 0 to ``below`` - 1 (xorshift64*), the same on every machine."""
    s = state[0]
    s ^= s >> np.uint64(12)
    s ^= s << np.uint64(25)
    s ^= s >> np.uint64(27)
    state[0] = s
    return int((s * np.uint64(2685821657736338717)) >> np.uint64(33)) % below


@njit(cache=True)
def improve(x: np.ndarray, near: np.ndarray, order: np.ndarray, kicks: int, longest: int, seed: int) -> np.ndarray:
    """Makes an open path cheaper.

    Args:
        x: float32 ``N,D``, N >= 5.
        near: int32 ``N,K`` neighbours of each point, nearest first.
        order: N points, the path to begin with.
        kicks: how often a stretch is moved at random and mended; what makes the path dearer is taken back.
        longest: longest stretch that a flip may turn (bounds the time on large data).
        seed: of the kicks.

    Returns:
        N points, a path that never costs more than ``order``.
    """
    n = x.shape[0]
    m = n + 1
    tour = np.empty(m, np.int32)
    tour[:n] = order
    tour[n] = n
    place = np.empty(m, np.int32)
    length = 0.0
    for i in range(m):
        place[tour[i]] = i
        if i:
            length += cost(x, tour[i - 1], tour[i])
    least = TINY * length / n
    far = measure(x, near)
    queue, queued = np.empty(m, np.int64), np.zeros(m, np.bool_)
    log, touched = np.empty((4096, 2), np.int64), np.empty(6, np.int64)
    for i in range(n):
        queue[i] = order[i]
        queued[order[i]] = True
    _search(x, near, far, tour, place, queue, queued, 0, n, longest, least, log, touched, False)
    state = np.array([np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x1234567)], dtype=np.uint64)
    most = min(SEGMENT, (m - 2) // 3)
    kick_log = np.empty((3, 2), np.int64)
    for _ in range(kicks):
        at = _random(state, m)
        first, second = 1 + _random(state, most), 1 + _random(state, most)
        a, b = tour[at], tour[(at + 1) % m]
        c, d = tour[(at + first) % m], tour[(at + first + 1) % m]
        e, f = tour[(at + first + second) % m], tour[(at + first + second + 1) % m]
        loss = cost(x, a, d) + cost(x, e, b) + cost(x, c, f)
        loss -= cost(x, a, b) + cost(x, c, d) + cost(x, e, f)
        i, j, k = (at + 1) % m, (at + first) % m, (at + first + second) % m
        kick_log[0, 0], kick_log[0, 1] = i, j
        kick_log[1, 0], kick_log[1, 1] = (j + 1) % m, k
        kick_log[2, 0], kick_log[2, 1] = i, k
        for r in range(3):
            _flip(tour, place, kick_log[r, 0], kick_log[r, 1])
        size = 0
        for t in (a, b, c, d, e, f):
            if t < n and not queued[t]:
                queue[size] = t
                queued[t] = True
                size += 1
        gain, logged = _search(x, near, far, tour, place, queue, queued, 0, size, longest, least, log, touched, True)
        if gain < loss - least:
            while logged > 0:
                logged -= 1
                _flip(tour, place, log[logged, 0], log[logged, 1])
            for r in range(2, -1, -1):
                _flip(tour, place, kick_log[r, 0], kick_log[r, 1])
    result = np.empty(n, np.int64)
    for i in range(n):
        result[i] = tour[(place[n] + 1 + i) % m]
    return result
