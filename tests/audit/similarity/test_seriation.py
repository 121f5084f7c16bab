"""Seriation against every permutation, and shapes whose best order is known; outlier scores."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mlfix_train.audit.similarity.neighbours import Neighbours, nearest_neighbours
from mlfix_train.audit.similarity.seriation import (
    greedy_path,
    insert_new,
    outlier_score,
    path_steps,
    seriate,
    summarize_path,
)
from mlfix_train.errors import ConfigError, DataError


def points(n: int, width: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def cost(x: np.ndarray, order: np.ndarray) -> float:
    return float((path_steps(x, order).astype(np.float64) ** 2.5).sum())


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_points_keep_their_order(n: int) -> None:
    assert seriate(points(n)).tolist() == list(range(n))


@pytest.mark.parametrize("n", [3, 5, 7, 8, 9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_points_get_the_best_of_all_permutations(n: int, seed: int) -> None:
    x = points(n, 2, seed)
    if n == 9:
        x = x[:8]
    best = min(cost(x, np.array(order)) for order in permutations(range(len(x))) if order[0] < order[-1])
    assert cost(x, seriate(x, search_effort=200)) == pytest.approx(best, rel=1e-5)


def test_points_on_a_line_come_out_in_line() -> None:
    place = np.random.default_rng(3).permutation(500)
    x = np.stack([place, 0 * place], 1).astype(np.float32)
    found = place[seriate(x)]
    assert (np.abs(np.diff(found)) == 1).all()


def test_an_order_is_a_permutation_and_deterministic() -> None:
    x = points(1500, 16, 5)
    first, second = seriate(x, seed=3), seriate(x, seed=3)
    assert (np.sort(first) == np.arange(1500)).all()
    assert (first == second).all()


def test_the_order_beats_the_greedy_chain_and_the_greedy_path() -> None:
    x = points(1200, 12, 2)
    left, chain = set(range(1, 1200)), [0]
    while left:
        rest = np.fromiter(left, int)
        chain.append(int(rest[np.linalg.norm(x[rest] - x[chain[-1]], axis=1).argmin()]))
        left.remove(chain[-1])
    found = nearest_neighbours(x, 10)
    start = greedy_path(x, found.index, found.distance)
    plain, more = seriate(x, search_effort=0), seriate(x, search_effort=5)
    assert cost(x, more) < cost(x, plain) < cost(x, start)
    ours, theirs = path_steps(x, more), path_steps(x, np.array(chain))
    assert ours.sum() < theirs.sum()
    assert np.sort(ours)[-12:].mean() < np.sort(theirs)[-12:].mean()


def test_an_initial_order_never_gets_worse() -> None:
    x = points(400, 5, 4)
    good = seriate(x, search_effort=50)
    assert cost(x, seriate(x, initial_order=good, search_effort=1)) <= cost(x, good) * (1 + 1e-6)
    bad = np.random.default_rng(0).permutation(400)
    assert cost(x, seriate(x, initial_order=bad)) < 0.7 * cost(x, bad)


@pytest.mark.parametrize("start", [[0, 1], [0, 1, 1], [0.0, 1.0, 2.0], [0, 1, 3]])
def test_an_initial_order_that_is_not_a_permutation_is_rejected(start: list) -> None:
    with pytest.raises(DataError):
        seriate(points(3), initial_order=start)
    with pytest.raises(ConfigError, match="search_effort"):
        seriate(points(3), search_effort=-1)


@pytest.mark.parametrize("n", [4, 10, 300])
def test_equal_points_are_ordered_side_by_side(n: int) -> None:
    assert (np.sort(seriate(np.zeros((n, 3)))) == np.arange(n)).all()
    twice = np.repeat(points(n, 4), 2, axis=0)
    order = seriate(twice)
    assert (path_steps(twice, order) < 1e-6).sum() > 0.8 * n, (
        "twins are side by side, unless separating them shortens the path"
    )


def test_the_outlier_has_the_highest_score() -> None:
    x = points(300, 4, 6) * 0.1
    x[77] = 9.0
    found = outlier_score(x)
    assert found.argmax() == 77 and found[77] > 10
    assert np.median(found) == pytest.approx(1, abs=0.1)
    assert outlier_score(3 * x) == pytest.approx(found, rel=1e-3), "whatever the scale"
    assert outlier_score(np.zeros((20, 3))).tolist() == [0.0] * 20
    assert outlier_score(points(2)).tolist() == [1.0, 1.0]


def test_new_images_are_inserted_after_their_nearest_neighbour() -> None:
    found = Neighbours(np.array([[1], [0], [1], [2]], np.int32), np.ones((4, 1), np.float32))
    assert insert_new(np.array([0, 1, np.nan, np.nan]), found).tolist() == [0, 1, 2, 3]
    assert insert_new(np.array([1, 0, np.nan, 2]), found).tolist() == [1, 2, 0, 3]
    assert sorted(insert_new(np.full(4, np.nan), found)) == [0, 1, 2, 3]


def test_outlier_score_uses_known_neighbours() -> None:
    x = points(200)
    found = nearest_neighbours(x, 10)
    assert outlier_score(x, neighbours=found) == pytest.approx(outlier_score(x), rel=1e-5)


def test_the_summary_of_a_path_compares_it_with_the_given_and_a_random_order() -> None:
    x = points(100, 2)
    order = seriate(x)
    summary = summarize_path(x, order)
    assert summary["mean_step"] == pytest.approx(path_steps(x, order).mean())
    given = path_steps(x, np.arange(100)).mean()
    assert summary["of_given_order"] == pytest.approx(summary["mean_step"] / given, abs=1e-4)
    assert summary["of_random_order"] < 0.5
    assert summarize_path(x[:1], order[:1])["of_given_order"] == 1
