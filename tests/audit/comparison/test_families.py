"""Several slices and looks tested together: against enumeration, the test of one slice, and simulated studies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from comparison_helpers import component_of, crossed

from mlfix_train.audit.comparison.effects import EffectComponent
from mlfix_train.audit.comparison.families import SliceEffect, judge_together, permute, simultaneous_tail
from mlfix_train.audit.comparison.intervals import bootstrap_interval
from mlfix_train.audit.comparison.sequential import LookPlan
from mlfix_train.audit.comparison.significance import permutation_p_value

PLAN = LookPlan(20, 4)


def runs(values: np.ndarray) -> EffectComponent:
    return EffectComponent(values, np.zeros((len(values), 2)))


def slice_effect(z: np.ndarray, first_group: int = 0) -> SliceEffect:
    return SliceEffect([component_of(z)], np.arange(z.shape[1]) + first_group)


@pytest.mark.parametrize("counts", [(5,), (9,), (3, 3), (5, 5)])
def test_one_slice_and_one_look_is_the_usual_test(counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(counts))
    parts = [runs(sign * rng.normal(0.7 * sign, 1, n)) for n, sign in zip(counts, (1, -1), strict=False)]
    (p,), _ = permute([parts])
    assert p == pytest.approx(permutation_p_value(parts))


def test_the_largest_statistic_of_all_flips_one_by_one() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal([[0.9], [0.4], [0.0]], [[1.0], [2.0], [0.1]], (3, 7))  # three slices of the same seven pairs

    def statistic(signs: tuple[int, ...]) -> np.ndarray:
        return np.abs((values * signs).mean(1)) / np.sqrt((values**2).mean(1))

    observed = statistic((1,) * 7)
    largest = np.array([statistic(signs).max() for signs in itertools.product((1, -1), repeat=7)])
    found, _ = permute([[runs(row)] for row in values])
    assert found == pytest.approx([(largest >= one - 1e-9).mean() for one in observed])
    again, _ = permute([[runs(1000 * row)] for row in values])
    assert again == pytest.approx(found), "slices count the same whatever their scale"


def test_a_slice_that_is_there_twice_costs_nothing() -> None:
    one = [runs(np.random.default_rng(4).normal(0.5, 1, 8))]
    assert permute([one, one])[0] == pytest.approx(permute([one])[0] * 2)


def test_four_pairs_can_show_nothing_and_spend_nothing() -> None:
    values = np.random.default_rng(5).normal(2.0, 0.5, 20)
    p, spent = permute([[runs(values[:4])]], PLAN.at(4))
    assert p == [0.125] and spent == [0.0]
    p, spent = permute([[runs(values[:8])]], PLAN.at(4).at(8))
    assert p == [2 / 256] and spent[0] == 0 and spent[1] == pytest.approx(6 / 256)
    assert spent[1] <= PLAN.at(8).may_spend[-1]
    p, spent = permute([[runs(values)]], PLAN.at(4).at(8).at(12).at(20))
    assert p == pytest.approx([2 / 256], abs=0.003), "what crossed a boundary earlier keeps its p-value"
    assert sum(spent) == pytest.approx(0.05, abs=1e-3)


def test_runs_change_arms_between_two_looks_only() -> None:
    """Two blocks of 2 + 2 runs: 6 * 6 assignments, not 70."""
    first, second = np.array([5.0, 6.0, 50.0, 60.0]), np.array([1.0, 2.0, 10.0, 20.0])
    (p,), _ = permute([[runs(first), runs(-second)]], LookPlan(4, 2, taken=(2, 4)))
    assert p == pytest.approx(2 / 36)


def test_several_slices_hold_together() -> None:
    rng = np.random.default_rng(6)
    errors, covered, studies = 0, 0, 60
    for number in range(studies):
        effects = {f"s{k}": slice_effect(crossed(rng, 10, 40, (1.0, 0.0, 3.0)), 40 * k) for k in range(5)}
        found, _ = judge_together(effects, seed=number, resamples=300)
        errors += any(one["p_value"] < 0.05 for one in found.values())
        covered += all(one["training_ci95"][0] <= 0 <= one["training_ci95"][1] for one in found.values())
    assert errors / studies < 0.14 and covered / studies > 0.86


def test_intervals_widen_with_independent_slices_and_not_with_equal_ones() -> None:
    rng = np.random.default_rng(7)
    one = crossed(rng, 12, 50, (1.0, 3.0, 3.0))
    others = [slice_effect(crossed(rng, 12, 50, (1.0, 3.0, 3.0)), 50 * k) for k in range(1, 5)]
    assert simultaneous_tail([slice_effect(one)] * 3, resamples=4000) == pytest.approx(0.05, abs=0.005)
    assert simultaneous_tail([slice_effect(one), *others], resamples=10_000) == pytest.approx(0.01, abs=0.005)
    assert simultaneous_tail([slice_effect(one)]) == 0.05


def test_a_primary_slice_is_tested_alone_and_guards_the_others() -> None:
    rng = np.random.default_rng(8)
    weak, strong = (
        slice_effect(crossed(rng, 10, 40, (1.0, 0.0, 1.0), 0.1)),
        slice_effect(crossed(rng, 10, 40, (1.0, 0.0, 1.0), 4.0), 40),
    )
    found, looks = judge_together({"weak": weak, "strong": strong}, primary="weak", resamples=2000)
    assert looks is None
    assert found["weak"]["p_value"] == permutation_p_value(weak.components, resamples=2000) > 0.05
    assert found["weak"]["training_ci95"] == bootstrap_interval(weak.components, resamples=2000)
    assert found["strong"]["p_value"] == found["weak"]["p_value"], "not shown, since the primary one is not"
    found, _ = judge_together({"weak": weak, "strong": strong}, primary="strong", resamples=2000)
    assert found["strong"]["p_value"] < 0.01 < 0.05 < found["weak"]["p_value"]


def test_slices_without_samples_or_with_one_run_stay_as_they_are() -> None:
    lonely = SliceEffect([runs(np.array([1.0]))], np.arange(2))
    found, _ = judge_together({"gone": None, "lonely": lonely})
    assert found["gone"] == {"training_ci95": None, "p_value": None}
    assert found["lonely"]["training_ci95"] is None and found["lonely"]["p_value"] is None


def study(effect: float, seed: int) -> tuple[dict, LookPlan, int]:
    """Runs a study with looks to its end; returns the last result, the plan there, and the runs of each arm."""
    z = crossed(np.random.default_rng(seed), 20, 60, (1.0, 0.0, 3.0), effect)
    plan = LookPlan(20, 4, effect=0.3)
    for n in plan.remaining:
        plan = plan.at(n)
        found, looks = judge_together({"all": slice_effect(z[:n])}, "all", plan, seed, 300)
        low, high = found["all"]["training_ci95"]
        if found["all"]["p_value"] < 0.05 and not low <= 0 <= high:
            break
    assert looks is not None
    return found["all"], plan, n


def test_studies_with_looks_have_few_errors_and_save_runs() -> None:
    nothing = [study(0.0, seed) for seed in range(40)]
    assert sum(result["p_value"] < 0.05 for result, *_ in nothing) / 40 < 0.16
    assert sum(not result["training_ci95"][0] <= 0 <= result["training_ci95"][1] for result, *_ in nothing) / 40 < 0.16
    large = [study(1.2, seed) for seed in range(25)]
    assert np.mean([n for *_, n in large]) < 13
    covered = [result["training_ci95"][0] <= 1.2 <= result["training_ci95"][1] for result, *_ in large]
    assert np.mean(covered) > 0.8
    result, plan, n = large[0]
    assert result["p_value"] < 0.05 and plan.taken[-1] == n


def test_a_look_in_between_is_wider_and_its_p_value_larger() -> None:
    z = crossed(np.random.default_rng(9), 20, 60, (1.0, 0.0, 3.0), 0.2)
    found, looks = judge_together({"all": slice_effect(z[:8])}, "all", PLAN.at(4).at(8))
    assert looks is not None and looks["level"] < 0.03 < looks["power_left"]
    low, high = found["all"]["training_ci95"]
    alone = slice_effect(z[:8]).components
    alone_low, alone_high = bootstrap_interval(alone) or (0.0, 0.0)
    assert low < alone_low and high > alone_high
    assert found["all"]["p_value"] > (permutation_p_value(alone) or 1.0)


def test_what_can_no_longer_show_an_effect_worth_having_is_futile() -> None:
    z = crossed(np.random.default_rng(10), 20, 30, (0.2, 20.0, 1.0))  # samples vary by 3.7 points: 0.5 is never shown
    _, looks = judge_together({"all": slice_effect(z[:8])}, "all", PLAN.at(8))
    assert looks is not None and looks["futile"] and looks["power_left"] < 0.1
    z = crossed(np.random.default_rng(11), 20, 60, (0.05, 0.0, 0.1))  # an effect of 0.5 is excluded
    _, looks = judge_together({"all": slice_effect(z[:8])}, "all", PLAN.at(8))
    assert looks is not None and looks["futile"]


def test_a_look_that_spends_nothing_shows_nothing() -> None:
    rng = np.random.default_rng(0)
    effects = {name: slice_effect(crossed(rng, 2, 60, (0.5, 0.5, 1.0), 3.0)) for name in ("a", "b", "not a")}
    found, looks = judge_together(effects, "a", LookPlan(24, 2, (2,), spending="obrien_fleming"))
    assert looks is not None and looks["level"] < 1e-12
    assert found["b"]["training_ci95"] == [-100.0, 100.0]


def test_beside_a_primary_slice_that_cannot_be_tested_nothing_is_shown() -> None:
    rng = np.random.default_rng(0)
    effects = {
        "a": None,
        "b": slice_effect(crossed(rng, 9, 60, (0.5, 0.5, 1.0), 3.0)),
        "c": slice_effect(crossed(rng, 9, 60, (0.5, 0.5, 1.0), 3.0)),
    }
    found, _ = judge_together(effects, "a")
    assert found["b"]["p_value"] == found["c"]["p_value"] == 1.0
    assert judge_together(effects)[0]["b"]["p_value"] < 0.05
