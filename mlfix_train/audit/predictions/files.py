"""Predictions in files of any origin: tables, matrices of probabilities, and MLfix's published CSV files."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.checks import (
    check_losses,
    check_numbers,
    check_shares,
    match_names,
    name_key,
    probability_columns,
    unify_blanks,
)
from mlfix_train.audit.predictions.table import (
    COLUMNS,
    REQUIRED,
    SMALLEST_PROBABILITY,
    check_unique,
    predictions_table,
)
from mlfix_train.audit.scores.label_scores import check_probabilities
from mlfix_train.data.files.csv_rows import read_rows
from mlfix_train.errors import DataError, RunError, format_list

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".pq", ".csv", ".npy")
MIN_RIGHT = 0.5
"""Share of labels that must be predicted for columns to be taken in the alphabetical order of the labels."""
LABEL_FILES = ("labels.npy", "labels.csv")
"""Files of labels that are looked for beside a matrix of probabilities."""
PUBLISHED_PHOTO = r"^(?:(?s:.*)/)?([^/]+)-\d+\.[A-Za-z]+$|^"
"""The photo in the names of MLfix's crops, ``<photo>-<n>.jpg``; other samples are a group of their own."""
Paths = str | Path | Sequence[str | Path]
"""A path, a glob, or several of them."""
UNNAMED = ("", "Unnamed: 0")
"""Header of the index column of a CSV that pandas wrote."""


def expand_paths(where: Paths) -> dict[str, list[str]]:
    """Returns the existing paths of each path or glob, sorted within a glob."""
    patterns = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    expanded = [os.path.expanduser(str(pattern)) for pattern in patterns]
    return {p: [p] if os.path.exists(p) else sorted(glob.glob(p, recursive=True)) for p in expanded}


def find_prediction_files(where: Paths) -> list[Path]:
    """Returns the files of predictions that paths or globs name, in order; files of run directories are left out.

    A folder with ``predictions.parquet``, as :class:`mlfix_train.audit.callback.AuditCallback` writes it, stands for
    that file. A matrix (``.npy``) has to be named itself, since a glob would also find labels.
    """
    files = []
    for pattern, matches in expand_paths(where).items():
        for path in map(Path, matches):
            inner = path / "predictions.parquet"
            if inner.is_file() and not (path / "run.json").exists():
                files.append(inner)
            elif path.is_dir() and not any(path.rglob("run.json")):
                files += sorted(path.glob("*/predictions.parquet"))
            elif path.is_file() and path.suffix.lower() in SUFFIXES and not (path.parent / "run.json").exists():
                files += [path] if path.suffix.lower() != ".npy" or matches == [pattern] else []
    return files


@dataclass
class PredictionFile:
    """Predictions of one file.

    Attributes:
        table: ``sample_id``, ``label`` and ``pred`` (text; ``pred`` is empty where only ``label_prob`` is known and
            below a half), all other columns of the file and, if the file has it, ``loss`` (nats).
            ``attrs["published"]``: whether it is MLfix's format.
        probabilities: float32 ``(N, C)``, if the file holds them.
        class_names: names of the C columns.
    """

    table: pd.DataFrame
    probabilities: np.ndarray | None = None
    class_names: Sequence[str] = ()


def read_predictions_file(path: str | Path) -> pd.DataFrame:
    """Returns the table of :func:`open_predictions`."""
    return open_predictions(path).table


