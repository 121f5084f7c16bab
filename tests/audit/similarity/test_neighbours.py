"""Nearest neighbours against brute force: exact, approximate, re-ranked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlfix_train.audit.similarity import neighbours
from mlfix_train.audit.similarity.neighbours import nearest_neighbours, rerank
from mlfix_train.audit.similarity.seriation import outlier_score, seriate
from mlfix_train.errors import ConfigError, DataError


def points(n: int, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 3), (5, 3), (300, 10)])
def test_neighbours_match_brute_force(n: int, k: int) -> None:
    x = points(n, 8)
    found = nearest_neighbours(x, k)
    gaps = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert found.index.shape == (n, min(k, n - 1))
    wanted = np.sort(gaps, axis=1)[:, : min(k, n - 1)]
    assert found.distance == pytest.approx(wanted, abs=1e-4)
    if found.index.size:
        assert np.take_along_axis(gaps, found.index.astype(int), 1) == pytest.approx(wanted, abs=1e-4)


def test_the_approximate_search_reaches_the_requested_recall_and_is_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = points(3000, 6, 1)
    truth = nearest_neighbours(x, 10).index
    monkeypatch.setattr(neighbours, "EXACT_LIMIT", 100)
    found = nearest_neighbours(x, 10, min_recall=0.97)
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found.index, truth, strict=True)])
    assert recall > 0.94 and found.recall >= 0.97
    assert (found.index != np.arange(3000)[:, None]).all()
    assert (np.diff(found.distance, axis=1) >= 0).all()
    again = nearest_neighbours(x, 10, min_recall=0.97)
    assert (again.index == found.index).all(), "one seed, one answer"


@pytest.mark.parametrize(("n", "k"), [(70, 5), (1500, 10), (2049, 40)])
def test_the_search_of_a_gpu_matches_brute_force(n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_SIZE", 300 * n)  # several blocks, the last one smaller
    x = points(n, 6, 2)
    x[: n // 10] = x[n // 2 : n // 2 + n // 10]  # pairs that are alike, groups that are not filled
    truth = nearest_neighbours(x, k)
    found = neighbours._search_on_gpu(torch.from_numpy(x), k, "cpu")
    assert found.recall > 0.98 and found.index.dtype == np.int32  # of two that are alike, either is right
    assert found.distance == pytest.approx(truth.distance, abs=2e-3)
    assert (found.index != np.arange(n)[:, None]).all()
    gaps = np.linalg.norm(x[:, None] - x[found.index], axis=2)
    assert found.distance == pytest.approx(gaps, abs=1e-6), "exact, not rounded"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_what_the_processor_finds() -> None:
    x = points(20_000, 32, 3)
    ours, its = nearest_neighbours(x, 10, min_recall=1), nearest_neighbours(x, 10, "cuda")
    shared = [len(np.intersect1d(a, b)) / 10 for a, b in zip(ours.index, its.index, strict=True)]
    assert np.mean(shared) > 0.999 and its.recall > 0.99
    assert torch.backends.cuda.matmul.fp32_precision != "tf32"


def test_the_search_leaves_torchs_threads_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        nearest_neighbours(points(13_000, 6), 10, min_recall=0.9999)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_distances_far_from_the_origin_are_accurate() -> None:
    x = points(200, 4) + 10_000
    found = nearest_neighbours(x, 3)
    rows = np.repeat(np.arange(200), 3)
    assert found.distance.ravel() == pytest.approx(np.linalg.norm(x[rows] - x[found.index.ravel()], axis=1), abs=5e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(bad: float) -> None:
    x = points(10)
    x[7, 1] = bad
    for search in (nearest_neighbours, seriate, outlier_score):
        with pytest.raises(DataError, match=r"(?s)1 of 10 rows .*row 7.*embed"):
            search(x)
    with pytest.raises(DataError, match="shape"):
        seriate(np.zeros(5))


def test_reranking_selects_by_exact_distance() -> None:
    exact = points(300, 40)
    rough = exact[:, :6]
    found = rerank(nearest_neighbours(rough, 60), exact.astype(np.float16), 5)
    gaps = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    candidates = nearest_neighbours(rough, 60).index
    for row in range(300):
        own = gaps[row, candidates[row]]
        assert found.distance[row] == pytest.approx(np.sort(own)[:5], abs=0.02)
    everything = rerank(nearest_neighbours(rough, 299), exact, 5)
    truth = nearest_neighbours(exact, 5)
    assert everything.distance == pytest.approx(truth.distance, abs=1e-4)
    assert (everything.index == truth.index).mean() > 0.999


@pytest.mark.parametrize("settings", [{"k": 0}, {"k": 5000}, {"min_recall": 0.2}, {"min_recall": 1.5}])
def test_settings_out_of_range_are_named(settings: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        nearest_neighbours(points(10), **settings)
