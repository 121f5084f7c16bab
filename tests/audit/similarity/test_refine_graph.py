"""The compiled part of the neighbour search: reverse edges and refinement."""

from __future__ import annotations

import numpy as np
import pytest

from mlfix_train.audit.similarity.neighbours import nearest_neighbours
from mlfix_train.audit.similarity.refine_graph import refine_graph, reverse_graph


def test_reverse_graph_lists_who_has_a_point_as_neighbour() -> None:
    index = np.array([[1, 2], [0, 2], [0, -1]], np.int32)
    fresh = np.array([[True, False], [False, False], [True, False]])
    found, new = reverse_graph(index, fresh, 2)
    assert found.tolist() == [[1, 2], [0, -1], [0, 1]] and new.tolist() == [
        [False, True],
        [True, False],
        [False, False],
    ]
    assert reverse_graph(index, fresh, 1)[0].tolist() == [[1], [0], [0]]


def test_refinement_keeps_true_distances_without_repeats_and_never_loses_recall() -> None:
    x = np.random.default_rng(1).normal(size=(400, 5)).astype(np.float32)
    rng = np.random.default_rng(0)
    index = np.array([rng.choice(np.delete(np.arange(400), i), 8, replace=False) for i in range(400)]).astype(np.int32)
    distance = np.square(x[index] - x[:, None]).sum(2)
    order = np.argsort(distance, 1)
    index, distance = np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1).astype(np.float32)
    truth = nearest_neighbours(x, 8).index
    before, fresh = 0.0, np.ones((400, 8), np.bool_)
    for _ in range(10):
        index, distance, fresh = refine_graph(x, index, distance, fresh, *reverse_graph(index, fresh, 8))
        recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(index, truth, strict=True)]) / 8
        assert recall >= before
        before = recall
    assert before > 0.99 and not fresh.any()
    assert distance == pytest.approx(np.square(x[index] - x[:, None]).sum(2), rel=1e-4)
    assert all(len(set(row)) == 8 and i not in row for i, row in enumerate(index.tolist()))
    assert (np.diff(distance, axis=1) >= 0).all()
