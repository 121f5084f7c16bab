"""Calibration: from labels that a person judged to the probability that each label is wrong, and to how many are.

Evidence orders labels; how often the label at a rank is wrong is learnt by looking at some. :func:`draw_to_judge` draws
a sample that is stratified by rank, :func:`calibrate` learns from any judged labels:

- The log-odds that a label is wrong never rise down the ranking. In the logit of the rank they fall by a gamma process:
  a prior for monotone curves that allows plateaus (a ranking whose top is only half wrong, errors that no evidence
  shows) and cliffs (planted errors, all found), with no functional form. How fast and how evenly they fall is not set,
  but averaged over a grid, each pair weighed by how well it predicts the judgements.
- On a grid of log-odds and of ranks this is a hidden Markov model: curves are drawn from their exact posterior by
  forward filtering and backward sampling (Rabiner, "A tutorial on hidden Markov models", 1989).
- The number of wrong labels is those judged wrong, plus a draw for those not judged, see :func:`count_interval`. By
  label, the log-odds of each label differ from the curve by a normal effect.

What is assumed: the judge is right, and at any rank those judged are like those not judged. The latter holds for a
drawn sample, and for labels reviewed from the top of the ranking; not for samples that were searched for.
Samples of one group (track, photo, patient) with the same label are taken to be right or wrong together, unless most of
the groups in which several were judged contradict that.

Shapes: N samples, J judged, K cells of ranks, L log-odds, D draws, C classes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mlfix_train.audit.scores.estimates import Counts
from mlfix_train.errors import DataError

FIRST_BAND = 10
"""Ranks in the first band of the sample to judge; each further band is twice as long."""
BAND_POWER = 0.25
"""A band is drawn from in proportion to its length to this power: 0 would tell most about the top of the ranking, 1 (a
plain random sample) about the bulk at the bottom."""
CELLS_PER_OCTAVE = 4
"""Cells into which ranks are divided, per doubling of the rank."""
LOG_ODDS = np.linspace(-13, 7, 61)
FALLS = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Mean fall of the log-odds per unit of the logit of the rank: at the top, for a rank 2.7 times as deep; averaged over.
With normal scores it is about 0.6 of the distance of wrong from right labels in standard deviations."""
JUMPS = (0.3, 1.0, 3.0)
"""Mean size of a step down; averaged over."""
LABEL_EFFECT = 1.0
"""Standard deviation of a label's log-odds about the curve."""
DRAWS, LABEL_DRAWS = 1000, 400
CHUNK = 2_000_000
"""Draws, labels and cells that are summed at once."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What judged labels say about all labels.

    Attributes:
        probability: float64 ``(N,)``, that each label is wrong, by its rank; never rises down the ranking.
        wrong: number of wrong labels, judged ones included: the median of the draws.
        interval: its 95% interval, see :func:`count_interval`.
        counts: draws of the number, over all samples ``(D,)`` and by label ``(D', C)``.
        judged: number of judged labels.
        judged_wrong: those of them that are wrong.
    """

    probability: np.ndarray
    wrong: float
    interval: tuple[float, float]
    counts: Counts
    judged: int
    judged_wrong: int


def bands(n_samples: int) -> np.ndarray:
    """Returns the ranks (from 0) at which the bands of the sample to judge begin, and N: int64 ``(bands + 1,)``."""
    edges, width = [0], FIRST_BAND
    while n_samples - edges[-1] > 3 * width:
        edges.append(edges[-1] + width)
        width *= 2
    return np.asarray([*edges, n_samples], np.int64)


