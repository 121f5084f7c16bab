"""Group-sequential boundaries against published tables, and intervals and power against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from comparison_helpers import fixed_variance
from scipy import stats

from mlfix_train.audit.comparison import sequential
from mlfix_train.audit.comparison.sequential import SPENDING, LookPlan

FIFTHS = np.arange(1, 6) / 5


@pytest.mark.parametrize(
    ("spending", "wanted"),
    [
        ("obrien_fleming", (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        ("pocock", (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
    ],
)
def test_boundaries_are_those_of_the_tables(spending: str, wanted: tuple[float, ...]) -> None:
    """Five looks, two-sided at 5%: Lan and DeMets's program (Reboussin et al., 2000), the R package ldbounds."""
    increments = np.diff([0.0, *SPENDING[spending](FIFTHS, 0.05)])
    bounds = sequential.boundaries(FIFTHS, increments)
    assert bounds == pytest.approx(wanted, abs=2e-4)
    above, below = sequential.crossing_probabilities(FIFTHS, bounds)
    assert above + below == pytest.approx(increments, abs=1e-6)
    assert sum(increments) == pytest.approx(0.05)


@pytest.mark.parametrize(("looks", "wanted"), [(1, 0.05), (2, 0.083), (3, 0.107), (4, 0.126), (5, 0.142), (10, 0.193)])
def test_repeated_tests_at_5_percent(looks: int, wanted: float) -> None:
    """Armitage, McPherson and Rowe (1969), table 2: how often one of several looks has p < 0.05."""
    above, below = sequential.crossing_probabilities(np.arange(1, looks + 1), np.full(looks, 1.959964))
    assert above.sum() + below.sum() == pytest.approx(wanted, abs=6e-4)


def test_a_look_that_spends_nothing_has_no_boundary() -> None:
    bounds = sequential.boundaries([0.2, 1.0], [0.0, 0.05])
    assert bounds[0] == np.inf and bounds[1] == pytest.approx(1.959964, abs=1e-4)


def test_looks_that_add_no_information_cost_nothing() -> None:
    """Where the held-out samples are what varies, a look after more runs sees the same thing again."""
    bounds = sequential.boundaries([1.0, 1.0001, 1.0002], [0.04, 0.005, 0.005])
    assert bounds[0] == pytest.approx(2.0537, abs=1e-3) and 1.8 < bounds[2] < bounds[1] < bounds[0]


def test_one_look_has_the_usual_interval() -> None:
    low, high = sequential.stagewise_interval(1.5, [4.0], [])
    assert (low, high) == pytest.approx((1.5 - 1.959964 / 2, 1.5 + 1.959964 / 2), abs=1e-3)
    student = sequential.stagewise_interval(1.5, [4.0], [], df=7)
    assert student == pytest.approx((1.5 - 2.364624 / 2, 1.5 + 2.364624 / 2), abs=1e-3)


def test_with_few_runs_the_interval_excludes_0_where_the_t_test_crosses_the_boundary() -> None:
    information, df = [8.0, 12.0], 11
    bounds = sequential.boundaries(information, [0.03, 0.02])
    critical = stats.t.isf(stats.norm.sf(bounds[1]), df)  # the same nominal level
    for t, excludes in ((critical - 0.01, False), (critical + 0.01, True)):
        low, high = sequential.stagewise_interval(t / np.sqrt(12), information, bounds, df=df)
        assert (low > 0) == excludes and high > 0


@pytest.mark.parametrize("effect", [0.0, 2.0, 3.5])
def test_the_interval_contains_the_effect_95_percent_of_the_time(effect: float) -> None:
    """Studies of three looks with known variance, stopped where they cross Pocock's boundaries."""
    rng = np.random.default_rng(1)
    information = np.array([1 / 3, 2 / 3, 1.0])
    bounds = sequential.boundaries(information, np.diff([0.0, *SPENDING["pocock"](information, 0.05)]))
    hits, studies = 0, 150
    for _ in range(studies):
        score = np.cumsum(rng.normal(effect / 3, np.sqrt(1 / 3), 3))
        z = score / np.sqrt(information)
        stop = int(np.argmax([*(np.abs(z[:2]) >= bounds[:2]), True]))
        low, high = sequential.stagewise_interval(score[stop] / information[stop], information[: stop + 1], bounds)
        hits += low <= effect <= high
        assert (low <= 0 <= high) == (abs(z[stop]) < bounds[stop]), "it excludes 0 where the boundary is crossed"
    assert hits / studies == pytest.approx(0.95, abs=0.05)


def test_conditional_power_is_how_often_the_remaining_looks_cross() -> None:
    rng = np.random.default_rng(2)
    plan = LookPlan(20, 4, taken=(4, 8), effect=0.6)
    variance, spent = fixed_variance((1.0,), counts=8), np.diff([0.0, *plan.may_spend])
    found = sequential.conditional_power(0.1, variance, plan, spent)
    looks = np.array([4, 8, 12, 16, 20])
    bounds = sequential.boundaries(looks, np.diff([0.0, *SPENDING["pocock"](looks / 20, 0.05)]))
    score = 0.1 * 8 + np.cumsum(rng.normal(0.6 * 4, 2.0, (20_000, 3)), axis=1)
    crossed = (score / np.sqrt(looks[2:]) >= bounds[2:]).any(1).mean()
    assert found == pytest.approx(crossed, abs=0.015)


def test_seven_pairs_of_twenty_are_the_fewest_that_can_show_anything() -> None:
    plan = LookPlan(20)
    assert [n for n in plan.remaining if plan.can_show([n])] == [8, 10, 12, 14, 16, 18, 20]
    assert plan.can_show([7]) and not plan.can_show([6]), "2 / 2^7 = 0.016, and 0.024 may be spent by then"
    assert plan.can_show([5, 5]) and not plan.can_show([4, 4]), "2 of 252 assignments"


def test_a_plan_counts_each_number_of_runs_once() -> None:
    plan = LookPlan(20, 4)
    assert plan.remaining == (4, 8, 12, 16, 20) and not plan.complete
    plan = plan.at(4).at(9).at(9)
    assert plan.taken == (4, 9) and plan.remaining == (13, 17, 20)
    assert plan.may_spend == pytest.approx(0.05 * np.log1p((np.e - 1) * np.array([0.2, 0.45])))
    assert plan.at(20).complete and plan.at(20).remaining == () and plan.at(20).may_spend[-1] == pytest.approx(0.05)
