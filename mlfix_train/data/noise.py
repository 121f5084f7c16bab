"""Planted label errors, for benchmarks and demonstrations: known mistakes that a tool should find."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlfix_train.data.samples import label_list
from mlfix_train.errors import DataError, check_range, did_you_mean

TRUE_LABEL = "true_label"


def plant_uniform(table: pd.DataFrame, fraction: float, seed: int = 0) -> pd.DataFrame:
    """Gives a random share of the samples another label, drawn evenly from all other labels.

    Args:
        table: a sample table, not changed.
        fraction: share of all samples to mislabel, 0 to 1 (rounded to whole samples).
        seed: seed of the draw.

    Returns:
        A copy with the planted labels, and the right ones in the metadata column ``true_label``.

    Raises:
        ConfigError: a fraction out of range.
        DataError: fewer than two labels.
    """
    check_range("fraction", fraction, 0, 1)
    names = label_list(table)
    if table["label"].isna().any():
        raise DataError("errors can't be planted among samples without a label", "give every sample a label")
    if len(names) < 2:
        raise DataError("errors can't be planted among fewer than two labels", "bring data of two or more labels")
    rng = np.random.default_rng([seed, 1])
    rows = rng.permutation(len(table))[: round(fraction * len(table))]
    codes = pd.Index(names).get_indexer(pd.Index(table["label"]))
    shift = rng.integers(1, len(names), size=len(rows))
    new = np.array(names, dtype=object)[(codes[rows] + shift) % len(names)]
    return _planted(table, rows, new)


def plant_confusions(
    table: pd.DataFrame, fraction: float, confusions: Mapping[str, Sequence[str] | str], seed: int = 0
) -> pd.DataFrame:
    """Gives a random share of some labels' samples a label that they are easily mistaken for.

    Args:
        table: a sample table, not changed.
        fraction: share of the samples *of each label in* ``confusions`` to mislabel, 0 to 1.
        confusions: label to the label or labels it is mistaken for, such as ``{"60": ["80"], "80": ["60"]}``.
        seed: seed of the draw.

    Returns:
        As :func:`plant_uniform`.

    Raises:
        ConfigError: a fraction out of range.
        DataError: a label in ``confusions`` that no sample bears, or that is mistaken for itself.
    """
    check_range("fraction", fraction, 0, 1)
    known = set(table["label"])
    rng = np.random.default_rng([seed, 2])
    labels = table["label"].to_numpy(dtype=object)
    rows: list[np.ndarray] = []
    new: list[np.ndarray] = []
    for label in sorted(confusions):
        value = confusions[label]
        targets = [value] if isinstance(value, str) else list(value)
        for name in (label, *targets):
            if name not in known:
                raise DataError(f"the confusion map names {name!r}, a label that no sample bears",
                                did_you_mean(name, sorted(known)))  # fmt: skip
        if label in targets or not targets:
            raise DataError(f"the confusion map takes {label!r} for {targets}", "name other labels")
        own = np.flatnonzero(labels == label)
        picked = rng.permutation(own)[: round(fraction * len(own))]
        rows.append(picked)
        new.append(np.array(targets, dtype=object)[rng.integers(len(targets), size=len(picked))])
    return _planted(table, np.concatenate(rows), np.concatenate(new)) if rows else _planted(table, [], [])


def _planted(table: pd.DataFrame, rows: Sequence[int] | np.ndarray, new: Sequence[str] | np.ndarray) -> pd.DataFrame:
    planted = table.copy()
    labels = table["label"].to_numpy(dtype=object).copy()
    planted[TRUE_LABEL] = pd.Series(labels.copy(), index=table.index, dtype=object)
    labels[np.asarray(rows, dtype=np.int64)] = new
    planted["label"] = pd.Series(labels, index=table.index, dtype=object)
    return planted


def confusions_among(names: Sequence[str], count: int = 2) -> dict[str, list[str]]:
    """Returns a confusion map between labels that differ by a number: each to the ``count`` whose digits are nearest.

    ``speed-limit-60`` is taken for ``speed-limit-80`` and ``speed-limit-50`` rather than for ``speed-limit-120``:
    first by the number of digits, then by their difference, the shape of 3, 6 and 8 put first.
    """

    def digits(name: str) -> str:
        return "".join(ch for ch in name if ch.isdigit())

    alike = [{"3", "8"}, {"6", "8"}, {"5", "6"}, {"2", "7"}]

    def distance(a: str, b: str) -> tuple[int, float, str]:
        x, y = digits(a), digits(b)
        shape = 0 if any({p, q} in alike for p, q in zip(x, y, strict=False) if p != q) else 1
        return abs(len(x) - len(y)), shape * 1000.0 + abs(int(x or 0) - int(y or 0)), b

    return {
        name: sorted((other for other in names if other != name), key=functools.partial(distance, name))[:count]
        for name in names
    }
