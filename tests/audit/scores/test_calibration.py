"""The calibration by judged labels: what is drawn, the curve, the counts, and how often intervals cover."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import gamma, norm

from mlfix_train.audit.scores import calibration
from mlfix_train.audit.scores.calibration import (
    bands,
    calibrate,
    count_interval,
    draw_to_judge,
    inclusion_probabilities,
    rank_order,
)
from mlfix_train.audit.scores.estimates import STOP_PROBABILITY, estimate_by_judgements
from mlfix_train.errors import DataError


def a_set(n: int = 5000, rate: float = 0.05, auroc: float = 0.97, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Evidence and truth: scores of right and wrong labels are normal."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(n, bool)
    wrong[rng.choice(n, round(rate * n), replace=False)] = True
    return rng.normal(0, 1, n) + np.sqrt(2) * norm.ppf(auroc) * wrong, wrong


def test_the_sample_reaches_every_rank_and_can_be_extended() -> None:
    evidence, _ = a_set()
    rows = draw_to_judge(evidence, 100)
    ranks = np.argsort(rank_order(evidence))[rows]
    assert len(set(rows.tolist())) == 100
    np.testing.assert_array_equal(draw_to_judge(evidence, 100), rows)
    assert set(draw_to_judge(evidence, 100, seed=1).tolist()) != set(rows.tolist())
    np.testing.assert_array_equal(draw_to_judge(evidence, 40), rows[:40])
    np.testing.assert_array_equal(draw_to_judge(evidence, 60, judged=rows[:40]), rows[40:])
    edges = bands(5000)
    assert edges[:4].tolist() == [0, 10, 30, 70] and edges[-1] == 5000
    drawn = np.histogram(ranks, edges)[0]
    assert drawn.min() >= 2 and (np.diff(drawn) >= -1).all(), "longer bands are drawn from more often"
    assert abs(np.corrcoef(np.arange(100), ranks)[0, 1]) < 0.3, "in random order"
    assert sorted(draw_to_judge(evidence, 9000).tolist()) == list(range(5000))


def test_inclusion_probabilities_are_those_of_the_draw() -> None:
    evidence, _ = a_set(200)
    expected = inclusion_probabilities(evidence, 30)
    drawn = np.zeros(200)
    for seed in range(2000):
        drawn[draw_to_judge(evidence, 30, seed)] += 1 / 2000
    assert expected.sum() == pytest.approx(30) and expected.min() > 0
    order, edges = rank_order(evidence), bands(200)
    for low, high in pairwise(edges):
        band = order[low:high]
        assert drawn[band].mean() == pytest.approx(expected[band].mean(), abs=0.03)
        assert np.ptp(drawn[band]) < 0.12


def test_the_curve_is_the_exact_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three cells and four levels: compared with the sum over all falling curves."""
    levels, centers = np.array([-4.0, -2.0, 0.0, 2.0]), np.array([-2.0, 0.0, 2.5])
    seen = np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 0.0]])
    monkeypatch.setattr(calibration, "LOG_ODDS", levels)
    monkeypatch.setattr(calibration, "FALLS", (0.5, 2.0))
    monkeypatch.setattr(calibration, "JUMPS", (1.0,))
    monkeypatch.setattr(calibration, "DRAWS", 40_000)
    calibration._transitions.cache_clear()
    curves = calibration._draw_curves(seen, centers, np.random.default_rng(0))
    calibration._transitions.cache_clear()

    def step(fall: float, length: float, high: int, low: int) -> float:
        if low > high:
            return 0.0
        process = gamma(fall * length, scale=1.0)
        lower = 0.0 if high == low else process.cdf(2 * (high - low) - 1)
        return float((1.0 if low == 0 else process.cdf(2 * (high - low) + 1)) - lower)

    start = np.exp(-np.abs(levels) / 2) / np.exp(-np.abs(levels) / 2).sum()
    total, mean = 0.0, np.zeros(3)
    for fall, path in product((0.5, 2.0), product(range(4), repeat=3)):
        p = expit(levels[list(path)])
        weight = start[path[0]] * step(fall, 2.0, path[0], path[1]) * step(fall, 2.5, path[1], path[2])
        weight *= np.prod(p ** seen[1] * (1 - p) ** seen[0])
        total, mean = total + weight, mean + weight * p
    np.testing.assert_allclose(expit(curves).mean(0), mean / total, atol=0.006)
    assert (np.diff(curves) <= 0).all()


@pytest.mark.parametrize(("rate", "auroc"), [(0.05, 0.97), (0.01, 0.999), (0.1, 0.75)])
def test_intervals_cover_and_probabilities_hold(rate: float, auroc: float) -> None:
    evidence, wrong = a_set(rate=rate, auroc=auroc)
    covered, gap, error = 0, [], []
    for seed in range(15):
        rows = draw_to_judge(evidence, 100, seed)
        found = calibrate(evidence, rows, wrong[rows], seed=seed)
        covered += found.interval[0] <= wrong.sum() <= found.interval[1]
        bins = np.minimum((10 * found.probability).astype(int), 9)
        gap.append(np.abs(np.bincount(bins, weights=found.probability - wrong, minlength=10)).sum() / len(wrong))
        error.append(found.wrong - wrong.sum())
    assert covered >= 12 and np.mean(gap) < 0.05
    assert abs(np.median(error)) < 0.35 * wrong.sum()


