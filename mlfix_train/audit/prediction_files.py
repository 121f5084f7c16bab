"""Predictions in files of their own: Parquet or CSV with our columns, and MLfix's published CSV files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mlfix_train.audit.predictions import read_predictions
from mlfix_train.errors import RunError, listing

SUFFIXES = (".parquet", ".pq", ".csv")
PUBLISHED_PHOTO = r"([^/]+)-\d+\.[A-Za-z]+$"
"""How MLfix's crops are named: ``<photo>-<n>.jpg``; crops of one photo belong together."""


def read_predictions_file(path: str | Path) -> pd.DataFrame:
    """Reads predictions from a file.

    A CSV needs the columns ``sample_id``, ``label`` and ``pred``. MLfix's own CSV has an unnamed first column of paths
    ``<folder>/<label>/<file>`` instead, from which label and id (``<label>/<file>``) are taken, and a ``loss`` that is
    the negative cross-entropy, whose sign is turned.

    Returns:
        A table with ``sample_id``, ``label``, ``pred`` and, where there is one, ``loss`` (nats, higher is worse);
        ``attrs["published"]`` tells MLfix's format.

    Raises:
        RunError: the file can't be read, lacks a column, or names a sample twice or without a label.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        table = read_predictions(path)
        table.attrs["published"] = False
        return table
    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}", "give predictions as CSV (UTF-8) or Parquet") from error
    published = len(raw.columns) > 0 and str(raw.columns[0]).startswith("Unnamed: 0") and "pred" in raw.columns
    table = _published(raw, path) if published else raw
    missing = [name for name in ("sample_id", "label", "pred") if name not in table.columns]
    if missing:
        raise RunError(
            f"{path} lacks the columns {listing(missing)}; it has {listing(raw.columns, 8)}",
            "predictions have the columns sample_id, label and pred (or are MLfix's own: paths, pred, loss)",
        )
    if not len(table):
        raise RunError(f"{path} holds no predictions", "give a file with a row a held-out sample")
    for name in ("sample_id", "label", "pred"):
        empty = table.index[table[name] == ""]
        if len(empty):
            raise RunError(f"{path}: line {empty[0] + 2} has no {name}", "complete or remove the line")
    twice = table["sample_id"][table["sample_id"].duplicated()]
    if len(twice):
        raise RunError(f"{path} names {len(twice):,} sample(s) twice: {listing(twice, 3)}", "each belongs there once")
    if "loss" in table.columns:
        numbers = pd.to_numeric(table["loss"], errors="coerce")
        bad = table.index[numbers.isna().to_numpy()]
        if len(bad):
            raise RunError(f"{path}: line {bad[0] + 2} has the loss {table['loss'][bad[0]]!r}", "a loss is a number")
        table = table.assign(loss=-numbers if published else numbers)
    table.attrs["published"] = published
    return table


def _published(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Takes ids and labels from the paths of MLfix's files."""
    parts = [name.rsplit("/", 2) for name in raw.iloc[:, 0]]
    short = [i for i, names in enumerate(parts) if len(names) < 2 or not all(names[-2:])]
    if short:
        raise RunError(
            f"{path}: line {short[0] + 2} names {raw.iloc[short[0], 0]!r}, a path without a label's folder",
            "paths are <folder>/<label>/<file>",
        )
    ids = ["/".join(names[-2:]) for names in parts]
    table = pd.DataFrame({"sample_id": ids, "label": [names[-2] for names in parts], "pred": raw["pred"]})
    return table.assign(loss=raw["loss"]) if "loss" in raw.columns else table


def run_names(paths: Sequence[Path]) -> list[str]:
    """Returns a short name for each file: the number at its end where these tell them apart, else the whole name."""
    numbers = [re.search(r"(\d+)$", path.stem) for path in paths]
    if all(numbers):
        names = [str(int(match.group(1))) for match in numbers if match]
        if len(set(names)) == len(names):
            return names
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def photo_groups(samples: Sequence[str], pattern: str) -> pd.Series:
    """Returns the group of each sample, by a regular expression on its id; samples that don't match stand alone."""
    regex = re.compile(pattern)
    matches = [regex.search(name) for name in samples]
    groups = [m.group(1 if regex.groups else 0) or n if m else n for n, m in zip(samples, matches, strict=True)]
    return pd.Series(groups, index=pd.Index(samples, name="sample_id"), dtype=object)
