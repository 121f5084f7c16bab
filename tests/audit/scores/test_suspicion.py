"""The combination of evidence, and the mixture fitted to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from score_helpers import combine, random_scores

from mlfix_train.audit.scores.suspicion import combine_log_ranks, fit_mixture, log_ranks, suspicion_by_rank
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

    def correlation(x: list[float], y: list[float]) -> float:
        dx, dy = (np.array(z) - np.mean(z) for z in (x, y))
        return max(float((dx * dy).sum()) / math.sqrt(float((dx**2).sum() * (dy**2).sum())), 0.0)

    ranks = {name: [log_rank(values, i) for i in range(30)] for name, values in (("a", a), ("b", b), ("c", c))}
    grouped = [sum(ranks["a"][j] for j in range(30) if cells[j] == cells[i]) / 3 for i in range(30)]
    for own, codes in ((ranks["a"], None), (grouped, cells)):
        found, weights = combine_log_ranks(a, {"b": b, "c": c}, codes)
        for name in "bc":
            assert weights[name] == pytest.approx(correlation(ranks[name], own))
        for i in range(30):
            assert found[i] == pytest.approx(own[i] + weights["b"] * ranks["b"][i] + weights["c"] * ranks["c"][i])
    assert combine_log_ranks(a, {"b": a}, None, {"b": 0.25})[1] == {"b": pytest.approx(0.25)}
    constant, weights = combine_log_ranks(a, {"b": np.zeros(30)})
    assert weights == {"b": 0} and constant[4] == pytest.approx(ranks["a"][4])
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
    with pytest.raises(DataError, match="held_out 3, b 4"):
        combine_log_ranks(np.zeros(3), {"b": np.zeros(4)})


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


def test_a_suspicion_that_only_orders() -> None:
    evidence = np.random.default_rng(0).gamma(2, size=5000)
    suspicion = suspicion_by_rank(evidence, 20)
    order = np.argsort(-evidence)
    assert suspicion[order[19]] == 0.5
    assert (np.diff(suspicion[order]) < 0).all() and (np.diff(1 - suspicion[order]) > 0).all()
    assert len(set(suspicion_by_rank(np.zeros(10), 1))) == 1
