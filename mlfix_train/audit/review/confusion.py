"""The labels and the confusion matrix of a review: where suspicion is, and how much of it was looked at.

Shapes: N samples, C labels.
"""

from typing import Any

import numpy as np

from mlfix_train.audit.review.samples import Samples

MAX_PAIRS = 2000  # pairs that are told, those that hold most
MIN_HELD = 0.05  # pairs that hold less are not told


def summarize_labels(
    samples: Samples, suspicion: np.ndarray, reviewed: np.ndarray, marked: np.ndarray
) -> dict[str, Any]:
    """Sums up suspicion by given label, and by pair of a given and a suggested label.

    Args:
        samples: N samples.
        suspicion: float ``(N,)``, 0 to 1, NaN where nothing is known; if it is a probability, its sum is the number of
            wrong labels expected.
        reviewed: bool ``(N,)``.
        marked: bool ``(N,)``.

    Returns:
        ``labels`` and ``pairs``, the most suspicion first, as dicts of lists: ``given`` (code), ``count``,
        ``suspicion`` (sum), ``reviewed`` and ``marked`` (numbers of samples). Pairs have ``suggested`` too, which is
        the given label where the audit agrees with it. ``left_out``: pairs that are not told, and the suspicion that
        these hold.
    """
    held, width = np.nan_to_num(suspicion.astype(np.float64)), len(samples.labels) + 1
    given = samples.given.astype(np.int64)
    has_pair = (given >= 0) & (samples.suggested >= 0)

    def sum_up(rows: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        values, keys = np.unique(codes[rows], return_inverse=True)
        weights = {"count": np.ones(len(held)), "suspicion": held, "reviewed": reviewed, "marked": marked}
        sums = {name: np.bincount(keys, weight[rows], len(values)) for name, weight in weights.items()}
        order = np.argsort(-sums["suspicion"], kind="stable")
        return values[order], {name: values[order] for name, values in sums.items()}

    def as_lists(sums: dict[str, np.ndarray], first: int | None = None) -> dict[str, list[float]]:
        rounded = {name: x.round(2) if name == "suspicion" else x.astype(int) for name, x in sums.items()}
        return {name: x[:first].tolist() for name, x in rounded.items()}

    codes, labels = sum_up(given >= 0, given)
    pairs, cells = sum_up(has_pair, given * width + samples.suggested)
    told = min(int((cells["suspicion"] >= MIN_HELD).sum()), MAX_PAIRS)
    given_codes, suggested_codes = np.divmod(pairs[:told], width)
    return {
        "labels": {"given": codes.tolist(), **as_lists(labels)},
        "pairs": {
            "given": given_codes.tolist(),
            "suggested": suggested_codes.tolist(),
            **as_lists(cells, told),
        },
        "left_out": [len(pairs) - told, round(float(cells["suspicion"][told:].sum()), 2)],
    }
