"""Scores of given labels by out-of-sample probabilities, on plain arrays, and confident learning.

Definitions are those of cleanlab where it has them (Northcutt, Jiang and Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 2021; Kuan and Mueller, "Model-agnostic label quality scoring", 2022): all of them
run from 0 to 1, lower is worse. Probabilities must come from models that did not train on the sample.

Shapes: N samples, C labels; labels are numbers 0 to C - 1.
"""

from __future__ import annotations

import numpy as np

from mlfix_train.errors import DataError

TOLERANCE = 0.02
"""How far a row of probabilities may sum from 1: they are kept in half precision."""


def check_probabilities(probabilities: np.ndarray, source: str = "the probabilities") -> np.ndarray:
    """Returns probabilities ``N,C`` as they are.

    Raises:
        DataError: another shape, values outside 0..1, NaN, or rows that don't sum to one; the first such row is named.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise DataError(
            f"{source} have the shape {probabilities.shape}", "give one row a sample and one column a label"
        )
    for start in range(0, len(probabilities), 1 << 15):
        block = np.asarray(probabilities[start : start + (1 << 15)], dtype=np.float32)
        off = ~(np.abs(block.sum(1) - 1) <= TOLERANCE) | ~(block >= 0).all(1)
        if off.any():
            row = int(np.flatnonzero(off)[0])
            total = float(block[row].sum())
            raise DataError(
                f"{source}: row {start + row} is no probabilities: sum {total:.4g}, lowest {block[row].min():.3g}",
                "give the softmax of the logits; each row sums to one",
            )
    return probabilities


def self_confidence(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the probability of the given label, ``N``, 0 to 1, lower is worse."""
    return probabilities[np.arange(len(labels)), labels]


def normalized_margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns (probability of the given label - best other + 1) / 2, ``N``, 0 to 1, lower is worse."""
    own = self_confidence(probabilities, labels)
    return (own - best_other(probabilities, labels)[1] + 1) / 2


def best_other(probabilities: np.ndarray, labels: np.ndarray, block: int = 1 << 15) -> tuple[np.ndarray, np.ndarray]:
    """Returns the likeliest label beside the given one, int64 ``N``, and its probability, float32 ``N``."""
    other, best = np.empty(len(labels), np.int64), np.empty(len(labels), np.float32)
    for start in range(0, len(labels), block):
        part = np.array(probabilities[start : start + block], dtype=np.float32)
        rows = np.arange(len(part))
        part[rows, labels[start : start + block]] = -1
        other[start : start + block] = part.argmax(1)
        best[start : start + block] = part[rows, other[start : start + block]]
    return other, best


def confident_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns for each label the mean probability that samples bearing it get for it, ``C``; NaN for unused labels."""
    classes = probabilities.shape[1]
    own = self_confidence(probabilities, labels).astype(np.float64)
    counts = np.bincount(labels, minlength=classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(labels, weights=own, minlength=classes) / counts


def confident_labels(probabilities: np.ndarray, thresholds: np.ndarray, block: int = 1 << 15) -> np.ndarray:
    """Returns the label that each sample is confidently counted as, int64 ``N``; -1 where there is none.

    A sample counts as a label whose probability reaches the label's threshold; of several, as the likeliest.
    """
    limits = np.where(np.isnan(thresholds), np.inf, thresholds - 1e-6).astype(np.float32)
    found = np.full(len(probabilities), -1, np.int64)
    for start in range(0, len(probabilities), block):
        part = np.asarray(probabilities[start : start + block], dtype=np.float32)
        reached = np.where(part >= limits, part, -1)
        best = reached.argmax(1)
        found[start : start + block] = np.where(reached[np.arange(len(part)), best] >= 0, best, -1)
    return found


def confident_joint(labels: np.ndarray, confident: np.ndarray, classes: int) -> np.ndarray:
    """Counts samples by given label and the label that they are confidently counted as, int64 ``C,C``."""
    sure = confident >= 0
    flat = np.bincount(labels[sure] * classes + confident[sure], minlength=classes * classes)
    return flat.reshape(classes, classes)


def count_confident(probabilities: np.ndarray, labels: np.ndarray) -> int:
    """Returns how many labels confident learning takes for wrong.

    These are samples that are confidently counted as another label, which is also their likeliest. A model's own
    mistakes are among them, so that the number is rather too high.
    """
    confident = confident_labels(probabilities, confident_thresholds(probabilities, labels))
    joint = confident_joint(labels, confident, probabilities.shape[1])
    sure = int(joint.sum() - np.trace(joint))
    best = best_other(probabilities, labels)[1]
    likeliest = self_confidence(probabilities, labels) >= best
    return sure - int((likeliest & (confident >= 0) & (confident != labels)).sum())


def confident_score(
    probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray, block: int = 1 << 15
) -> np.ndarray:
    """Returns how far the given label stands above the others, each measured from its threshold.

    Probabilities are lessened by their label's threshold, so that labels that networks seldom are sure of are not
    suspected for it; then (own - best other + 2) / 4, ``N``, 0 to 1, lower is worse.
    """
    limits = np.where(np.isnan(thresholds), 1.0, thresholds).astype(np.float32)
    result = np.empty(len(labels), np.float32)
    for start in range(0, len(labels), block):
        part = np.asarray(probabilities[start : start + block], dtype=np.float32) - limits
        own = labels[start : start + block]
        rows = np.arange(len(part))
        mine = part[rows, own].copy()
        part[rows, own] = -np.inf
        result[start : start + block] = (mine - part.max(1) + 2) / 4
    return result
