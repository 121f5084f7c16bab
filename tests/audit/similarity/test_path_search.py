"""The compiled path search, one move at a time."""

from __future__ import annotations

import numpy as np
import pytest

from mlfix_train.audit.similarity import path_search
from mlfix_train.audit.similarity.neighbours import nearest_neighbours


def points(n: int, width: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


@pytest.mark.parametrize(("n", "seed"), [(60, 1), *((n, seed) for n in (9, 11, 17, 49) for seed in range(8))])
def test_every_move_gains_what_it_returns_and_can_be_undone(n: int, seed: int) -> None:
    """The cost of the tour falls by the gain of each move; tours of even length can be halved in two ways."""
    x = points(n, 3, 8 + seed)
    found = nearest_neighbours(x, min(8, n - 2))
    points_at = np.append(np.random.default_rng(seed).permutation(n), n).astype(np.int32)
    tour = path_search.Tour(points_at, np.empty(n + 1, np.int32))
    tour.position[points_at] = np.arange(n + 1)
    costs = path_search.neighbour_costs(x, found.index)
    problem = path_search.Problem(x, found.index, costs, n, 1e-9)
    touched = np.empty(6, np.int64)

    def total() -> float:
        return sum(path_search.step_cost(x, tour.points[i - 1], tour.points[i]) for i in range(n + 1))

    changed = 0
    for _ in range(5):
        for t1 in range(n):
            before, kept = total(), tour.points.copy()
            log = path_search.Log(np.empty((64, 2), np.int64), np.zeros(1, np.int64))
            gain, _ = path_search.improve_at(problem, tour, t1, log, touched)
            assert before - total() == pytest.approx(gain, abs=1e-6)
            assert (tour.position[tour.points] == np.arange(n + 1)).all()
            changed += gain > 0
            if t1 % 3 == 0:
                for i in range(log.length[0] - 1, -1, -1):
                    path_search.reverse_segment(tour, log.entries[i, 0], log.entries[i, 1])
                assert (tour.points == kept).all()
    assert changed > n // 2
