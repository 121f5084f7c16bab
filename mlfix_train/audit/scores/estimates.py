"""Estimates a reviewer can act on: how many labels are wrong, which ones, and how far down the ranking to review.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlfix_train.audit.scores.suspicion import Mixture, fit_mixture

if TYPE_CHECKING:
    from mlfix_train.audit.scores.calibration import Calibration

BOOTSTRAP_DRAWS = 100
"""Bootstrap samples behind an interval."""
FIT_QUANTILES = (0.65, 0.85)
"""Each bootstrap fit starts at a random quantile of the evidence in this range, so the interval covers that choice."""
MAX_INTERVAL_RATIO = 2.5
"""If the ends of the interval differ by more than this factor, wrong labels are not separated from hard images."""
STOP_PROBABILITY = 0.05
"""Reviewing is worthwhile while at least one label in twenty is expected to be wrong."""

Counts = tuple[np.ndarray, np.ndarray]
"""Draws of the number of wrong labels: over all samples ``(DRAWS,)``, and by given label ``(DRAWS, C)``."""


@dataclass(frozen=True)
class Estimate:
    """How many labels are wrong, and what reviewing the ranking is expected to find.

    Attributes:
        clear: whether wrong labels are separated from hard images. If not, they can't be counted: only a range is
            known, and ``wrong`` is its middle.
        wrong: expected number of wrong labels.
        interval: if ``clear``, the 95% interval of ``wrong``; else the ends of the range.
        share: ``wrong`` in percent of the ranked samples.
        labels: by given label: ``samples``, ``wrong`` and its 95% ``interval``.
        review_yield: see :func:`review_yield`.
        judged: number of labels that a person judged and that it was estimated from; 0: from the evidence alone.
        judged_wrong: those of them that are wrong.
    """

    clear: bool
    wrong: float
    interval: list[float]
    share: float
    labels: dict[str, dict[str, Any]] = field(repr=False)
    review_yield: dict[str, Any] = field(repr=False)
    judged: int = 0
    judged_wrong: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the estimate as ``audit.json`` holds it."""
        return asdict(self)


def bootstrap_counts(
    evidence: np.ndarray,
    mixture: Mixture,
    labels: np.ndarray,
    n_classes: int,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Counts:
    """Bootstraps the number of wrong labels: groups of samples are resampled, and the mixture is fitted again.

    Args:
        evidence: ``(N,)``, from :func:`mlfix_train.audit.scores.suspicion.combine_log_ranks`.
        mixture: its fit.
        labels: int64 ``(N,)``, given labels.
        n_classes: C.
        groups: int64 ``(N,)``, photo or track of each sample; ``None`` if each sample is its own group.
        seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    total, by_label = np.empty(BOOTSTRAP_DRAWS), np.empty((BOOTSTRAP_DRAWS, n_classes))
    for draw in range(BOOTSTRAP_DRAWS):
        weights = _poisson_weights(rng, len(evidence), groups).astype(np.float64)
        fit = fit_mixture(evidence, weights, mixture.parameters, rng.uniform(*FIT_QUANTILES))
        by_label[draw] = np.bincount(labels, weights=weights * fit.probability(evidence), minlength=n_classes)
        total[draw] = by_label[draw].sum()
    return total, by_label


def _poisson_weights(rng: np.random.Generator, n: int, groups: np.ndarray | None) -> np.ndarray:
    """Returns bootstrap weights ``(N,)``, one draw per group."""
    drawn = rng.poisson(1.0, n if groups is None else int(groups.max(initial=-1)) + 1)
    return drawn if groups is None else drawn[groups]


def estimate_wrong_labels(
    suspicion: np.ndarray, labels: np.ndarray, class_names: list[str], counts: Counts, clear: bool = True
) -> Estimate:
    """Estimates how many labels are wrong.

    Args:
        suspicion: ``(N,)``, probabilities that a label is wrong.
        labels: int64 ``(N,)``, given labels.
        class_names: the C classes.
        counts: from :func:`bootstrap_counts`, or from :func:`counts_in_range` if not ``clear``.
        clear: whether wrong labels are separated from hard images.
    """
    wrong = np.bincount(labels, weights=suspicion, minlength=len(class_names))
    ends = np.quantile(counts[0], [0.025, 0.975] if clear else [0, 1])
    expected = float(suspicion.sum())
    return Estimate(
        clear=clear,
        wrong=round(expected, 1),
        interval=[round(float(end), 1) for end in ends],
        share=round(100 * expected / max(len(labels), 1), 3),
        labels=_by_label(labels, class_names, wrong, np.quantile(counts[1], [0.025, 0.975], axis=0)),
        review_yield=review_yield(-np.sort(-suspicion)),
    )


def estimate_by_judgements(calibration: Calibration, labels: np.ndarray, class_names: list[str]) -> Estimate:
    """Returns what judged labels say about all of them.

    Args:
        calibration: from :func:`mlfix_train.audit.scores.calibration.calibrate`.
        labels: int64 ``(N,)``, given labels.
        class_names: the C classes.
    """
    from mlfix_train.audit.scores.calibration import count_interval

    by_label = calibration.counts[1]
    return Estimate(
        clear=True,
        wrong=round(calibration.wrong, 1),
        interval=[round(end, 1) for end in calibration.interval],
        share=round(100 * calibration.wrong / max(len(labels), 1), 3),
        labels=_by_label(labels, class_names, np.median(by_label, axis=0), count_interval(by_label)),
        review_yield=review_yield(-np.sort(-calibration.probability)),
        judged=calibration.judged,
        judged_wrong=calibration.judged_wrong,
    )


def _by_label(
    labels: np.ndarray, class_names: list[str], wrong: np.ndarray, ends: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Returns samples, wrong labels ``(C,)`` and the ends of their intervals ``(2, C)``, by the label's name."""
    samples = np.bincount(labels, minlength=len(class_names))
    low, high = ends
    return {
        name: {
            "samples": int(samples[i]),
            "wrong": round(float(wrong[i]), 2),
            "interval": [round(float(low[i]), 2), round(float(high[i]), 2)],
        }
        for i, name in enumerate(class_names)
        if samples[i]
    }


def review_yield(suspicion: np.ndarray) -> dict[str, Any]:
    """Estimates what reviewing a ranking from the top finds.

    Args:
        suspicion: ``(N,)``, probabilities that a label is wrong, highest first.

    Returns:
        ``stop_rank``: how many samples to review, down to where fewer than one in twenty (:data:`STOP_PROBABILITY`) is
        expected to be wrong; ``expected_found``: wrong labels expected among them; ``expected_left``: those beyond;
        ``curve``: rows of (samples reviewed, wrong labels expected so far).
    """
    found = np.cumsum(suspicion)
    stop = int(np.searchsorted(-suspicion, -STOP_PROBABILITY, side="right"))
    expected_found = float(found[stop - 1]) if stop else 0.0
    total = float(found[-1]) if len(found) else 0.0
    steps = np.unique(np.geomspace(1, max(len(found), 1), 60).astype(int))[: len(found)]
    return {
        "stop_rank": stop,
        "expected_found": round(expected_found, 1),
        "expected_left": round(total - expected_found, 1),
        "curve": [[int(n), round(float(found[n - 1]), 2)] for n in steps],
    }