def draw_to_judge(evidence: np.ndarray, n: int = 100, seed: int = 0, judged: np.ndarray | None = None) -> np.ndarray:
    """Draws samples whose labels a person should judge, stratified by rank.

    Ranks are divided into bands, each twice as long as the one above, down to and including the bulk at the bottom.
    Samples of a band are drawn at random, those of longer bands more often (:data:`BAND_POWER`); the first draws of any
    number are such a sample. See :func:`inclusion_probabilities`.

    Args:
        evidence: ``(N,)``, higher is worse; NaN counts as least.
        n: number of samples to draw; fewer if there are no more.
        seed: of the draw. The same seed and evidence give the same order of draws, of which the first n that are not
            in ``judged`` are returned: with the rows of the first call as ``judged``, a second call continues it.
        judged: rows that are not drawn again.

    Returns:
        Rows, int64 ``(n,)``, in random order.
    """
    rng = np.random.default_rng([seed, len(evidence)])
    order, edges = rank_order(evidence), bands(len(evidence))
    turns = np.empty(len(evidence))
    for low, high, rate in zip(edges[:-1], edges[1:], _band_rates(edges), strict=True):
        turns[order[low:high]] = (rng.permutation(high - low) + rng.random(high - low)) / rate
    if judged is not None:
        turns[np.asarray(judged, np.int64)] = np.inf
    rows = np.argsort(turns, kind="stable")[:n]
    return np.asarray(rows[np.isfinite(turns[rows])], np.int64)


def inclusion_probabilities(evidence: np.ndarray, n: int = 100) -> np.ndarray:
    """Returns how likely :func:`draw_to_judge` draws each sample among its first n, float64 ``(N,)``, all above 0."""
    from scipy.optimize import brentq

    edges = bands(len(evidence))
    size, rate = np.diff(edges), _band_rates(edges)

    def excess(turn: float) -> float:
        return float(np.minimum(turn * rate, size).sum() - n)

    last = float((size / rate).max())
    turn = last if n >= len(evidence) else brentq(excess, 0, last)
    probability = np.empty(len(evidence))
    probability[rank_order(evidence)] = np.repeat(np.minimum(turn * rate / size, 1), size)
    return probability


def _band_rates(edges: np.ndarray) -> np.ndarray:
    """Returns how often each band is drawn from, relative to the longest."""
    size = np.diff(edges).astype(np.float64)
    rates: np.ndarray = (size / max(size.max(initial=1), 1)) ** BAND_POWER
    return rates


def rank_order(evidence: np.ndarray) -> np.ndarray:
    """Returns the rows ``(N,)`` by falling evidence; ties in the order of rows, NaN last."""
    order: np.ndarray = np.argsort(-np.nan_to_num(np.asarray(evidence, np.float64), nan=-np.inf), kind="stable")
    return order


def calibrate(
    evidence: np.ndarray,
    judged_rows: np.ndarray,
    is_wrong: np.ndarray,
    labels: np.ndarray | None = None,
    n_classes: int | None = None,
    groups: np.ndarray | None = None,
    *,
    found: np.ndarray | None = None,
    kept: np.ndarray | None = None,
    seed: int = 0,
) -> Calibration:
    """Learns from judged labels how likely each label is wrong, and how many are.

    Args:
        evidence: ``(N,)``, higher is worse; only its order counts.
        judged_rows: ``(J,)``, rows of the judged labels, at least one; the last judgement of a row counts.
        is_wrong: bool ``(J,)``, whether each is wrong.
        labels: int64 ``(N,)``, given labels, for the counts by label; ``None``: all are the same.
        n_classes: C; by default the largest label and one.
        groups: int64 ``(N,)``, photo or track of each sample; ``None`` if each sample is its own group.
        found: rows known to be wrong whose neighbours in the ranking were not judged, such as imported fixes: they are
            counted, but say nothing about other labels.
        kept: rows known to be right whose neighbours in the ranking were not judged: they are not counted, and say
            nothing about other labels.
        seed: of the draws.

    Raises:
        DataError: No judgements, rows that do not exist, or arrays of different lengths.
    """
    n = len(evidence)
    rows, wrong = _check_judgements(judged_rows, is_wrong, n)
    codes = np.zeros(n, np.int64) if labels is None else np.asarray(labels, np.int64)
    size = int(codes.max(initial=-1)) + 1 if n_classes is None else n_classes
    rng, edges, ranks = np.random.default_rng(seed), _cell_edges(n), np.empty(n, np.int64)
    ranks[rank_order(evidence)] = np.arange(n)  # from 0
    cells = np.searchsorted(edges, ranks, side="right") - 1

    unit = _units(codes, groups, rows, wrong)
    weights = 1 / np.bincount(unit[rows])[unit[rows]]  # the judged samples of a unit count as one
    seen = np.zeros((2, len(edges) - 1))
    np.add.at(seen, (wrong.astype(int), cells[rows]), weights)
    centers = _logit_ranks((edges[:-1] + edges[1:] - 1) / 2, n)
    curves = _draw_curves(seen, centers, rng)
    probability = np.interp(_logit_ranks(ranks, n), centers, _sigmoid(curves).mean(0))

    unit_known, unit_wrong = np.zeros((2, int(unit.max()) + 1), bool)
    unit_known[unit[rows]], unit_wrong[unit[rows[wrong]]] = True, True
    known_wrong, rest = unit_wrong[unit], ~unit_known[unit]
    known_wrong[rows] = wrong
    if found is not None:
        known_wrong[found], rest[found] = True, False
    if kept is not None:
        known_wrong[kept] = rest[kept] = False
    counted = np.bincount(codes[known_wrong], minlength=size)
    effects = _draw_label_effects(curves[:LABEL_DRAWS], cells[rows], codes[rows], wrong, weights, size, rng)
    overall = _predict_counts(curves, cells[rest], np.zeros(int(rest.sum()), np.int64), unit[rest], 1, rng)
    total = counted.sum() + overall[:, 0]
    by_label = counted + _predict_counts(curves[:LABEL_DRAWS], cells[rest], codes[rest], unit[rest], size, rng, effects)
    low, high = count_interval(total)
    interval = (float(low), float(high))
    return Calibration(probability, float(np.median(total)), interval, (total, by_label), len(rows), int(wrong.sum()))


