"""Slices: samples picked by label, by (label, prediction), or by a regular expression on the label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlfix_train.errors import ConfigError, listing


@dataclass(frozen=True)
class Slice:
    """A name, and the rows of a ranking that belong to it, most suspicious first."""

    name: str
    rows: np.ndarray


def worst_confusions(ranking: pd.DataFrame, count: int) -> list[Slice]:
    """Returns the (given, predicted) pairs that hold the most suspicion.

    Args:
        ranking: from :func:`mlfix_train.audit.rankings.rank_samples`.
        count: number of slices at most.

    Returns:
        Slices of samples whose prediction differs from the given label, by their summed suspicion.
    """
    issues = ranking[ranking["is_label_issue"].to_numpy(dtype=bool)]
    held = issues.groupby("slice")["suspicion"].sum().sort_values(ascending=False, kind="stable")
    return [Slice(str(name), np.flatnonzero((ranking["slice"] == name).to_numpy())) for name in held.index[:count]]


def select_labels(labels: Sequence[str], name: str, pattern: str) -> np.ndarray:
    """Returns which of N labels a regular expression finds (anywhere in the label), as N booleans.

    Raises:
        ConfigError: the expression is wrong or finds nothing.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"slices.{name}={pattern} is no regular expression: {error}", "see Python's `re`") from error
    series = pd.Series(labels, dtype=object).astype(str)
    known = {label: bool(regex.search(label)) for label in series.unique()}
    if not any(known.values()):
        raise ConfigError(
            f"slices.{name}={pattern} matches none of the labels", f"the labels are {listing(sorted(known), 12)}"
        )
    return series.map(known).to_numpy(dtype=bool)


def slug(name: str, limit: int = 60) -> str:
    """Returns ``name`` as part of a file name: letters, digits, dots and dashes."""
    text = re.sub(r"[^\w.-]+", "-", name.replace(" → ", "--as--")).strip("-.")
    return text[:limit] or "slice"
