"""Plans from a pilot: against tables of sample sizes and simulated studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparison_helpers import fixed_variance

from mlfix_train.audit.comparison import planning
from mlfix_train.audit.comparison.sequential import LookPlan, boundaries


def pilot(sd_runs: float = 1.0, sd_samples: float = 0.0, runs: tuple[int, ...] = (3,)) -> dict[str, Any]:
    """A slice whose runs have this standard deviation each."""
    effect = {
        "training": 0.3,
        "sd_runs": sd_runs * np.sqrt(sum(1 / n for n in runs)),
        "sd_samples": sd_samples,
        "runs": list(runs),
    }
    return {"effect": effect, "rows_clean": 1000, "groups_clean": 500}


@pytest.mark.parametrize(("runs", "wanted"), [((3,), 34), ((3, 3), 64)])
def test_seeds_are_those_of_the_tables(runs: tuple[int, ...], wanted: int) -> None:
    """An effect of half a standard deviation, 80% power at 5%: 34 pairs, or 64 of each arm (Cohen, 1988)."""
    plan = planning.plan_slice(pilot(runs=runs), 0.5, seconds=90.0, arms=3)
    assert plan is not None and plan["runs"] == wanted
    assert plan["trainings"] == 3 * wanted and plan["hours"] == pytest.approx(3 * wanted / 40)
    assert plan["runs_at_most"] > 2 * wanted and plan["runs_with_stop"] < wanted
    curve = plan["curve"][0]
    assert np.interp(wanted, curve["runs"], curve["power"]) == pytest.approx(0.8, abs=0.02)
    assert all(low <= p + 1e-9 for low, p in zip(curve["power_at_least"], curve["power"], strict=True))


def test_more_samples_help_where_they_are_what_varies() -> None:
    plan = planning.plan_slice(pilot(sd_runs=0.5, sd_samples=0.22), 0.5)
    assert plan is not None and plan["runs"] is None and plan["hours"] is None
    needed = [row["runs"] for row in plan["by_samples"]]
    assert [row["samples"] for row in plan["by_samples"]] == [1000, 2000, 4000]
    assert needed[1] > needed[2]


def test_large_effects_take_as_many_pairs_as_a_test_does() -> None:
    plan = planning.plan_slice(pilot(sd_runs=0.01), 5.0)
    assert plan is not None and plan["runs"] == 6, "five pairs can't give p < 0.05"


def test_a_pilot_of_one_seed_plans_nothing() -> None:
    one = pilot()
    one["effect"]["sd_runs"] = None
    assert planning.plan_slice(one, 0.5) is None


def test_the_upper_limit_covers_the_truth_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    found = [
        planning.upper_variance(fixed_variance((float(rng.normal(size=3).var(ddof=1)),), counts=3)).runs[0] >= 1.0
        for _ in range(3000)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.025)


def test_runs_with_looks_are_those_of_simulated_studies() -> None:
    rng, plan = np.random.default_rng(1), LookPlan(20, 4)
    found = planning.expected_runs(1.0, fixed_variance((1.0,)), plan)
    looks = np.array(plan.remaining)
    spent = np.where(looks >= 6, LookPlan(20, 4, plan.remaining).may_spend, 0.0)
    bounds = boundaries(looks, np.diff([0.0, *spent]))
    score = np.cumsum(rng.normal(4.0, 2.0, (20_000, 5)), axis=1)
    crossed = np.abs(score / np.sqrt(looks)) >= bounds
    crossed[:, -1] = True
    assert found == pytest.approx(looks[crossed.argmax(1)].mean(), abs=0.1)
