"""Predictions in files of any origin: Parquet or CSV with our columns, and MLfix's published CSV files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.table import REQUIRED, check_unique
from mlfix_train.data.files.csv_rows import read_rows
from mlfix_train.errors import DataError, RunError, format_list

SUFFIXES = (".parquet", ".pq", ".csv")
PUBLISHED_PHOTO = r"([^/]+)-\d+\.[A-Za-z]+$"
"""Names of MLfix's crops, ``<photo>-<n>.jpg``: the group is the photo."""
UNNAMED = ("", "Unnamed: 0")
"""Header of the index column of a CSV that pandas wrote."""


def find_prediction_files(patterns: str | Path | Sequence[str | Path]) -> list[Path]:
    """Returns the files of predictions that paths or globs name, sorted; files of run directories are left out."""
    patterns = [patterns] if isinstance(patterns, (str, os.PathLike)) else list(patterns)
    found: set[Path] = set()
    for pattern in (os.path.expanduser(pattern) for pattern in patterns):
        paths = [pattern] if os.path.exists(pattern) else glob.glob(str(pattern), recursive=True)
        found |= {Path(path) for path in paths if os.path.isfile(path) and Path(path).suffix.lower() in SUFFIXES}
    return sorted(path for path in found if not (path.parent / "run.json").exists())


def read_predictions_file(path: str | Path) -> pd.DataFrame:
    """Reads predictions from a file.

    A CSV needs the columns ``sample_id``, ``label`` and ``pred``. MLfix's published CSV files have an unnamed first
    column of paths ``<folder>/<label>/<file>`` instead, which give the label and the id (``<label>/<file>``), and a
    ``loss`` that is the negative cross-entropy, whose sign is flipped.

    Returns:
        A table with ``sample_id``, ``label``, ``pred``, all other columns of the file and, if there is one, ``loss``
        (nats, higher is worse). ``attrs["published"]`` says whether it is MLfix's format.

    Raises:
        RunError: The file can't be read, lacks a column, or has a sample twice or without a label.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        table, places, published = _read_csv(path)
    else:
        table, published = _read_parquet(path), False
        places = [f"row {number + 1}" for number in range(len(table))]
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise RunError(
            f"{path} lacks the columns {format_list(missing)}; it has {format_list(table.columns, 8)}",
            "predictions have the columns sample_id, label and pred (or are MLfix's own: paths, pred, loss)",
        )
    if not len(table):
        raise RunError(f"{path} holds no predictions", "give a file with one row per held-out sample")
    for name in REQUIRED:
        empty = np.flatnonzero((table[name].isna() | (table[name].astype(object) == "")).to_numpy(dtype=bool))
        if len(empty):
            raise RunError(f"{path}: {places[empty[0]]} has no {name}", "complete or remove the line")
        table[name] = table[name].astype(str)
    check_unique(table, path)
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
    """Returns the table of a CSV, the place of each row for errors, and whether it is in MLfix's format."""
    rows = read_rows(path, "predictions", RunError)
    header = [name.strip() for name in rows[0][1]] if rows else []
    body = [(line, cells) for line, cells in rows[1:] if cells]
    for line, cells in body:
        if len(cells) != len(header):
            raise RunError(
                f"{path}: line {line} has {len(cells)} cells, the header {len(header)}: {','.join(cells)[:120]!r}",
                'put values that contain a comma in double quotes: "a,b.jpg"',
            )
    places = [f"line {line}" for line, _ in body]
    columns = {name: [cells[i] for _, cells in body] for i, name in enumerate(header)}
    published = bool(header) and header[0] in UNNAMED and "pred" in header and "sample_id" not in header
    if published:
        columns = {**_split_paths(columns.pop(header[0]), places, path), **columns}
    elif header and header[0] in UNNAMED:
        columns.pop(header[0])
    return pd.DataFrame(columns, dtype=object), places, published


def _split_paths(paths: list[str], places: list[str], file: Path) -> dict[str, list[str]]:
    """Returns ids and labels from the paths in MLfix's files."""
    parts = [name.rsplit("/", 2) for name in paths]
    bad = [i for i, names in enumerate(parts) if len(names) < 2 or not all(names[-2:])]
    if bad:
        raise RunError(
            f"{file}: {places[bad[0]]} names {paths[bad[0]]!r}, a path without a label's folder",
            "paths are <folder>/<label>/<file>",
        )
    return {"sample_id": ["/".join(names[-2:]) for names in parts], "label": [names[-2] for names in parts]}


def read_metadata(path: str | Path) -> pd.DataFrame:
    """Reads columns for slices and groups from a CSV or Parquet file with a column ``sample_id``.

    Returns:
        A table indexed by ``sample_id``.

    Raises:
        DataError: The file can't be read, has no ``sample_id``, or has a sample twice.
    """
    path = Path(path).expanduser()
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(
                path,
                dtype={"sample_id": str},
                encoding="utf-8-sig",
                keep_default_na=False,
                na_values=[""],
                index_col=False,
            )
        else:
            table = pd.read_parquet(path).reset_index()
    except (OSError, ValueError) as error:
        raise DataError(f"samples={path} can't be read: {error}", "give a CSV (UTF-8) or Parquet file") from error
    if "sample_id" not in table.columns:
        raise DataError(
            f"samples={path} has no column sample_id; it has {format_list(table.columns, 8)}",
            "give one row per sample, with its sample_id as in the predictions",
        )
    repeated = table["sample_id"][table["sample_id"].duplicated()]
    if len(repeated):
        raise DataError(
            f"samples={path} names {len(repeated):,} sample(s) twice: {format_list(repeated, 3)}",
            "keep one row per sample",
        )
    return table.set_index("sample_id")


def run_names(paths: Sequence[Path]) -> list[str]:
    """Returns a short unique name for each file: the number at the end of its name if that is unique, else the name."""
    numbers = [re.search(r"(\d+)$", path.stem) for path in paths]
    if all(numbers):
        names = [str(int(match.group(1))) for match in numbers if match]
        if len(set(names)) == len(names):
            return names
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def photo_groups(sample_ids: Sequence[str], pattern: str) -> pd.Series:
    """Returns the group of each sample id, the first capture of a regular expression; others are their own group."""
    regex = re.compile(pattern)
    matches = [regex.search(name) for name in sample_ids]
    groups = [m.group(1 if regex.groups else 0) or n if m else n for n, m in zip(sample_ids, matches, strict=True)]
    return pd.Series(groups, index=pd.Index(sample_ids, name="sample_id"), dtype=object)
