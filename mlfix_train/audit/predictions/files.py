"""Predictions in files of any origin: Parquet or CSV with our columns, and MLfix's published CSV files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.table import REQUIRED, check_unique
from mlfix_train.data.files.csv_rows import read_rows
from mlfix_train.errors import DataError, RunError, format_list

SUFFIXES = (".parquet", ".pq", ".csv")
PUBLISHED_PHOTO = r"^(?:(?s:.*)/)?([^/]+)-\d+\.[A-Za-z]+$|^"
"""The photo in the names of MLfix's crops, ``<photo>-<n>.jpg``; other samples are a group of their own."""
Paths = str | Path | Sequence[str | Path]
"""A path, a glob, or several of them."""
UNNAMED = ("", "Unnamed: 0")
"""Header of the index column of a CSV that pandas wrote."""


def expand_paths(where: Paths) -> dict[str, list[str]]:
    """Returns for each path or glob the paths that exist, those of a glob sorted."""
    patterns = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    expanded = [os.path.expanduser(str(pattern)) for pattern in patterns]
    return {p: [p] if os.path.exists(p) else sorted(glob.glob(p, recursive=True)) for p in expanded}


def find_prediction_files(where: Paths) -> list[Path]:
    """Returns the files of predictions that paths or globs name, in order; files of run directories are left out."""
    paths = [Path(path) for matches in expand_paths(where).values() for path in matches]
    files = [path for path in paths if path.is_file() and path.suffix.lower() in SUFFIXES]
    return [path for path in files if not (path.parent / "run.json").exists()]


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
        try:
            table, published = pd.read_parquet(path), False
        except (OSError, ValueError) as error:
            raise RunError(f"{path} can't be read: {error}", "give predictions as Parquet or CSV") from error
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
        bad = np.flatnonzero(numbers.isna())
        if len(bad):
            problem = f"{path}: {places[bad[0]]} has the loss {table['loss'].iloc[bad[0]]!r}"
            raise RunError(problem, "a loss is a number")
        table["loss"] = -numbers if published else numbers
    table.attrs["published"] = published
    return table


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
        names = columns.pop(header[0])
        parts = [name.rsplit("/", 2)[-2:] for name in names]
        bad = [i for i, part in enumerate(parts) if len(part) < 2 or not all(part)]
        if bad:
            raise RunError(
                f"{path}: {places[bad[0]]} names {names[bad[0]]!r}, a path without a label's folder",
                "paths are <folder>/<label>/<file>",
            )
        ids, labels = ["/".join(part) for part in parts], [label for label, _ in parts]
        columns = {"sample_id": ids, "label": labels, **columns}
    elif header and header[0] in UNNAMED:
        columns.pop(header[0])
    return pd.DataFrame(columns, dtype=object), places, published


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
            options: dict[str, Any] = {"encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""]}
            table: pd.DataFrame = pd.read_csv(path, dtype={"sample_id": str}, index_col=False, **options)
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
        problem = f"samples={path} names {len(repeated):,} sample(s) twice: {format_list(repeated, 3)}"
        raise DataError(problem, "keep one row per sample")
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
