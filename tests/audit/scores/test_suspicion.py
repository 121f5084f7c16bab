"""The combination of evidence, and the mixture fitted to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from score_helpers import combine, random_scores

from mlfix_train.audit.scores.suspicion import combine_log_ranks, fit_mixture, log_ranks, sigmoid_between_ranks
from mlfix_train.errors import DataError


def test_the_combination_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=30).round(1), rng.normal(size=30), rng.normal(size=30)
    b[[3, 7]] = np.nan
    cells = np.arange(30) // 3

    def log_rank(values: np.ndarray, i: int) -> float:
        known = values[~np.isnan(values)]
        if math.isnan(values[i]):
            return 1.0
        return -math.log((1 + (known > values[i]).sum() + ((known == values[i]).sum() - 1) / 2) / len(known))

    found, grouped = combine_log_ranks({"a": a}, {"b": b, "c": c}), combine_log_ranks({"a": a}, {"b": b, "c": c}, cells)
    both = combine_log_ranks({"a": a, "c": c}, {"b": b})
    for i in range(30):
        rest = log_rank(b, i) + log_rank(c, i)
        assert found[i] == pytest.approx(math.sqrt(log_rank(a, i) * rest))
        assert both[i] == pytest.approx(math.sqrt((log_rank(a, i) + log_rank(c, i)) / 2 * log_rank(b, i)))
        own = [log_rank(a, j) for j in range(30) if cells[j] == cells[i]]
        assert grouped[i] == pytest.approx(math.sqrt(sum(own) / 3 * rest))
    assert (log_ranks(np.full(4, np.nan)) == 1).all()


def test_units_and_monotone_changes_do_not_matter() -> None:
    kinds, _ = random_scores(500, 10, 0)
    other = {"k0": np.exp(kinds["k0"]), "k1": 1000 * kinds["k1"] - 3, "k2": kinds["k2"] ** 3}
    np.testing.assert_allclose(combine(kinds), combine(other))


def test_the_combination_finds_more_than_any_of_its_parts() -> None:
    def precision(score: np.ndarray, truth: np.ndarray) -> float:
        hits = truth[np.argsort(-score)]
        return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())

    for seed in range(3):
        kinds, truth = random_scores(4000, 120, seed, 2.5)
        assert precision(combine(kinds), truth) > max(precision(kind, truth) for kind in kinds.values()) + 0.05


def test_scores_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="a 3, b 4"):
        combine_log_ranks({"a": np.zeros(3)}, {"b": np.zeros(4)})
    with pytest.raises(DataError, match="can't be combined: a 3"):
        combine_log_ranks({"a": np.zeros(3)}, {})


@pytest.mark.parametrize("wrong", [60, 200, 800])
def test_the_number_of_wrong_labels_is_estimated(wrong: int) -> None:
    found = []
    for seed in range(5):
        kinds, truth = random_scores(20_000, wrong, seed, 5.0)
        evidence = combine(kinds)
        mixture = fit_mixture(evidence)
        suspicion = mixture.probability(evidence)
        assert suspicion.sum() == pytest.approx(mixture.count, rel=0.1)
        found.append(suspicion.sum())
        sure = suspicion > 0.9
        assert truth[sure].mean() > 0.85, "nine of ten such labels are wrong"
    assert np.mean(found) == pytest.approx(wrong, rel=0.25)


def test_suspicion_rises_with_the_evidence_everywhere() -> None:
    kinds, _ = random_scores(5000, 100, 0)
    evidence = combine(kinds)
    order = np.argsort(evidence)
    mixture = fit_mixture(evidence)
    odds = mixture.log_odds(evidence)[order]
    assert (np.diff(odds)[np.diff(evidence[order]) > 0] > 0).all()
    suspicion = mixture.probability(evidence)
    assert ((suspicion >= 0) & (suspicion <= 1)).all()


def test_suspicion_between_two_ranks() -> None:
    rng = np.random.default_rng(0)
    evidence = rng.gamma(2, size=5000)
    suspicion = sigmoid_between_ranks(evidence, 20, 200, 110)
    order = np.argsort(-evidence)
    assert suspicion.sum() == pytest.approx(110, abs=0.01)
    assert (np.diff(suspicion[order]) <= 0).all()
    assert suspicion[order[19]] > 0.75 > 0.35 > suspicion[order[199]]
    assert sigmoid_between_ranks(np.zeros(10), 1, 1, 1).sum() == pytest.approx(1, abs=1e-3), "all equal"
    assert sigmoid_between_ranks(np.array([3.0]), 1, 5, 4).shape == (1,)
