"""The combination of evidence, its mixture, and what is estimated from it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlfix_train.audit.scores.estimates import review_yield, resample_counts, spread_counts, wrong_labels
from mlfix_train.audit.scores.suspicion import between, combine, fit_mixture, log_ranks, probability
from mlfix_train.errors import DataError


def scores(
    n: int, wrong: int, seed: int, strength: float = 3.5, kinds: int = 3
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores of several kinds: hard right samples are hard for all of them, wrong labels stand out in each."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(n, bool)
    truth[rng.permutation(n)[:wrong]] = True
    hard = rng.normal(size=n)
    return {f"k{k}": 0.5 * hard + rng.normal(size=n) + strength * truth for k in range(kinds)}, truth


def together(kinds: dict[str, np.ndarray], cells: np.ndarray | None = None) -> np.ndarray:
    return combine({"k0": kinds["k0"]}, {name: kinds[name] for name in list(kinds)[1:]}, cells)


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

    found, grouped = combine({"a": a}, {"b": b, "c": c}), combine({"a": a}, {"b": b, "c": c}, cells)
    both = combine({"a": a, "c": c}, {"b": b})
    for i in range(30):
        rest = log_rank(b, i) + log_rank(c, i)
        assert found[i] == pytest.approx(math.sqrt(log_rank(a, i) * rest))
        assert both[i] == pytest.approx(math.sqrt((log_rank(a, i) + log_rank(c, i)) / 2 * log_rank(b, i)))
        own = [log_rank(a, j) for j in range(30) if cells[j] == cells[i]]
        assert grouped[i] == pytest.approx(math.sqrt(sum(own) / 3 * rest))
    assert (log_ranks(np.full(4, np.nan)) == 1).all()


def test_units_and_monotone_changes_do_not_matter() -> None:
    kinds, _ = scores(500, 10, 0)
    other = {"k0": np.exp(kinds["k0"]), "k1": 1000 * kinds["k1"] - 3, "k2": kinds["k2"] ** 3}
    np.testing.assert_allclose(together(kinds), together(other))


def test_the_combination_finds_more_than_any_of_its_parts() -> None:
    def precision(score: np.ndarray, truth: np.ndarray) -> float:
        hits = truth[np.argsort(-score)]
        return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())

    for seed in range(3):
        kinds, truth = scores(4000, 120, seed, 2.5)
        assert precision(together(kinds), truth) > max(precision(kind, truth) for kind in kinds.values()) + 0.05


def test_scores_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="a 3, b 4"):
        combine({"a": np.zeros(3)}, {"b": np.zeros(4)})
    with pytest.raises(DataError, match="can't be combined: a 3"):
        combine({"a": np.zeros(3)}, {})


@pytest.mark.parametrize("wrong", [60, 200, 800])
def test_the_number_of_wrong_labels_is_estimated(wrong: int) -> None:
    found = []
    for seed in range(5):
        kinds, truth = scores(20_000, wrong, seed, 5.0)
        evidence = together(kinds)
        mixture = fit_mixture(evidence)
        suspicion = probability(mixture.log_odds(evidence))
        assert suspicion.sum() == pytest.approx(mixture.count, rel=0.1)
        found.append(suspicion.sum())
        sure = suspicion > 0.9
        assert truth[sure].mean() > 0.85, "nine of ten such labels are wrong"
    assert np.mean(found) == pytest.approx(wrong, rel=0.25)


def test_suspicion_rises_with_the_evidence_everywhere() -> None:
    kinds, _ = scores(5000, 100, 0)
    evidence = together(kinds)
    order = np.argsort(evidence)
    odds = fit_mixture(evidence).log_odds(evidence)[order]
    assert (np.diff(odds)[np.diff(evidence[order]) > 0] > 0).all()
    assert ((probability(odds) >= 0) & (probability(odds) <= 1)).all()


def test_intervals_hold_the_truth_and_groups_widen_them() -> None:
    kinds, truth = scores(20_000, 300, 3, 5.0)
    evidence, labels = together(kinds), np.arange(20_000) % 4
    mixture = fit_mixture(evidence)
    total, by_label = resample_counts(evidence, mixture, labels, 4, None)
    low, high = np.quantile(total, [0.025, 0.975])
    assert low < truth.sum() < high
    np.testing.assert_allclose(by_label.sum(1), total)
    again, _ = resample_counts(evidence, mixture, labels, 4, None)
    np.testing.assert_array_equal(again, total)
    parts = np.full(20_000, 0)
    parts[np.argsort(-evidence)] = np.arange(20_000) // 50  # the suspicious ones stand together
    grouped, _ = resample_counts(evidence, mixture, labels, 4, parts)
    assert grouped.std() > 1.5 * total.std()
    told = wrong_labels(probability(mixture.log_odds(evidence)), labels, list("abcde"), (total, by_label))
    assert told["interval"][0] < told["wrong"] < told["interval"][1]
    assert list(told["labels"]) == list("abcd"), "e has no samples"
    assert sum(row["wrong"] for row in told["labels"].values()) == pytest.approx(told["wrong"], abs=0.1)


def test_looking_pays_while_one_in_twenty_is_wrong() -> None:
    told = review_yield(np.array([1.0, 0.9, 0.06, 0.05, 0.049, 0.01]))
    assert (told["stop_rank"], told["expected_found"], told["expected_left"]) == (4, 2.0, 0.1)
    assert told["curve"][0] == [1, 1.0]
    assert told["curve"][-1][0] == 6
    assert review_yield(np.array([0.01]))["stop_rank"] == 0


def test_where_nothing_stands_apart_the_number_lies_between_two_ends() -> None:
    rng = np.random.default_rng(0)
    evidence = rng.gamma(2, size=5000)
    suspicion = between(evidence, 20, 200, 110)
    order = np.argsort(-evidence)
    assert suspicion.sum() == pytest.approx(110, abs=0.01)
    assert (np.diff(suspicion[order]) <= 0).all()
    assert suspicion[order[19]] > 0.75 > 0.35 > suspicion[order[199]]
    labels = np.arange(5000) % 3
    total, by_label = spread_counts(suspicion, (20, 200), labels, 3, None)
    assert (total[0], total[-1]) == (20, 200)
    np.testing.assert_allclose(by_label.sum(1), total, rtol=0.5)
    assert between(np.zeros(10), 1, 1, 1).sum() == pytest.approx(1, abs=1e-3), "all alike"
    assert between(np.array([3.0]), 1, 5, 4).shape == (1,)


@pytest.mark.parametrize(("pull", "right", "wrong_aum", "clear"), [(3.0, 2.0, -4.0, True), (1.5, 1.5, -1.0, False)])
def test_a_ranking_says_whether_wrong_labels_stand_apart(
    pull: float, right: float, wrong_aum: float, clear: bool
) -> None:
    from mlfix_train.audit.predictions.held_out import merge_runs
    from mlfix_train.audit.predictions.table import predictions_table
    from mlfix_train.audit.scores.ranking import Evidence, rank

    rng = np.random.default_rng(2)
    n, names = 8000, list("abcde")
    true = rng.integers(5, size=n)
    wrong = rng.random(n) < 0.03
    labels = np.where(wrong, (true + 1) % 5, true)
    logits = rng.normal(size=(n, 5)) + pull * np.eye(5)[true]
    aum = 1.2 * rng.normal(size=n) + np.where(wrong, wrong_aum, right)
    held = merge_runs([predictions_table([f"s{i:05d}" for i in range(n)], labels, logits, names)], names)
    near = held.ids.str[1:].astype(int)
    found = rank(held, Evidence(aum=aum[near]))
    told = found.estimates
    assert told["clear"] is clear
    assert told["interval"][0] <= wrong.sum() <= told["interval"][1]
    assert told["interval"][0] <= told["wrong"] <= told["interval"][1]
    assert found.table["suspicion"].is_monotonic_decreasing
    assert found.table["suspicion"].sum() == pytest.approx(told["wrong"], abs=0.1)
