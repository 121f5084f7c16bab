"""Several slices, several looks: p-values and intervals that hold for all of them together.

With five slices tested one by one, one in four studies of nothing shows something. Here the statistic of a family is
the largest of its slices (max-T: Westfall and Young, "Resampling-Based Multiple Testing", 1993), over permutations that
swap the same runs in all slices, so that slices that go together cost little. In a study with looks, permutations stay
within the runs between two looks, and what each look may spend (:mod:`.sequential`) is a share of the permutations.

Shapes: S slices, R runs of an arm, B permutations, K looks.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, product
from math import comb
from typing import Any

import numpy as np
from scipy import stats

from mlfix_train.audit.comparison.effects import (
    EffectComponent,
    effect_variance,
    estimate,
    group_deviations,
)
from mlfix_train.audit.comparison.intervals import bootstrap_interval, clip_interval, resampling_workers
from mlfix_train.audit.comparison.sequential import (
    FUTILE,
    LookPlan,
    boundaries,
    conditional_power,
    information_at,
    stagewise_interval,
)
from mlfix_train.audit.comparison.significance import ALPHA, permutation_p_value

TIES = 1e-9  # statistics that differ by less are equal


@dataclass(frozen=True)
class SliceEffect:
    """The training effect on one slice.

    Args:
        components: one for paired arms, else two.
        groups: ``(G,)`` numbers of its groups of samples, among those of all held-out samples.
    """

    components: Sequence[EffectComponent]
    groups: np.ndarray

    @property
    def testable(self) -> bool:
        """Whether there are the runs and groups that an interval and a test take."""
        return effect_variance(self.components) is not None


def judge_together(
    effects: Mapping[str, SliceEffect | None],
    primary: str | None = None,
    plan: LookPlan | None = None,
    seed: int = 0,
    resamples: int = 10_000,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """Tests the training effects of all slices together.

    Args:
        effects: by slice; ``None`` without clean samples.
        primary: a slice that was named beforehand: tested alone, the others only where it is shown. A study with looks
            needs one.
        plan: of a study with looks, at the present one.
        seed: of resampling and permutation.
        resamples: number of resamples and of permutations.

    Returns:
        By slice ``training_ci95`` and ``p_value``, simultaneous where there are several; and the looks: ``spent``,
        ``level``, ``power_left`` and ``futile`` (``None`` without a plan).
    """
    known = {name: effect for name, effect in effects.items() if effect is not None}
    family = {name: effect for name, effect in known.items() if effect.testable and name != primary}
    first = known.get(primary) if primary is not None else None
    found: dict[str, dict[str, Any]] = {}
    looks = None
    if first is not None and primary is not None:
        if plan is not None and first.testable:
            found[primary], looks = _test_looks(first, plan, seed, resamples)
        else:
            found[primary] = {
                "training_ci95": bootstrap_interval(first.components, seed, resamples),
                "p_value": permutation_p_value(first.components, seed, resamples),
            }
    tail = simultaneous_tail(list(family.values()), seed, resamples) if len(family) > 1 else ALPHA
    # Slices beside a primary one have what a look gives to the primary one.
    tail *= 1.0 if looks is None else looks["level"] / ALPHA
    p_values: dict[str, float] = {}
    if len(family) > 1 or (family and first is not None):
        together, _ = permute([one.components for one in family.values()], plan, seed, resamples)
        p_values = dict(zip(family, together, strict=True))
    others = [name for name in known if name != primary]

    def interval(name: str) -> list[float] | None:
        return bootstrap_interval(known[name].components, seed, resamples, 1 - tail)

    with ThreadPoolExecutor(resampling_workers(resamples)) as pool:
        intervals = list(pool.map(interval, others))
    guard = 0.0  # no p-value is smaller than that of the primary slice; one that can't be tested shows nothing
    if primary is not None:
        tested = found.get(primary, {}).get("p_value")
        guard = 1.0 if tested is None else tested
    for name, simultaneous in zip(others, intervals, strict=True):
        p = p_values.get(name) if p_values else permutation_p_value(known[name].components, seed, resamples)
        found[name] = {"training_ci95": simultaneous, "p_value": None if p is None else max(p, guard)}
    nothing: dict[str, Any] = {"training_ci95": None, "p_value": None}
    return {name: found.get(name, nothing) for name in effects}, looks


def _test_looks(
    effect: SliceEffect, plan: LookPlan, seed: int, resamples: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tests one effect at the present look of a study, and says what the looks have spent."""
    (p,), spent = permute([effect.components], plan, seed, resamples)
    may_spend = float(plan.may_spend[-1])
    looks: dict[str, Any] = {"spent": spent, "may_spend": may_spend, "level": ALPHA, "power_left": 0.0, "futile": False}
    looks["ordering"] = "repeated"
    value, variance = estimate(effect.components), effect_variance(effect.components)
    if variance is None or variance.total == 0:
        return {"training_ci95": bootstrap_interval(effect.components), "p_value": p}, looks
    information = information_at(variance, plan.taken)
    bounds = boundaries(information, [*spent[:-1], max(0.0, may_spend - sum(spent[:-1]))])
    levels = 2 * stats.norm.sf(bounds)
    looks["level"] = float(levels[-1])
    crosses = _excludes_zero(effect, plan.taken[-1], levels[-1])
    decided = plan.complete or (p <= may_spend and crosses)
    earlier = zip(plan.taken[:-1], levels, strict=False)
    if decided and not any(_excludes_zero(effect, n, level) for n, level in earlier):
        # An interval that excluded 0 earlier, before p was small enough, stays a repeated one.
        interval: list[float] | None
        interval = clip_interval(stagewise_interval(value, information, bounds, df=variance.satterthwaite_df()))
        looks["ordering"] = "stagewise"
    else:
        interval = bootstrap_interval(effect.components, seed, resamples, 1 - levels[-1])
    if not decided:
        p = min(1.0, p * ALPHA / may_spend)  # below 0.05 exactly where the boundary of this look is crossed
        looks["power_left"] = conditional_power(value, variance, plan, spent)
        excluded = interval is not None and max(map(abs, interval)) < plan.effect
        enough = plan.can_show([len(one.runs) for one in effect.components])
        looks["futile"] = bool(enough and (looks["power_left"] < FUTILE or excluded))
    return {"training_ci95": interval, "p_value": p}, looks


