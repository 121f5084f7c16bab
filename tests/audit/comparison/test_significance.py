"""Permutation tests against enumeration, and power against statsmodels, simulation and tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from comparison_helpers import component_of, crossed, fixed_variance
from scipy import stats

from mlfix_train.audit.comparison import significance
from mlfix_train.audit.comparison.effects import (
    EffectComponent,
    EffectVariance,
    effect_variance,
    estimate,
)


def flips(values: np.ndarray) -> float:
    """Two-sided p of all sign flips, one by one."""
    observed = values.mean()
    means = [np.mean(values * signs) for signs in itertools.product((1, -1), repeat=len(values))]
    below = sum(m <= observed + 1e-12 for m in means) / len(means)
    above = sum(m >= observed - 1e-12 for m in means) / len(means)
    return min(1.0, 2 * min(below, above))


def deals(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p of all ways to deal the runs to the arms anew, one by one."""
    both, n = np.concatenate([first, second]), len(first)
    observed = first.mean() - second.mean()
    differences = []
    for chosen in itertools.combinations(range(len(both)), n):
        rest = [i for i in range(len(both)) if i not in chosen]
        differences.append(both[list(chosen)].mean() - both[rest].mean())
    below = sum(d <= observed + 1e-12 for d in differences) / len(differences)
    above = sum(d >= observed - 1e-12 for d in differences) / len(differences)
    return min(1.0, 2 * min(below, above))


def paired(values: np.ndarray) -> list[EffectComponent]:
    return [EffectComponent(values, np.zeros((len(values), 2)))]


def unpaired(first: np.ndarray, second: np.ndarray) -> list[EffectComponent]:
    return [EffectComponent(first, np.zeros((len(first), 2))), EffectComponent(-second, np.zeros((len(second), 2)))]


@pytest.mark.parametrize("runs", [2, 3, 5, 8, 10])
def test_p_of_pairs_is_that_of_all_flips(runs: int) -> None:
    rng = np.random.default_rng(runs)
    tables = [
        rng.normal(0.6, 1, runs),
        rng.normal(0, 1, runs),
        np.round(rng.normal(0.5, 1, runs)),
        np.abs(rng.normal(1, 1, runs)),
        -np.abs(rng.normal(1, 1, runs)),
        np.full(runs, 0.1),
    ]
    for values in tables:
        if values.any():
            assert significance.permutation_p_value(paired(values)) == pytest.approx(flips(values)), values


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 5), (3, 3), (4, 6), (6, 3)])
def test_p_of_runs_that_are_no_pairs_is_that_of_all_deals(n: int, m: int) -> None:
    rng = np.random.default_rng(n * 10 + m)
    for shift in (0.0, 1.0, -1.0, 9.0, -9.0):
        a, b = rng.normal(shift, 1, n), rng.normal(0, 1, m)
        assert significance.permutation_p_value(unpaired(a, b)) == pytest.approx(deals(a, b)), (a, b)
        a, b = np.round(a), np.round(b)  # ties
        assert significance.permutation_p_value(unpaired(a, b)) == pytest.approx(deals(a, b)), (a, b)


def test_rounding_in_the_last_digits_makes_no_difference() -> None:
    """Errors that are equal but for the order of their sums count as equal."""
    values = np.array([0.1 + 0.2, 0.3, -0.3, -(0.1 + 0.2), 0.3, 0.3])
    assert significance.permutation_p_value(paired(values)) == pytest.approx(flips(np.round(values, 6)))
    a, b = np.array([0.1 + 0.2, 0.6, 0.3]), np.array([0.3, 0.3, 0.1 + 0.5])
    assert significance.permutation_p_value(unpaired(a, b)) == 1.0


@pytest.mark.parametrize("mean", [0.0, 0.25, 0.4])
def test_p_of_many_runs_is_near_students(mean: float) -> None:
    rng = np.random.default_rng(9)
    a, b = rng.normal(mean, 1, 60), rng.normal(0, 1, 60)
    pairs = significance.permutation_p_value(paired(a), resamples=20_000)
    assert pairs == pytest.approx(stats.ttest_1samp(a, 0).pvalue, abs=0.025)
    free = significance.permutation_p_value(unpaired(a, b), resamples=20_000)
    assert free == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, abs=0.025)


def test_p_repeats_with_its_seed_and_is_never_0() -> None:
    values = np.random.default_rng(10).normal(0.3, 1, 40)
    first = significance.permutation_p_value(paired(values), seed=4, resamples=500)
    assert first == significance.permutation_p_value(paired(values), seed=4, resamples=500)
    assert first != significance.permutation_p_value(paired(values), seed=5, resamples=500)
    assert significance.permutation_p_value(paired(np.full(40, 3.0)), resamples=500) == pytest.approx(2 / 501)


def test_p_is_uniform_where_nothing_happens() -> None:
    rng = np.random.default_rng(13)
    ps = [significance.permutation_p_value(paired(rng.normal(size=8))) or 0.0 for _ in range(400)]
    assert np.mean(np.array(ps) <= 0.05) < 0.08
    assert stats.kstest(ps, "uniform").pvalue > 1e-3


def test_one_run_has_no_p() -> None:
    assert significance.permutation_p_value(paired(np.array([1.0]))) is None
    assert significance.permutation_p_value(unpaired(np.array([1.0]), np.arange(5.0))) is None


