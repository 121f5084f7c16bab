"""Evidence: how sure an effect is, when runs and samples are both drawn by chance.

An effect is a difference of mean errors. It varies with the runs (another seed, another model) and with the held-out
samples (other photos, other rows), which are crossed: every run judges every sample. With z the contribution of a run
and a group of samples to the effect, z = effect + run + group + rest, three variances are estimated by the analysis of
variance of a two-way layout; the rest is what one run happened to get wrong on one group.

* Interval: runs and groups are drawn again with replacement, each from its own deviations. Drawing the cells themselves
  would count the rest three times (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1), and give far
  too wide intervals where models are noisy; so the deviations of the groups are shrunk to their estimated variance
  (Carpenter, Goldstein and Rasbash 2003, "A novel bootstrap procedure for assessing the relationship between class
  size and achievement", Applied Statistics 52), and few runs are allowed for by Student's t with Satterthwaite's
  degrees of freedom.
* p-value: a permutation test over runs (scipy). It asks whether arms could be swapped on these very samples.
* Power: the noncentral t distribution, with the same variances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

DISTINCT = 4096
"""Above this many distinct contributions of groups the mean of a resample is drawn from its normal limit."""
NOTHING = 1e-20
"""Variances (of points) below this are rounding."""
MOST_RUNS = 10_000
"""Runs above which the answer to "how many more?" is "too many"."""


@dataclass(frozen=True)
class Part:
    """What one set of runs adds to an effect; a paired effect has one part, an unpaired one two.

    Args:
        runs: R values, the effect (or one side of it, with its sign) as each run has it.
        cells: ``R,G``: each run's and group's contribution to the deviation from the effect, scaled so that their mean
            over the groups is the run's deviation.
    """

    runs: np.ndarray
    cells: np.ndarray


@dataclass(frozen=True)
class Variance:
    """Variance of an effect, taken apart.

    Args:
        runs: of each part: variance between its runs (of one run, not of their mean).
        counts: runs of each part.
        groups: variance of the effect that comes from the drawing of the groups (0 or more).
        n_groups: groups of samples.
        shrink: what to multiply the groups' deviations with, so that their mean has the variance ``groups``.
    """

    runs: tuple[float, ...]
    counts: tuple[int, ...]
    groups: float
    n_groups: int
    shrink: float

    @property
    def total(self) -> float:
        """Variance of the effect."""
        return sum(v / n for v, n in zip(self.runs, self.counts, strict=True)) + self.groups

    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of :attr:`total`."""
        pieces = [(v / n, n - 1) for v, n in zip(self.runs, self.counts, strict=True)]
        pieces.append((self.groups, max(self.n_groups - 1, 1)))
        below = sum(v**2 / df for v, df in pieces)
        return self.total**2 / below if below > 0 else float(min(self.counts) - 1)


def part(wrong: np.ndarray, weights: np.ndarray, centre: np.ndarray, groups: np.ndarray, n_groups: int) -> Part:
    """Makes a part of a weighted mean error.

    Args:
        wrong: ``R,M`` of whatever is averaged: errors, or differences of errors (float or bool).
        weights: M weights, summing to 100 for percent.
        centre: M values that the rows deviate from: the mean over all rows, or over the rows of a row's label.
        groups: M group numbers, 0 to G - 1.
        n_groups: G.
    """
    values = np.asarray(wrong, dtype=np.float64)
    runs = values @ weights
    cells = np.empty((len(values), n_groups))
    for row, one in enumerate(values):
        cells[row] = np.bincount(groups, weights * (one - centre), n_groups)
    return Part(runs, cells * n_groups)


def add(first: Part, second: Part, sign: float = -1.0) -> Part:
    """Returns the part of ``first + sign * second`` for runs that belong together pair by pair."""
    return Part(first.runs + sign * second.runs, first.cells + sign * second.cells)


def negate(one: Part) -> Part:
    """Returns a part with its sign turned."""
    return Part(-one.runs, -one.cells)


def estimate(parts: Sequence[Part]) -> float:
    """Returns the effect: the sum of the parts' means over their runs."""
    return float(sum(one.runs.mean() for one in parts))


def variance(parts: Sequence[Part]) -> Variance | None:
    """Returns the variance of an effect by two-way analysis of variance; ``None`` for fewer than two runs or groups.

    For each part the deviations of its R runs have variance A + E / G, those of the G groups B + E / R and the rest E;
    the mean over both then has (A + E / G) / R + B / G. B is never below 0.
    """
    counts = tuple(len(one.runs) for one in parts)
    n_groups = parts[0].cells.shape[1]
    if min(counts) < 2 or n_groups < 2:
        return None
    between, noise = [], 0.0
    for one in parts:
        r = len(one.runs)
        cells = one.cells - one.cells.mean()
        rest = cells - cells.mean(1, keepdims=True) - cells.mean(0, keepdims=True)
        noise += float((rest**2).sum()) / ((r - 1) * (n_groups - 1)) / r
        between.append(_unless_rounding(float(one.runs.var(ddof=1))))
    spread = _unless_rounding(float(_group_deviations(parts).var(ddof=1)))
    pure = _unless_rounding(spread - noise)
    return Variance(
        tuple(between), counts, pure / n_groups, n_groups, float(np.sqrt(pure / spread)) if spread > 0 else 0.0
    )


def _unless_rounding(value: float) -> float:
    return value if value > NOTHING else 0.0