def _excludes_zero(effect: SliceEffect, runs: int, level: float) -> bool:
    """Returns whether the effect of the first runs of each arm differed from 0 at this level."""
    components = [EffectComponent(one.runs[:runs], one.cells[:runs]) for one in effect.components]
    variance = effect_variance(components)
    if variance is None or variance.total == 0:
        return False
    t = abs(estimate(components)) / np.sqrt(variance.total)
    return bool(2 * stats.t.sf(t, variance.satterthwaite_df()) < level)


def permute(
    effects: Sequence[Sequence[EffectComponent]], plan: LookPlan | None = None, seed: int = 0, resamples: int = 10_000
) -> tuple[list[float], list[float]]:
    """Returns ``(S,)`` two-sided p-values of a permutation test over runs, and ``(K,)`` what the looks have spent.

    The signs of paired differences are flipped; unpaired runs are assigned to the arms anew. All permutations are used
    where there are at most ``resamples`` of them. In a study with looks, a p-value counts as at least as extreme what
    crosses a boundary earlier; a look whose few permutations can show nothing spends nothing.
    """
    counts = [len(component.runs) for component in effects[0]]
    stages = [*(n for n in plan.taken if n < min(counts))] if plan is not None else []
    may_spend = plan.may_spend if plan is not None else np.array([ALPHA])
    ends = [[*([n] * len(counts) for n in stages), counts][k] for k in range(len(stages) + 1)]
    rng = np.random.default_rng([seed, 0x9E])
    values = [np.stack([np.round(one[side].runs, 9) for one in effects]) for side in range(len(counts))]
    statistics = _flip_signs(values[0], ends, rng, resamples) if len(counts) == 1 else None
    if statistics is None:
        statistics = _reassign(values[0], -values[1], ends, rng, resamples)
    total = len(statistics[0])
    alive, spent = np.ones(total, dtype=bool), []
    p_values = np.ones(len(effects))
    decided = np.zeros(len(effects), dtype=bool)
    for statistic, limit in zip(statistics, may_spend, strict=True):
        largest, earlier = statistic.max(1), int(total - alive.sum())
        crossed = alive & _largest(largest, alive, int(limit * total + TIES) - earlier)
        ranked = np.sort(largest[alive])
        p = (earlier + len(ranked) - np.searchsorted(ranked, statistic[0] - TIES)) / total
        p_values = np.where(decided, p_values, p)  # a slice that crossed a boundary earlier keeps that p-value
        decided |= crossed.any() and statistic[0] >= largest[crossed].min() - TIES
        spent.append(float(crossed.sum()) / total)
        alive &= ~crossed
    return [min(1.0, float(p)) for p in p_values], spent


def _largest(statistic: np.ndarray, alive: np.ndarray, count: int) -> np.ndarray:
    """Returns ``(B,)`` which permutations have the ``count`` largest statistics; of equal ones all or none."""
    ranked = np.sort(statistic[alive])[::-1]
    if count <= 0:
        return np.zeros(len(statistic), dtype=bool)
    if count >= len(ranked):
        return np.ones(len(statistic), dtype=bool)
    bound = ranked[count - 1]
    if ranked[count] > bound - TIES:  # a tie at the boundary
        larger = ranked[ranked > bound + TIES]
        bound = larger[-1] if len(larger) else np.inf
    return np.asarray(statistic > bound - TIES)


