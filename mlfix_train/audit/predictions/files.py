"""Predictions in files of their own: Parquet or CSV with our columns, and MLfix's published CSV files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.data.files.csv_rows import read_rows
from mlfix_train.errors import DataError, RunError, format_list

SUFFIXES = (".parquet", ".pq", ".csv")
PUBLISHED_PHOTO = r"([^/]+)-\d+\.[A-Za-z]+$"
"""How MLfix's crops are named: ``<photo>-<n>.jpg``; crops of one photo belong together."""


def read_predictions_file(path: str | Path) -> pd.DataFrame:
    """Reads predictions from a file.

    A CSV needs the columns ``sample_id``, ``label`` and ``pred``. MLfix's own CSV has an unnamed first column of paths
    ``<folder>/<label>/<file>`` instead, from which label and id (``<label>/<file>``) are taken, and a ``loss`` that is
    the negative cross-entropy, whose sign is turned.

    Returns:
        A table with ``sample_id``, ``label``, ``pred`` and, where there is one, ``loss`` (nats, higher is worse), and
        what other columns there are; ``attrs["published"]`` tells MLfix's format.

    Raises:
        RunError: the file can't be read, lacks a column, or names a sample twice or without a label.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        table, places, published = _read_csv(path)
    else:
        table, published = _read_parquet(path), False
        places = [f"row {number + 1}" for number in range(len(table))]
    missing = [name for name in ("sample_id", "label", "pred") if name not in table.columns]
    if missing:
        raise RunError(
            f"{path} lacks the columns {format_list(missing)}; it has {format_list(table.columns, 8)}",
            "predictions have the columns sample_id, label and pred (or are MLfix's own: paths, pred, loss)",
        )
    if not len(table):
        raise RunError(f"{path} holds no predictions", "give a file with a row a held-out sample")
    for name in ("sample_id", "label", "pred"):
        empty = np.flatnonzero((table[name].isna() | (table[name].astype(object) == "")).to_numpy(dtype=bool))
        if len(empty):
            raise RunError(f"{path}: {places[empty[0]]} has no {name}", "complete or remove the line")
        table[name] = table[name].astype(str)
    twice = table["sample_id"][table["sample_id"].duplicated()]
    if len(twice):
        raise RunError(
            f"{path} names {len(twice):,} sample(s) twice: {format_list(twice, 3)}", "each belongs there once"
        )
    if "loss" in table.columns:
        numbers = pd.to_numeric(table["loss"], errors="coerce")
        bad = np.flatnonzero(numbers.isna().to_numpy())
        if len(bad):
            raise RunError(
                f"{path}: {places[bad[0]]} has the loss {table['loss'].iloc[bad[0]]!r}", "a loss is a number"
            )
        table["loss"] = -numbers if published else numbers
    table.attrs["published"] = published
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}", "give predictions as Parquet or CSV") from error


def _read_csv(path: Path) -> tuple[pd.DataFrame, list[str], bool]:
    """Returns a CSV's table, the place of each row for errors, and whether it is MLfix's own."""
    rows = read_rows(path, "predictions", RunError)
    header = [name.strip() for name in rows[0][1]] if rows else []
    body = [(line, cells) for line, cells in rows[1:] if cells]
    for line, cells in body:
        if len(cells) != len(header):
            raise RunError(
                f"{path}: line {line} has {len(cells)} cells, the header {len(header)}: {','.join(cells)[:120]!r}",
                'put values that hold a comma in double quotes: "a,b.jpg"',
            )
    places = [f"line {line}" for line, _ in body]
    columns = {name: [cells[i] for _, cells in body] for i, name in enumerate(header)}
    published = bool(header) and header[0] in ("", "Unnamed: 0") and "pred" in header and "sample_id" not in header
    if published:
        columns = {**_from_paths(columns.pop(header[0]), places, path), **columns}
    elif header and header[0] in ("", "Unnamed: 0"):
        columns.pop(header[0])  # an index that pandas wrote along
    return pd.DataFrame(columns, dtype=object), places, published


def _from_paths(paths: list[str], places: list[str], file: Path) -> dict[str, list[str]]:
    """Takes ids and labels from the paths of MLfix's files."""
    parts = [name.rsplit("/", 2) for name in paths]
    short = [i for i, names in enumerate(parts) if len(names) < 2 or not all(names[-2:])]
    if short:
        raise RunError(
            f"{file}: {places[short[0]]} names {paths[short[0]]!r}, a path without a label's folder",
            "paths are <folder>/<label>/<file>",
        )
    return {"sample_id": ["/".join(names[-2:]) for names in parts], "label": [names[-2] for names in parts]}


def read_metadata(path: str | Path) -> pd.DataFrame:
    """Reads columns for slices and groups: a CSV or Parquet file with ``sample_id`` and whatever else there is.

    Returns:
        A table indexed by ``sample_id``.

    Raises:
        DataError: the file can't be read, has no ``sample_id``, or names a sample twice.
    """
    path = Path(path).expanduser()
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path, dtype={"sample_id": str}, encoding="utf-8-sig", keep_default_na=False,
                                na_values=[""], index_col=False)  # fmt: skip
        else:
            table = pd.read_parquet(path).reset_index()
    except (OSError, ValueError) as error:
        raise DataError(f"samples={path} can't be read: {error}", "give a CSV (UTF-8) or Parquet file") from error
    if "sample_id" not in table.columns:
        raise DataError(
            f"samples={path} has no column sample_id; it has {format_list(table.columns, 8)}",
            "give a row a sample, with its sample_id as in the predictions",
        )
    twice = table["sample_id"][table["sample_id"].duplicated()]
    if len(twice):
        raise DataError(f"samples={path} names {len(twice):,} sample(s) twice: {format_list(twice, 3)}", "each once")
    return table.set_index("sample_id")


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