def _group_deviations(parts: Sequence[Part]) -> np.ndarray:
    total = sum((one.cells.mean(0) for one in parts), start=np.zeros(parts[0].cells.shape[1]))
    return np.asarray(total - total.mean())


def interval(parts: Sequence[Part], seed: int = 0, resamples: int = 10_000, level: float = 0.95) -> list[float] | None:
    """Returns the confidence interval of an effect, [low, high]; ``None`` for fewer than two runs or groups.

    Args:
        parts: of the effect.
        seed: of the resampling.
        resamples: number of draws.
        level: confidence, between 0 and 1.
    """
    found = variance(parts)
    if found is None:
        return None
    centre = estimate(parts)
    if found.total == 0:
        return [centre, centre]
    rng = np.random.default_rng([seed, 0xE71D])
    draws = _draw_means(_group_deviations(parts) * found.shrink, rng, resamples)
    for one in parts:
        deviations = one.runs - one.runs.mean()
        draws = draws + deviations[rng.integers(len(deviations), size=(resamples, len(deviations)))].mean(1)
    # Resampled variances are (n - 1) / n too small, and normal tails too short for few runs.
    tail = (1 + level) / 2
    scale = np.sqrt(found.total / draws.var()) * stats.t.ppf(tail, found.freedom()) / stats.norm.ppf(tail)
    low, high = np.quantile((draws - draws.mean()) * scale, [1 - tail, tail])
    return [float(centre + low), float(centre + high)]


def _draw_means(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Returns the means of ``resamples`` draws of len(values) out of ``values``, with replacement."""
    n = len(values)
    distinct, counts = np.unique(np.round(values, 9), return_counts=True)
    if len(distinct) == 1:
        return np.full(resamples, distinct[0])
    if len(distinct) > DISTINCT:
        return rng.normal(values.mean(), values.std() / np.sqrt(n), resamples)
    means = np.empty(resamples)
    for start in range(0, resamples, 1000):
        size = min(1000, resamples - start)
        means[start : start + size] = rng.multinomial(n, counts / n, size=size) @ distinct / n
    return means


def permutation_p(parts: Sequence[Part], seed: int = 0, resamples: int = 10_000) -> float | None:
    """Returns the two-sided p-value of a permutation test over runs; ``None`` for fewer than two runs.

    Signs of the pairs' differences are flipped; runs that are no pairs are dealt to the arms anew. All possibilities
    are gone through where there are no more than ``resamples``.
    """
    if min(len(one.runs) for one in parts) < 2:
        return None
    rng = np.random.default_rng([seed, 0x9E])
    if len(parts) == 1:
        values = np.round(parts[0].runs, 9)
        if not values.any():
            return 1.0
        found = stats.permutation_test(
            (values,), _mean, permutation_type="samples", vectorized=True, n_resamples=resamples, rng=rng
        )
    else:
        first, second = np.round(parts[0].runs, 9), np.round(-parts[1].runs, 9)
        found = stats.permutation_test(
            (first, second), _mean_difference, vectorized=True, n_resamples=resamples, rng=rng
        )
    return float(min(1.0, found.pvalue))


def _mean(x: np.ndarray, axis: int = 0) -> np.ndarray:
    return np.asarray(np.round(np.mean(x, axis=axis), 9))


def _mean_difference(x: np.ndarray, y: np.ndarray, axis: int = 0) -> np.ndarray:
    return np.asarray(np.round(np.mean(x, axis=axis) - np.mean(y, axis=axis), 9))


def smallest_p(counts: Sequence[int]) -> float:
    """Returns the smallest p-value that a permutation test of so many runs can give (one count: pairs)."""
    if len(counts) == 1:
        return float(min(1.0, 2.0 / 2.0 ** counts[0]))
    from math import comb

    return min(1.0, 2.0 / comb(sum(counts), counts[0]))


def power(effect: float, found: Variance, runs: int, alpha: float = 0.05) -> float:
    """Returns the chance (0 to 1) that ``runs`` runs of each arm show ``effect``: two-sided, with as many samples."""
    wanted = Variance(found.runs, (runs,) * len(found.counts), found.groups, found.n_groups, found.shrink)
    if runs < 2:
        return 0.0
    if wanted.total == 0:
        return float(effect != 0)
    df = wanted.freedom() if found.groups > 0 else float(len(found.counts) * (runs - 1))
    bound = stats.t.ppf(1 - alpha / 2, df)
    away = abs(effect) / np.sqrt(wanted.total)
    if away > bound + 20 + bound * 10 / np.sqrt(df):
        return 1.0  # beyond what scipy's noncentral t can compute
    chances = stats.nct.sf(bound, df, away), stats.nct.cdf(-bound, df, away)
    return float(min(1.0, sum(chance for chance in chances if np.isfinite(chance))))


def runs_needed(effect: float, found: Variance | None, goal: float = 0.8) -> int | None:
    """Returns how many runs of each arm would show an effect of this size with the chance ``goal``.

    ``None``: no number up to :data:`MOST_RUNS` would (the held-out samples are too few), or the variance is unknown.
    """
    if found is None or effect == 0:
        return None
    # Upwards in steps, then by halves: with few groups more runs can mean less power (fewer degrees of freedom).
    low, high = 1, 2
    while power(effect, found, high) < goal:
        if high == MOST_RUNS:
            return None
        low, high = high, min(MOST_RUNS, max(high + 1, int(high * 1.1)))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, found, middle) >= goal else (middle, high)
    return high
