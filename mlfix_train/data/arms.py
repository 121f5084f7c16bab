"""Arms: what a run trains on. ``original``, ``fixed``, and ``control`` to tell cleaning from shrinking."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlfix_train.data.fixes.table import INVALID, apply_fixes
from mlfix_train.errors import FixesError, check_choice

ARMS = ("original", "fixed", "control")


def training_rows(
    table: pd.DataFrame, held_out: np.ndarray, arm: str, fixes: pd.DataFrame | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that an arm trains on, and the labels it trains them with.

    Args:
        table: a sample table of N samples.
        held_out: N booleans from the split; the same for all arms.
        arm: ``original`` (all training rows, given labels), ``fixed`` (fixes applied), or ``control`` (given labels,
            less as many random training samples of every label as the fixes mark invalid among the training samples;
            a relabelled sample takes nothing out).
        fixes: matched fixes; ``None`` will do for ``original``.
        seed: the run's seed; draws the control's samples.

    Returns:
        Row numbers into ``table`` (ascending) and their labels.

    Raises:
        ConfigError: an unknown arm.
        FixesError: ``fixed`` or ``control`` without fixes.
    """
    check_choice("arm", arm, ARMS)
    rows = np.flatnonzero(~held_out)
    labels = table["label"].to_numpy(dtype=object)
    if arm == "original":
        return rows, labels[rows]
    if fixes is None:
        raise FixesError(f"arm={arm} needs fixes", "give fixes.path=<file>, or train with arm=original")
    if arm == "fixed":
        new, keep = apply_fixes(table["label"].iloc[rows], fixes)
        return rows[keep.to_numpy()], new.to_numpy(dtype=object)[keep.to_numpy()]
    removed = fixes.index[fixes["new_label"] == INVALID]
    taken = pd.Series(labels[rows])[table.index[rows].isin(removed)].value_counts()
    rng = np.random.default_rng([seed, 0xC0])
    out = [
        rng.choice(rows[labels[rows] == label], size=int(count), replace=False)
        for label, count in sorted(taken.items(), key=lambda item: str(item[0]))
    ]
    rows = np.setdiff1d(rows, np.concatenate(out)) if out else rows
    return rows, labels[rows]
