"""Arms: what a run trains on. ``original``, ``fixed``, and ``control``: fewer samples, but no fixes."""

import logging
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mlfix_train.data.fixes.table import apply_fixes
from mlfix_train.data.samples import INVALID
from mlfix_train.errors import FixesError, check_choice

log = logging.getLogger(__name__)

ARMS = ("original", "fixed", "control")


@dataclass(frozen=True)
class Arm:
    """What a run trains on: one of :data:`ARMS`, and matched fixes (``original`` needs none)."""

    name: str = "original"
    fixes: pd.DataFrame | None = field(default=None, repr=False)


def excludes_samples(fixes: pd.DataFrame) -> bool:
    """Returns whether the fixes mark any sample invalid; if not, ``control`` trains on the same as ``original``."""
    return bool((fixes["new_label"] == INVALID).any())


def warn_if_only_relabelled(fixes: pd.DataFrame) -> None:
    """Logs that the control arm excludes nothing, if that is so."""
    if not excludes_samples(fixes):
        log.warning(
            "arm=control excludes nothing, because no sample is marked invalid in the fixes: it trains like "
            "arm=original, and mlfix compare leaves it out"
        )


def training_rows(
    table: pd.DataFrame, held_out: np.ndarray, arm: str, fixes: pd.DataFrame | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that an arm trains on (M,), ascending, and the labels (M,) it trains them with.

    ``original`` trains on all rows that are not ``held_out`` (booleans (N,), the same for all arms), with their given
    labels. ``fixed`` applies the matched fixes. ``control`` keeps given labels and excludes as many random training
    samples of every label as the fixes mark invalid among them (a relabelled sample excludes nothing), drawn by the
    run's ``seed``.

    Raises:
        ConfigError: An unknown arm.
        FixesError: ``fixed`` or ``control`` without fixes.
    """
    check_choice("arm", arm, ARMS)
    rows = np.flatnonzero(~held_out)
    labels = table["label"].to_numpy(dtype=object)
    if arm == "original":
        return rows, labels[rows]
    if fixes is None:
        raise FixesError(f"arm={arm} needs fixes", "set fixes.path=<file>, or train with arm=original")
    if arm == "fixed":
        new, keep = apply_fixes(table["label"].iloc[rows], fixes)
        return rows[keep.to_numpy()], new.to_numpy(dtype=object)[keep.to_numpy()]
    invalid = fixes.index[fixes["new_label"] == INVALID]
    counts = pd.Series(labels[rows])[table.index[rows].isin(invalid)].value_counts()
    rng = np.random.default_rng([seed, 0xC0])
    excluded = [
        rng.choice(rows[labels[rows] == label], size=int(count), replace=False)
        for label, count in sorted(counts.items(), key=lambda item: str(item[0]))
    ]
    rows = np.setdiff1d(rows, np.concatenate(excluded)) if excluded else rows
    return rows, labels[rows]