def _flip_signs(
    values: np.ndarray, ends: Sequence[Sequence[int]], rng: np.random.Generator, resamples: int
) -> list[np.ndarray]:
    """Returns for each look ``(B, S)`` the size of the mean difference, over its scale, the observed one first."""
    runs = values.shape[1]
    if 2**runs <= resamples:
        signs = np.array(list(product((1.0, -1.0), repeat=runs)))
    else:
        signs = np.vstack([np.ones(runs), rng.choice([1.0, -1.0], size=(resamples, runs))])
    scales = [np.sqrt((values[:, :end] ** 2).sum(1)) for (end,) in ends]
    sums = [np.abs(signs[:, :end] @ values[:, :end].T) for (end,) in ends]
    return [_over(total, scale) for total, scale in zip(sums, scales, strict=True)]


def _reassign(
    first: np.ndarray, second: np.ndarray, ends: Sequence[Sequence[int]], rng: np.random.Generator, resamples: int
) -> list[np.ndarray]:
    """Returns for each look ``(B, S)`` the size of the difference of means, over its scale, the observed one first.

    Runs change arms only among those that were added between the same two looks.
    """
    starts = [[0, 0], *ends[:-1]]
    blocks = [
        np.hstack([first[:, a:c], second[:, b:d]]) for (a, b), (c, d) in zip(starts, map(tuple, ends), strict=True)
    ]
    sizes = [end[0] - start[0] for start, end in zip(starts, ends, strict=True)]
    sums = np.zeros((1, first.shape[0]))
    exact = np.prod([float(comb(block.shape[1], size)) for block, size in zip(blocks, sizes, strict=True)]) <= resamples
    statistics, total, squares = [], np.zeros(first.shape[0]), np.zeros(first.shape[0])
    rows: list[np.ndarray] = []
    for block, size in zip(blocks, sizes, strict=True):
        rows.append(_assignments(block.shape[1], size, None if exact else resamples, rng))
    if exact:  # every combination of the assignments within blocks
        grid = np.meshgrid(*[np.arange(len(one)) for one in rows], indexing="ij")
        rows = [one[index.ravel()] for one, index in zip(rows, grid, strict=True)]
    for block, chosen, (c, d) in zip(blocks, rows, map(tuple, ends), strict=True):
        sums = sums + chosen @ block.T
        total, squares = total + block.sum(1), squares + (block**2).sum(1)
        scale = np.sqrt(np.maximum(0.0, squares - total**2 / (c + d)))
        statistics.append(_over(np.abs(sums / c - (total - sums) / d), scale))
    return statistics


def _assignments(runs: int, size: int, resamples: int | None, rng: np.random.Generator) -> np.ndarray:
    """Returns ``(B, runs)`` which runs are in the first arm; the first ``size`` in the first row."""
    if resamples is None:
        chosen = np.zeros((comb(runs, size), runs))
        chosen[np.arange(len(chosen))[:, None], list(combinations(range(runs), size))] = 1
        return chosen
    ranks = rng.random((resamples + 1, runs)).argsort(1).argsort(1)
    ranks[0] = np.arange(runs)
    return (ranks < size).astype(float)


def _over(sizes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(sizes, scale, out=np.zeros_like(sizes), where=scale > TIES))


def simultaneous_tail(
    effects: Sequence[SliceEffect], seed: int = 0, resamples: int = 10_000, alpha: float = ALPHA
) -> float:
    """Returns the probability outside of each interval with which all of them hold together 1 - ``alpha`` of the time.

    The same runs and groups of samples are drawn for all slices; the groups' part, a mean of many, from its normal
    limit.
    """
    rng = np.random.default_rng([seed, 0xFA])
    variances = [effect_variance(effect.components) for effect in effects]
    varying = [(one, v) for one, v in zip(effects, variances, strict=True) if v is not None and v.total > 0]
    if len(varying) < 2:
        return alpha
    groups = 1 + max(int(effect.groups.max()) for effect, _ in varying)
    deviations = np.zeros((len(varying), groups))
    for row, (effect, variance) in zip(deviations, varying, strict=True):
        row[effect.groups] = group_deviations(effect.components) * variance.shrinkage / variance.n_groups
    draws = rng.multivariate_normal(np.zeros(len(varying)), deviations @ deviations.T, resamples, method="eigh")
    for side in range(len(varying[0][0].components)):
        runs = np.stack([effect.components[side].runs for effect, _ in varying])  # (S, R)
        chosen = rng.integers(runs.shape[1], size=(resamples, runs.shape[1]))
        for column, deviation in enumerate(runs - runs.mean(1, keepdims=True)):
            draws[:, column] += deviation[chosen].mean(1)
    ranks = stats.rankdata(draws, axis=0) / (resamples + 1)
    return float(min(alpha, np.quantile(2 * np.minimum(ranks, 1 - ranks).min(1), alpha)))
