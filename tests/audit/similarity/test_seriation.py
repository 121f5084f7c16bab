"""Seriation and neighbours: against brute force, every permutation, and shapes whose best order is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mlfix_train.audit.similarity import neighbours, path_search
from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.similarity.seriation import greedy_path, path_steps, seriate, seriate_slices, outlier_score
from mlfix_train.errors import ConfigError, DataError


def points(n: int, width: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def cost(x: np.ndarray, order: np.ndarray) -> float:
    return float((path_steps(x, order).astype(np.float64) ** 2.5).sum())


# --- neighbours ---


@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 3), (5, 3), (300, 10)])
def test_neighbours_are_those_of_brute_force(n: int, k: int) -> None:
    x = points(n, 8)
    found = nearest_neighbours(x, k)
    gaps = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert found.index.shape == (n, min(k, n - 1))
    wanted = np.sort(gaps, axis=1)[:, : min(k, n - 1)]
    assert found.distance == pytest.approx(wanted, abs=1e-4)
    if found.index.size:
        assert np.take_along_axis(gaps, found.index.astype(int), 1) == pytest.approx(wanted, abs=1e-4)


def test_by_cells_the_promised_recall_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    x = points(3000, 6, 1)
    truth = nearest_neighbours(x, 10).index
    monkeypatch.setattr(neighbours, "EXACT", 100)
    found = nearest_neighbours(x, 10, goal=0.97)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found.index, truth, strict=True)])
    assert recall > 0.94 and found.recall >= 0.97
    assert (found.index != np.arange(3000)[:, None]).all()
    assert (np.diff(found.distance, axis=1) >= 0).all()
    again = nearest_neighbours(x, 10, goal=0.97)
    assert (again.index == found.index).all(), "one seed, one answer"


def test_the_search_leaves_torchs_threads_alone() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        nearest_neighbours(points(13_000, 6), 10, goal=0.9999)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_far_from_the_origin_distances_stay_exact() -> None:
    x = points(200, 4) + 10_000
    found = nearest_neighbours(x, 3)
    rows = np.repeat(np.arange(200), 3)
    assert found.distance.ravel() == pytest.approx(np.linalg.norm(x[rows] - x[found.index.ravel()], axis=1), abs=5e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_no_numbers_are_named(bad: float) -> None:
    x = points(10)
    x[7, 1] = bad
    for search in (nearest_neighbours, seriate, outlier_score):
        with pytest.raises(DataError, match=r"(?s)1 of 10 rows .*row 7.*embed"):
            search(x)
    with pytest.raises(DataError, match="shape"):
        seriate(np.zeros(5))


# --- order ---


@pytest.mark.parametrize("n", [0, 1, 2])
def test_so_few_have_nothing_to_sort(n: int) -> None:
    assert seriate(points(n)).tolist() == list(range(n))


@pytest.mark.parametrize("n", [3, 5, 7, 8, 9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_points_get_the_best_of_all_orders(n: int, seed: int) -> None:
    x = points(n, 2, seed)
    if n == 9:
        x = x[:8]
    best = min(cost(x, np.array(order)) for order in permutations(range(len(x))) if order[0] < order[-1])
    assert cost(x, seriate(x, effort=200)) == pytest.approx(best, rel=1e-5)


def test_points_on_a_line_come_out_in_line() -> None:
    place = np.random.default_rng(3).permutation(500)
    x = np.stack([place, 0 * place], 1).astype(np.float32)
    found = place[seriate(x)]
    assert (np.abs(np.diff(found)) == 1).all()


def test_an_order_is_a_permutation_and_the_same_again() -> None:
    x = points(1500, 16, 5)
    first, second = seriate(x, seed=3), seriate(x, seed=3)
    assert (np.sort(first) == np.arange(1500)).all()
    assert (first == second).all()


def test_it_beats_the_greedy_chain_and_its_own_start() -> None:
    x = points(1200, 12, 2)
    left, chain = set(range(1, 1200)), [0]
    while left:
        rest = np.fromiter(left, int)
        chain.append(int(rest[np.linalg.norm(x[rest] - x[chain[-1]], axis=1).argmin()]))
        left.remove(chain[-1])
    found = nearest_neighbours(x, 10)
    start = greedy_path(x, found.index, found.distance)
    plain, more = seriate(x, effort=0), seriate(x, effort=5)
    assert cost(x, more) < cost(x, plain) < cost(x, start)
    ours, theirs = path_steps(x, more), path_steps(x, np.array(chain))
    assert ours.sum() < theirs.sum()
    assert np.sort(ours)[-12:].mean() < np.sort(theirs)[-12:].mean()


def test_a_warm_start_is_never_made_worse() -> None:
    x = points(400, 5, 4)
    good = seriate(x, effort=50)
    assert cost(x, seriate(x, start=good, effort=1)) <= cost(x, good) * (1 + 1e-6)
    bad = np.random.default_rng(0).permutation(400)
    assert cost(x, seriate(x, start=bad)) < 0.7 * cost(x, bad)


@pytest.mark.parametrize("start", [[0, 1], [0, 1, 1], [0.0, 1.0, 2.0], [0, 1, 3]])
def test_a_start_that_is_no_order_is_refused(start: list) -> None:
    with pytest.raises(DataError):
        seriate(points(3), start=start)
    with pytest.raises(ConfigError, match="effort"):
        seriate(points(3), effort=-1)


@pytest.mark.parametrize("n", [4, 10, 300])
def test_equal_points_are_fine(n: int) -> None:
    assert (np.sort(seriate(np.zeros((n, 3)))) == np.arange(n)).all()
    twice = np.repeat(points(n, 4), 2, axis=0)
    order = seriate(twice)
    assert (path_steps(twice, order) < 1e-6).sum() > 0.8 * n, "twins stand side by side, unless parting them pays"


def test_every_change_gains_what_it_says_and_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled search, one step at a time: the sum of all steps falls by the gain of each change."""
    x = points(60, 3, 8)
    found = nearest_neighbours(x, 8)
    order = np.random.default_rng(1).permutation(60)
    tour, place = np.append(order, 60), np.empty(61, np.int64)
    place[tour] = np.arange(61)
    far, log, touched = path_search.measure(x, found.index), np.empty((64, 2), np.int64), np.empty(6, np.int64)

    def total() -> float:
        return sum(path_search.cost(x, tour[i - 1], tour[i]) for i in range(61))

    changed = 0
    for _ in range(5):
        for t1 in range(60):
            before, kept = total(), tour.copy()
            gain, logged, _ = path_search._improve_at(x, found.index, far, tour, place, t1, 60, 1e-9, log, 0, touched)
            assert before - total() == pytest.approx(gain, abs=1e-6)
            assert (place[tour] == np.arange(61)).all()
            changed += gain > 0
            if t1 % 3 == 0:
                for i in range(logged - 1, -1, -1):
                    path_search._flip(tour, place, log[i, 0], log[i, 1])
                assert (tour == kept).all()
    assert changed > 50


def test_slices_are_ordered_by_themselves() -> None:
    x = points(90, 4)
    slices = [np.arange(0, 90, 3), np.array([5]), np.arange(1, 90, 3)]
    found = seriate_slices(x, slices)
    for rows, ordered in zip(slices, found, strict=True):
        assert sorted(ordered) == sorted(rows)
    assert (found[0] == slices[0][seriate(x[slices[0]])]).all()


def test_the_odd_one_out_is_the_least_like_its_neighbours() -> None:
    x = points(300, 4, 6) * 0.1
    x[77] = 9.0
    found = outlier_score(x)
    assert found.argmax() == 77 and found[77] > 10
    assert np.median(found) == pytest.approx(1, abs=0.1)
    assert outlier_score(3 * x) == pytest.approx(found, rel=1e-3), "whatever the scale"
    assert outlier_score(np.zeros((20, 3))).tolist() == [0.0] * 20
    assert outlier_score(points(2)).tolist() == [1.0, 1.0]
