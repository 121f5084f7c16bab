"""Suspicion: several kinds of evidence against a label, combined into one ranking and a probability.

Each kind of evidence (held-out predictions, training dynamics, neighbours, twins) ranks all samples. The ranks are
multiplied: a sample that stands high in every list comes first, whatever the units of the lists, and a kind that has
nothing to say of a sample is neither for nor against it (Breitling et al., "Rank products", FEBS Letters 2004). There
is nothing to tune.

The logarithm of the product has a falling bulk of right labels and, where kinds agree, a bump of wrong ones. A mixture
of the two, fitted to the upper part of the histogram, turns the product into the probability that a label is wrong
(the local false discovery rate of Efron, "Large-Scale Inference", 2010, with a bump of known shape beside the null).

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlfix_train.errors import DataError, listing

LOWER = 0.75
"""Quantile of the evidence above which the mixture is fitted; below it no label is suspected."""
BINS = 120
LIMIT = 12.0
"""Log-odds beyond which the histogram says nothing more."""
SLOPE = 1e-3
"""What the log-odds rise by at least a unit of evidence, so that no two samples tie that the evidence tells apart."""


def rank_product(scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Combines scores by the product of their ranks.

    Args:
        scores: name to ``N`` numbers, higher is worse; NaN where a score has nothing to say.

    Returns:
        float64 ``N``: minus the logarithm of the product of (rank / samples ranked), higher is worse. Ties share their
        mean rank; what is NaN counts as the mean of a right label, 1.

    Raises:
        DataError: no scores, or of different lengths.
    """
    from scipy.stats import rankdata

    lengths = {name: len(values) for name, values in scores.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"scores of different lengths: {listing(f'{k} {v}' for k, v in lengths.items())}", "align them")
    total = np.zeros(next(iter(lengths.values())))
    for values in scores.values():
        known = ~np.isnan(values)
        part = np.ones(len(total))
        if known.any():
            part[known] = -np.log(rankdata(-values[known]) / known.sum())
        total += part
    return total


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
        evidence: ``N`` numbers, from :func:`rank_product`.
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


def probability(log_odds: np.ndarray) -> np.ndarray:
    """Turns log-odds into probabilities, 0 to 1, without rounding small ones away."""
    from scipy.special import expit

    found: np.ndarray = expit(log_odds)
    return found
