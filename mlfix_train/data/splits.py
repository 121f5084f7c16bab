"""Splits: which samples are held out. Drawn once, seeded, on the given labels, so that all arms hold out the same.

Samples of one group (photo or track) stay together. Without groups the draw is exact for every label; with groups it
follows the idea of iterative stratification (Sechidis et al. 2011, "On the stratification of multi-label data"), rarest
labels first. A sample of a train-only label trains even when its photo is held out: it shows another sign.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from mlfix_train.errors import ConfigError, DataError, check_range, format_list

log = logging.getLogger(__name__)

HELD_OUT_NAMES = ("val", "valid", "validation", "test", "testing")
TRAIN_NAMES = ("train", "training")


def draw_split(
    table: pd.DataFrame,
    fraction: float = 0.2,
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
    column: str | None = None,
    held_out: Sequence[str] = HELD_OUT_NAMES,
    train_only: Collection[str] = (),
    grouped: bool = True,
) -> np.ndarray:
    """Says which samples are held out.

    Args:
        table: a sample table of N samples.
        fraction: share of every label to hold out, 0.01 to 0.9; not used with ``folds`` or ``column``.
        seed: seed of the draw (not the run's seed).
        folds: number of folds K >= 2; every sample is held out in exactly one of them.
        fold: which fold is held out, 0 to K - 1.
        column: take the split from this column of the table instead of drawing it.
        held_out: values of ``column`` that are held out; all other values must say ``train``.
        train_only: labels that are trained on and never held out, such as ``other-sign``.
        grouped: keep the samples of one ``group`` on one side.

    Returns:
        N booleans, true where the sample is held out.

    Raises:
        ConfigError: impossible settings, or an unknown label in ``train_only``.
        DataError: a side left empty, or a column that is missing or holds other values.
    """
    labels = table["label"].to_numpy(dtype=object)
    unknown = sorted(set(train_only) - set(labels))
    if unknown:
        raise ConfigError(
            f"split.train_only names labels that no sample bears: {format_list(unknown)}", "check their spelling"
        )
    free = ~np.isin(labels.astype(str), list(train_only))
    if column:
        mask = _from_column(table, column, held_out) & free
    else:
        groups = table["group"].to_numpy(dtype=object) if grouped else table.index.to_numpy(dtype=object)
        parts = np.full(len(table), -1)
        if free.any():
            shares = _shares(fraction, folds, fold)
            parts[free] = stratified_parts(labels[free].astype(str), groups[free], shares, seed)
        mask = parts == (fold if folds else 1)
    _check_sides(mask, labels, train_only)
    return mask


def _shares(fraction: float, folds: int | None, fold: int | None) -> np.ndarray:
    if folds is None:
        if fold is not None:
            raise ConfigError(f"split.fold={fold} without split.folds", "say how many folds there are: split.folds=5")
        check_range("split.fraction", fraction, 0.01, 0.9)
        return np.array([1 - fraction, fraction])
    if not isinstance(folds, int) or folds < 2:
        raise ConfigError(f"split.folds={folds} is out of range", "use 2 or more folds, or split.fraction")
    if not isinstance(fold, int) or not 0 <= fold < folds:
        raise ConfigError(
            f"split.fold={fold} is not one of {folds} folds",
            f"give split.fold from 0 to {folds - 1}; `mlfix train -m 'split.fold=range({folds})'` runs them all",
        )
    return np.full(folds, 1 / folds)


def stratified_parts(labels: np.ndarray, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Deals samples into parts so that every label is spread over the parts as ``shares`` say.

    Args:
        labels: N labels.
        groups: N group names; the samples of a group go to one part.
        shares: P numbers that sum to 1.
        seed: seed of the draw.

    Returns:
        N part numbers, 0 to P - 1. Without groups of more than one sample, each label's counts are its shares rounded
        (a label of two or more samples has at least one in every part where there are two parts).
    """
    rng = np.random.default_rng(seed)
    _, label_codes = np.unique(labels, return_inverse=True)
    _, group_codes = np.unique(groups, return_inverse=True)
    if group_codes.max(initial=-1) + 1 == len(labels):
        return _deal_samples(label_codes, shares, rng)
    return _deal_groups(label_codes, group_codes, shares, rng)[group_codes]


def _deal_samples(codes: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Deals each label's samples, shuffled, by rounded shares; the rounding starts at a part drawn at random."""
    parts = np.empty(len(codes), dtype=np.int64)
    order = np.lexsort((rng.permutation(len(codes)), codes))
    bounds = np.flatnonzero(np.diff(codes[order], prepend=-1, append=codes.max() + 1))
    for start, stop in itertools.pairwise(bounds):
        n = int(stop - start)
        if len(shares) == 2:
            held = int(np.floor(n * shares[1] + 0.5))
            held = int(min(max(held, 1), n - 1)) if n >= 2 else 0
            dealt = (np.arange(n) >= n - held).astype(np.int64)
        else:
            dealt = (np.arange(n) + rng.integers(len(shares))) % len(shares)
        parts[order[start:stop]] = dealt
    return parts


def _deal_groups(
    label_codes: np.ndarray, group_codes: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the part of each group.

    Groups with the rarest labels are dealt first. Each goes to a part drawn with probability in proportion to what the
    part still lacks of the group's labels: an urn, so that large and small groups are held out alike (always taking the
    neediest part would train on the large ones and hold out the small), while every draw corrects the ones before it.
    """
    n_labels, n_groups = label_codes.max() + 1, group_codes.max() + 1
    pairs, counts = np.unique(group_codes * n_labels + label_codes, return_counts=True)
    pair_group, pair_label = pairs // n_labels, pairs % n_labels
    starts = np.searchsorted(pair_group, np.arange(n_groups + 1))
    totals = np.bincount(label_codes, minlength=n_labels)
    groups_per_label = np.bincount(pair_label, minlength=n_labels)
    rarest = np.minimum.reduceat(groups_per_label[pair_label], starts[:-1])
    order = np.lexsort((rng.permutation(n_groups), rarest))
    lacking = shares[None, :] * totals[:, None].astype(float)
    draws = rng.random(n_groups)
    parts = np.empty(n_groups, dtype=np.int64)
    for group in order:
        span = slice(starts[group], starts[group + 1])
        names, count = pair_label[span], counts[span]
        need = (lacking[names] * (count / totals[names])[:, None]).sum(0)
        chance = np.cumsum(np.clip(need, 0, None))
        part = int(np.searchsorted(chance, draws[group] * chance[-1], side="right")) if chance[-1] > 0 else -1
        part = part if 0 <= part < len(shares) else int(np.argmax(need))
        parts[group] = part
        lacking[names, part] -= count
    return parts


def _from_column(table: pd.DataFrame, column: str, held_out: Sequence[str]) -> np.ndarray:
    if column not in table.columns:
        raise DataError(
            f"split.column={column}: the data has no such column", f"it has {format_list(table.columns, 12)}"
        )
    values = table[column].astype(str).str.strip().str.lower()
    held = {str(name).lower() for name in held_out}
    strange = sorted(set(values) - held - set(TRAIN_NAMES))
    if strange:
        raise DataError(
            f"split.column={column} holds values that are neither train nor held out: {format_list(map(repr, strange))}",
            f"use 'train' and one of {', '.join(sorted(held))}, or name the held-out values in split.held_out",
        )
    return values.isin(held).to_numpy()


def _check_sides(mask: np.ndarray, labels: np.ndarray, train_only: Collection[str]) -> None:
    if not mask.any():
        raise DataError(
            "the split holds out no sample: every label has too few samples or groups",
            "raise split.fraction (or take fewer split.folds), use split.grouped=false, or bring more samples",
        )
    if mask.all():
        hint = "hold out less (split.fraction, or more split.folds), or bring more samples of each label"
        raise DataError("the split leaves no sample to train on", hint)
    alone = sorted(set(labels) - set(labels[mask]) - set(train_only))
    if alone:
        log.warning("%d label(s) have no held-out sample (too few samples or groups), so that nothing tells whether "
                    "they are right: %s", len(alone), format_list(alone))  # fmt: skip
    unseen = sorted(set(labels[mask]) - set(labels[~mask]))
    if unseen:
        log.warning("%d label(s) are held out but never trained on (too few samples or groups): %s",
                    len(unseen), format_list(unseen))  # fmt: skip
