"""Group-sequential tests: looks at a study while its runs are trained, at an error of the first kind as for one look.

A study that is tested after every few runs, and stops when p < 0.05, shows something in far more than 5% of the cases
where there is nothing. Here each look may use up a part of the 5% (alpha spending: Lan and DeMets, Biometrika 70,
1983), whose size depends on how many of the planned runs there are. The statistics of successive looks are normal with
independent increments (Jennison and Turnbull, "Group Sequential Methods", 2000, chapters 3, 8 and 19): with information
I = 1 / variance of the effect, Z * sqrt(I) is a sum of independent parts with mean effect * I. That also holds where
the held-out samples, which all looks share, add to the variance. Probabilities are integrals over the looks (Armitage,
McPherson and Rowe, JRSS A 132, 1969).

Shapes: K looks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats
from scipy.special import ndtr, ndtri, stdtr

from mlfix_train.audit.comparison.effects import EffectVariance
from mlfix_train.audit.comparison.significance import ALPHA, smallest_p_value

SPENDING: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "pocock": lambda t, alpha: alpha * np.log1p((np.e - 1) * t),
    "obrien_fleming": lambda t, alpha: 4 * stats.norm.sf(stats.norm.isf(alpha / 4) / np.sqrt(np.maximum(t, 1e-12))),
}
"""What may be spent until a fraction of the planned runs is there (two-sided, half on each side)."""
FUTILE = 0.1
"""A study is futile if its remaining looks would show an effect worth having with a lower probability than this."""
MIN_INCREMENT = 1e-3
"""Smallest increase of the information from look to look, as a fraction; a smaller one counts as this."""


@dataclass(frozen=True)
class LookPlan:
    """When a study is looked at, and how much of the 5% each look may spend.

    Args:
        max_runs: planned runs of each arm.
        every: runs of each arm between looks.
        taken: runs of each arm at the looks so far, the present one last.
        effect: smallest effect worth having, in percentage points.
        spending: ``pocock`` (stops earlier) or ``obrien_fleming`` (nearly all is kept for the end).
    """

    max_runs: int = 20
    every: int = 2
    taken: tuple[int, ...] = ()
    effect: float = 0.5
    spending: str = "pocock"

    def at(self, runs: int) -> "LookPlan":
        """Returns the plan at a look with so many runs of each arm, which counts unless it was taken before."""
        return replace(self, taken=tuple(sorted({*(n for n in self.taken if n < runs), runs})))

    @property
    def may_spend(self) -> np.ndarray:
        """``(K,)`` what the looks so far may have spent, the present one included."""
        fractions = np.minimum(1.0, np.array(self.taken) / self.max_runs)
        return np.asarray(SPENDING[self.spending](fractions, ALPHA))

    def can_show(self, counts: Sequence[int]) -> bool:
        """Whether [pairs] or [runs of one arm, runs of the other] are enough for a permutation test to show anything.

        A look at fewer spends nothing, and knows too little of how runs differ to give a study up.
        """
        return bool(smallest_p_value(counts) <= self.at(min(counts)).may_spend[-1])

    @property
    def complete(self) -> bool:
        """Whether all planned runs are there."""
        return bool(self.taken) and self.taken[-1] >= self.max_runs

    @property
    def remaining(self) -> tuple[int, ...]:
        """Runs of each arm at the looks that are still planned."""
        present = self.taken[-1] if self.taken else 0
        return (*range(present + self.every, self.max_runs, self.every), *([] if self.complete else [self.max_runs]))


def boundaries(information: Sequence[float] | np.ndarray, increments: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns ``(K,)`` the size of z from which on each look shows an effect; infinite where it spends nothing.

    Args:
        information: of each look, increasing; only ratios matter.
        increments: probability of an error of the first kind that each look spends, two-sided.
    """
    bounds: list[float] = []
    state = _State.start()
    for info, spend in zip(_increasing(information), increments, strict=True):
        mean, sd = state.next(info, 0.0)
        bound = np.inf
        if spend > 1e-12:

            def excess(z: float, edge: float = np.sqrt(info), state: _State = state, spend: float = spend) -> float:
                mean, sd = state.next(edge**2, 0.0)
                tails = ndtr((mean - z * edge) / sd) + ndtr((-z * edge - mean) / sd)
                return float(state.mass @ tails) - spend

            bound = float(optimize.brentq(excess, 0.0, 12.0)) if excess(0.0) > 0 else 0.0
        bounds.append(bound)
        state = state.advance(info, bound, mean, sd)
    return np.array(bounds)


@dataclass(frozen=True)
class _State:
    """The distribution of the score Z * sqrt(I) after a look, of studies that were not stopped: nodes with weights."""

    nodes: np.ndarray
    mass: np.ndarray
    information: float

    @classmethod
    def start(cls, score: float = 0.0, information: float = 0.0) -> "_State":
        return cls(np.array([score]), np.ones(1), information)

    def next(self, information: float, effect: float) -> tuple[np.ndarray, float]:
        """Returns mean (by node) and standard deviation of the score at the next look."""
        step = information - self.information
        return self.nodes + effect * step, float(np.sqrt(step))

    def advance(self, information: float, bound: float, mean: np.ndarray, sd: float) -> "_State":
        edge = bound * np.sqrt(information)
        low, high = max(-edge, mean.min() - 8 * sd), min(edge, mean.max() + 8 * sd)
        if high <= low:
            return _State(np.zeros(1), np.zeros(1), information)
        nodes = np.linspace(low, high, 2 * int(np.clip((high - low) / sd * 2.5, 25, 400)) + 1)
        density = self.mass @ np.exp(-(((nodes - mean[:, None]) / sd) ** 2) / 2) / (sd * np.sqrt(2 * np.pi))
        return _State(nodes, density * _simpson(nodes), information)


