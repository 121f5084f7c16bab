"""Labels that overlap so much that they may be one: models that were not told a sample's label can't tell them apart.

If two labels name one thing, the held-out probability of the one beside the other says nothing about which of them a
sample was given: the area under its ROC curve is 0.5 (Hand and Till, "A Simple Generalisation of the Area Under the ROC
Curve for Multiple Class Classification Problems", 2001, call this area the separability of two classes). Unlike counts
of confusions, it doesn't depend on how many samples a label has.

Shapes: N samples, C classes, P pairs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

MIN_OVERLAP = 0.9
"""Pairs that overlap at least this much are reported: an area under the curve of at most 0.55."""
SLACK = 0.1
"""The lower end of the interval of the overlap may be this much smaller."""
MIN_SEPARABILITY = 0.75
"""Smallest area under the ROC curve between the samples of each of the two labels and all others, by the probability of
both labels. Models that have learned nothing can't tell any two labels apart, and don't reach this."""
SAMPLE = 20_000
"""Other samples that a pair is compared with, at most."""
COLUMNS = ("first", "second", "overlap", "lowest", "samples")


def overlapping_labels(
    probabilities: np.ndarray,
    labels: np.ndarray,
    neighbour_labels: np.ndarray | None = None,
    min_overlap: float = MIN_OVERLAP,
) -> pd.DataFrame:
    """Finds pairs of labels that may be one.

    The overlap is 2 (1 - A), where A is the probability that of a sample of each label, the right one has the higher
    share of probability for its label (0.5 for labels that name one thing, 1 for labels that never meet). The
    lower end of its 95% interval must not be more than 0.1 below the smallest overlap that is reported, for which it
    takes some 65 samples of each label. Two labels alone, with no third to compare with, are never reported: models
    that learned nothing look the same.

    Args:
        probabilities: float ``(N, C)``, held out.
        labels: int64 ``(N,)``, given labels.
        neighbour_labels: int64 ``(N,)``, the label of most similar images of other groups, -1 for none. Pairs that
            these tell apart are not reported.
        min_overlap: smallest overlap that is reported, 0 to 1.

    Returns:
        A row per pair, largest overlap first: ``first`` and ``second``, codes of the labels; ``overlap``, 0 to 1, 1 if
        nothing tells them apart; ``lowest``, the lower end of its 95% interval; ``samples`` of both labels.
    """
    n_classes, rows = probabilities.shape[1], []
    counts = np.bincount(labels, minlength=n_classes)
    if len(labels) == 0 or (counts > 0).sum() < 3:
        return pd.DataFrame([], columns=list(COLUMNS))
    sums = np.zeros((n_classes, n_classes))
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(counts)
    rows_of = [order[end - count : end] for end, count in zip(ends, counts, strict=True)]
    for code in np.flatnonzero(counts):
        sums[code] = probabilities[rows_of[code]].sum(0, dtype=np.float64)
    means = sums / np.maximum(counts, 1)[:, None]  # mean probability of each label by given label
    own = np.diag(means)
    candidates = (means >= 0.5 * own[None, :]) & (0.5 * own[:, None] <= means.T) & np.outer(counts > 1, counts > 1)
    candidates &= _told_from_the_rest(sums, counts)
    some = np.sort(np.random.default_rng(0).permutation(len(labels))[:SAMPLE])  # enough to compare with
    for first, second in np.argwhere(np.triu(candidates, 1)):
        both = counts[first] + counts[second]
        of_first, of_second = (probabilities[rows_of[code]][:, [first, second]] for code in (first, second))
        n, m = len(of_first), len(of_second)
        area = _area(*(values[:, 1] / np.maximum(values.sum(1), 1e-30) for values in (of_first, of_second)))
        deviation = np.sqrt((n + m + 1) / (12 * n * m))  # of two equal distributions (Mann and Whitney, 1947)
        overlap = min(1.0, 2 * (1 - area))
        lowest = min(1.0, max(0.0, 2 * (1 - area - 1.96 * deviation)))
        if overlap < min_overlap or lowest < min_overlap - SLACK:
            continue
        rest = some[(labels[some] != first) & (labels[some] != second)]
        others = probabilities[rest][:, [first, second]].sum(1)
        if min(_area(others, values.sum(1)) for values in (of_first, of_second)) < MIN_SEPARABILITY:
            continue
        if not _neighbours_differ(labels, neighbour_labels, first, second, min_overlap - SLACK):
            rows.append((int(first), int(second), overlap, lowest, int(both)))
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    return found.sort_values(["overlap", "lowest"], ascending=False, kind="stable", ignore_index=True)


def _told_from_the_rest(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the pairs whose labels are likelier for their own samples than for others, bool ``(C, C)``; quick.

    Args:
        sums: float64 ``(C, C)``, summed probability of each label by given label.
        counts: int64 ``(C,)``, samples of each given label.
    """
    own, total = np.diag(sums), sums.sum(0)
    inside = own[:, None] + own[None, :] + sums + sums.T
    n_inside = counts[:, None] + counts[None, :]
    outside = (total[:, None] + total[None, :] - inside) / np.maximum(counts.sum() - n_inside, 1)
    return np.asarray(inside / np.maximum(n_inside, 1) > 1.25 * outside)


def _area(low: np.ndarray, high: np.ndarray) -> float:
    """Returns the area under the ROC curve: the probability that a value of ``high`` exceeds one of ``low``."""
    from scipy.stats import rankdata

    n, m = len(low), len(high)
    return float((rankdata(np.concatenate([low, high]))[n:].sum() - m * (m + 1) / 2) / (n * m))


def _neighbours_differ(
    labels: np.ndarray, neighbour_labels: np.ndarray | None, first: int, second: int, min_overlap: float
) -> bool:
    """Whether similar images tell two labels apart: the same overlap, of their vote, is too small."""
    if neighbour_labels is None:
        return False
    voted = np.isin(neighbour_labels, (first, second))
    of_first, of_second = (neighbour_labels[voted & (labels == code)] == second for code in (first, second))
    if not len(of_first) or not len(of_second):
        return False
    return bool(1 - (of_second.mean() - of_first.mean()) < min_overlap)
