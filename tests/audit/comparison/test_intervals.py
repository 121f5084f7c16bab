"""Intervals: their width, shape, coverage, and edge cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from comparison_helpers import component_of, crossed
from scipy import stats

from mlfix_train.audit.comparison import intervals, significance
from mlfix_train.audit.comparison.effects import (
    EffectComponent,
    effect_variance,
)
from mlfix_train.audit.comparison.intervals import bootstrap_interval


@pytest.mark.parametrize("paired", [True, False])
def test_interval_is_the_effect_and_t_standard_errors_about(paired: bool) -> None:
    rng = np.random.default_rng(5)
    a, b = crossed(rng, 12, 80, (1.0, 3.0, 1.0), effect=10.0), crossed(rng, 12, 80, (1.0, 1.0, 1.0))
    parts = [component_of(a - b)] if paired else [component_of(a), -component_of(b)]
    found, ci = effect_variance(parts), bootstrap_interval(parts, seed=1, resamples=20_000)
    assert found is not None and ci is not None
    for level in (0.8, 0.95, 0.99):
        low, high = bootstrap_interval(parts, seed=1, resamples=20_000, level=level) or (0.0, 0.0)
        half = stats.t.ppf((1 + level) / 2, found.satterthwaite_df()) * math.sqrt(found.total)
        assert (low + high) / 2 == pytest.approx(a.mean() - b.mean(), abs=0.1 * half)
        assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    again = bootstrap_interval(parts, seed=1, resamples=20_000)
    other = bootstrap_interval(parts, seed=2, resamples=20_000)
    assert ci == again and ci != other
    np.testing.assert_allclose(ci, other, atol=0.1 * (ci[1] - ci[0]))


def test_interval_turns_with_the_sign() -> None:
    one = component_of(crossed(np.random.default_rng(6), 9, 50, (1.0, 1.0, 1.0), effect=1.0))
    low, high = bootstrap_interval([one], seed=3, resamples=40_000) or (0.0, 0.0)
    turned = bootstrap_interval([-one], seed=3, resamples=40_000)
    np.testing.assert_allclose(turned, [-high, -low], atol=0.05 * (high - low))


SKEWED = np.array([0.0, 0.1, 0.0, 0.1, 0.05, 0.0, 0.1, 4.0])


def lean(cells: np.ndarray) -> float:
    """How much further the upper end of the interval of the skewed runs lies off than the lower, as a ratio."""
    ci = bootstrap_interval([EffectComponent(SKEWED, (SKEWED - SKEWED.mean())[:, None] + cells)], resamples=20_000)
    assert ci is not None
    return (ci[1] - SKEWED.mean()) / (SKEWED.mean() - ci[0])


@pytest.mark.parametrize("distinct", [10, 10**9])
def test_interval_leans_as_skewed_runs_do(distinct: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling keeps the shape, and mixes runs and groups by their shares: here the runs have the larger one."""
    monkeypatch.setattr(intervals, "MAX_DISTINCT", distinct)
    groups = np.random.default_rng(0).normal(0, 1.0, 60)
    assert lean(np.zeros((8, 60))) > 1.3
    assert lean(np.tile(groups - groups.mean(), (8, 1))) > 1.2


def test_noise_of_the_groups_does_not_hide_the_shape_of_the_runs() -> None:
    """What differs from run to run on one group is no variance of the groups, however large it is."""
    noise = np.random.default_rng(3).normal(0, 30.0, (8, 60))
    noise -= noise.mean(1, keepdims=True)
    found = effect_variance([EffectComponent(SKEWED, (SKEWED - SKEWED.mean())[:, None] + noise)])
    assert found is not None and found.shrinkage == 0
    assert lean(noise) > 1.2


def test_interval_of_no_difference_at_all_is_a_point() -> None:
    nothing = EffectComponent(np.zeros(6), np.zeros((6, 9)))
    assert bootstrap_interval([nothing]) == [0.0, 0.0]
    assert significance.permutation_p_value([nothing]) == 1.0
    found = effect_variance([nothing])
    assert found is not None and found.total == 0
    assert significance.runs_needed(0.0, found) is None
    assert significance.power(0.0, found, 10) == 0


@pytest.mark.parametrize(
    ("runs", "groups", "sd"),
    [(20, 100, (1.0, 6.0, 12.0)), (6, 60, (1.0, 1.0, 5.0)), (10, 40, (0.2, 5.0, 5.0))],
)
def test_interval_covers_the_truth(runs: int, groups: int, sd: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(7)
    studies, hit = 400, 0
    for number in range(studies):
        ci = bootstrap_interval([component_of(crossed(rng, runs, groups, sd, effect=2.0))], seed=number, resamples=400)
        assert ci is not None
        hit += ci[0] <= 2.0 <= ci[1]
    assert stats.binomtest(hit, studies, 0.95).pvalue > 1e-3 or hit / studies > 0.95


def test_many_groups_give_the_same_interval_as_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    one = component_of(crossed(np.random.default_rng(8), 3, intervals.MAX_DISTINCT + 50, (0.01, 3.0, 1.0)))
    normal = bootstrap_interval([one], resamples=2000)
    monkeypatch.setattr(intervals, "MAX_DISTINCT", 10**9)
    drawn = bootstrap_interval([one], resamples=2000)
    assert normal is not None and drawn is not None and normal != drawn
    np.testing.assert_allclose(normal, drawn, atol=0.08 * (normal[1] - normal[0]))


def test_the_limit_of_many_groups_is_as_skewed_as_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(9).exponential(size=600) ** 3
    limit = intervals._resample_mean(values, np.random.default_rng(0), 100_000)
    monkeypatch.setattr(intervals, "MAX_DISTINCT", 10**9)
    drawn = intervals._resample_mean(values, np.random.default_rng(0), 20_000)
    assert stats.skew(limit) == pytest.approx(stats.skew(values) / math.sqrt(600), abs=0.03)
    for tail in (0.005, 0.025, 0.5, 0.975, 0.995):
        assert np.quantile(limit, tail) == pytest.approx(np.quantile(drawn, tail), abs=0.12 * drawn.std())


def test_means_of_resamples_are_those_of_drawing_one_by_one() -> None:
    values = np.array([0.0, 0.0, 0.0, 1.0, -2.0, 5.0])
    means = intervals._resample_mean(values, np.random.default_rng(0), 20_500)
    assert len(means) == 20_500
    assert means.mean() == pytest.approx(values.mean(), abs=0.03)
    assert means.std() == pytest.approx(values.std() / math.sqrt(6), rel=0.02)
    slow = values[np.random.default_rng(1).integers(6, size=(20_500, 6))].mean(1)
    assert stats.ks_2samp(np.round(means, 6), np.round(slow, 6)).pvalue > 1e-3


def test_equal_runs_have_a_point_as_interval() -> None:
    for value, runs in itertools.product((0.1, 0.3, 100 / 7), (3, 6, 7, 10)):
        found = bootstrap_interval([EffectComponent(np.full(runs, value), np.zeros((runs, 4)))])
        assert found == pytest.approx([value, value])
