"""The sample table: one row per sample, whichever reader it came from.

A sample table is a DataFrame indexed by ``sample_id`` (a unique string; the POSIX path relative to the data root) with

- ``path``: the image file, absolute, or the place of the image inside one (:mod:`mlfix_train.data.pixels.containers`);
- ``label``: the given label, a string, or missing if the images are unsorted;
- ``group``: photo or track that the sample belongs to (the sample itself if there is none);
- ``split``: the user's own split, a string, or empty;

and any metadata columns that the user has, untouched.
"""

import csv
import hashlib
import logging
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.errors import DataError, format_list

log = logging.getLogger(__name__)

INVALID = "invalid"
"""Marks in a fixes file a sample that is excluded; no label can have this name."""
UNSURE = "unsure"
"""Marks in a fixes file a sample that a reviewer could not decide on: its label stays. A label may have this name."""
COLUMNS = ("path", "label", "group", "split")


def make_table(
    sample_ids: Sequence[str],
    paths: Sequence[str],
    labels: Sequence[str | None],
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    metadata: pd.DataFrame | None = None,
    source: str = "the data",
    classes: Iterable[str] = (),
) -> pd.DataFrame:
    """Builds a sample table, as the module describes it, and validates it.

    Args:
        sample_ids: N unique names.
        paths: N image files.
        labels: N given labels, ``None`` where unknown; those that differ by their Unicode form alone become one.
        groups: N names of photos or tracks; by default every sample is its own group.
        splits: N names of the user's own split; by default empty.
        metadata: N rows of further columns, kept as they are.
        source: What errors call this data (a folder or file).
        classes: Labels that the data know, though no sample may have them: fixes can use them (``attrs["classes"]``).

    Raises:
        DataError: As :func:`validate_table`.

    Example:
        >>> table = make_table(["cat/1.jpg", "dog/2.jpg"], ["photos/cat/1.jpg", "photos/dog/2.jpg"], ["cat", "dog"])
        >>> table.loc["dog/2.jpg", ["label", "group"]].tolist()
        ['dog', 'dog/2.jpg']
    """
    given = {"paths": paths, "labels": labels, "groups": groups, "splits": splits, "metadata": metadata}
    for name, values in given.items():
        if values is None and name in ("paths", "labels"):
            raise DataError(f"{source}: {name} is None", "pass one per sample")
        if values is not None and len(values) != len(sample_ids):
            problem = f"{source}: {len(values):,} {name} for {len(sample_ids):,} sample_ids"
            raise DataError(problem, "pass one per sample, in the order of sample_ids")
    labels = _unify_unicode(labels, source)
    groups = sample_ids if groups is None else groups
    splits = [""] * len(sample_ids) if splits is None else splits
    index = pd.Index(list(sample_ids), name="sample_id", dtype=object)
    columns = zip(COLUMNS, (paths, labels, groups, splits), strict=True)
    table = pd.DataFrame({name: pd.Series(list(values), index=index, dtype=object) for name, values in columns})
    if metadata is not None:
        for name in (name for name in metadata.columns if name not in COLUMNS):
            table[name] = metadata[name].to_numpy()
    table.attrs["classes"] = list(dict.fromkeys(classes))
    return validate_table(table, source)


def _unify_unicode(labels: Sequence[str | None], source: str) -> Sequence[str | None]:
    """Returns labels with one spelling for those that differ by their Unicode form alone, and so look the same.

    Systems store names in different forms: macOS splits ``ü`` into a letter and a mark.
    """
    known = {label for label in labels if isinstance(label, str) and not label.isascii()}
    composed = {label: unicodedata.normalize("NFC", label) for label in known}
    forms = Counter(composed.values())
    renamed = {label: form for label, form in composed.items() if forms[form] > 1 and label != form}
    if not renamed:
        return labels
    text = "%s: %d label(s) are written in two Unicode forms (NFC and NFD), which are taken as one: %s"
    log.warning(text, source, len(renamed), format_list(sorted(set(renamed.values())), 3))
    return [renamed.get(label, label) if isinstance(label, str) else label for label in labels]


