"""How many seeds, samples and hours it takes to show an effect, from a pilot of a few seeds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from mlfix_train.audit.comparison.effects import EffectVariance
from mlfix_train.audit.comparison.sequential import LookPlan, boundaries, crossing_probabilities, information_at
from mlfix_train.audit.comparison.significance import fewest_runs, power, runs_needed

SAMPLE_FACTORS = (1, 2, 4)
"""Multiples of the pilot's held-out samples that are planned for."""
CURVE_RUNS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)
"""Runs of each arm at which the curve gives the power."""
UPPER = 0.8
"""Confidence of the upper limit of the pilot's variance, with which a plan rarely turns out too small (Browne, "On the
use of a pilot sample for sample size determination", Statistics in Medicine 14, 1995)."""


def plan_slice(
    result: Mapping[str, Any], effect: float, goal: float = 0.8, seconds: float | None = None, arms: int = 2
) -> dict[str, Any] | None:
    """Plans a study of one slice; ``None`` if the pilot has too few runs or groups to know how they vary.

    Args:
        result: its entry in ``slices`` of ``summary.json``.
        effect: to be shown, in percentage points.
        goal: power, the probability to show it.
        seconds: of one training; ``None`` if unknown.
        arms: number of arms to train.

    Returns:
        ``runs`` of each arm (``None``: no number is enough with these samples) and ``runs_at_most`` if the pilot's runs
        happened to be alike, ``trainings``, ``hours``, ``runs_with_stop`` (on the mean, with ``stop=auto``),
        ``by_samples`` (the same by number of held-out samples) and ``curve`` (power by runs and number of samples).
    """
    variance = pilot_variance(result)
    if variance is None:
        return None
    careful = upper_variance(variance)
    least = fewest_runs(len(variance.counts))
    by_samples = []
    for factor in SAMPLE_FACTORS:
        needed, most = (_runs(effect, with_samples(one, factor), goal, least) for one in (variance, careful))
        by_samples.append({"samples": factor * result["rows_clean"], "runs": needed, "runs_at_most": most})
    runs = by_samples[0]["runs"]
    trainings = None if runs is None else arms * runs
    return {
        **by_samples[0],
        "trainings": trainings,
        "hours": None if trainings is None or seconds is None else trainings * seconds / 3600,
        "runs_with_stop": None if runs is None else expected_runs(effect, variance, LookPlan(runs)),
        "by_samples": by_samples,
        "curve": [
            {
                "samples": factor * result["rows_clean"],
                "runs": list(CURVE_RUNS),
                "power": [power(effect, with_samples(variance, factor), n) for n in CURVE_RUNS],
                "power_at_least": [power(effect, with_samples(careful, factor), n) for n in CURVE_RUNS],
            }
            for factor in SAMPLE_FACTORS
        ],
    }


def pilot_variance(result: Mapping[str, Any]) -> EffectVariance | None:
    """Returns the variance of a slice's training effect; ``None`` if it is unknown."""
    effect = result["effect"]
    if effect["training"] is None or effect["sd_runs"] is None:
        return None
    counts = tuple(effect["runs"])
    one_run = effect["sd_runs"] ** 2 / sum(1 / n for n in counts)
    return EffectVariance((one_run,) * len(counts), counts, effect["sd_samples"] ** 2, result["groups_clean"], 1.0)


def upper_variance(variance: EffectVariance) -> EffectVariance:
    """Returns the variance with the upper limit of that of the runs, which a pilot knows from so few."""
    df = sum(variance.counts) - len(variance.counts)
    factor = df / stats.chi2.ppf(1 - UPPER, df)
    return replace(variance, runs=tuple(one * factor for one in variance.runs))


def with_samples(variance: EffectVariance, factor: int) -> EffectVariance:
    """Returns the variance with ``factor`` times as many held-out samples; that of the runs is kept, to be careful."""
    return replace(variance, groups=variance.groups / factor, n_groups=variance.n_groups * factor)


def _runs(effect: float, variance: EffectVariance, goal: float, least: int) -> int | None:
    needed = runs_needed(effect, variance, goal)
    return None if needed is None else max(needed, least)


def expected_runs(effect: float, variance: EffectVariance, plan: LookPlan) -> float:
    """Returns how many runs of each arm a study with looks takes on the mean, if the effect is there."""
    looks = plan.remaining
    if variance.total == 0:
        return float(looks[0])
    information = information_at(variance, looks)
    # A look with too few runs for a permutation test shows nothing, and spends nothing.
    testable = np.array([n >= fewest_runs(len(variance.counts)) for n in looks])
    spent = np.where(testable, replace(plan, taken=looks).may_spend, 0.0)
    bounds = boundaries(information, np.diff([0.0, *spent]))
    above, below = crossing_probabilities(information, bounds, effect)
    stops = (above + below)[:-1]
    return float(stops @ np.array(looks[:-1]) + (1 - stops.sum()) * looks[-1])
