"""The confidence interval of an effect, with runs and samples both random; those of labels are in ``label_changes``.

Runs and groups of samples are resampled separately, each from its own deviations. Resampling the cells of runs and
groups instead would count the residual three times (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1,
2007) and give far too wide intervals where models are noisy. So the groups' deviations are shrunk to their estimated
variance (Carpenter, Goldstein and Rasbash, "A novel bootstrap procedure for assessing the relationship between class
size and achievement", Applied Statistics 52, 2003), and Student's t with Satterthwaite's degrees of freedom allows for
few runs. ``scripts/simulate_coverage.py`` checks that the interval covers the truth as often as it should.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from mlfix_train.audit.comparison.effects import (
    EffectComponent,
    EffectVariance,
    effect_variance,
    estimate,
    group_deviations,
)
from mlfix_train.data.files.system import cpu_count

MIN_TAIL = 20
"""With fewer resamples outside of an interval than this, its ends are those of Student's t."""
MAX_DISTINCT = 512
"""With more distinct group contributions than this, the mean of a resample is drawn from the Pearson distribution
(type III) of its mean, variance and skewness, which is as exact as resampling is (Hall, "The Bootstrap and Edgeworth
Expansion", 1992, chapter 3), and takes no time."""


def bootstrap_interval(
    components: Sequence[EffectComponent], seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> list[float] | None:
    """Returns the confidence interval of an effect, [low, high] in percentage points.

    ``None`` for fewer than two runs of an arm, or fewer than two groups. The same seed gives the same interval.
    """
    variance = effect_variance(components)
    if variance is None:
        return None
    effect = estimate(components)
    if variance.total == 0:
        return clip_interval([effect, effect])
    if (1 - level) * resamples < MIN_TAIL:
        return student_interval(effect, variance, level)
    rng = np.random.default_rng([seed, 0xE71D])
    draws = _resample_mean(group_deviations(components) * variance.shrinkage, rng, resamples)
    for component in components:
        deviations = component.runs - component.runs.mean()
        draws = draws + deviations[rng.integers(len(deviations), size=(resamples, len(deviations)))].mean(1)
    # The variance of resampled means is too small by (n - 1) / n, and normal tails are too short for few runs.
    draws = (draws - draws.mean()) * np.sqrt(variance.total / draws.var())
    tail = (1 + level) / 2
    wider = stats.t.ppf(tail, variance.satterthwaite_df()) / stats.norm.ppf(tail)
    low, high = np.quantile(draws, [1 - tail, tail]) * wider
    return clip_interval([effect + low, effect + high])


def student_interval(effect: float, variance: EffectVariance, level: float = 0.95) -> list[float]:
    """Returns the interval of Student's t, [low, high] in percentage points."""
    half = stats.t.ppf((1 + level) / 2, variance.satterthwaite_df()) * np.sqrt(variance.total)
    return clip_interval([effect - half, effect + half])


def clip_interval(interval: Sequence[float]) -> list[float]:
    """Returns an interval within what a difference of percentages can be."""
    return [min(100.0, max(-100.0, float(end))) for end in interval]


def _resample_mean(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Returns ``(resamples,)`` means of ``len(values)`` draws from ``values`` with replacement."""
    n = len(values)
    distinct, counts = np.unique(np.round(values, 9), return_counts=True)
    if len(distinct) == 1:
        return np.full(resamples, distinct[0])
    if len(distinct) > MAX_DISTINCT:
        return _pearson(
            values.mean(), values.std() / np.sqrt(n), float(stats.skew(values)) / np.sqrt(n), rng, resamples
        )
    means = np.empty(resamples)
    for start in range(0, resamples, 1000):  # bounds the memory of the counts
        size = min(1000, resamples - start)
        means[start : start + size] = rng.multinomial(n, counts / n, size=size) @ distinct / n
    return means


def _pearson(mean: float, sd: float, skewness: float, rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns ``(size,)`` draws of a Pearson distribution of type III: a shifted gamma distribution."""
    if abs(skewness) < 1e-3:
        return rng.normal(mean, sd, size)
    shape = 4 / skewness**2
    draws = (rng.gamma(shape, size=size) - shape) / np.sqrt(shape)
    return np.asarray(mean + sd * np.sign(skewness) * draws)


def resampling_workers(resamples: int) -> int:
    """Returns how many threads resample slices: NumPy draws without Python's lock, but each needs memory of its own."""
    return cpu_count() if resamples <= 100_000 else 1
