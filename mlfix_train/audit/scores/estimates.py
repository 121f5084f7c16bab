"""Estimates that a person can act on: how many labels are wrong, where, and how far down the list looking still pays.

Shapes: N samples, C labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlfix_train.audit.scores.suspicion import Mixture, fit_mixture, probability

DRAWS = 100
"""Bootstrap samples behind an interval."""
FIT_FROM = (0.65, 0.85)
"""Quantiles of the evidence between which each draw begins its fit: the interval holds this choice, too."""
CLEAR = 2.5
"""Ratio of an interval's ends beyond which wrong labels don't stand apart from hard images."""
STOP_PROBABILITY = 0.05
"""Looking pays while at least one label in twenty is expected to be wrong."""


def resample_counts(
    evidence: np.ndarray, mixture: Mixture, labels: np.ndarray, classes: int, groups: np.ndarray | None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the numbers of wrong labels anew: groups of samples resampled, the mixture fitted again from elsewhere.

    Args:
        evidence: ``N``, from :func:`mlfix_train.audit.scores.suspicion.combine`.
        mixture: its fit.
        labels: int64 ``N``, given labels.
        classes: C.
        groups: int64 ``N``, photo or track of each sample; ``None`` where each stands for itself.
        seed: of the draws.

    Returns:
        ``DRAWS`` numbers over all samples, and ``DRAWS,C`` numbers of each label.
    """
    rng = np.random.default_rng(seed)
    parts = np.arange(len(evidence)) if groups is None else groups
    number = int(parts.max(initial=-1)) + 1
    total, by_label = np.empty(DRAWS), np.empty((DRAWS, classes))
    for draw in range(DRAWS):
        weights = rng.poisson(1.0, number)[parts].astype(np.float64)
        found = fit_mixture(evidence, weights, mixture.parameters, rng.uniform(*FIT_FROM))
        held = weights * probability(found.log_odds(evidence))
        by_label[draw] = np.bincount(labels, weights=held, minlength=classes)
        total[draw] = by_label[draw].sum()
    return total, by_label


def spread_counts(
    suspicion: np.ndarray,
    ends: tuple[float, float],
    labels: np.ndarray,
    classes: int,
    groups: np.ndarray | None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the numbers of wrong labels where only their ends are known: groups resampled, evenly between the ends.

    Args:
        suspicion: ``N`` probabilities.
        ends: the fewest and the most wrong labels over all samples.
        labels, classes, groups, seed: as of :func:`resample_counts`.

    Returns:
        As :func:`resample_counts`.
    """
    rng = np.random.default_rng(seed)
    parts = np.arange(len(suspicion)) if groups is None else groups
    by_label = np.empty((DRAWS, classes))
    expected = max(float(suspicion.sum()), 1e-9)
    for draw, scale in enumerate(np.linspace(*ends, DRAWS) / expected):
        weights = rng.poisson(1.0, int(parts.max(initial=-1)) + 1)[parts]
        by_label[draw] = scale * np.bincount(labels, weights=weights * suspicion, minlength=classes)
    return np.linspace(*ends, DRAWS), by_label


def wrong_labels(
    suspicion: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    draws: tuple[np.ndarray, np.ndarray] | None,
    ends: bool = False,
) -> dict[str, Any]:
    """Estimates how many labels are wrong.

    Args:
        suspicion: ``N`` probabilities that the label is wrong.
        labels: int64 ``N``.
        names: the C labels.
        draws: from :func:`resample_counts` or :func:`spread_counts`; ``None`` for no intervals.
        ends: give the ends of the draws over all samples, instead of their 95%.

    Returns:
        ``wrong``, ``interval`` (95%), ``share`` (percent of the samples), and ``labels``: name to ``samples``,
        ``wrong`` and ``interval``.
    """
    counts = np.bincount(labels, minlength=len(names))
    held = np.bincount(labels, weights=suspicion, minlength=len(names))
    bounds = None if draws is None else np.quantile(draws[1], [0.025, 0.975], axis=0)
    by_label = {
        name: {"samples": int(counts[i]), "wrong": round(float(held[i]), 2),
               "interval": None if bounds is None else [round(float(bounds[0, i]), 2), round(float(bounds[1, i]), 2)]}
        for i, name in enumerate(names) if counts[i]
    }  # fmt: skip
    total = float(suspicion.sum())
    levels = [0, 1] if ends else [0.025, 0.975]
    interval = None if draws is None else [round(float(q), 1) for q in np.quantile(draws[0], levels)]
    return {
        "wrong": round(total, 1), "interval": interval, "share": round(100 * total / max(len(labels), 1), 3),
        "labels": by_label,
    }  # fmt: skip


def review_yield(suspicion: np.ndarray) -> dict[str, Any]:
    """Estimates what looking through a ranking finds.

    Args:
        suspicion: ``N`` probabilities that the label is wrong, highest first.

    Returns:
        ``pays``: how many samples to look at, down to where fewer than one in twenty (:data:`STOP_PROBABILITY`) is expected to be
        wrong; ``finds``: how many wrong labels are expected among them; ``left``: how many beyond; ``steps``: rows of
        (looked at, expected to be found so far) for a curve.
    """
    found = np.cumsum(suspicion)
    stop = int(np.searchsorted(-suspicion, -STOP_PROBABILITY, side="right"))
    finds = float(found[pays - 1]) if pays else 0.0
    total = float(found[-1]) if len(found) else 0.0
    marks = np.unique(np.geomspace(1, max(len(found), 1), 60).astype(int))[: len(found)]
    return {
        "stop_rank": stop, "expected_found": round(finds, 1), "expected_left": round(total - finds, 1),
        "curve": [[int(n), round(float(found[n - 1]), 2)] for n in marks],
    }  # fmt: skip