def validate_table(table: pd.DataFrame, source: str = "the data") -> pd.DataFrame:
    """Checks that ``table`` is a sample table and returns it.

    Raises:
        DataError: It is empty, lacks a column, has an empty or repeated ``sample_id``, or labels that are empty, not
            text, or differ from another by whitespace only.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        hint = f"it needs {', '.join(COLUMNS)}; it has {format_list(table.columns, 12)}"
        raise DataError(f"{source}: the sample table lacks the columns {format_list(missing)}", hint)
    if len(table) == 0:
        raise DataError(f"{source}: there are no samples", "use a folder with images, or a table with rows")
    ids = table.index
    unnamed = next((row for row, name in enumerate(ids) if not isinstance(name, str) or not name), None)
    if unnamed is not None:
        name = ids[unnamed]
        what = "no sample_id" if name == "" or _is_missing(name) else f"the sample_id {name!r}, which is not text"
        raise DataError(f"{source}: row {unnamed + 1} has {what}", "give every sample a unique name (text)")
    if not ids.is_unique:
        repeated = ids[ids.duplicated()].unique()
        problem = f"{source}: {len(repeated):,} sample_id(s) occur more than once: {format_list(repeated)}"
        raise DataError(problem, "remove the repeated rows, or set data.columns.sample_id to a unique column")
    _check_labels(table, source)
    return table


def _check_labels(table: pd.DataFrame, source: str) -> None:
    values = table["label"].tolist()
    if not set(map(type, values)) <= {str, type(None)}:
        not_text = [value for value in values if not isinstance(value, str) and not _is_missing(value)]
        if not_text:
            several = isinstance(not_text[0], Collection)
            problem = f"{source}: labels must be text, and {len(not_text):,} are not, such as {not_text[0]!r}"
            hint = "convert them by str()"
            raise DataError(problem, "give each sample one label; several are not supported" if several else hint)
    labels = table["label"].unique()
    known = {label for label in labels if isinstance(label, str)}
    padded = sorted(label for label in known if label != label.strip() and label.strip() in known)
    if padded:
        rows = table.index[table["label"].isin(padded).to_numpy(dtype=bool)]
        problem = f"{source}: {len(rows):,} sample(s) have a label that differs from another by whitespace only"
        shown = format_list(map(repr, padded), 3)
        raise DataError(f"{problem}: {shown}, such as {rows[0]}", "remove the whitespace from the labels")
    empty = table.index[(table["label"].astype(object) == "").to_numpy(dtype=bool)]
    if len(empty):
        problem = f"{source}: {len(empty):,} sample(s) have an empty label: {format_list(empty)}"
        raise DataError(problem, "add the labels, or remove these rows")


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value  # noqa: PLR0124 as NaN is


def label_list(table: pd.DataFrame) -> list[str]:
    """Returns the given labels of ``table``, unique and sorted: the classes, in the order of the model's outputs."""
    return sorted(str(label) for label in table["label"].dropna().unique())


def known_labels(table: pd.DataFrame) -> list[str]:
    """Returns the given labels and those of the source's class list that no sample has, unique and sorted."""
    return sorted({*label_list(table), *table.attrs.get("classes", ())})


def string_array(values: Any) -> Any:
    """Returns text as an array of pandas' type ``str``, which keeps no Python object for each; missing is NaN."""
    kind = pd.StringDtype("pyarrow", na_value=np.nan)
    return getattr(values, "array", values) if getattr(values, "dtype", "") == kind else pd.array(values, dtype=kind)


def find_names(names: Any, among: Any) -> np.ndarray:
    """Returns where each of M names first is in a sequence of N others: int64 ``(M,)``, -1 where it isn't there.

    Both are columns or arrays of text; those of pandas' type ``str`` are quickest.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    left, right = (pa.array(string_array(values), type=pa.large_string()) for values in (names, among))
    found = pc.fill_null(pc.index_in(left, value_set=right, skip_nulls=True), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def require_labels(table: pd.DataFrame, source: str = "the data") -> list[str]:
    """Returns :func:`label_list` if a classifier can be trained on it.

    Raises:
        DataError: Samples without a label, a label called ``invalid``, or fewer than two labels.
    """
    unlabelled = table.index[table["label"].isna()]
    if len(unlabelled):
        counts = f"{len(unlabelled):,} of {len(table):,} samples have no label: {format_list(unlabelled, 3)}"
        hint = "sort the images into one folder per label, or use a table (data=table) with a label column"
        raise DataError(f"{source}: {counts}", f"{hint} (data.columns.label=<its name>)")
    labels = label_list(table)
    if INVALID in labels:
        problem = f"{source}: a label is called {INVALID!r}, which means 'exclude' in a fixes file"
        raise DataError(problem, "rename the label")
    if len(labels) < 2:
        hint = "data.root must be the folder that has one folder per label, not one of those folders"
        problem = f"all {len(table):,} samples have one label, {labels[0]!r}; a classifier needs two or more"
        raise DataError(f"{source}: {problem}", hint)
    return labels


def table_fingerprint(table: pd.DataFrame) -> str:
    """Returns a SHA-256 (hex) of the ids, labels, groups and splits: equal if and only if these are."""
    digest = hashlib.sha256()
    for values in (table.index, *(table[name] for name in ("label", "group", "split"))):
        cells = np.asarray(values, dtype=object)
        digest.update("\x1f".join(map(str, np.where(pd.isna(cells), "", cells).tolist())).encode())
        digest.update(b"\x1e")
    return digest.hexdigest()


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Writes a sample table as Parquet (``.parquet``) or CSV, ``sample_id`` first; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.reset_index().to_parquet(path, index=False)
    else:  # blanks count only inside of quotes
        table.to_csv(path, quoting=csv.QUOTE_NONNUMERIC if _has_outer_blanks(table) else csv.QUOTE_MINIMAL)
    return path


def _has_outer_blanks(table: pd.DataFrame) -> bool:
    columns = (table.index, *(table[name] for name in table.columns))
    return any(isinstance(value, str) and value != value.strip() for values in columns for value in values)
