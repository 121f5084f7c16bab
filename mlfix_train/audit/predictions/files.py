"""Predictions in files of any origin: tables, matrices of probabilities, and MLfix's published CSV files."""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from mlfix_train.audit.predictions.arrays import MIN_RIGHT, list_names
from mlfix_train.audit.predictions.checks import (
    check_losses,
    check_numbers,
    check_shares,
    match_names,
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
from mlfix_train.data.files.tables import UNNAMED, Table, infer_types, open_table
from mlfix_train.data.matching import IdMatcher, name_key
from mlfix_train.errors import DataError, RunError, format_list

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".txt", ".npy")
NAMED_ONLY = (".txt", ".npy")
"""Files that have to be named: a glob would find others of the kind, too."""
LABEL_FILES = ("labels.npy", "labels.csv")
"""Files of labels that are looked for beside a matrix of probabilities."""
PUBLISHED_PHOTO = r"^(?:(?s:.*)/)?([^/]+)-\d+\.[A-Za-z]+$|^"
"""The photo in the names of MLfix's crops, ``<photo>-<n>.jpg``; other samples are a group of their own."""
Paths = str | Path | Sequence[str | Path]
"""A path, a glob, or several of them."""


def expand_paths(where: Paths) -> dict[str, list[str]]:
    """Returns the existing paths of each path or glob, sorted within a glob."""
    patterns = [where] if isinstance(where, (str, os.PathLike)) else list(where)
    expanded = [os.path.expanduser(str(pattern)) for pattern in patterns]
    return {p: [p] if os.path.exists(p) else sorted(glob.glob(p, recursive=True)) for p in expanded}


