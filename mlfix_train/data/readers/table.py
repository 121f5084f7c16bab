"""Reads a CSV or Parquet file with one row per sample."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mlfix_train.data.files.csv_rows import read_rows
from mlfix_train.data.readers.files import group_names
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, did_you_mean, format_list, nearest

log = logging.getLogger(__name__)

COLUMNS = ("sample_id", "path", "label", "group", "split")


def read_table(
    file: str | Path,
    root: str | Path | None = None,
    columns: Mapping[str, str | None] | None = None,
    group: str | None = None,
) -> pd.DataFrame:
    """Reads a CSV or Parquet file with one row per sample, in its order; further columns are kept as metadata.

    Args:
        file: The table, ``.csv`` (UTF-8) or ``.parquet``.
        root: Folder that relative paths start from; by default the folder of ``file``.
        columns: Names in the file of the columns ``sample_id`` (by default the path relative to ``root``), ``path``,
            ``label``, ``group`` and ``split``; by default the same names. Only ``path`` has to exist.
        group: Regular expression on the ``sample_id``, as in ``read_folder``; used if there is no group column.

    Raises:
        DataError: The file is missing, unreadable or lacks a column, or a row has no path.
    """
    source = Path(file).expanduser()
    wanted = dict.fromkeys(COLUMNS) | (dict(columns) if columns is not None else {name: name for name in COLUMNS})
    raw = _read_file(source, [name for name in wanted.values() if name])
    names = {key: name if name in raw.columns else None for key, name in wanted.items()}
    _check_columns(source, raw, wanted, names)
    base = Path(os.path.abspath(Path(root).expanduser() if root else source.parent))
    given = _strings(raw, names["path"] or "path")
    if "" in given:
        raise DataError(f"{source}: row {given.index('') + 2} has no path", "add it, or remove the row")
    paths = [os.path.normpath(os.path.join(base, value)) for value in given]
    texts = {key: _strings(raw, name) for key, name in names.items() if name}
    ids = texts.get("sample_id") or [Path(os.path.relpath(path, base)).as_posix() for path in paths]
    labels = [value or None for value in texts.get("label", [""] * len(raw))]
    groups = texts["group"] if names["group"] else group_names(ids, group)
    if groups is not None:
        groups = [value or name for value, name in zip(groups, ids, strict=True)]
    splits = texts.get("split")
    metadata = raw.drop(columns=[name for name in names.values() if name])
    metadata = metadata.rename(columns={name: f"{name}_in_file" for name in metadata.columns if name in COLUMNS})
    return make_table(ids, paths, labels, groups, splits, metadata, source=str(source))


def _read_file(source: Path, text_columns: list[str]) -> pd.DataFrame:
    """Reads a table; ``text_columns`` stay text (a label ``020`` is not a number)."""
    if not source.is_file():
        raise DataError(f"data.file={source} does not exist", "set a CSV or Parquet file with one row per sample")
    try:
        if source.suffix.lower() in {".parquet", ".pq"}:
            table = pd.read_parquet(source)
            return table.reset_index() if table.index.name else table
        rows = read_rows(source, "data.file", DataError)
        for line, cells in rows:
            if len(cells) > len(rows[0][1]):  # pandas would shift the columns
                problem = f"line {line} has {len(cells)} cells, the header {len(rows[0][1])}: {','.join(cells)!r}"
                raise DataError(f"{source}: {problem}", 'put values that contain a comma in double quotes: "a,b.jpg"')
        types = dict.fromkeys(text_columns, str)
        na_values = [""]  # a label may well be "NA" or "null"
        return pd.read_csv(
            source, keep_default_na=False, na_values=na_values, encoding="utf-8-sig", dtype=types, index_col=False
        )
    except (ValueError, OSError) as error:
        raise DataError(f"{source} can't be read as a table: {error}", "set a CSV or Parquet file") from error


def _check_columns(
    source: Path, raw: pd.DataFrame, wanted: Mapping[str, str | None], names: Mapping[str, str | None]
) -> None:
    """Raises a DataError without a path column, and warns without a label column."""
    path, label = wanted["path"] or "path", wanted["label"]
    if path not in raw.columns:
        only = str(raw.columns[0]) if len(raw.columns) == 1 else ""
        hint = f"{did_you_mean(path, raw.columns)} It has {format_list(raw.columns, 12)}"
        if separator := next((sign for sign in (";", "\t", "|") if sign in only), None):
            hint = f"its cells are separated by {separator!r}: save it again with commas"
        raise DataError(f"{source}: no column {path!r} (data.columns.path)", hint)
    if label and not names["label"]:
        closest = nearest(label, map(str, raw.columns))
        hint = f"; did you mean data.columns.label={closest[0]}?" if closest else ""
        log.warning("%s has no column %r: its samples have no label%s", source, label, hint)


def _strings(table: pd.DataFrame, column: str) -> list[str]:
    """Returns a column as strings, missing values as empty ones."""
    return ["" if pd.isna(value) else str(value) for value in table[column]]
