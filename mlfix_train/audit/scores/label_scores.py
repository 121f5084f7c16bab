"""Scores of given labels by out-of-sample probabilities, and confident learning, on plain arrays.

Definitions follow cleanlab (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset
Labels", JAIR 2021; Kuan and Mueller, "Model-agnostic label quality scoring", 2022): all scores run from 0 to 1, lower
is worse. Probabilities must come from models that did not train on the sample.

Shapes: N samples, C classes; labels are int64 codes, 0 to C - 1. Blocks of rows keep temporary arrays small.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlfix_train.errors import DataError

TOLERANCE = 0.02
"""How far the sum of a row of probabilities may be from 1; they are stored in half precision."""
ROUNDING = 1e-6
"""How far below 0 a probability may be, by rounding."""
BLOCK = 1 << 15
"""Rows processed at a time."""


def _blocks(n: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, n)) for start in range(0, n, block))


def check_probabilities(probabilities: np.ndarray, source: str = "the probabilities") -> np.ndarray:
    """Returns ``probabilities`` unchanged if they are a valid matrix ``(N, C)``.

    Raises:
        DataError: Another shape, values outside 0 to 1, NaN, or a row that doesn't sum to 1; the first one is named.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise DataError(
            f"{source} have the shape {probabilities.shape}", "pass one row per sample and one column per class"
        )
    if probabilities.dtype.kind not in "fiu":
        raise DataError(f"{source} are of the type {probabilities.dtype}", "pass numbers")
    for rows in _blocks(len(probabilities), BLOCK):
        part = np.asarray(probabilities[rows], dtype=np.float32)
        bad = ~(np.abs(part.sum(1) - 1) <= TOLERANCE) | ~(part >= -ROUNDING).all(1)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{source}: row {rows.start + first} is not a probability distribution: sum "
                f"{float(part[first].sum()):.4g}, lowest {part[first].min():.3g}",
                "pass the softmax of the logits; each row must sum to 1 (rounded numbers: divide each row by its sum)",
            )
    return probabilities


def self_confidence(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the probability of the given label, ``(N,)``, 0 to 1, lower is worse."""
    own: np.ndarray = probabilities[np.arange(len(labels)), labels]
    return own


def normalized_margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns (probability of the given label - best other + 1) / 2, ``(N,)``, 0 to 1, lower is worse."""
    margin: np.ndarray = self_confidence(probabilities, labels) - best_other(probabilities, labels)[1]
    return (margin + 1) / 2


def best_other(probabilities: np.ndarray, labels: np.ndarray, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Returns the likeliest label other than the given one, int64 ``(N,)``, and its probability, float32 ``(N,)``."""
    other, best = np.empty(len(labels), np.int64), np.empty(len(labels), np.float32)
    for rows in _blocks(len(labels), block):
        part = np.array(probabilities[rows], dtype=np.float32)
        each = np.arange(len(part))
        part[each, labels[rows]] = -1
        other[rows] = part.argmax(1)
        best[rows] = part[each, other[rows]]
    return other, best


def confident_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the threshold of each class, the mean self-confidence of its samples, ``(C,)``; NaN if there are none."""
    n_classes = probabilities.shape[1]
    own = self_confidence(probabilities, labels).astype(np.float64)
    counts = np.bincount(labels, minlength=n_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(labels, weights=own, minlength=n_classes) / counts


def confident_labels(probabilities: np.ndarray, thresholds: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Returns the label that each sample confidently belongs to, int64 ``(N,)``; -1 if there is none.

    These are labels whose probability reaches their threshold; of several, the likeliest.
    """
    confident = np.empty(len(probabilities), np.int64)
    limits = np.where(np.isnan(thresholds), np.inf, thresholds - 1e-6).astype(np.float32)
    for rows in _blocks(len(probabilities), block):
        part = np.asarray(probabilities[rows], dtype=np.float32)
        reached = np.where(part >= limits, part, -1.0)
        best = reached.argmax(1)
        confident[rows] = np.where(reached[np.arange(len(part)), best] >= 0, best, -1)
    return confident


def confident_joint(labels: np.ndarray, confident: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts samples by given label and by the label that they confidently belong to, int64 ``(C, C)``."""
    counted = confident >= 0
    flat = np.bincount(labels[counted] * n_classes + confident[counted], minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes)


def count_label_issues(probabilities: np.ndarray, labels: np.ndarray) -> int:
    """Returns how many labels are wrong according to confident learning.

    These are samples that confidently belong to another label, which is also their likeliest. The models' own mistakes
    are counted too, so the number tends to be too high.
    """
    confident = confident_labels(probabilities, confident_thresholds(probabilities, labels))
    joint = confident_joint(labels, confident, probabilities.shape[1])
    off_diagonal = int(joint.sum() - np.trace(joint))
    given_is_likeliest = self_confidence(probabilities, labels) >= best_other(probabilities, labels)[1]
    return off_diagonal - int((given_is_likeliest & (confident >= 0) & (confident != labels)).sum())


def confident_score(
    probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray, block: int = BLOCK
) -> np.ndarray:
    """Returns the normalized margin relative to the thresholds, float32 ``(N,)``, 0 to 1, lower is worse.

    The threshold of a label is subtracted from its probability, so that samples of classes that models are seldom sure
    of are not suspected for that; then the score is (own - best other + 2) / 4.
    """
    limits = np.where(np.isnan(thresholds), 1.0, thresholds).astype(np.float32)
    score = np.empty(len(labels), np.float32)
    for rows in _blocks(len(labels), block):
        part = np.asarray(probabilities[rows], dtype=np.float32) - limits
        each = np.arange(len(part))
        own = part[each, labels[rows]].copy()
        part[each, labels[rows]] = -np.inf
        score[rows] = (own - part.max(1) + 2) / 4
    return score
