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
    table: pd.DataFrame,
    fraction: float,
    confusions: Mapping[str, Sequence[str] | str],
    seed: int = 0,
    whole_groups: bool = False,
) -> pd.DataFrame:
    """Gives a random share of some labels' samples a label that they are easily mistaken for.

    Args:
        table: a sample table, not changed.
        fraction: share of the samples *of each label in* ``confusions`` to mislabel, 0 to 1.
        confusions: label to the label or labels it is mistaken for, such as ``{"60": ["80"], "80": ["60"]}``.
        seed: seed of the draw.
        whole_groups: mislabel whole photos or tracks, all samples of one alike, until the share is nearest.

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
        wanted = round(fraction * len(own))
        if whole_groups:
            picked, part = _whole_groups(table["group"].to_numpy()[own], wanted, rng)
            picked, choice = own[picked], rng.integers(len(targets), size=part.max(initial=-1) + 1)[part]
        else:
            picked = rng.permutation(own)[:wanted]
            choice = rng.integers(len(targets), size=len(picked))
        rows.append(picked)
        new.append(np.array(targets, dtype=object)[choice])
    return _planted(table, np.concatenate(rows), np.concatenate(new)) if rows else _planted(table, [], [])


def _whole_groups(groups: np.ndarray, wanted: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions of randomly drawn groups, nearest to ``wanted`` in all, and the number of each one's group."""
    codes = pd.factorize(groups)[0]
    order = rng.permutation(codes.max() + 1)
    sizes = np.cumsum(np.bincount(codes)[order])
    count = int(np.abs(np.concatenate([[0], sizes]) - wanted).argmin())
    place = np.full(len(order), -1)
    place[order[:count]] = np.arange(count)
    rows = np.flatnonzero(place[codes] >= 0)
    return rows, place[codes[rows]]


def plant_similar(
    table: pd.DataFrame, fraction: float, rivals: Sequence[str], likeness: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Gives a share of the samples the label that they look most like beside their own, as people err.

    Args:
        table: a sample table of N samples, not changed.
        fraction: share of the samples that can be mistaken (``likeness`` above 0) to mislabel, 0 to 1.
        rivals: N labels, for each sample the one it may be taken for.
        likeness: N numbers, 0 or more; a sample is drawn in proportion to it.
        seed: seed of the draw.

    Returns:
        As :func:`plant_uniform`.

    Raises:
        ConfigError: a fraction out of range.
        DataError: a rival that is the sample's own label, or likeness below 0.
    """
    check_range("fraction", fraction, 0, 1)
    new, weight = np.asarray(rivals, dtype=object), np.asarray(likeness, dtype=np.float64)
    if not (weight >= 0).all():
        raise DataError("likeness holds numbers below 0 or NaN", "give 0 for samples that are never mistaken")
    able = np.flatnonzero(weight)
    same = able[new[able] == table["label"].to_numpy(dtype=object)[able]]
    if len(same):
        raise DataError(f"{table.index[same[0]]} has its own label as its rival", "name another label, or likeness 0")
    rng = np.random.default_rng([seed, 3])
    keys = np.log(rng.random(len(able))) / weight[able]  # the largest keys are a draw in proportion to the weights
    rows = able[np.argsort(-keys, kind="stable")[: round(fraction * len(able))]]
    return _planted(table, rows, new[rows])


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
