"""Suspicion: several kinds of evidence against a label, combined into one ranking and a probability.

Models that never saw a label contradict it where it is wrong, and where the image is hard. What tells the two apart has
seen the label: training dynamics (does it go against what is learnt elsewhere?), and images that look alike (do they
bear it?). So the two are multiplied: evidence is the square root of h * (sum of r_k), where h speaks for the held-out
predictions and r_k for each other kind. Both are logarithms of ranks, so that units and scales don't matter and nothing
is to be tuned: r = -log(rank / samples). h is the mean of that of the loss (how little the label is believed) and that
of the normalised margin (how much another one is), averaged over the samples of one group (track, photo) that bear one
label: if a model contradicts all frames of a track, each of them is the more suspicious, and one hard frame among easy
ones is less so.

The evidence has a falling bulk of right labels and, where kinds agree, a bump of wrong ones. A mixture of the two,
fitted to the upper part of its histogram, turns it into the probability that a label is wrong (the local false
discovery rate of Efron, "Large-Scale Inference", 2010, with a bump of known shape beside the null).

Where wrong labels don't stand apart from hard images there is no bump to fit, and fits from different places disagree.
Then the number is only known to lie between what stands out and what both sides contradict (models that did not see
the label, and the training that did), and the suspicion falls from 0.9 to 0.1 between these two ranks.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlfix_train.errors import DataError, format_list

LOWER = 0.75
"""Quantile of the evidence above which the mixture is fitted; below it no label is suspected."""
BINS = 120
LIMIT = 12.0
"""Log-odds beyond which the histogram says nothing more."""
SLOPE = 1e-3
"""What the log-odds rise by at least a unit of evidence, so that no two samples tie that the evidence tells apart."""


def log_ranks(scores: np.ndarray) -> np.ndarray:
    """Returns minus the logarithm of (rank / samples ranked), float64 ``N``, higher is worse.

    Ties share their mean rank; what is NaN counts as the mean of evenly drawn ranks, 1.

    Args:
        scores: ``N`` numbers, higher is worse; NaN where there is nothing to say.
    """
    from scipy.stats import rankdata

    known = ~np.isnan(scores)
    found = np.ones(len(scores))
    if known.any():
        found[known] = -np.log(rankdata(-scores[known]) / known.sum())
    return found


def combine(
    held_out: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], cells: np.ndarray | None = None
) -> np.ndarray:
    """Combines evidence of held-out predictions with that of what has seen the labels; see the module's docstring.

    Args:
        held_out: scores by models that did not train on the sample, ``N`` each, higher is worse; their log ranks are
            averaged.
        others: one or more further scores, ``N`` each, higher is worse; NaN where one has nothing to say.
        cells: int64 ``N``, numbers of (group, label); ``None`` where every sample stands for itself.

    Returns:
        float64 ``N``, 0 and up, higher is worse.

    Raises:
        DataError: no other scores, or scores of different lengths.
    """
    lengths = {name: len(values) for name, values in {**held_out, **others}.items()}
    if not others or not held_out or len(set(lengths.values())) != 1:
        told = format_list(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"scores can't be combined: {told}", "give two or more, with a number for each sample")
    own = np.mean([log_ranks(values) for values in held_out.values()], axis=0)
    if cells is not None:
        own = (np.bincount(cells, weights=own) / np.maximum(np.bincount(cells), 1))[cells]
    return np.sqrt(own * np.sum([log_ranks(values) for values in others.values()], axis=0))


@dataclass(frozen=True, eq=False)
class Mixture:
    """Two kinds of labels in one histogram of evidence.

    Attributes:
        centres: ``B`` bins of evidence, above some quantile of it.
        right: ``B`` expected right labels in each bin.
        wrong: ``B`` expected wrong labels in each bin.
        parameters: of the fit, to begin another from.
    """

    centres: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    parameters: np.ndarray

    @property
    def count(self) -> float:
        """How many labels are wrong."""
        return float(self.wrong.sum())

    def log_odds(self, evidence: np.ndarray) -> np.ndarray:
        """Returns the log-odds that labels of such evidence (``N``) are wrong; they rise with it everywhere."""
        odds = np.log(np.maximum(self.wrong, 1e-12)) - np.log(np.maximum(self.right, 1e-12))
        odds = np.maximum.accumulate(np.clip(odds, -LIMIT, LIMIT)) + SLOPE * (self.centres - self.centres[0])
        below = np.minimum(evidence - self.centres[0], 0.0)
        above = np.maximum(evidence - self.centres[-1], 0.0)
        rising: np.ndarray = np.interp(evidence, self.centres, odds) + below + SLOPE * above
        return rising


def fit_mixture(
    evidence: np.ndarray, weights: np.ndarray | None = None, start: np.ndarray | None = None, lower: float = LOWER
) -> Mixture:
    """Fits right and wrong labels to the upper part of the histogram of evidence, by maximum likelihood.

    Right labels fall off as exp(-b u - c u^2), b and c above 0; wrong ones are a normal bump. u is evidence from its
    quantile ``lower`` (0) to its maximum (1).

    Args:
        evidence: ``N`` numbers, from :func:`combine`.
        weights: ``N`` weights of the samples (of a bootstrap); 1 each by default.
        start: parameters to begin with, instead of several trials.
        lower: quantile above which it is fitted.
    """
    low, top = float(np.quantile(evidence, lower)), float(evidence.max())
    edges = np.linspace(low, max(top, low + 1e-9), BINS + 1)
    counts, _ = np.histogram(evidence, edges, weights=weights)
    starts = [np.array([1.5, -1.0, -3.9, middle, -2.3]) for middle in (0.5, 0.65, 0.8)] if start is None else [start]
    best = _search(counts, starts)
    share, right, wrong = _densities(best)
    total = counts.sum()
    return Mixture((edges[:-1] + edges[1:]) / 2, total * (1 - share) * right, total * share * wrong, best)


def _densities(parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns the share of wrong labels, and the right's and the wrong's share of each bin."""
    fall, curve, share, middle, width = parameters
    u = (np.arange(BINS) + 0.5) / BINS
    right = np.exp(-np.exp(fall) * u - np.exp(curve) * u * u)
    wrong = np.exp(-0.5 * ((u - middle) / np.exp(width)) ** 2)
    return float(1 / (1 + np.exp(-share))), right / right.sum(), wrong / (wrong.sum() + 1e-300)


