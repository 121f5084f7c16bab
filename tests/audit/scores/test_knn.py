"""Votes of neighbours against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlfix_train.audit.scores.knn import neighbours_needed, score_neighbours, weighted_knn_vote
from mlfix_train.audit.similarity.neighbours import nearest_neighbours


def points(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in tracks of four near-copies, three labels by place; labels and groups."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n // 4, 3)) * 3
    groups = np.repeat(np.arange(n // 4), 4)
    labels = (centers[:, 0] > -1).astype(np.int64) + (centers[:, 0] > 1)
    return centers[groups] + 0.05 * rng.normal(size=(n, 3)), labels[groups], groups


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("max_distance", [None, 1.0])
def test_votes_against_a_loop(grouped: bool, max_distance: float | None) -> None:
    x, labels, groups = points()
    found = nearest_neighbours(x, 20)
    votes = weighted_knn_vote(found, labels, groups if grouped else None, 5, max_distance)
    agreement = votes.agreement(labels)
    majority, most = votes.majority()
    for i in range(len(x)):
        d = np.linalg.norm(x - x[i], axis=1)
        near = [j for j in np.argsort(d) if j != i][:20]
        near = [j for j in near if not grouped or groups[j] != groups[i]]
        near = [j for j in near if max_distance is None or d[j] <= max_distance][:5]
        assert votes.count[i] == len(near)
        if not near:
            assert agreement[i] == 0.5
            assert majority[i] == -1
            continue
        far = max(*d[near], 1e-12)
        weight = {j: math.exp(-0.5 * (d[j] / far) ** 2) for j in near}
        total = sum(weight.values())
        by_label = {k: sum(w for j, w in weight.items() if labels[j] == k) / total for k in range(3)}
        assert agreement[i] == pytest.approx(by_label[labels[i]], abs=1e-4)
        assert most[i] == pytest.approx(max(by_label.values()), abs=1e-4)
        assert by_label[majority[i]] == pytest.approx(max(by_label.values()), abs=1e-4)


def test_a_wrong_label_in_a_track_is_told_by_its_twins_and_a_wrong_track_by_the_others() -> None:
    x, labels, groups = points()
    lone, track = 9, np.flatnonzero(groups == 20)
    wrong = labels.copy()
    wrong[lone] = (labels[lone] + 1) % 3
    wrong[track] = (labels[track] + 1) % 3
    found = score_neighbours(nearest_neighbours(x, 20), wrong, groups, k=3)
    assert found.scores["twin_disagreement"][lone] == pytest.approx(1, abs=1e-5)
    assert (found.scores["twin_disagreement"][track] == 0).all(), "the whole track is wrong alike"
    assert (found.scores["neighbour_disagreement"][track] > 0.3).any()
    assert found.label[lone] == labels[lone]
    alone = score_neighbours(nearest_neighbours(x, 20), wrong, None, k=3)
    assert list(alone.scores) == ["neighbour_disagreement"], "without groups there are no twins apart"
    np.testing.assert_array_equal(alone.scores["neighbour_disagreement"], found.scores["twin_disagreement"])


def test_where_nobody_votes_there_is_no_score() -> None:
    x, labels, _ = points(40)
    found = score_neighbours(nearest_neighbours(x, 5), labels, np.zeros(40, int), k=3)
    assert np.isnan(found.scores["neighbour_disagreement"]).all(), "all are of one group"
    assert np.isfinite(found.outlierness).all()


def test_as_many_neighbours_as_the_largest_group_hides() -> None:
    assert neighbours_needed(None, 10) == 10
    assert neighbours_needed(np.array([0, 1, 1, 1, 2]), 10) == 12
    assert neighbours_needed(np.zeros(1000, int), 10) == 48
    assert neighbours_needed(np.empty(0, int)) == 10


def test_what_bears_no_label_has_no_vote() -> None:
    x, labels, groups = points()
    some = np.where(np.arange(len(x)) % 3 == 0, labels, -1)
    found = weighted_knn_vote(nearest_neighbours(x, 30), some, groups, 5)
    bare = np.flatnonzero(some >= 0)
    alone = weighted_knn_vote(nearest_neighbours(x[bare], 30), some[bare], groups[bare], 5)
    full = found.count[bare] == 5
    assert full.mean() > 0.5
    np.testing.assert_allclose(found.agreement(some)[bare][full], alone.agreement(some[bare])[full], atol=1e-5)
    assert (found.majority()[0][bare][full] >= 0).all()
