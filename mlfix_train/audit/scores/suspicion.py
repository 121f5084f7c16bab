"""Suspicion: several kinds of evidence combined into one ranking, and into the probability that a label is wrong.

Two sides are added up, each as log ranks, r = -log(rank / N), so units and scales don't matter:

    evidence = h + w_1 r_1 + w_2 r_2 + ...

h comes from predictions that have not seen the label (see :mod:`mlfix_train.audit.scores.pooling`), averaged over the
samples of one group (track, photo) with the same label: if a model contradicts all frames of a track, each frame
becomes more suspicious, and one hard frame among easy ones less so. r_k comes from each kind of evidence that has seen
the label: training dynamics (does the label contradict what the model learns elsewhere?) and twins (do near-copies have
the same label?). Its weight is its correlation with h, so evidence that is blind here does no harm (of log ranks, which
stress the top: the top-down correlation of Iman and Conover, 1987). Dynamics count no more than the share that the same
runs' predictions have in the pool.

The histogram of the evidence shows a falling bulk of correct labels and, if the kinds of evidence agree, a bump of
wrong ones. A two-component mixture fitted to its upper part turns evidence into the probability that a label is wrong
(the local false discovery rate of Efron, "Large-Scale Inference", 2010, with a bump of known shape beside the null).
If there is no such bump, how many labels are wrong can't be told without looking at some.

Shapes: N samples, B histogram bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlfix_train.errors import DataError, format_list

FIT_QUANTILE = 0.75
"""Quantile of the evidence above which the mixture is fitted; no label below it is suspected."""
BINS = 120
MAX_LOG_ODDS = 12.0
"""Log-odds beyond which the histogram has no information."""
MIN_SLOPE = 1e-3
"""Minimal rise of the log-odds per unit of evidence, so that samples with different evidence never tie."""


def log_ranks(scores: np.ndarray) -> np.ndarray:
    """Returns -log(rank / samples ranked), float64 ``(N,)``, 0 and up, higher is worse.

    Ties share their mean rank. NaN counts as 1, the mean of the log ranks of uniformly distributed scores.

    Args:
        scores: ``(N,)``, higher is worse; NaN where there is no evidence.
    """
    from scipy.stats import rankdata

    known = ~np.isnan(scores)
    ranks = np.ones(len(scores))
    if known.any():
        ranks[known] = -np.log(rankdata(-scores[known]) / known.sum())
    return ranks


def combine_log_ranks(
    held_out: np.ndarray,
    others: Mapping[str, np.ndarray],
    cells: np.ndarray | None = None,
    worth: Mapping[str, float] | None = None,
) -> tuple[np.ndarray, dict[str, float]]:
    """Combines a score of held-out predictions with scores that have seen the labels; see the module's docstring.

    Args:
        held_out: score by models that did not train on the sample, ``(N,)``, higher is worse.
        others: further scores, ``(N,)`` each, higher is worse; NaN where there is no evidence.
        cells: int64 ``(N,)``, codes of (group, label) pairs; ``None`` if every sample is its own group.
        worth: factors of the weights, 0 to 1; 1 where one is missing.

    Returns:
        Evidence, float64 ``(N,)``, 0 and up, higher is worse; and the weight of each further score, 0 to 1.

    Raises:
        DataError: Scores of different lengths.
    """
    lengths = {"held_out": len(held_out)} | {name: len(values) for name, values in others.items()}
    if len(set(lengths.values())) != 1:
        found = format_list(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"scores can't be combined: {found}", "pass a number for each sample")
    evidence = log_ranks(held_out)
    if cells is not None:
        evidence = (np.bincount(cells, weights=evidence) / np.maximum(np.bincount(cells), 1))[cells]
    own, weights = evidence.copy(), {}
    for name, values in others.items():
        ranks = log_ranks(values)
        weights[name] = _agreement(ranks, own) * (worth or {}).get(name, 1.0)
        evidence += weights[name] * ranks
    return evidence, weights


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the correlation, 0 if it is negative or not defined."""
    if a.std() < 1e-12 or b.std() < 1e-12:
        return 0.0
    return float(max(np.corrcoef(a, b)[0, 1], 0.0))