@pytest.mark.parametrize("counts", [(1,), (2,), (5,), (6,), (10,), (2, 2), (3, 3), (4, 4), (2, 6), (5, 3)])
def test_smallest_p_is_that_of_runs_entirely_apart(counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    sets = [rng.random(count) + 1 for count in counts]
    wanted = flips(sets[0]) if len(sets) == 1 else deals(sets[0], sets[1] + 10)
    assert significance.smallest_p_value(counts) == pytest.approx(wanted)
    if min(counts) > 1:
        parts = paired(sets[0]) if len(sets) == 1 else unpaired(sets[0], sets[1] + 10)
        assert significance.permutation_p_value(parts) == pytest.approx(wanted)


def test_six_pairs_or_four_runs_of_each_arm_can_show_something() -> None:
    assert significance.smallest_p_value((5,)) > 0.05 > significance.smallest_p_value((6,))
    assert significance.smallest_p_value((3, 3)) > 0.05 > significance.smallest_p_value((4, 4))


# --- power ---


def test_power_is_that_of_statsmodels() -> None:
    models = pytest.importorskip("statsmodels.stats.power")
    for effect in (0.3, 0.5, 1.0):
        one, two = fixed_variance((1.0,)), fixed_variance((1.0, 1.0))
        for runs in (3, 10, 40):
            wanted = models.TTestPower().power(effect, runs, 0.05)
            assert significance.power(effect, one, runs) == pytest.approx(wanted, abs=1e-6)
            wanted = models.TTestIndPower().power(effect, runs, 0.05)
            assert significance.power(effect, two, runs) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("effect", "runs"), [(0.0, 5), (0.8, 4), (0.5, 20), (-0.8, 12)])
def test_power_is_how_often_a_t_test_finds_it(effect: float, runs: int) -> None:
    rng = np.random.default_rng(14)
    a, b = rng.normal(effect, 1, (40_000, runs)), rng.normal(0, 1, (40_000, runs))
    pairs = np.mean(stats.ttest_1samp(a, 0, axis=1).pvalue < 0.05)
    assert significance.power(effect, fixed_variance((1.0,)), runs) == pytest.approx(pairs, abs=0.01)
    free = np.mean(stats.ttest_ind(a, b, axis=1).pvalue < 0.05)
    assert significance.power(effect, fixed_variance((1.0, 1.0)), runs) == pytest.approx(free, abs=0.01)


def test_power_with_groups_is_how_often_the_interval_leaves_out_0() -> None:
    """Another study of so many runs and as many new groups, judged by t with the estimated variance."""
    rng = np.random.default_rng(15)
    R, G, effect, sd = 8, 100, 1.3, (0.8, 4.0, 2.0)
    a, b, e = (s**2 for s in sd)
    known = fixed_variance((a + e / G,), groups=b / G, n_groups=G, counts=R)
    found = 0
    for _ in range(2000):
        z = component_of(crossed(rng, R, G, sd, effect))
        seen = effect_variance([z])
        assert seen is not None
        found += abs(estimate([z])) > stats.t.ppf(0.975, seen.satterthwaite_df()) * math.sqrt(seen.total)
    assert significance.power(effect, known, R) == pytest.approx(found / 2000, abs=0.04)


@pytest.mark.parametrize("groups", [0.0, 0.001, 0.02])
@pytest.mark.parametrize("variances", [(1.0,), (1.0, 0.3)])
def test_power_rises_with_runs_and_effect(variances: tuple[float, ...], groups: float) -> None:
    known = fixed_variance(variances, groups=groups, n_groups=500)
    by_runs = [significance.power(0.5, known, runs) for runs in range(2, 80)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(by_runs))
    by_effect = [significance.power(effect, known, 10) for effect in np.linspace(0, 2, 30)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(by_effect))
    if not groups:
        assert by_effect[0] == pytest.approx(0.05)
    assert significance.power(-0.7, known, 10) == pytest.approx(significance.power(0.7, known, 10))
    assert min(by_runs) >= 0.0 and max(by_runs) <= 1.0


def test_no_number_of_runs_makes_up_for_few_groups() -> None:
    known = fixed_variance((1.0,), groups=0.25, n_groups=50)
    assert significance.runs_needed(0.5, known) is None
    assert significance.power(0.5, known, significance.MAX_RUNS) < 0.2
    assert significance.runs_needed(2.0, known) is not None
    assert significance.runs_needed(0.5, None) is None
    assert significance.runs_needed(0.0, known) is None


def test_an_effect_without_variance_needs_two_runs() -> None:
    sure = fixed_variance((0.0,))
    assert significance.power(0.1, sure, 2) == 1
    assert significance.runs_needed(0.1, sure) == 2


@pytest.mark.parametrize("effect", [0.15, 0.4, 1.0, -1.0, 5.0, 300.0])
@pytest.mark.parametrize("variances", [(1.0,), (1.0, 0.3)])
def test_runs_needed_is_the_smallest_answer(variances: tuple[float, ...], effect: float) -> None:
    for groups, goal in itertools.product((0.0, 0.001), (0.5, 0.8, 0.95)):
        known = EffectVariance(variances, (10,) * len(variances), groups, 500, 1.0)
        needed = significance.runs_needed(effect, known, goal)
        assert needed is not None and needed >= 2
        assert significance.power(effect, known, needed) >= goal
        assert needed == 2 or significance.power(effect, known, needed - 1) < goal


@pytest.mark.parametrize(("effect", "wanted"), [(0.15, 351), (0.5, 34), (1.0, 10), (5.0, 3)])
def test_runs_needed_by_known_answers(effect: float, wanted: int) -> None:
    """Paired t-test, two-sided at 5%, 80% power: any table of sample sizes has these."""
    assert significance.runs_needed(effect, EffectVariance((1.0,), (10,), 0.0, 500, 1.0)) == wanted


def test_few_groups_do_not_turn_the_answer_round() -> None:
    known = EffectVariance((1.0,), (5,), 0.01, 3, 1.0)
    assert significance.power(0.5, known, 159) >= 0.8 > significance.power(0.5, known, 10_000)
    assert significance.runs_needed(0.5, known) is not None