def find_prediction_files(where: Paths) -> list[Path]:
    """Returns the files of predictions that paths or globs name, in order; files of run directories are left out.

    A folder with ``predictions.parquet``, as :class:`mlfix_train.audit.callback.AuditCallback` writes it, stands for
    that file. A matrix (``.npy``) has to be named itself, since a glob would also find labels; so has ``.txt``.
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
                files += [path] if path.suffix.lower() not in NAMED_ONLY or matches == [pattern] else []
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

    table: pd.DataFrame = field(repr=False)
    probabilities: np.ndarray | None = field(default=None, repr=False)
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

    CSV may be of any dialect (see :mod:`mlfix_train.data.files.tables`). Predictions that are written in another way
    than labels (``1.0`` and ``1``, blanks) are matched where that is certain.

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
    opened = open_table(path, "predictions", RunError, COLUMNS)
    opened.leave_out_comments()
    published = _name_published(opened)
    opened.read_decimal_commas(name for name in opened.frame.columns if name not in ("sample_id", "label", "split"))
    table = opened.frame.copy()
    for name in table.columns.intersection(list(REQUIRED)):
        table[name] = pd.Series(opened.text(name, RunError), index=table.index, dtype=object)
    if "label" in table.columns:
        table["label"] = unify_blanks(table["label"], str(path))
    given = set(table["label"]) - {""} if "label" in table.columns else set()
    columns = probability_columns(table, given, str(path), opened.place) if given else None
    needed = [name for name in REQUIRED if name != "pred" or (columns is None and "label_prob" not in table.columns)]
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise RunError(f"{path} {opened.lacks(missing)}", _missing_columns_hint(table, given))
    if not len(table):
        raise RunError(f"{path} contains no predictions", "use a file with one row per held-out sample")
    for name in [name for name in REQUIRED if name in table.columns]:
        empty = np.flatnonzero((table[name] == "").to_numpy(dtype=bool))
        if len(empty):
            raise RunError(f"{path}: {opened.place(int(empty[0]))} has no {name}", "complete or remove the line")
    repeated = opened.repeated(table["sample_id"].tolist())
    if repeated:
        problem = f"{path} names {len(repeated):,} sample(s) twice: {format_list(repeated, 3)}"
        raise RunError(problem, "keep one row per sample")
    probabilities = None
    if columns is not None:
        probabilities = np.stack([pd.to_numeric(table[name]).to_numpy(np.float32) for name in columns.values()], 1)
        names = pd.Index(list(columns)).get_indexer(pd.Index(table["label"]))
        extra = table.drop(columns=[*columns.values(), *table.columns.intersection(list(COLUMNS))])
        table = _table_of(table["sample_id"].to_numpy(), names, probabilities, list(columns)).join(extra)
    else:
        table = _check_columns(table, opened, published)
    table.attrs["published"] = published
    return PredictionFile(table, probabilities, list(columns or ()))


def _missing_columns_hint(table: pd.DataFrame, labels: Collection[str]) -> str:
    named = [name for name in labels if name in table.columns]
    if named and len(named) < len(labels):
        lacking = format_list(sorted(set(labels) - set(named)), 4)
        return f"add a column of probabilities for {lacking}, or the columns pred and loss"
    return (
        "predictions have the columns sample_id, label and one of: a column of probabilities per class, named like the "
        "labels; label_prob; pred and loss (or are MLfix's own: paths, pred, loss)"
    )


def _check_columns(table: pd.DataFrame, opened: Table, published: bool) -> pd.DataFrame:
    """Checks ``pred``, ``loss`` and ``label_prob`` of a table, and derives what follows from the others."""
    path = opened.path
    for name in ("label_prob", "prob"):
        if name in table.columns:
            table[name] = check_shares(table[name], str(path), opened.place)
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
        table["loss"] = check_losses(losses, str(path), opened.place)
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
    except OSError as error:
        raise RunError(f"labels={path} can't be read: {error}", "use a .npy, CSV or Parquet file") from error
    table = open_table(path, "labels", RunError, ("sample_id", "label"))
    table.leave_out_comments()
    if "label" not in table.frame.columns:
        raise RunError(f"{path} {table.lacks(['label'])}", "use a table with label and, optionally, sample_id")
    labels = pd.Series(table.text("label", RunError), dtype=object)
    empty = np.flatnonzero((labels == "").to_numpy(dtype=bool))
    if len(empty):
        problem = f"{path}: {table.place(int(empty[0]))} has no label"
        raise RunError(problem, "complete it; labels are one per row of the matrix")
    has_ids = "sample_id" in table.frame.columns
    ids = np.array(table.text("sample_id", RunError), dtype=object) if has_ids else None
    return unify_blanks(labels, str(path)).to_numpy(dtype=object), ids


def _class_names(path: Path, labels: np.ndarray, n_classes: int, source: Path) -> list[str]:
    """Returns the names of the columns: those of the file, else the labels in order, else numbers."""
    if path.exists():
        try:
            names = list_names(str(path), json.loads(path.read_text(encoding="utf-8-sig")))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path} can't be read: {error}", "write a JSON list of names, or delete it") from error
        except DataError as error:
            raise RunError(error.problem, "write a JSON list of names, in the order of the columns") from error
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


def _name_published(opened: Table) -> bool:
    """Gives a table in MLfix's format our columns, and removes an index that pandas wrote; returns which it was.

    Raises:
        RunError: A path has no folder that is its label.
    """
    frame, path = opened.frame, opened.path
    if opened.lines is None or not len(frame.columns) or frame.columns[0] != UNNAMED:
        return False
    published = "pred" in frame.columns and "sample_id" not in frame.columns
    if published:
        names = frame[UNNAMED]
        parts = [name.rsplit("/", 2)[-2:] for name in names]
        bad = next((i for i, part in enumerate(parts) if len(part) < 2 or not all(part)), None)
        if bad is not None:
            raise RunError(
                f"{path}: {opened.place(bad)} has the path {names.iloc[bad]!r}, without a label folder",
                "paths must be <folder>/<label>/<file>",
            )
        frame.insert(0, "sample_id", pd.Series(["/".join(part) for part in parts], dtype=object))
        frame.insert(1, "label", pd.Series([label for label, _ in parts], dtype=object))
    opened.frame = frame.drop(columns=UNNAMED)
    return published


def read_metadata(path: str | Path, sample_ids: Sequence[str] | pd.Index | None = None) -> pd.DataFrame:
    """Reads columns for slices and groups from a CSV or Parquet file with a column ``sample_id``.

    Args:
        path: the file.
        sample_ids: samples of the predictions; names in the file that stand for one of them for certain become its id.

    Returns:
        A table indexed by ``sample_id``.

    Raises:
        DataError: The file can't be read, has no ``sample_id``, or has a sample twice.
    """
    opened = open_table(Path(path).expanduser(), "samples", DataError, ("sample_id",))
    if "sample_id" not in opened.frame.columns:
        raise DataError(
            f"samples={path} has no column sample_id; it has {format_list(opened.frame.columns, 8)}",
            "write one row per sample, with its sample_id as in the predictions",
        )
    opened.leave_out_comments()
    ids = pd.Series(opened.text("sample_id", DataError), name="sample_id", dtype=object)
    if sample_ids is not None and not ids.isin(sample_ids).all():
        matched = IdMatcher(pd.DataFrame(index=pd.Index(sample_ids))).match(ids)
        matched.log(f"samples={path}")
        ids = ids.map(lambda name: matched.ids.get(name, name))
        if not matched.ids:
            log.warning("samples=%s has none of the samples of the predictions, such as %s", path, sample_ids[0])
    repeated = opened.repeated(ids.tolist())
    if repeated:
        problem = f"samples={path} names {len(repeated):,} sample(s) twice: {format_list(repeated, 3)}"
        raise DataError(problem, "keep one row per sample")
    opened.frame = opened.frame.drop(columns="sample_id")
    opened.read_decimal_commas(opened.frame.columns)
    table = opened.frame if opened.lines is None else infer_types(opened.frame)
    return table.set_index(pd.Index(ids))


def run_names(paths: Sequence[Path]) -> list[str]:
    """Returns a short unique name for each file: the number at the end of its name if that is unique, else the name."""
    numbers = [re.search(r"(\d+)$", path.stem) for path in paths]
    if all(numbers):
        names = [str(int(match.group(1))) for match in numbers if match]
        if len(set(names)) == len(names):
            return names
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