def _simpson(nodes: np.ndarray) -> np.ndarray:
    weights = np.full(len(nodes), 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    return np.asarray(weights * (nodes[1] - nodes[0]) / 3)


def _increasing(information: Sequence[float] | np.ndarray) -> list[float]:
    floored: list[float] = []
    for info in information:
        floored.append(max(float(info), floored[-1] * (1 + MIN_INCREMENT) if floored else 0.0))
    return floored


def crossing_probabilities(
    information: Sequence[float] | np.ndarray,
    bounds: Sequence[float] | np.ndarray,
    effect: float = 0.0,
    start: tuple[float, float] = (0.0, 0.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``(K,)`` the probabilities that a study first crosses its upper, and its lower, boundary at each look.

    Args:
        information: of each look, 1 / variance of the effect.
        bounds: as from :func:`boundaries`.
        effect: the true one.
        start: score Z * sqrt(I) and information of an earlier look that the study is continued from.
    """
    above, below = [], []
    for state, info, bound in _walk(information, bounds, effect, start):
        mean, sd = state.next(info, effect)
        edge = bound * np.sqrt(info)
        above.append(float(state.mass @ ndtr((mean - edge) / sd)))
        below.append(float(state.mass @ ndtr((-edge - mean) / sd)))
    return np.array(above), np.array(below)


def _walk(
    information: Sequence[float] | np.ndarray,
    bounds: Sequence[float] | np.ndarray,
    effect: float,
    start: tuple[float, float],
) -> Iterator[tuple[_State, float, float]]:
    """Yields for each look the state before it, its information and its boundary."""
    state = _State.start(*start)
    for info, bound in zip(_increasing(information), bounds, strict=True):
        reached = max(info, state.information * (1 + MIN_INCREMENT))
        yield state, reached, bound
        state = state.advance(reached, bound, *state.next(reached, effect))


def stagewise_interval(
    estimate: float,
    information: Sequence[float] | np.ndarray,
    bounds: Sequence[float] | np.ndarray,
    level: float = 0.95,
    df: float = np.inf,
) -> tuple[float, float]:
    """Returns the confidence interval of an effect after a study was stopped at its last look.

    Studies that stopped earlier count as more extreme (stagewise ordering: Tsiatis, Rosner and Mehta, Biometrics 40,
    1984); with one look it is Student's interval. It excludes 0 exactly where the test at the last look does that
    compares Student's t with the boundary at the same nominal level (Jennison and Turnbull, chapter 3.8).

    Args:
        estimate: of the effect, at the last look.
        information: of each look.
        bounds: of the looks before the last one; a last value is not used.
        level: of confidence, such as 0.95.
        df: degrees of freedom of the standard error at the last look.
    """
    information = _increasing(information)
    standard_error = 1 / np.sqrt(information[-1])

    def tail(effect: float) -> float:
        """Probability of at least as large an effect as this one."""
        t = (estimate - effect) / standard_error
        normal = -np.sign(t) * ndtri(stdtr(df, -abs(t)))  # the deviate of the same tail probability
        z = effect / standard_error + normal
        above, _ = crossing_probabilities(information, [*bounds[: len(information) - 1], z], effect)
        return float(above.sum())

    def root(target: float) -> float:
        reach = 1.0
        while tail(estimate - reach * standard_error) > target or tail(estimate + reach * standard_error) < target:
            reach *= 2
        ends = estimate - reach * standard_error, estimate + reach * standard_error
        return float(optimize.brentq(lambda effect: tail(effect) - target, *ends, xtol=1e-4 * standard_error))

    return root((1 - level) / 2), root((1 + level) / 2)


def information_at(variance: EffectVariance, runs: Sequence[int]) -> list[float]:
    """Returns the information of looks with so many runs of each arm, on the same held-out samples."""
    return [1 / replace(variance, counts=(n,) * len(variance.counts)).total for n in runs]


def conditional_power(
    estimate: float, variance: EffectVariance, plan: LookPlan, spent: Sequence[float] | np.ndarray
) -> float:
    """Returns the probability that the remaining looks show an effect worth having, in either direction.

    Taken as true is the smallest effect worth having or, if that is larger, the effect so far and one standard error:
    a study is not given up because of a bad start.

    Args:
        estimate: of the effect, at the present look.
        variance: its variance.
        plan: at the present look.
        spent: what each look so far has spent.
    """
    if not plan.remaining:
        return 0.0
    looks = [*plan.taken, *plan.remaining]
    information = _increasing(information_at(variance, looks))
    final = replace(plan, taken=tuple(looks)).may_spend
    increments = [*spent, *np.diff([sum(spent), *final[len(plan.taken) :]]).clip(0)]
    bounds = boundaries(information, increments).tolist()
    done = len(plan.taken)
    start = estimate * information[done - 1], information[done - 1]
    plausible = estimate + np.array([1, -1]) / np.sqrt(information[done - 1])
    truths = max(plan.effect, plausible[0]), min(-plan.effect, plausible[1])
    shown = [
        crossing_probabilities(information[done:], bounds[done:], truth, start)[side].sum()
        for side, truth in enumerate(truths)
    ]
    return float(max(shown))