def open_predictions(path: str | Path, labels: str | Path | None = None) -> PredictionFile:
    """Reads predictions of any origin from a file.

    - CSV or Parquet with ``sample_id``, ``label`` and one of: a column of probabilities per class, named as the labels
      (or after ``prob_``); ``label_prob``, the probability of the given label; ``pred`` and ``loss``.
    - MLfix's published CSV: an unnamed first column of paths ``<folder>/<label>/<file>``, which give the label and the
      id (``<label>/<file>``), and a ``loss`` that is the negative cross-entropy, whose sign is turned.
    - ``pred_probs.npy``, float ``(N, C)``, with ``labels`` beside it, as cleanlab takes them; ``class_names.json`` and,
      for sample ids, ``label_issues.csv`` of ``mlfix export to=cleanlab`` are read if they are there.

    Predictions that are written in another way than labels (``1.0`` and ``1``, blanks) are matched where that is
    certain.

    Args:
        path: the file.
        labels: given labels of ``pred_probs.npy``: ``.npy`` (class numbers or names, ``(N,)``), or CSV or Parquet with
            ``label`` and, optionally, ``sample_id``; by default ``labels.npy`` or ``labels.csv`` beside it.

    Raises:
        RunError: The file can't be read, lacks a column, has a sample twice or without a label, a loss below 0,
            probabilities that don't sum to 1, or predictions that are none of the labels.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _open_matrix(path, labels)
    if labels is not None:
        raise RunError(f"labels={labels} is set, but {path} has its own labels", "remove labels=")
    if path.suffix.lower() == ".csv":
        table, places, published = _read_csv(path)
    else:
        try:
            table, published = pd.read_parquet(path), False
        except (OSError, ValueError) as error:
            raise RunError(f"{path} can't be read: {error}", "use a Parquet or CSV file") from error
        places = [f"row {number + 1}" for number in range(len(table))]
    if "label" in table.columns and table["label"].map(lambda value: isinstance(value, str)).all():
        table["label"] = unify_blanks(table["label"], str(path))
    given = set(table["label"].dropna().astype(str)) - {""} if "label" in table.columns else set()
    columns = probability_columns(table, given, str(path), places.__getitem__) if given else None
    needed = [name for name in REQUIRED if name != "pred" or (columns is None and "label_prob" not in table.columns)]
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise RunError(
            f"{path} lacks the columns {format_list(missing)}; it has {format_list(table.columns, 8)}",
            _missing_columns_hint(table, given),
        )
    if not len(table):
        raise RunError(f"{path} contains no predictions", "use a file with one row per held-out sample")
    for name in [name for name in REQUIRED if name in table.columns]:
        empty = np.flatnonzero((table[name].isna() | (table[name].astype(object) == "")).to_numpy(dtype=bool))
        if len(empty):
            raise RunError(f"{path}: {places[empty[0]]} has no {name}", "complete or remove the line")
        table[name] = table[name].map(lambda value: value if isinstance(value, str) else str(value))
    check_unique(table, path)
    probabilities = None
    if columns is not None:
        probabilities = np.stack([pd.to_numeric(table[name]).to_numpy(np.float32) for name in columns.values()], 1)
        names = pd.Index(list(columns)).get_indexer(pd.Index(table["label"]))
        extra = table.drop(columns=[*columns.values(), *table.columns.intersection(list(COLUMNS))])
        table = _table_of(table["sample_id"].to_numpy(), names, probabilities, list(columns)).join(extra)
    else:
        table = _check_columns(table, path, places, published)
    table.attrs["published"] = published
    return PredictionFile(table, probabilities, list(columns or ()))


def _missing_columns_hint(table: pd.DataFrame, labels: Collection[str]) -> str:
    if len(table.columns) == 1 and re.search(r"[;\t]", str(table.columns[0])):
        return "separate the columns by commas"
    named = [name for name in labels if name in table.columns]
    if named and len(named) < len(labels):
        lacking = format_list(sorted(set(labels) - set(named)), 4)
        return f"add a column of probabilities for {lacking}, or the columns pred and loss"
    return (
        "predictions have the columns sample_id, label and one of: a column of probabilities per class, named like the "
        "labels; label_prob; pred and loss (or are MLfix's own: paths, pred, loss)"
    )


def _check_columns(table: pd.DataFrame, path: Path, places: Sequence[str], published: bool) -> pd.DataFrame:
    """Checks ``pred``, ``loss`` and ``label_prob`` of a table, and derives what follows from the others."""
    for name in ("label_prob", "prob"):
        if name in table.columns:
            table[name] = check_shares(table[name], str(path), places.__getitem__)
    if "pred" not in table.columns:
        table["pred"] = np.where(table["label_prob"] >= 0.5, table["label"], "")
        unknown = int((table["pred"] == "").sum())
        if unknown:
            text = (
                "%s: what is predicted for %s of %s samples is unknown: label_prob is below 0.5, and there is no pred"
            )
            log.warning(text, path, f"{unknown:,}", f"{len(table):,}")
    table["pred"] = match_names(table["label"], table["pred"], str(path))
    if "loss" in table.columns:
        losses = table["loss"]
        if published:
            numbers = pd.to_numeric(losses, errors="coerce")
            losses = (-numbers).where(numbers.notna(), losses)
        table["loss"] = check_losses(losses, str(path), places.__getitem__)
    elif "label_prob" in table.columns:
        table["loss"] = -np.log(np.maximum(table["label_prob"], SMALLEST_PROBABILITY))
    return table


def _table_of(ids: np.ndarray, codes: np.ndarray, probabilities: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST_PROBABILITY))
    return predictions_table(ids, codes, logits, names, "")


def _open_matrix(path: Path, labels: str | Path | None) -> PredictionFile:
    """Reads a matrix of probabilities, its labels and, if present, names of classes and samples."""
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}", "write it with np.save(path, pred_probs)") from error
    try:
        check_probabilities(matrix, str(path))
    except DataError as error:
        raise RunError(error.problem, error.hint) from error
    n, n_classes = matrix.shape
    beside = [path.parent / name for name in LABEL_FILES if (path.parent / name).exists()]
    place = Path(labels).expanduser() if labels is not None else next(iter(beside), None)
    if place is None:
        hint = "set labels=<file> (labels.npy, or CSV with sample_id and label), in the order of its rows"
        raise RunError(f"{path} contains probabilities, but there are no labels beside it", hint)
    values, ids = _read_labels(place)
    if len(values) != n:
        raise RunError(f"{place} has {len(values):,} labels, but {path} has {n:,} rows", "write one label per row")
    exported = path.parent / "label_issues.csv"
    if ids is None and exported.exists():
        listed = pd.read_csv(exported, dtype=str, keep_default_na=False)["sample_id"]
        ids = listed.to_numpy(dtype=object) if len(listed) == n else None
    names_file = path.parent / "class_names.json"
    names = _class_names(names_file, values, n_classes, place)
    guessed = not names_file.exists() and set(values) <= set(names) and names[0] != "0"
    if set(values) <= set(names):
        codes = pd.Index(names).get_indexer(pd.Index(values))
    else:
        codes = check_numbers(values, n_classes, str(place))
    ids = np.array([str(row) for row in range(n)], dtype=object) if ids is None else ids
    table = _table_of(ids, codes, matrix, names)
    check_unique(table, place)
    right = float((table["label"] == table["pred"]).mean())
    if guessed and right < MIN_RIGHT:
        wrong = f"{100 * (1 - right):.0f}% of the labels are not predicted"
        problem = f"{path}: with columns in the alphabetical order of the labels, {wrong}"
        hint = f"write the names of the columns, in order, as a JSON list: {path.parent / 'class_names.json'}"
        raise RunError(problem, hint)
    table["pred"] = match_names(table["label"], table["pred"], str(path))
    table.attrs["published"] = False
    return PredictionFile(table, np.asarray(matrix, np.float32), names)


def _read_labels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns labels as text and, if the file has them, sample ids; both object ``(N,)``."""
    try:
        if path.suffix.lower() == ".npy":
            try:
                values = np.load(path, allow_pickle=False)
            except ValueError as error:
                raise RunError(f"labels={path} is not a plain array: {error}", "save labels.astype(str)") from error
            if values.ndim != 1:
                raise RunError(f"{path} has the shape {values.shape}", "save one label per sample: an array (N,)")
            if values.dtype.kind == "f" and (values % 1 == 0).all():
                values = values.astype(np.int64)
            return values.astype(str).astype(object), None
        table = (
            pd.read_csv(path, dtype=str, keep_default_na=False)
            if path.suffix.lower() == ".csv"
            else pd.read_parquet(path)
        )
    except (OSError, ValueError) as error:
        raise RunError(f"labels={path} can't be read: {error}", "use a .npy, CSV or Parquet file") from error
    if "label" not in table.columns:
        problem = f"{path} has no column label; it has {format_list(table.columns, 8)}"
        raise RunError(problem, "use a table with label and, optionally, sample_id")
    empty = np.flatnonzero((table["label"].isna() | (table["label"].astype(str).str.strip() == "")).to_numpy())
    if len(empty):
        raise RunError(f"{path}: row {empty[0] + 1} has no label", "complete it; labels are one per row of the matrix")
    ids = table["sample_id"].astype(str).to_numpy(dtype=object) if "sample_id" in table.columns else None
    table["label"] = unify_blanks(table["label"].astype(str), str(path))
    return table["label"].astype(str).to_numpy(dtype=object), ids