def count_interval(draws: np.ndarray) -> np.ndarray:
    """Returns the 95% interval of counts, ``(D, ...)`` to ``(2, ...)``.

    Its lower end is that of the shortest interval with 95% of the draws: often no further label is wrong, which is the
    end of the distribution and outside of an interval with equal tails. Its upper end is the 97.5% quantile: the
    shortest interval trusts too much that a bulk without errors among those judged has none.
    """
    ordered = np.sort(draws, axis=0)
    inside = int(np.ceil(0.95 * len(draws)))
    first = (ordered[inside - 1 :] - ordered[: len(draws) - inside + 1]).argmin(0)
    low = np.take_along_axis(ordered, first[None], axis=0)[0]
    low_tail, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return np.stack([np.minimum(low, low_tail), high])


def _check_judgements(rows: np.ndarray, is_wrong: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    rows, wrong = np.asarray(rows, np.int64).reshape(-1), np.asarray(is_wrong).astype(bool).reshape(-1)
    if len(rows) != len(wrong):
        raise DataError(f"{len(rows):,} rows were judged, but there are {len(wrong):,} judgements", "pass one per row")
    if not len(rows):
        raise DataError("no label was judged", "judge some, such as those of draw_to_judge")
    bad = rows[(rows < 0) | (rows >= n)]
    if len(bad):
        raise DataError(f"row {bad[0]} was judged, but there are {n:,} samples", "rows are numbers from 0")
    _, last = np.unique(rows[::-1], return_index=True)
    last = len(rows) - 1 - last
    return rows[last], wrong[last]


def _units(labels: np.ndarray, groups: np.ndarray | None, rows: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Returns the unit of each sample, int64 ``(N,)``: samples that are right or wrong together."""
    if groups is None:
        return np.arange(len(labels))
    _, unit = np.unique(np.asarray(groups) * (int(labels.max(initial=0)) + 1) + labels, return_inverse=True)
    n_judged, n_wrong = np.bincount(unit[rows]), np.bincount(unit[rows], weights=wrong)
    several = (n_judged > 1) & (n_wrong > 0)
    if (n_wrong[several] == n_judged[several]).sum() * 2 < several.sum():
        return np.arange(len(labels))
    return unit.reshape(-1)


def _cell_edges(n: int) -> np.ndarray:
    """Returns the ranks (from 0) at which cells begin, and N: int64 ``(K + 1,)``; cells are short at both ends."""
    octaves = np.arange(0, np.log2(n + 1), 1 / CELLS_PER_OCTAVE)
    edges = np.round(2**octaves).astype(np.int64) - 1
    edges = edges[edges < n / 2]
    return np.asarray(np.unique(np.concatenate([edges, n - edges])))


def _logit_ranks(ranks: np.ndarray, n: int) -> np.ndarray:
    """Returns the logit of ranks (from 0) among N, rising down the ranking.

    It is flattened over the length of the first band at both ends, where too few are judged to tell ranks apart.
    """
    logits: np.ndarray = np.log(ranks + 1 + FIRST_BAND) - np.log(n - ranks + FIRST_BAND)
    return logits


def _draw_curves(seen: np.ndarray, centers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws log-odds of the cells, never rising, from their posterior: float64 ``(D, K)``.

    ``seen``: float64 ``(2, K)``, labels judged right and judged wrong in each cell; ``centers``: ``(K,)``, logit ranks.
    """
    moves = _transitions(tuple(np.diff(centers).tolist()))
    right, wrong = seen[:, :, None]
    log_likelihood = -wrong * np.logaddexp(0, -LOG_ODDS) - right * np.logaddexp(0, LOG_ODDS)
    forward, log_evidence = _filter_forward(log_likelihood, moves)
    weights = np.exp(log_evidence - log_evidence.max())
    prior = np.sort(rng.choice(len(weights), DRAWS, p=weights / weights.sum()))
    curves: np.ndarray = LOG_ODDS[rng.permutation(_sample_backward(forward, moves, prior, rng))]
    return curves


@lru_cache(maxsize=4)
def _transitions(steps: tuple[float, ...]) -> np.ndarray:
    """Returns the probabilities of moving from a level to a level between cells ``steps`` apart in logit rank.

    One gamma process for each pair of :data:`FALLS` and :data:`JUMPS`: float64 ``(processes, K - 1, L, L)``.
    """
    from scipy.stats import gamma

    n = len(LOG_ODDS)
    ends = np.maximum((np.arange(n + 1) - 0.5) * (LOG_ODDS[1] - LOG_ODDS[0]), 0)
    fallen = np.arange(n)[:, None] - np.arange(n)
    moves = np.empty((len(FALLS) * len(JUMPS), len(steps), n, n))
    for process, (fall, jump) in zip(moves, itertools.product(FALLS, JUMPS), strict=True):
        falls = np.diff(gamma.cdf(ends, fall / jump * np.asarray(steps)[:, None], scale=jump), axis=1)
        process[:] = np.where(fallen >= 0, falls[:, np.maximum(fallen, 0)], 0.0)
    moves[..., 0] += 1 - moves.sum(-1)  # none falls below the lowest level
    return moves


def _filter_forward(log_likelihood: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Filters down the ranking, with each process.

    Returns:
        The probability of each level given the judgements down to its cell, ``(processes, K, L)``, and the logarithm of
        the evidence ``(processes,)``.
    """
    start = np.exp(-np.abs(LOG_ODDS) / 2)  # Jeffreys' prior of a probability, per unit of log-odds
    state = np.broadcast_to(start / start.sum(), (len(moves), len(start)))
    forward, log_evidence = np.empty((len(moves), *log_likelihood.shape)), np.zeros(len(moves))
    for k, logs in enumerate(log_likelihood):
        if k:
            state = (state[:, None] @ moves[:, k - 1])[:, 0]
        state = state * np.exp(logs - logs.max())
        total = state.sum(1)
        log_evidence += np.log(total) + logs.max()
        state = forward[:, k] = state / total[:, None]
    return forward, log_evidence


def _sample_backward(
    forward: np.ndarray, moves: np.ndarray, process: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws levels of the cells from the bottom up, for draws with these processes ``(D,)``: int64 ``(D, K)``."""
    n_cells = forward.shape[1]
    levels = np.empty((len(process), n_cells), np.int64)
    for k in range(n_cells - 1, -1, -1):
        weights = forward[process, k]
        if k < n_cells - 1:
            weights = weights * moves[process, k, :, levels[:, k + 1]]
        levels[:, k] = _draw_columns(weights, rng)
    return levels


def _draw_columns(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws a column for each row of weights ``(D, columns)``, in proportion to them: int64 ``(D,)``."""
    cumulative = np.cumsum(weights, axis=1)
    drawn = (cumulative < rng.random((len(weights), 1)) * cumulative[:, -1:]).sum(1)
    columns: np.ndarray = np.minimum(drawn, weights.shape[1] - 1)
    return columns


def _draw_label_effects(
    curves: np.ndarray,
    cells: np.ndarray,
    labels: np.ndarray,
    wrong: np.ndarray,
    weights: np.ndarray,
    n_classes: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws how far the log-odds of each label are from the curve, given its judgements: float64 ``(D, C)``."""
    grid = np.linspace(-3, 3, 25) * LABEL_EFFECT
    prior = -0.5 * (grid / LABEL_EFFECT) ** 2
    effects: np.ndarray = rng.choice(grid, (len(curves), n_classes), p=np.exp(prior) / np.exp(prior).sum())
    for label in np.unique(labels):
        mine = labels == label
        log_odds = curves[:, cells[mine], None] + grid  # (D, judged, grid)
        signed = np.where(wrong[mine], -1.0, 1.0)[:, None] * log_odds
        posterior = prior - (weights[mine][:, None] * np.logaddexp(0, signed)).sum(1)
        effects[:, label] = grid[_draw_columns(np.exp(posterior - posterior.max(1, keepdims=True)), rng)]
    return effects


def _predict_counts(
    curves: np.ndarray,
    cells: np.ndarray,
    labels: np.ndarray,
    unit: np.ndarray,
    n_classes: int,
    rng: np.random.Generator,
    effects: np.ndarray | None = None,
) -> np.ndarray:
    """Draws the number of wrong labels among M samples that were not judged, by label: float64 ``(D, C)``.

    The number in a unit is all or none. A sum over units of several probabilities and sizes is drawn from the scaled
    binomial distribution with the same mean and variance.
    """
    n_cells = curves.shape[1]
    _, unit, size = np.unique(unit, return_inverse=True, return_counts=True)
    where = labels * n_cells + cells
    length = n_classes * n_cells
    samples = np.bincount(where, minlength=length).reshape(n_classes, n_cells)
    squares = np.bincount(where, weights=size[unit], minlength=length).reshape(n_classes, n_cells)
    totals = np.empty((len(curves), n_classes))
    chunk = max(1, CHUNK // length)
    for start in range(0, len(curves), chunk):
        log_odds = curves[start : start + chunk, None, :]
        expected = (samples * _sigmoid(log_odds)).sum((1, 2))
        if effects is not None:
            log_odds = log_odds + effects[start : start + chunk, :, None]
        p = _sigmoid(log_odds)
        mean, spread = (samples * p).sum(2), p * (1 - p)
        mean *= (expected / np.maximum(mean.sum(1), 1e-300))[:, None]  # effects only move wrong labels between labels
        variance, grouped = (samples * spread).sum(2), (squares * spread).sum(2)
        totals[start : start + chunk] = _draw_sums(mean, variance, grouped, rng)
    limited: np.ndarray = np.minimum(totals, samples.sum(1))
    return limited


def _draw_sums(mean: np.ndarray, variance: np.ndarray, grouped: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws sums with these means, and variances without and with groups."""
    size = np.maximum(grouped / np.maximum(variance, 1e-300), 1.0)
    p = 1 - np.clip(variance / np.maximum(mean, 1e-300), 0, 1)
    p = np.maximum(p, 1e-9)
    trials = np.ceil(mean / size / p)
    drawn: np.ndarray = np.round(size, 9) * rng.binomial(
        np.minimum(trials, 2**62).astype(np.int64), np.clip(mean / size / np.maximum(trials, 1), 0, 1)
    )
    return drawn


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    probability: np.ndarray = expit(log_odds)
    return probability
