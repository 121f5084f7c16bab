"""Planted label errors for benchmarks and demonstrations: known mistakes that an audit should find.

Each ``plant_`` function takes a sample table, which it does not change, and returns a copy with the planted labels, and
the correct ones in the metadata column ``true_label``. ``fraction`` is a share, 0 to 1 (rounded to whole samples), and
``seed`` that of the draw.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlfix_train.data.samples import label_list
from mlfix_train.errors import DataError, check_range, did_you_mean

TRUE_LABEL = "true_label"


def plant_uniform(table: pd.DataFrame, fraction: float, seed: int = 0) -> pd.DataFrame:
    """Relabels a random share of all samples, with a label drawn uniformly from all others.

    Raises:
        ConfigError: A fraction out of range.
        DataError: Samples without a label, or fewer than two labels.
    """
    check_range("fraction", fraction, 0, 1)
    names = label_list(table)
    if table["label"].isna().any():
        raise DataError("errors can't be planted among samples without a label", "label every sample")
    if len(names) < 2:
        raise DataError("errors can't be planted among fewer than two labels", "use data with two or more labels")
    rng = np.random.default_rng([seed, 1])
    rows = rng.permutation(len(table))[: round(fraction * len(table))]
    codes = pd.Index(names).get_indexer(pd.Index(table["label"]))
    shift = rng.integers(1, len(names), size=len(rows))
    new = np.array(names, dtype=object)[(codes[rows] + shift) % len(names)]
    return _plant(table, rows, new)


def plant_confusions(
    table: pd.DataFrame,
    fraction: float,
    confusions: Mapping[str, Sequence[str] | str],
    seed: int = 0,
    whole_groups: bool = False,
) -> pd.DataFrame:
    """Relabels a share of the samples *of each label in* ``confusions`` with one that they are easily mistaken for.

    ``confusions`` map a label to the label or labels it is mistaken for, such as ``{"60": ["80"], "80": ["60"]}``. With
    ``whole_groups``, whole photos or tracks are mislabelled in the same way, as many as come closest to the share.

    Raises:
        ConfigError: A fraction out of range.
        DataError: A label in ``confusions`` that no sample has, or that is mistaken for itself.
    """
    check_range("fraction", fraction, 0, 1)
    known = set(table["label"])
    rng = np.random.default_rng([seed, 2])
    labels = table["label"].to_numpy(dtype=object)
    rows, new = [np.empty(0, np.int64)], [np.empty(0, object)]
    for label in sorted(confusions):
        value = confusions[label]
        targets = [value] if isinstance(value, str) else list(value)
        for name in (label, *targets):
            if name not in known:
                problem = f"the confusion map names {name!r}, a label that no sample has"
                raise DataError(problem, did_you_mean(name, sorted(known)))
        if label in targets or not targets:
            raise DataError(f"the confusion map maps {label!r} to {targets}", "name other labels")
        own = np.flatnonzero(labels == label)
        wanted = round(fraction * len(own))
        if whole_groups:
            picked, part = _whole_groups(table["group"].to_numpy()[own], wanted, rng)
            picked, choice = own[picked], rng.integers(len(targets), size=part.max(initial=-1) + 1)[part]
        else:
            picked = rng.permutation(own)[:wanted]
            choice = rng.integers(len(targets), size=len(picked))
        rows.append(picked)
        new.append(np.array(targets, dtype=object)[choice])
    return _plant(table, np.concatenate(rows), np.concatenate(new))


def _whole_groups(groups: np.ndarray, wanted: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws groups whose total size comes closest to ``wanted``; returns the positions and the group number of each."""
    codes = pd.factorize(groups)[0]
    order = rng.permutation(codes.max() + 1)
    sizes = np.cumsum([0, *np.bincount(codes)[order]])
    count = int(np.abs(sizes - wanted).argmin())
    number = np.full(len(order), -1)
    number[order[:count]] = np.arange(count)
    rows = np.flatnonzero(number[codes] >= 0)
    return rows, number[codes[rows]]


def plant_similar(
    table: pd.DataFrame, fraction: float, confused_with: Sequence[str], similarity: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Relabels a share of the samples with the label of what they resemble, as people make mistakes.

    ``confused_with`` (N,) is the label that each sample may be mistaken for. A sample is drawn with a probability in
    proportion to its ``similarity`` (N,), 0 or more, to images of that label; the share is of those above 0.

    Raises:
        ConfigError: A fraction out of range.
        DataError: A sample would be confused with its own label, or a similarity is below 0.
    """
    check_range("fraction", fraction, 0, 1)
    new, weight = np.asarray(confused_with, dtype=object), np.asarray(similarity, dtype=np.float64)
    if not (weight >= 0).all():
        raise DataError("similarity has numbers below 0 or NaN", "use 0 for samples that are never mistaken")
    candidates = np.flatnonzero(weight)
    same = candidates[new[candidates] == table["label"].to_numpy(dtype=object)[candidates]]
    if len(same):
        raise DataError(f"{table.index[same[0]]} is confused with its own label", "use another label, or similarity 0")
    rng = np.random.default_rng([seed, 3])
    # The largest keys are a draw without replacement in proportion to the weights (Efraimidis and Spirakis 2006).
    keys = np.log(rng.random(len(candidates))) / weight[candidates]
    rows = candidates[np.argsort(-keys, kind="stable")[: round(fraction * len(candidates))]]
    return _plant(table, rows, new[rows])


def _plant(table: pd.DataFrame, rows: np.ndarray, new: np.ndarray) -> pd.DataFrame:
    true_labels = table["label"].astype(object)
    labels = true_labels.copy()
    labels.iloc[rows] = new
    return table.assign(**{TRUE_LABEL: true_labels, "label": labels})


def confusions_among(names: Sequence[str], count: int = 2) -> dict[str, list[str]]:
    """Returns a confusion map between labels that differ by a number: each to the ``count`` closest in digits.

    ``speed-limit-60`` is mistaken for ``speed-limit-80`` and ``speed-limit-50`` rather than for ``speed-limit-120``:
    fewer differing digits first, then digits of similar shape (such as 3, 6 and 8), then the difference.
    """
    similar = [{"3", "8"}, {"6", "8"}, {"5", "6"}, {"2", "7"}]

    def distance(a: str, b: str) -> tuple[int, float, str]:
        x, y = ("".join(filter(str.isdigit, name)) for name in (a, b))
        shape = 0 if any({p, q} in similar for p, q in zip(x, y, strict=False) if p != q) else 1
        return abs(len(x) - len(y)), shape * 1000.0 + abs(int(x or 0) - int(y or 0)), b

    return {
        name: sorted((other for other in names if other != name), key=functools.partial(distance, name))[:count]
        for name in names
    }