def test_probabilities_fall_with_the_evidence_and_tell_where_to_stop() -> None:
    evidence, wrong = a_set()
    rows = draw_to_judge(evidence, 300)
    found = calibrate(evidence, rows, wrong[rows], np.arange(5000) % 3, 4)
    ordered = found.probability[rank_order(evidence)]
    assert (np.diff(ordered) <= 0).all() and ordered[0] > 0.5 and ordered[-1] < 0.01
    assert (found.judged, found.judged_wrong) == (300, wrong[rows].sum())
    estimate = estimate_by_judgements(found, np.arange(5000) % 3, list("abcd"))
    assert list(estimate.labels) == list("abc") and estimate.judged == 300 and estimate.clear
    assert estimate.review_yield["stop_rank"] == (ordered >= STOP_PROBABILITY).sum()
    assert sum(row["wrong"] for row in estimate.labels.values()) == pytest.approx(estimate.wrong, rel=0.2)


def test_everything_judged_is_counted_exactly() -> None:
    evidence, wrong = a_set(400)
    found = calibrate(evidence, np.arange(400), wrong, np.arange(400) % 2, 2)
    assert found.interval == (20, 20) and found.wrong == 20
    np.testing.assert_array_equal(found.counts[1][0], [wrong[::2].sum(), wrong[1::2].sum()])


def test_the_top_of_the_ranking_alone_is_used_too_and_found_labels_are_counted() -> None:
    evidence, wrong = a_set(rate=0.04, auroc=0.995)
    top = rank_order(evidence)[:600]
    found = calibrate(evidence, top, wrong[top])
    assert found.interval[0] <= wrong.sum() <= found.interval[1]
    elsewhere = np.setdiff1d(np.flatnonzero(wrong), top)
    assert len(elsewhere)
    more = calibrate(evidence, top, wrong[top], found=elsewhere)
    assert more.interval[0] >= wrong.sum()
    np.testing.assert_allclose(more.probability, found.probability)


def test_labels_differ() -> None:
    """All wrong labels are of one class; its interval holds them, those of the others hold none."""
    evidence, wrong = a_set(rate=0.05, auroc=0.9)
    labels = np.where(wrong, 0, np.arange(5000) % 5)
    rows = draw_to_judge(evidence, 300)
    low, high = count_interval(calibrate(evidence, rows, wrong[rows], labels, 5).counts[1])
    assert low[0] > high[1:].max() / 2 and (low[1:] <= 20).all()


def test_groups_are_right_or_wrong_together_unless_judgements_contradict_it() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 20)
    track_wrong = np.zeros(200, bool)
    track_wrong[rng.choice(200, 10, replace=False)] = True
    wrong = track_wrong[groups]
    evidence = rng.normal(0, 0.3, 4000) + 2 * wrong + rng.normal(0, 1, 200)[groups]
    rows = draw_to_judge(evidence, 100)
    alone, together = (calibrate(evidence, rows, wrong[rows], groups=g) for g in (None, groups))
    counts, single = (np.round(found.counts[0], 6) for found in (together, alone))
    assert (counts % 20 == 0).all() and not (single % 20 == 0).all(), "whole tracks"
    assert together.interval[0] <= 200 <= together.interval[1]
    mixed = wrong & (np.arange(4000) % 2 == 0)
    alone, together = (calibrate(evidence, rows, mixed[rows], groups=g) for g in (None, groups))
    assert together.interval == alone.interval


def test_the_interval_begins_at_the_most_likely_end() -> None:
    draws = np.random.default_rng(0).exponential(size=200_000)
    np.testing.assert_allclose(count_interval(draws), [0, -np.log(0.025)], atol=0.05)
    both = np.stack([draws, np.random.default_rng(1).normal(size=200_000)], axis=1)
    np.testing.assert_allclose(count_interval(both)[:, 1], [-1.96, 1.96], atol=0.15)


@pytest.mark.parametrize(
    ("rows", "wrong", "problem"),
    [([], [], "no label was judged"), ([1], [True, False], "1 rows were judged"), ([9], [True], "row 9 was judged")],
)
def test_what_can_not_be_calibrated(rows: list[int], wrong: list[bool], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        calibrate(np.arange(9), np.array(rows), np.array(wrong))


def test_the_last_judgement_of_a_row_counts() -> None:
    found = calibrate(np.arange(9), np.array([3, 4, 3]), np.array([False, False, True]))
    assert (found.judged, found.judged_wrong) == (2, 1)
