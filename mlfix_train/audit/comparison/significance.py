"""Whether runs of two arms differ by more than chance, and how many runs it would take to show it.

The p-value is that of a permutation test over runs: could the arms be swapped, *on these held-out samples*? It is
not about other samples; the interval (:mod:`.intervals`) is. Power comes from the noncentral t distribution, with
the variances of :mod:`.effects`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import comb
from typing import Any

import numpy as np
from scipy import stats

from mlfix_train.audit.comparison.effects import EffectComponent, EffectVariance

ALPHA = 0.05  # significance level of all tests
MAX_RUNS = 10_000  # upper limit of runs_needed


def permutation_p_value(components: Sequence[EffectComponent], seed: int = 0, resamples: int = 10_000) -> float | None:
    """Returns the two-sided p-value of a permutation test over runs; ``None`` for fewer than two runs.

    The signs of paired differences are flipped; unpaired runs are assigned to the arms anew. All permutations are used
    where there are at most ``resamples`` of them.
    """
    if min(len(component.runs) for component in components) < 2:
        return None
    arms = [np.round(component.runs, 9) * sign for component, sign in zip(components, (1, -1), strict=False)]
    if len(arms) == 1 and not arms[0].any():
        return 1.0

    def effect(*samples: np.ndarray, axis: int = 0) -> np.ndarray:
        means = [np.mean(sample, axis=axis) for sample in samples]
        return np.asarray(np.round(means[0] if len(means) == 1 else means[0] - means[1], 9))

    options: dict[str, Any] = {"n_resamples": resamples, "rng": np.random.default_rng([seed, 0x9E])}
    kind = "samples" if len(arms) == 1 else "independent"
    test = stats.permutation_test(arms, effect, permutation_type=kind, vectorized=True, **options)
    return float(min(1.0, test.pvalue))


def smallest_p_value(counts: Sequence[int]) -> float:
    """Returns the smallest p-value of a permutation test with [pairs] or [runs of one arm, runs of the other]."""
    if len(counts) == 1:
        return float(min(1.0, 2.0 / 2.0 ** counts[0]))
    return min(1.0, 2.0 / comb(sum(counts), counts[0]))


def fewest_runs(arms: int) -> int:
    """Returns the fewest pairs (1), or runs of each arm (2), with which a permutation test can give p < 0.05."""
    return next(n for n in range(2, 10) if smallest_p_value([n] * arms) < ALPHA)


def add_q_values(results: Iterable[dict[str, Any]]) -> None:
    """Adds ``q_value`` (Benjamini and Hochberg, 1995) to the results that have a ``p_value``."""
    tested = [result for result in results if result["p_value"] is not None]
    if tested:
        q_values = stats.false_discovery_control([result["p_value"] for result in tested], method="bh")
        for result, q in zip(tested, q_values, strict=True):
            result["q_value"] = float(q)


def power(effect: float, variance: EffectVariance, runs: int) -> float:
    """Returns the probability that ``runs`` runs of each arm show ``effect`` (two-sided, as many samples as here)."""
    if runs < 2:
        return 0.0
    planned = replace(variance, counts=(runs,) * len(variance.counts))
    if planned.total == 0:
        return float(effect != 0)
    df = planned.satterthwaite_df() if variance.groups > 0 else float(len(variance.counts) * (runs - 1))
    critical = stats.t.ppf(1 - ALPHA / 2, df)
    noncentrality = abs(effect) / np.sqrt(planned.total)
    if noncentrality > critical + 20 + critical * 10 / np.sqrt(df):
        return 1.0  # beyond what scipy's noncentral t can compute
    tails = stats.nct.sf(critical, df, noncentrality), stats.nct.cdf(-critical, df, noncentrality)
    return float(min(1.0, sum(tail for tail in tails if np.isfinite(tail))))


def runs_needed(effect: float, variance: EffectVariance | None, goal: float = 0.8) -> int | None:
    """Returns the smallest number of runs of each arm that would show such an effect with probability ``goal``.

    ``None`` if none up to :data:`MAX_RUNS` is enough (the held-out samples are too few), or the variance is unknown.
    """
    if variance is None or effect == 0:
        return None
    # Search upwards, then bisect: with few groups more runs can mean less power (fewer degrees of freedom).
    low, high = 1, 2
    while power(effect, variance, high) < goal:
        if high == MAX_RUNS:
            return None
        low, high = high, min(MAX_RUNS, max(high + 1, int(high * 1.1)))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, variance, middle) >= goal else (middle, high)
    return high
