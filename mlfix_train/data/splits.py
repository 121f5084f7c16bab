"""Splits: which samples are held out. Drawn once, seeded, on the given labels, so that all arms hold out the same.

Samples of one group (photo or track) stay together. Without groups the draw is exact for every label; with groups it is
a randomized stratified group split, after the idea of iterative stratification (Sechidis et al. 2011, "On the
stratification of multi-label data"): rarest labels first. A sample of a train-only label trains even if its photo is
held out: it shows another object.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlfix_train.errors import ConfigError, DataError, check_range, format_list, names_arguments

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

HELD_OUT_VALUES = ("val", "valid", "validation", "test", "testing")
TRAIN_VALUES = ("train", "training")


@dataclass(frozen=True)
class SplitSpec:
    """Which samples are held out.

    Args:
        fraction: Share of every label that is held out, 0.01 to 0.9; not used with folds or column.
        seed: Seed of the draw; not the run's seed, so that all runs hold out the same samples.
        folds: Number of folds K, 2 or more, instead of a fraction; every sample is held out in exactly one of them.
        fold: The fold to hold out, 0 to K - 1.
        column: Use the split in this column of the data instead of drawing one.
        held_out_values: Values of that column that are held out; all others must be train or training.
        train_only: Labels that are trained on and never held out, such as other-sign.
        grouped: Keep the samples of one photo or track (data.group) on one side.
    """

    fraction: float = 0.2
    seed: int = 0
    folds: int | None = None
    fold: int | None = None
    column: str | None = None
    held_out_values: list[str] = field(default_factory=lambda: list(HELD_OUT_VALUES))
    train_only: list[str] = field(default_factory=list)
    grouped: bool = True

    @names_arguments("split", tuple(__annotations__))
    def __post_init__(self) -> None:
        if self.folds is None:
            if self.fold is not None:
                raise ConfigError(f"fold={self.fold} without folds", "set the number of folds: split.folds=5")
            check_range("fraction", self.fraction, 0.01, 0.9)
            return
        if not isinstance(self.folds, int) or self.folds < 2:
            raise ConfigError(f"folds={self.folds} is out of range", "use 2 or more folds, or split.fraction")
        if not isinstance(self.fold, int) or not 0 <= self.fold < self.folds:
            every = f"`mlfix train -m 'split.fold=range({self.folds})'` runs them all"
            hint = f"set split.fold from 0 to {self.folds - 1}; {every}"
            raise ConfigError(f"fold={self.fold} is not one of {self.folds} folds", hint)

    @property
    def shares(self) -> np.ndarray:
        """Share of the samples in each part (P,): training and held out, or the folds."""
        return np.full(self.folds, 1 / self.folds) if self.folds else np.array([1 - self.fraction, self.fraction])


@names_arguments("split", tuple(SplitSpec.__annotations__))
def draw_split(table: pd.DataFrame, split: SplitSpec | None = None) -> np.ndarray:
    """Draws which samples are held out; by default 20% of every label.

    Returns:
        Booleans (N,), true where the sample of ``table`` is held out.

    Raises:
        ConfigError: ``train_only`` names an unknown label.
        DataError: One side is empty, or the column is missing or holds other values.
    """
    split = split or SplitSpec()
    labels = table["label"].to_numpy(dtype=object)
    unknown = sorted(set(split.train_only) - set(labels))
    if unknown:
        raise ConfigError(f"split.train_only names labels that no sample has: {format_list(unknown)}", "check spelling")
    free = ~np.isin(labels.astype(str), list(split.train_only))
    if split.column:
        held_out = _from_column(table, split.column, split.held_out_values) & free
    else:
        groups = (table["group"] if split.grouped else table.index).to_numpy(dtype=object)
        parts = np.full(len(table), -1)
        if free.any():
            parts[free] = stratified_parts(labels[free].astype(str), groups[free], split.shares, split.seed)
        held_out = parts == (split.fold if split.folds else 1)
    _check_sides(held_out, labels, split.train_only)
    return held_out


def stratified_parts(labels: np.ndarray, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Distributes samples over parts so that every label is spread over them by ``shares`` (P,), which sum to 1.

    The samples of a group go to one part. Returns part numbers (N,), 0 to P - 1. Without groups of more than one
    sample, each label's counts are its shares rounded (with two parts, a label of two or more samples has at least one
    in each).
    """
    rng = np.random.default_rng(seed)
    _, label_codes = np.unique(labels, return_inverse=True)
    _, group_codes = np.unique(groups, return_inverse=True)
    if group_codes.max(initial=-1) + 1 == len(labels):
        return _distribute_samples(label_codes, shares, rng)
    return _distribute_groups(label_codes, group_codes, shares, rng)[group_codes]


def _distribute_samples(codes: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distributes each label's samples, shuffled, by rounded shares; rounding starts at a part drawn at random."""
    parts = np.empty(len(codes), dtype=np.int64)
    order = np.lexsort((rng.permutation(len(codes)), codes))
    bounds = np.flatnonzero(np.diff(codes[order], prepend=-1, append=codes.max() + 1))
    for start, stop in itertools.pairwise(bounds):
        n = int(stop - start)
        if len(shares) == 2:
            held = int(np.floor(n * shares[1] + 0.5))
            held = int(min(max(held, 1), n - 1)) if n >= 2 else 0
            assigned = (np.arange(n) >= n - held).astype(np.int64)
        else:
            assigned = (np.arange(n) + rng.integers(len(shares))) % len(shares)
        parts[order[start:stop]] = assigned
    return parts


def _distribute_groups(
    label_codes: np.ndarray, group_codes: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns the part of each group.

    Groups with the rarest labels come first. Each goes to a part drawn with probability in proportion to what the part
    still lacks of the group's labels. So large and small groups are equally likely to be held out (always choosing the
    part that lacks most would train on the large ones and hold out the small), and draws correct the earlier ones.
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


def _from_column(table: pd.DataFrame, column: str, held_out_values: Collection[str]) -> np.ndarray:
    if column not in table.columns:
        hint = f"it has {format_list(table.columns, 12)}"
        raise DataError(f"split.column={column}: the data has no such column", hint)
    values = table[column].astype(str).str.strip().str.lower()
    held_out = {str(name).lower() for name in held_out_values}
    unknown = sorted(set(values) - held_out - set(TRAIN_VALUES))
    if unknown:
        hint = f"use 'train' and one of {', '.join(sorted(held_out))}, or list the values in split.held_out_values"
        shown = format_list(map(repr, unknown))
        raise DataError(f"split.column={column} has values that mean neither train nor held out: {shown}", hint)
    return values.isin(held_out).to_numpy()


def _check_sides(held_out: np.ndarray, labels: np.ndarray, train_only: Collection[str]) -> None:
    if not held_out.any():
        hint = "raise split.fraction (or use fewer split.folds), set split.grouped=false, or add samples"
        raise DataError("the split holds out no sample: every label has too few samples or groups", hint)
    if held_out.all():
        hint = "hold out less (split.fraction, or more split.folds), or add samples of each label"
        raise DataError("the split leaves no sample to train on", hint)
    if unchecked := sorted(set(labels) - set(labels[held_out]) - set(train_only)):
        what = "have no held-out sample (too few samples or groups), so their labels can't be checked"
        log.warning("%d label(s) %s: %s", len(unchecked), what, format_list(unchecked))
    if untrained := sorted(set(labels[held_out]) - set(labels[~held_out])):
        what = "are held out but never trained on (too few samples or groups)"
        log.warning("%d label(s) %s: %s", len(untrained), what, format_list(untrained))
