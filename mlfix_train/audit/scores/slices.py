"""Slices: samples that are reviewed together, picked by label, by (label, suggestion), by regex or by metadata column.

:func:`rank_slices` divides a ranking into slices and orders them; :func:`select_slices` picks the samples of the user's
own ones. Shapes: N samples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.errors import ConfigError, did_you_mean, format_list

ALL = "all"
KINDS = ("pair", "label", "slice", "duplicates", "fault")
MOST_VALUES = 50
"""``{column: c}`` makes a slice for each value of a column with at most this many."""
SCREEN = 108
"""Samples of a slice on one screen; slices are ranked by the suspicion that their first screen holds."""
SliceSpec = str | Sequence[str] | Mapping[str, Any]
"""What picks the samples of a slice, see :func:`select_slices`."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Samples that are reviewed together.

    Attributes:
        kind: ``pair`` (given and suggested label), ``label``, ``slice`` (the user's own), ``duplicates``
            (near-duplicates with different labels) or ``fault`` (see :mod:`mlfix_train.audit.scores.faults`).
        name: such as ``60 → 80``.
        rows: int64, rows of the ranking, most suspicious first; of a fault, the worst by its own score first.
        expected: sum of the suspicions of all samples; the number of wrong labels expected if these are probabilities.
        screen: the same of the first :data:`SCREEN` samples.
        score: what a fault is judged by, a column of the ranking; empty for other slices.
        threshold: smallest such score that counts; NaN for other slices.
        values: float64, the scores of ``rows``; ``None`` for other slices.
        description: what the samples of a fault are, in a sentence.
    """

    kind: str
    name: str
    rows: np.ndarray = field(repr=False)
    expected: float
    screen: float
    score: str = ""
    threshold: float = math.nan
    values: np.ndarray | None = field(default=None, repr=False)
    description: str = ""


def rank_slices(
    ranking: pd.DataFrame,
    named: Mapping[str, np.ndarray] | None = None,
    duplicates: pd.Series | None = None,
) -> list[Slice]:
    """Returns all slices of a ranking, those with the most suspicion on their first screen first.

    Args:
        ranking: N rows from :func:`mlfix_train.audit.scores.ranking.rank`, most suspicious first.
        named: the user's slices, name to bool ``(N,)``.
        duplicates: near-duplicate group by ``sample_id``, -1 for none; groups with different labels become slices.
    """
    suspicion = ranking["suspicion"].to_numpy(dtype=np.float64)
    given, pair = ranking["given_label"].astype(str), ranking["slice"].astype(str)
    changed = (ranking["suggested_label"] != ranking["given_label"]).to_numpy()
    slices = _slice_by("pair", pair.where(changed), suspicion) + _slice_by("label", given, suspicion)
    slices += [_slice("slice", name, np.flatnonzero(mask), suspicion) for name, mask in (named or {}).items()]
    if duplicates is not None:
        codes = pd.Series(duplicates.reindex(ranking["sample_id"]).fillna(-1).to_numpy().astype(np.int64))
        codes = codes.where(codes >= 0)
        mixed = given.groupby(codes.to_numpy()).transform("nunique").to_numpy() > 1
        names = codes.where(mixed).map("group {:.0f}".format, na_action="ignore")
        slices += _slice_by("duplicates", names, suspicion)
    return _most_suspicious_first(slices)


def _most_suspicious_first(slices: Sequence[Slice]) -> list[Slice]:
    return sorted(slices, key=lambda one: (-one.screen, KINDS.index(one.kind), one.name))


def update_slices(slices: Sequence[Slice], suspicion: np.ndarray) -> list[Slice]:
    """Returns slices by a new suspicion of the N samples, in its order."""
    return _most_suspicious_first([_slice(one.kind, one.name, one.rows, suspicion) for one in slices])


def _slice_by(kind: str, values: pd.Series, suspicion: np.ndarray) -> list[Slice]:
    """Returns a slice for each value; missing values belong to none."""
    parts = values.groupby(values.to_numpy(dtype=object), sort=False).indices
    return [_slice(kind, str(name), np.asarray(rows), suspicion) for name, rows in parts.items()]


def _slice(kind: str, name: str, rows: np.ndarray, suspicion: np.ndarray) -> Slice:
    return Slice(kind, name, rows, float(suspicion[rows].sum()), float(suspicion[rows[:SCREEN]].sum()))


def first_slices(slices: Sequence[Slice], count: int) -> list[Slice]:
    """Returns the first ``count`` slices of each kind, in the order of :data:`KINDS`."""
    return [
        one for kind in KINDS for one in [s for s in slices if s.kind == kind and (s.screen > 0 or s.score)][:count]
    ]


def write_slices(slices: Sequence[Slice], path: str | Path) -> Path:
    """Writes slices as CSV, see :func:`slices_table`; returns the path."""
    with atomic_path(path) as temporary:
        slices_table(slices).to_csv(temporary, index=False, float_format="%.4g")
    return Path(path)


def slices_table(slices: Sequence[Slice]) -> pd.DataFrame:
    """Returns the columns kind, name, samples, suspicion, first_screen, and of faults their score, threshold, worst."""
    rows = [
        (one.kind, one.name, len(one.rows), one.expected, one.screen, one.score, one.threshold, _worst(one))
        for one in slices
    ]
    columns = ["kind", "name", "samples", "suspicion", "first_screen", "score", "threshold", "worst"]
    return pd.DataFrame(rows, columns=columns)


def _worst(one: Slice) -> float:
    return math.nan if one.values is None else float(one.values[0])


def slug(name: str, limit: int = 60) -> str:
    """Returns ``name`` as part of a file name: letters, digits, dots and dashes; a long one is cut in the middle."""
    text = re.sub(r"[^\w.-]+", "-", name.replace(" → ", "--as--")).strip("-.")
    if len(text) > limit:  # labels of a family differ near their ends
        text = f"{text[: limit // 2 - 1]}-{text[len(text) - limit // 2 :]}"
    return text or "slice"


def select_slices(
    specs: Mapping[str, SliceSpec], labels: np.ndarray, sample_ids: pd.Index, metadata: pd.DataFrame | None = None
) -> dict[str, np.ndarray]:
    """Returns the samples of each slice, bool ``(N,)``: ``all`` first, and after each slice its rest, ``not <name>``.

    Args:
        specs: by name: a regular expression on the given label; a list of labels; ``{column: c, match: regex}`` or
            ``{column: c, values: [...]}`` on a metadata column; or ``{column: c}``, a slice for each of its values.
        labels: object ``(N,)``, given labels.
        sample_ids: ``(N,)``.
        metadata: columns by ``sample_id``.

    Raises:
        ConfigError: A slice that matches nothing, a name that is taken, or a column that doesn't exist.
    """
    masks = {ALL: np.ones(len(labels), dtype=bool)}
    for name, spec in specs.items():
        if name in masks or f"not {name}" in masks:
            raise ConfigError(f"slices.{name}: this name is taken", "choose another name")
        if isinstance(spec, Mapping):
            column = _column(name, spec, sample_ids, metadata)
            if set(spec) == {"column"}:
                parts = _each_value(name, column)
                for part in parts:
                    if part in masks:
                        raise ConfigError(f"slices.{name}: the name {part!r} is taken", "choose another name")
                masks |= parts
                continue
            mask = _by_column(name, spec, column)
        elif spec is None or isinstance(spec, bool):
            raise ConfigError(f"slices.{name}={spec} is not a slice", "use a regular expression or a list of labels")
        elif isinstance(spec, (str, int, float)):
            mask = select_labels(list(labels), name, str(spec))
        else:
            mask = _by_list(name, [str(label) for label in spec], labels)
        masks[name] = mask
        if not mask.all():
            masks[f"not {name}"] = ~mask
    return masks


def select_labels(labels: Sequence[str], name: str, pattern: str) -> np.ndarray:
    """Returns which of N labels a regular expression matches anywhere, bool ``(N,)``.

    Raises:
        ConfigError: The expression of slice ``name`` is invalid, or matches nothing.
    """
    regex = compile_regex(pattern, f"slices.{name}={pattern}")
    series = pd.Series(labels, dtype=object).astype(str)
    matches = {label: bool(regex.search(label)) for label in series.unique()}
    if not any(matches.values()):
        hint = f"the labels are {format_list(sorted(matches), 12)}"
        raise ConfigError(f"slices.{name}={pattern} matches none of the labels", hint)
    return series.map(matches).to_numpy(dtype=bool)


def compile_regex(pattern: str, what: str) -> re.Pattern[str]:
    """Compiles a regular expression; ``what`` is its name in the ConfigError that an invalid one raises."""
    try:
        return re.compile(pattern)
    except re.error as error:
        problem = f"{what} is not a valid regular expression: {error}"
        raise ConfigError(problem, "see the syntax of Python's `re`") from error


def _by_list(name: str, wanted: list[str], labels: np.ndarray) -> np.ndarray:
    known = sorted({str(label) for label in labels})
    for label in (label for label in wanted if label not in known):
        raise ConfigError(
            f"slices.{name} lists {label!r}, a label that no held-out sample has", did_you_mean(label, known)
        )
    if not wanted:
        raise ConfigError(f"slices.{name} is an empty list", "list labels, or use a regular expression")
    return np.isin(labels.astype(str), wanted)


def _column(name: str, spec: Mapping[str, Any], sample_ids: pd.Index, metadata: pd.DataFrame | None) -> pd.Series:
    """Returns the column of a spec as text by sample, ``None`` where it is empty."""
    extra = set(spec) - {"column", "match", "values"}
    if extra or "column" not in spec:
        raise ConfigError(
            f"slices.{name}={dict(spec)} is not a slice",
            "use a regular expression, a list of labels, or {column: <name>, values: [...]} or match: <regex>",
        )
    column = str(spec["column"])
    if metadata is None or column not in metadata.columns:
        known = [] if metadata is None else [str(c) for c in metadata.columns]
        raise ConfigError(
            f"slices.{name}: the data has no column {column!r}",
            f"it has {format_list(known, 12)}"
            if known
            else "use data that have it, or a table with it: mlfix compare samples=<csv or parquet>",
        )
    return metadata[column].map(_text).astype(object).reindex(sample_ids)


def _text(value: Any) -> str | None:
    """Returns a value of a column as text, whole numbers without decimals; ``None`` if it is missing."""
    if pd.isna(value):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _by_column(name: str, spec: Mapping[str, Any], column: pd.Series) -> np.ndarray:
    text = ["" if pd.isna(value) else str(value) for value in column]
    known = sorted(set(text))
    if "match" in spec:
        regex = compile_regex(str(spec["match"]), f"slices.{name}: {spec['match']}")
        wanted = {value for value in known if regex.search(value)}
    else:
        values = spec["values"] if isinstance(spec["values"], (list, tuple)) else [spec["values"]]
        wanted = {str(_text(value)) for value in values}
    mask = np.array([value in wanted for value in text], dtype=bool)
    if not mask.any():
        problem = f"slices.{name}: no held-out sample has such a {spec['column']}"
        raise ConfigError(problem, f"its values are {format_list(known, 12)}")
    return mask


def _each_value(name: str, column: pd.Series) -> dict[str, np.ndarray]:
    values = sorted({str(value) for value in column if not pd.isna(value)})
    if not values or len(values) > MOST_VALUES:
        many = f"has {len(values):,} values, too many for a slice each" if values else "is empty"
        raise ConfigError(
            f"slices.{name}: the column {column.name!r} {many}",
            f"pick some: slices.{name}={{column: {column.name}, values: [...]}}",
        )
    return {f"{name}={value}": np.array([one == value for one in column], dtype=bool) for value in values}