def _search(counts: np.ndarray, starts: list[np.ndarray]) -> np.ndarray:
    from scipy.optimize import minimize

    def loss(parameters: np.ndarray) -> float:
        _, _, share, middle, width = parameters
        if not (0.05 < middle < 1.2 and -4.5 < width < -1.0 and -14 < share < 5):
            return 1e15
        p, right, wrong = _densities(parameters)
        return float(-(counts * np.log((1 - p) * right + p * wrong + 1e-300)).sum())

    options = {"maxiter": 6000, "maxfev": 6000, "xatol": 1e-4, "fatol": 1e-3}
    found = [minimize(loss, start, method="Nelder-Mead", options=options) for start in starts]
    best: np.ndarray = min(found, key=lambda result: result.fun).x
    return best


def between(evidence: np.ndarray, low: float, high: float, expected: float) -> np.ndarray:
    """Returns suspicions, ``N``, that fall from some 0.9 at rank ``low`` to 0.1 at rank ``high``, of a given sum.

    Args:
        evidence: ``N`` numbers, from :func:`combine`.
        low: labels that surely are wrong.
        high: labels that may be, more than ``low``.
        expected: what the suspicions are to sum to, below N.
    """
    from scipy.optimize import brentq

    n = len(evidence)
    ordered = -np.sort(-evidence)
    first, last = (ordered[min(max(round(rank) - 1, 0), n - 1)] for rank in (low, high))
    slope = 2 * np.log(9.0) / max(first - last, 0.2 * ordered.std() + 1e-9)
    wanted = min(max(expected, 1e-3), n - 1e-3)

    def excess(middle: float) -> float:
        return float(probability(slope * (evidence - middle)).sum() - wanted)

    reach = 50 / slope
    return probability(slope * (evidence - brentq(excess, ordered[-1] - reach, ordered[0] + reach)))


def probability(log_odds: np.ndarray) -> np.ndarray:
    """Turns log-odds into probabilities, 0 to 1, without rounding small ones away."""
    from scipy.special import expit

    found: np.ndarray = expit(log_odds)
    return found
