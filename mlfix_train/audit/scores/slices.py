"""Slices: samples picked by label, by (label, prediction), by a regular expression, or by a metadata column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import ConfigError, did_you_mean, format_list

ALL = "all"
MOST_VALUES = 50
"""Values of a column that a slice for each of them may have."""
SliceSpec = str | Sequence[str] | Mapping[str, Any]


KINDS = ("pair", "label", "slice", "duplicates")
SCREEN = 108
"""Samples of a slice that one look takes in; slices are ranked by the suspicion that these hold."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Samples that are looked at together.

    Attributes:
        kind: ``pair`` (given label, suggested label), ``label``, ``slice`` (named by the user) or ``duplicates``
            (near-duplicates with different labels).
        name: such as ``60 → 80``.
        rows: rows of the ranking, most suspicious first.
        expected: suspicion of all its samples, summed; where suspicions are probabilities, the wrong labels expected.
        screen: the same of its first :data:`SCREEN` samples.
    """

    kind: str
    name: str
    rows: np.ndarray
    expected: float
    screen: float


def rank_slices(
    ranking: pd.DataFrame,
    named: Mapping[str, np.ndarray] | None = None,
    duplicates: pd.Series | None = None,
) -> list[Slice]:
    """Returns all slices of a ranking, those first whose first screen holds the most suspicion.

    Args:
        ranking: N rows from :func:`mlfix_train.audit.scores.ranking.rank`, most suspicious first.
        named: slices of the user's, name to N booleans.
        duplicates: number of each sample's group of near-duplicates (-1: none), by ``sample_id``; groups whose samples
            bear different labels become slices.
    """
    suspicion = ranking["suspicion"].to_numpy(dtype=np.float64)
    given, pair = ranking["given_label"].astype(str), ranking["slice"].astype(str)
    changed = (ranking["suggested_label"] != ranking["given_label"]).to_numpy()
    found = _by_value("pair", pair.where(changed), suspicion) + _by_value("label", given, suspicion)
    found += [_slice("slice", name, np.flatnonzero(mask), suspicion) for name, mask in (named or {}).items()]
    if duplicates is not None:
        groups = duplicates.reindex(ranking["sample_id"]).fillna(-1).to_numpy().astype(np.int64)
        part = pd.Series(groups).where(groups >= 0)
        torn = given.groupby(part.to_numpy()).transform("nunique").to_numpy() > 1
        found += _by_value("duplicates", part.where(torn).map("group {:.0f}".format, na_action="ignore"), suspicion)
    return sorted(found, key=lambda one: (-one.screen, KINDS.index(one.kind), one.name))


def _by_value(kind: str, values: pd.Series, suspicion: np.ndarray) -> list[Slice]:
    """Returns a slice for each value; missing values belong to none."""
    codes, names = pd.factorize(values.to_numpy(dtype=object))
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(order) else []
    return [_slice(kind, str(names[codes[rows[0]]]), rows, suspicion) for rows in parts if codes[rows[0]] >= 0]


def _slice(kind: str, name: str, rows: np.ndarray, suspicion: np.ndarray) -> Slice:
    return Slice(kind, name, rows, float(suspicion[rows].sum()), float(suspicion[rows[:SCREEN]].sum()))


def first_slices(slices: Sequence[Slice], count: int) -> list[Slice]:
    """Returns the first ``count`` slices of each kind, in their order; pairs before labels before others."""
    return [one for kind in KINDS for one in [s for s in slices if s.kind == kind and s.screen > 0][:count]]


def write_slices(slices: Sequence[Slice], path: str | Path) -> Path:
    """Writes slices as CSV, the richest first: kind, name, samples, suspicion, first_screen; returns the path."""
    table = pd.DataFrame(
        {
            "kind": [one.kind for one in slices],
            "name": [one.name for one in slices],
            "samples": [len(one.rows) for one in slices],
            "suspicion": [one.expected for one in slices],
            "first_screen": [one.screen for one in slices],
        }
    )
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g")
    return Path(path)


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
            f"slices.{name}={pattern} matches none of the labels", f"the labels are {format_list(sorted(known), 12)}"
        )
    return series.map(known).to_numpy(dtype=bool)


def select_slices(
    specs: Mapping[str, SliceSpec],
    labels: np.ndarray,
    samples: pd.Index,
    metadata: pd.DataFrame | None = None,
) -> dict[str, np.ndarray]:
    """Returns the samples of each slice, as N booleans, ``all`` first; each slice is followed by ``not <name>``.

    Args:
        specs: name to one of: a regular expression on the given label; a list of labels; ``{column: c, match: regex}``
            or ``{column: c, values: [...]}`` on a metadata column; ``{column: c}``, a slice for each of its values.
        labels: N given labels.
        samples: N ids.
        metadata: columns by ``sample_id``.

    Raises:
        ConfigError: a slice that matches nothing, a name that is taken, or a column that isn't there.
    """
    masks = {ALL: np.ones(len(labels), dtype=bool)}
    for name, spec in specs.items():
        if name in masks or f"not {name}" in masks:
            raise ConfigError(f"slices.{name}: this name is taken", "name the slice otherwise")
        if isinstance(spec, (str, int, float)) and not isinstance(spec, bool):
            mask = select_labels(list(labels), name, str(spec))
        elif isinstance(spec, Mapping):
            column = _column(name, spec, samples, metadata)
            if set(spec) == {"column"}:
                each = _each_value(name, column)
                for value in each:
                    if value in masks:
                        raise ConfigError(f"slices.{name}: the name {value!r} is taken", "name the slice otherwise")
                masks |= each
                continue
            mask = _by_column(name, spec, column)
        elif spec is None or isinstance(spec, bool):
            raise ConfigError(f"slices.{name}={spec} is no slice", "give a regular expression or a list of labels")
        else:
            mask = _by_list(name, [str(label) for label in spec], labels)
        masks[name] = mask
        if not mask.all():
            masks[f"not {name}"] = ~mask
    return masks


def _by_list(name: str, wanted: list[str], labels: np.ndarray) -> np.ndarray:
    known = sorted({str(label) for label in labels})
    for label in wanted:
        if label not in known:
            raise ConfigError(f"slices.{name} names {label!r}, a label of no held-out sample",
                              did_you_mean(label, known))  # fmt: skip
    if not wanted:
        raise ConfigError(f"slices.{name} is an empty list", "name labels, or give a regular expression")
    return np.isin(labels.astype(str), wanted)


def _column(name: str, spec: Mapping[str, Any], samples: pd.Index, metadata: pd.DataFrame | None) -> pd.Series:
    extra = set(spec) - {"column", "match", "values"}
    if extra or "column" not in spec:
        raise ConfigError(
            f"slices.{name}={dict(spec)} is no slice",
            "give a regular expression, a list of labels, or {column: <name>, values: [...]} or match: <regex>",
        )
    column = str(spec["column"])
    if metadata is None or column not in metadata.columns:
        known = [] if metadata is None else [str(c) for c in metadata.columns]
        raise ConfigError(
            f"slices.{name}: the data has no column {column!r}",
            f"it has {format_list(known, 12)}" if known else "give a table that has it: samples=<csv or parquet>",
        )
    return metadata[column].map(_text).astype(object).reindex(samples)


def _text(value: Any) -> str | None:
    """Returns a value of a column as text, whole numbers without a point; ``None`` where there is none."""
    if pd.isna(value):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _by_column(name: str, spec: Mapping[str, Any], column: pd.Series) -> np.ndarray:
    text = ["" if pd.isna(value) else str(value) for value in column]
    known = sorted(set(text))
    if "match" in spec:
        try:
            regex = re.compile(str(spec["match"]))
        except re.error as error:
            raise ConfigError(f"slices.{name}: {spec['match']} is no regular expression: {error}",
                              "see Python's `re`") from error  # fmt: skip
        wanted = {value for value in known if regex.search(value)}
    else:
        values = spec["values"] if isinstance(spec["values"], (list, tuple)) else [spec["values"]]
        wanted = {str(_text(value)) for value in values}
    mask = np.array([value in wanted for value in text], dtype=bool)
    if not mask.any():
        raise ConfigError(
            f"slices.{name}: no held-out sample has such a {spec['column']}", f"it holds {format_list(known, 12)}"
        )
    return mask


def _each_value(name: str, column: pd.Series) -> dict[str, np.ndarray]:
    values = sorted({str(value) for value in column if not pd.isna(value)})
    if not values or len(values) > MOST_VALUES:
        raise ConfigError(
            f"slices.{name}: the column {column.name!r} holds {len(values):,} values, a slice for each is too many"
            if values else f"slices.{name}: the column {column.name!r} is empty",
            f"pick some: slices.{name}={{column: {column.name}, values: [...]}}",
        )  # fmt: skip
    return {f"{name}={value}": np.array([one == value for one in column], dtype=bool) for value in values}


def slug(name: str, limit: int = 60) -> str:
    """Returns ``name`` as part of a file name: letters, digits, dots and dashes."""
    text = re.sub(r"[^\w.-]+", "-", name.replace(" → ", "--as--")).strip("-.")
    return text[:limit] or "slice"
