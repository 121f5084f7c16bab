"""Short paths through points (compiled): greedy fragments, then local search with 2-opt and Or-opt moves and kicks.

The tour is closed through a dummy point at distance 0 from all others, so the search is for an open path. Every change
is a sequence of reversals, which are recorded and can be undone.

Sources: Bentley 1992, "Fast algorithms for geometric traveling salesman problems", ORSA Journal on Computing 4 (greedy
fragments; 2-opt and Or-opt with neighbour lists and a queue of points to process); Applegate, Cook and Rohe 2003,
"Chained Lin-Kernighan for large traveling salesman problems", INFORMS Journal on Computing 15 (local kicks).

Shapes: N points, D dimensions, K neighbours, M = N + 1 positions of the tour.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

MAX_SEGMENT = 10  # longest segment that a kick moves
RELATIVE_TOLERANCE = 1e-7  # gains below this, relative to the mean step, are rounding errors


class Problem(NamedTuple):
    """What a search works on."""

    x: np.ndarray  # float32 (N, D), the points
    near: np.ndarray  # int32 (N, K), neighbours of each point, nearest first
    costs: np.ndarray  # float64 (N, K), costs of the steps to them
    max_reversal: int  # longest segment that a move may reverse
    min_gain: float  # smaller gains do not count


class Tour(NamedTuple):
    """A tour: the point at each position, and the position of each point, both int32 ``(M,)``."""

    points: np.ndarray
    position: np.ndarray


class Log(NamedTuple):
    """The reversals made, as arguments of :func:`reverse_segment`: int64 ``(L, 2)``, and their number, ``(1,)``."""

    entries: np.ndarray
    length: np.ndarray


@njit(cache=True)
def join_fragments(first: np.ndarray, second: np.ndarray, links: np.ndarray, parent: np.ndarray) -> int:
    """Joins fragments of a path by edges in the given order, if both ends are free and no cycle closes.

    Edge i, shortest first, leads from ``first[i]`` to ``second[i]``. Updates ``links``, int64 ``(N, 2)``, the
    neighbours of each point on the path, -1 if free, and ``parent``, int64 ``(N,)``, a union-find forest of the
    fragments. Returns the number of edges added.
    """
    added = 0
    for edge in range(len(first)):
        a, b = first[edge], second[edge]
        if links[a, 1] >= 0 or links[b, 1] >= 0:
            continue
        i, j = a, b
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        while parent[j] != j:
            parent[j] = parent[parent[j]]
            j = parent[j]
        if i == j:
            continue
        parent[i] = j
        links[a, 0 if links[a, 0] < 0 else 1] = b
        links[b, 0 if links[b, 0] < 0 else 1] = a
        added += 1
    return added


@njit(cache=True)
def follow_links(links: np.ndarray) -> np.ndarray:
    """Returns the points ``(N,)`` in the order of the single path that ``links`` ``(N, 2)`` describe."""
    n = len(links)
    order = np.empty(n, np.int64)
    previous, current = -1, int(np.argmin(links[:, 1]))  # an end of the path has -1
    for i in range(n):
        order[i] = current
        following = links[current, 0] if links[current, 0] != previous else links[current, 1]
        previous, current = current, following
    return order


@njit(cache=True, fastmath=True)
def step_cost(x: np.ndarray, a: int, b: int) -> float:
    """Returns the cost of a step between two points: its length to the power 2.5, or 0 to the dummy point N.

    A power above 1 gives the longest steps, which catch the eye, the most weight. Costs are rounded to float32: sums of
    such numbers are exact enough in float64 that no gain is a rounding error, and the search cannot cycle.
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
def neighbour_costs(x: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Returns the costs of the steps to all neighbours, float64 ``(N, K)``."""
    costs = np.empty(near.shape, np.float64)
    for i in range(near.shape[0]):
        for k in range(near.shape[1]):
            costs[i, k] = step_cost(x, i, near[i, k])
    return costs


@njit(cache=True)
def _wrap(i: int, m: int) -> int:
    """Maps a position at most M past either end of the tour back into it."""
    if i >= m:
        return i - m
    return i + m if i < 0 else i


@njit(cache=True)
def _next(tour: Tour, point: int, step: int) -> int:
    """Returns the point after another in direction ``step`` (1 or -1)."""
    return int(tour.points[_wrap(tour.position[point] + step, len(tour.points))])


@njit(cache=True)
def _count_steps(tour: Tour, a: int, b: int, step: int) -> int:
    """Returns the number of steps from a to b in direction ``step`` (1 or -1)."""
    ahead = tour.position[b] - tour.position[a]
    return _wrap(ahead if step == 1 else -ahead, len(tour.points))


@njit(cache=True)
def reverse_segment(tour: Tour, i: int, j: int) -> None:
    """Reverses the tour from position i to j (past the end if j < i); equivalently, the rest if that is shorter."""
    points, position, m = tour.points, tour.position, len(tour.points)
    length = j - i + 1
    if length <= 0:
        length += m
    if 2 * length > m:
        i, j, length = _wrap(j + 1, m), _wrap(i - 1, m), m - length
    half = length // 2
    if i + half <= m and j - half >= -1:  # the usual case, without wrapping, is faster
        for k in range(half):
            a, b = points[i + k], points[j - k]
            points[i + k], points[j - k] = b, a
            position[a], position[b] = j - k, i + k
        return
    for _ in range(half):
        a, b = points[i], points[j]
        points[i], points[j] = b, a
        position[a], position[b] = j, i
        i, j = _wrap(i + 1, m), _wrap(j - 1, m)


@njit(cache=True)
def _reverse_between(tour: Tour, u: int, v: int, length: int, step: int, log: Log) -> None:
    """Reverses the segment of ``length`` points that has u and v at its ends, and logs it.

    Where both ways from u to v have that length, it is the one in direction ``step`` (1 or -1).
    """
    if length < 2:
        return
    i, j, m = tour.position[u], tour.position[v], len(tour.points)
    is_ahead = _wrap(i + length - 1, m) == j
    if 2 * (length - 1) == m:
        is_ahead = step == 1
    if not is_ahead:
        i, j = j, i
    reverse_segment(tour, i, j)
    log.entries[log.length[0], 0], log.entries[log.length[0], 1] = i, j
    log.length[0] += 1


@njit(cache=True, fastmath=True)
def _best_move(problem: Problem, tour: Tour, t1: int) -> tuple[float, int, int, int, int, int]:
    """Finds the best move that removes an edge of t1 and adds one to a near point.

    Moves are a reversal (2-opt), and moving one to three points that begin at t1 next to the near point, in either
    direction (Or-opt). Returns the gain; the kind (0 none, 1 reversal, 2 move); the near point; the direction of the
    removed edge (1 or -1); how many points move; and to which side of the near point (0 or 1).
    """
    x, near, costs, max_reversal, min_gain = problem
    m = len(tour.points)
    best = min_gain
    kind, best_c, best_step, best_length, best_side = 0, 0, 1, 0, 1
    for direction in range(2):
        step = 1 if direction == 0 else -1  # t2 is one step from t1; the points that may move are on the other side
        t2 = _next(tour, t1, step)
        removed = step_cost(x, t1, t2)
        for k in range(near.shape[1]):
            gain = removed - costs[t1, k]
            if gain <= min_gain:
                break
            c = near[t1, k]
            d, beside = _next(tour, c, step), _next(tour, c, -step)
            to_d, to_beside = step_cost(x, c, d), step_cost(x, c, beside)
            if c != t2 and d != t1 and gain + to_d > best:  # else even an edge of length 0 gains too little
                value = gain + to_d - step_cost(x, t2, d)
                if value > best:
                    between = _count_steps(tour, t2, c, step)
                    if min(between, m - between) <= max_reversal:
                        best, kind, best_c, best_step = value, 1, c, step
            e = t1
            for length in range(1, 4):
                if length > 1:
                    e = _next(tour, e, -step)
                if e == c or e == t2 or e == m - 1:
                    break
                n = _next(tour, e, -step)
                if n == t2:
                    break
                freed = gain + step_cost(x, e, n)
                if freed + max(to_d, to_beside) <= best:
                    continue
                freed -= step_cost(x, t2, n)
                if (c == t2 and freed <= best) or freed + max(to_d, to_beside) <= best:
                    continue
                between = _count_steps(tour, t1, c, -step)
                if min(between, m - between) > max_reversal:
                    break
                for side in range(2):
                    other, to_other = (d, to_d) if side == 0 else (beside, to_beside)
                    if other == t1 or other == e or (c == t2 and side == 1) or (c == n and side == 0):
                        continue
                    if freed + to_other <= best:
                        continue
                    value = freed + to_other - step_cost(x, e, other)
                    if value > best:
                        best, kind, best_c, best_step, best_length, best_side = value, 2, c, step, length, side
    return best, kind, best_c, best_step, best_length, best_side


@njit(cache=True, fastmath=True)
def improve_at(problem: Problem, tour: Tour, t1: int, log: Log, touched: np.ndarray) -> tuple[float, int]:
    """Makes the best move at point t1: updates the tour, extends the log, fills ``touched`` (int64 ``(6,)``).

    Returns the gain (0: no move), and the number of points whose edges changed, the first in ``touched``.
    """
    m = len(tour.points)
    gain, kind, c, step, n_moved, side = _best_move(problem, tour, t1)
    if kind == 0:
        return 0.0, 0
    t2 = _next(tour, t1, step)
    touched[0], touched[1], touched[2] = t1, t2, c
    backward = _count_steps(tour, t2, c, step) + 1  # points from t2 to c
    if kind == 1:
        touched[3] = _next(tour, c, step)
        _reverse_between(tour, t2, c, backward, step, log)
        return gain, 4
    e = t1
    for _ in range(n_moved - 1):
        e = _next(tour, e, -step)
    n = _next(tour, e, -step)
    other = _next(tour, c, step if side == 0 else -step)
    touched[3], touched[4], touched[5] = e, n, other
    # Against the step, the tour reads t2, t1..e, n, ... What lies between the moved points and their new position is
    # reversed together with them, and then reversed back; only the first of these may span half of the tour.
    onward = _count_steps(tour, c, n, step) + 1  # points from n to c
    inner = c
    if side == 0 and onward <= m // 2:  # the other point is on the side of n: stop before c
        inner, onward = other, onward - 1
    if onward <= backward:
        _reverse_between(tour, t1, inner, n_moved + onward, -step, log)
        _reverse_between(tour, inner, n, onward, -step, log)
    else:
        inner = c
        if side == 1:
            inner, backward = other, backward - 1
        _reverse_between(tour, inner, e, n_moved + backward, -step, log)
        _reverse_between(tour, t2, inner, backward, step, log)
    if side == 1:
        _reverse_between(tour, e, t1, n_moved, -step, log)
    return gain, 6


@njit(cache=True)
def _descend(
    problem: Problem, tour: Tour, queue: np.ndarray, queued: np.ndarray, size: int, log: Log, can_undo: bool
) -> float:
    """Improves the tour until no queued point has a better move, and returns the gain.

    With ``can_undo`` all reversals stay in the log, and the search stops when it is full.
    """
    total, head, capacity, touched = 0.0, 0, len(queue), np.empty(6, np.int64)
    log.length[0] = 0
    while size > 0:
        t1 = queue[head]
        head = _wrap(head + 1, capacity)
        size -= 1
        queued[t1] = False
        again = True
        while again:
            gain, n_touched = improve_at(problem, tour, t1, log, touched)
            again = gain > 0
            total += gain
            for t in touched[:n_touched]:
                if t < len(problem.x) and t != t1 and not queued[t]:
                    queue[_wrap(head + size, capacity)] = t
                    size += 1
                    queued[t] = True
            if not can_undo:
                log.length[0] = 0
            elif log.length[0] > len(log.entries) - 8:
                again = False
                while size > 0:
                    queued[queue[head]] = False
                    head = _wrap(head + 1, capacity)
                    size -= 1
    return total


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
def local_search(
    x: np.ndarray, near: np.ndarray, order: np.ndarray, n_kicks: int, max_reversal: int, seed: int
) -> np.ndarray:
    """Lowers the cost of an open path.

    Args:
        x: float32 ``(N, D)``, N >= 5.
        near: int32 ``(N, K)`` neighbours of each point, nearest first.
        order: ``(N,)`` points, the initial path; the result, int64 ``(N,)``, never costs more.
        n_kicks: How often two adjacent segments are swapped at random and the path repaired; a kick that does not lower
            the cost is undone.
        max_reversal: Longest segment that a move may reverse (bounds the time on large data).
        seed: Of the kicks.
    """
    n = len(x)
    m = n + 1
    tour = Tour(np.empty(m, np.int32), np.empty(m, np.int32))
    points = tour.points
    points[:n] = order
    points[n] = n
    tour.position[points] = np.arange(m)
    total = 0.0
    for i in range(1, m):
        total += step_cost(x, points[i - 1], points[i])
    min_gain = RELATIVE_TOLERANCE * total / n
    problem = Problem(x, near, neighbour_costs(x, near), max_reversal, min_gain)
    log = Log(np.empty((4096, 2), np.int64), np.zeros(1, np.int64))
    queue, queued = np.empty(m, np.int64), np.zeros(m, np.bool_)
    queue[:n], queued[:n] = order, True
    _descend(problem, tour, queue, queued, n, log, False)
    state = np.array([np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x1234567)], dtype=np.uint64)
    longest = min(MAX_SEGMENT, (m - 2) // 3)
    for _ in range(n_kicks):
        at = _random(state, m)
        first, second = 1 + _random(state, longest), 1 + _random(state, longest)
        a, b = points[at], points[(at + 1) % m]
        c, d = points[(at + first) % m], points[(at + first + 1) % m]
        e, f = points[(at + first + second) % m], points[(at + first + second + 1) % m]
        loss = step_cost(x, a, d) + step_cost(x, e, b) + step_cost(x, c, f)
        loss -= step_cost(x, a, b) + step_cost(x, c, d) + step_cost(x, e, f)
        i, j, k = (at + 1) % m, (at + first) % m, (at + first + second) % m
        reverse_segment(tour, i, j)  # reversing each segment and then both swaps them
        reverse_segment(tour, (j + 1) % m, k)
        reverse_segment(tour, i, k)
        size = 0
        for t in (a, b, c, d, e, f):
            if t < n and not queued[t]:
                queue[size] = t
                queued[t] = True
                size += 1
        if _descend(problem, tour, queue, queued, size, log, True) < loss - min_gain:
            for r in range(log.length[0] - 1, -1, -1):
                reverse_segment(tour, log.entries[r, 0], log.entries[r, 1])
            reverse_segment(tour, i, k)
            reverse_segment(tour, (j + 1) % m, k)
            reverse_segment(tour, i, j)
    return np.roll(points, -tour.position[n])[1:].astype(np.int64)