def _class_names(path: Path, labels: np.ndarray, n_classes: int, source: Path) -> list[str]:
    """Returns the names of the columns: those of the file, else the labels in order, else numbers."""
    if path.exists():
        try:
            names = [str(name) for name in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError) as error:
            raise RunError(f"{path} can't be read: {error}", "write a JSON list of names, or delete it") from error
        if len(set(names)) != n_classes:
            problem = f"{path} has {len(set(names))} names, but there are {n_classes} columns"
            raise RunError(problem, "write one name per column, or delete it")
        return names
    found = sorted(set(labels))
    if all(name_key(name).lstrip("-").isdigit() for name in found):
        return [str(code) for code in range(n_classes)]
    if len(found) != n_classes:
        problem = f"{source} has {len(found)} different labels, but {n_classes} columns"
        raise RunError(problem, f"write the names of the columns, in order, as a JSON list in {path.name} beside it")
    log.info("%s: columns are assumed to be the labels in alphabetical order: %s", source, format_list(found, 4))
    return found


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
                f"{path}: {places[bad[0]]} has the path {names[bad[0]]!r}, without a label folder",
                "paths must be <folder>/<label>/<file>",
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
        raise DataError(f"samples={path} can't be read: {error}", "use a CSV (UTF-8) or Parquet file") from error
    if "sample_id" not in table.columns:
        raise DataError(
            f"samples={path} has no column sample_id; it has {format_list(table.columns, 8)}",
            "write one row per sample, with its sample_id as in the predictions",
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
