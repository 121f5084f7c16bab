"""Effects on an error rate, and how much they vary over runs and over held-out samples.

An effect is a difference of mean errors. It varies with the runs (another seed, another model) and with the held-out
samples, and the two are crossed: every run predicts every sample. Samples of one group (photo, track) vary together, so
groups are what counts. With z the contribution of one run and one group, z = effect + run + group + residual; the
variances are estimated by a two-way analysis of variance. The residual is what one run happened to get wrong on one
group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

ROUNDING = 1e-20  # variances (squared percentage points) below this are rounding errors, and count as 0


@dataclass(frozen=True)
class EffectComponent:
    """What one set of R runs contributes to an effect, over G groups of samples.

    A paired effect has one component (the differences within pairs), an unpaired one has two (one per arm, the second
    negated).
    """

    runs: np.ndarray  # (R,), the effect, or one side of it with its sign, of each run, in percentage points
    cells: np.ndarray  # (R, G), contributions to the deviation from the effect; their mean over the groups is the run's

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.runs - other.runs, self.cells - other.cells)

    def __neg__(self) -> Self:
        return type(self)(-self.runs, -self.cells)


@dataclass(frozen=True)
class EffectVariance:
    """The variance of an effect, by source."""

    runs: tuple[float, ...]  # between the runs of each component (of a single run, not of their mean)
    counts: tuple[int, ...]  # number of runs of each component
    groups: float  # variance of the effect due to the choice of groups, 0 or more
    n_groups: int
    shrinkage: float  # factor, 0 to 1, by which the groups' observed deviations are shrunk to have that variance

    @property
    def total(self) -> float:
        """The variance of the effect."""
        return sum(v / n for v, n in zip(self.runs, self.counts, strict=True)) + self.groups

    def satterthwaite_df(self) -> float:
        """Returns the degrees of freedom of :attr:`total` (Satterthwaite, Biometrics Bulletin 2, 1946)."""
        terms = [(v / n, n - 1) for v, n in zip(self.runs, self.counts, strict=True)]
        terms.append((self.groups, max(self.n_groups - 1, 1)))
        denominator = sum(v**2 / df for v, df in terms)
        return self.total**2 / denominator if denominator > 0 else float(min(self.counts) - 1)


def error_component(
    values: np.ndarray, weights: np.ndarray, center: np.ndarray, groups: np.ndarray, n_groups: int
) -> EffectComponent:
    """Returns the component of a weighted mean error.

    Args:
        values: ``(R, M)`` what is averaged: errors (bool), or differences of errors (float).
        weights: ``(M,)`` weights of the rows; a sum of 100 gives percent.
        center: ``(M,)`` what the rows deviate from: the mean over all rows, or over the rows of the same label.
        groups: ``(M,)`` group numbers, below ``n_groups``.
        n_groups: number of groups.
    """
    values = np.asarray(values, dtype=np.float64)
    cells = np.array([np.bincount(groups, weights * (row - center), n_groups) for row in values])
    return EffectComponent(values @ weights, cells * n_groups)


def difference(first: EffectComponent, second: EffectComponent, paired: bool) -> list[EffectComponent]:
    """Returns the components of the effect ``first - second``."""
    return [first - second] if paired else [first, -second]


def estimate(components: Sequence[EffectComponent]) -> float:
    """Returns the effect: the sum of the components' means over their runs."""
    return float(sum(component.runs.mean() for component in components))


def effect_variance(components: Sequence[EffectComponent]) -> EffectVariance | None:
    """Returns the variance of an effect by two-way analysis of variance; ``None`` for fewer than two runs or groups.

    With A, B and E the variances of run, group and residual, the deviations of R runs have variance A + E / G and those
    of G groups B + E / R; the mean over both then has (A + E / G) / R + B / G. B is never estimated below 0.
    """
    counts = tuple(len(component.runs) for component in components)
    n_groups = components[0].cells.shape[1]
    if min(counts) < 2 or n_groups < 2:
        return None
    between_runs, residual = [], 0.0
    for component in components:
        n_runs = len(component.runs)
        cells = component.cells - component.cells.mean()
        rest = cells - cells.mean(1, keepdims=True) - cells.mean(0, keepdims=True)
        residual += float((rest**2).sum()) / ((n_runs - 1) * (n_groups - 1)) / n_runs
        between_runs.append(_drop_rounding(float(component.runs.var(ddof=1))))
    observed = _drop_rounding(float(group_deviations(components).var(ddof=1)))
    between_groups = _drop_rounding(observed - residual)
    shrinkage = float(np.sqrt(between_groups / observed)) if observed > 0 else 0.0
    return EffectVariance(tuple(between_runs), counts, between_groups / n_groups, n_groups, shrinkage)


def group_deviations(components: Sequence[EffectComponent]) -> np.ndarray:
    """Returns ``(G,)`` the deviation of each group's contribution, averaged over the runs, from the mean group's."""
    start = np.zeros(components[0].cells.shape[1])
    total = sum((component.cells.mean(0) for component in components), start=start)
    return np.asarray(total - total.mean())


def _drop_rounding(value: float) -> float:
    return value if value > ROUNDING else 0.0