@dataclass(frozen=True, eq=False)
class Mixture:
    """A histogram of evidence, divided into correct and wrong labels.

    Attributes:
        centers: float64 ``(B,)``, bins of evidence above the quantile from which it was fitted.
        correct: float64 ``(B,)``, expected correct labels in each bin.
        wrong: float64 ``(B,)``, expected wrong labels in each bin.
        parameters: float64 ``(5,)``, of the fit, to start another fit from.
    """

    centers: np.ndarray
    correct: np.ndarray
    wrong: np.ndarray
    parameters: np.ndarray

    @property
    def count(self) -> float:
        """Expected number of wrong labels."""
        return float(self.wrong.sum())

    def log_odds(self, evidence: np.ndarray) -> np.ndarray:
        """Returns the log-odds that labels with this evidence (``(N,)``) are wrong, strictly increasing in it."""
        odds = np.log(np.maximum(self.wrong, 1e-12)) - np.log(np.maximum(self.correct, 1e-12))
        odds = np.maximum.accumulate(np.clip(odds, -MAX_LOG_ODDS, MAX_LOG_ODDS))
        odds = odds + MIN_SLOPE * (self.centers - self.centers[0])
        below = np.minimum(evidence - self.centers[0], 0.0)
        above = np.maximum(evidence - self.centers[-1], 0.0)
        increasing: np.ndarray = np.interp(evidence, self.centers, odds) + below + MIN_SLOPE * above
        return increasing

    def probability(self, evidence: np.ndarray) -> np.ndarray:
        """Returns the probability that labels with this evidence (``(N,)``) are wrong, 0 to 1."""
        return _sigmoid(self.log_odds(evidence))


def fit_mixture(
    evidence: np.ndarray,
    weights: np.ndarray | None = None,
    start: np.ndarray | None = None,
    quantile: float = FIT_QUANTILE,
) -> Mixture:
    """Fits correct and wrong labels to the upper part of the histogram of evidence, by maximum likelihood.

    Correct labels fall off as exp(-b u - c u^2) with b, c > 0; wrong ones form a normal bump. u is the evidence, scaled
    to 0 at ``quantile`` and 1 at its maximum.

    Args:
        evidence: ``(N,)``, from :func:`combine_log_ranks`.
        weights: ``(N,)``, weights of the samples (in a bootstrap); 1 by default.
        start: parameters to start from, instead of several trials.
        quantile: quantile of the evidence above which the mixture is fitted.
    """
    low, high = float(np.quantile(evidence, quantile)), float(evidence.max())
    edges = np.linspace(low, max(high, low + 1e-9), BINS + 1)
    counts, _ = np.histogram(evidence, edges, weights=weights)
    starts = [np.array([1.5, -1.0, -3.9, middle, -2.3]) for middle in (0.5, 0.65, 0.8)] if start is None else [start]
    parameters = _maximize_likelihood(counts, starts)
    share, correct, wrong = _densities(parameters)
    total = counts.sum()
    return Mixture((edges[:-1] + edges[1:]) / 2, total * (1 - share) * correct, total * share * wrong, parameters)


def _densities(parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns the share of wrong labels, and the densities of correct and of wrong ones over the bins."""
    slope, curvature, share, middle, width = parameters
    u = (np.arange(BINS) + 0.5) / BINS
    correct = np.exp(-np.exp(slope) * u - np.exp(curvature) * u * u)
    wrong = np.exp(-0.5 * ((u - middle) / np.exp(width)) ** 2)
    return float(1 / (1 + np.exp(-share))), correct / correct.sum(), wrong / (wrong.sum() + 1e-300)


def _maximize_likelihood(counts: np.ndarray, starts: list[np.ndarray]) -> np.ndarray:
    """Returns the best parameters found by Nelder-Mead from any of the starts."""
    from scipy.optimize import minimize

    def negative_log_likelihood(parameters: np.ndarray) -> float:
        _, _, share, middle, width = parameters
        if not (0.05 < middle < 1.2 and -4.5 < width < -1.0 and -14 < share < 5):
            return 1e15
        p, correct, wrong = _densities(parameters)
        return float(-(counts * np.log((1 - p) * correct + p * wrong + 1e-300)).sum())

    options = {"maxiter": 6000, "maxfev": 6000, "xatol": 1e-4, "fatol": 1e-3}
    fits = [minimize(negative_log_likelihood, start, method="Nelder-Mead", options=options) for start in starts]
    best: np.ndarray = min(fits, key=lambda fit: fit.fun).x
    return best


def suspicion_by_rank(evidence: np.ndarray, n_issues: float) -> np.ndarray:
    """Returns a suspicion that only orders labels, float64 ``(N,)``, 0 to 1, higher is worse: m / (m + rank).

    It is 0.5 at rank m = ``n_issues``; equal evidence gives equal suspicion.
    """
    from scipy.stats import rankdata

    suspicion: np.ndarray = n_issues / (n_issues + rankdata(-evidence))
    return suspicion


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """Returns probabilities; small ones are not rounded to 0."""
    from scipy.special import expit

    probability: np.ndarray = expit(log_odds)
    return probability
