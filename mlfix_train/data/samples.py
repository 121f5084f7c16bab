"""The sample table: one row a sample, whatever reader it came from.

A sample table is a DataFrame indexed by ``sample_id`` (a unique string; the POSIX path relative to the data root) with

- ``path``: the image file, absolute;
- ``label``: the given label, a string, or missing where the pictures are unsorted;
- ``group``: photo or track that the sample belongs to (the sample itself where there is none);
- ``split``: the user's own split, a string, or empty;

and any metadata columns that the user brought, untouched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mlfix_train.errors import DataError, format_list

INVALID = "invalid"
"""What a fixes file says of a sample that is taken out; no label may be called so."""
COLUMNS = ("path", "label", "group", "split")


def make_table(
    sample_ids: Sequence[str],
    paths: Sequence[str],
    labels: Sequence[str | None],
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    metadata: pd.DataFrame | None = None,
    source: str = "the data",
) -> pd.DataFrame:
    """Builds a sample table and validates it.

    Args:
        sample_ids: N unique names.
        paths: N image files.
        labels: N given labels, ``None`` where unknown.
        groups: N names of photos or tracks; by default every sample is its own group.
        splits: N names of the user's own split; by default empty.
        metadata: N rows of further columns, carried along.
        source: what errors call this data (a folder or file).

    Returns:
        A sample table, see the module's docstring.

    Raises:
        DataError: as :func:`validate_table`.
    """
    columns = {
        "path": list(paths),
        "label": list(labels),
        "group": list(sample_ids if groups is None else groups),
        "split": [""] * len(sample_ids) if splits is None else list(splits),
    }
    index = pd.Index(list(sample_ids), name="sample_id", dtype=object)
    table = pd.DataFrame({name: pd.Series(values, index=index, dtype=object) for name, values in columns.items()})
    if metadata is not None:
        for name in metadata.columns:
            if name not in COLUMNS:
                table[name] = metadata[name].to_numpy()
    return validate_table(table, source)


def validate_table(table: pd.DataFrame, source: str = "the data") -> pd.DataFrame:
    """Checks that ``table`` keeps the contract of a sample table and returns it.

    Raises:
        DataError: it is empty, a column is missing, a ``sample_id`` is empty or stands twice, or a label is empty.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(
            f"{source}: a sample table lacks the columns {format_list(missing)}",
            f"it needs {', '.join(COLUMNS)}; it has {format_list(table.columns, 12)}",
        )
    if len(table) == 0:
        raise DataError(f"{source}: there are no samples", "point data.root at a folder that holds pictures")
    ids = table.index
    bad = [i for i, name in enumerate(ids) if not isinstance(name, str) or not name]
    if bad:
        raise DataError(f"{source}: row {bad[0] + 1} has no sample_id", "give every sample a unique name")
    if not ids.is_unique:
        twice = ids[ids.duplicated()].unique()
        raise DataError(
            f"{source}: {len(twice):,} sample_id(s) stand more than once: {format_list(twice)}",
            "name every sample once (remove the repeated rows, or give data.columns.sample_id a unique column)",
        )
    strange = [label for label in table["label"].unique() if not isinstance(label, str) and not pd.isna(label)]
    if strange:
        raise DataError(
            f"{source}: labels must be text, and {format_list(map(repr, strange), 3)} is not",
            "turn the labels into text: table['label'].astype(str)",
        )
    known = {label for label in table["label"].unique() if isinstance(label, str)}
    twins = sorted(label for label in known if label != label.strip() and label.strip() in known)
    if twins:
        rows = table.index[table["label"].isin(twins).to_numpy(dtype=bool)]
        raise DataError(
            f"{source}: {len(rows):,} sample(s) bear a label that differs from another by white space alone: "
            f"{format_list(map(repr, twins), 3)}, such as {rows[0]}",
            "take the white space out of the labels",
        )
    empty = table.index[(table["label"].astype(object) == "").to_numpy(dtype=bool)]
    if len(empty):
        raise DataError(
            f"{source}: {len(empty):,} sample(s) have an empty label: {format_list(empty)}",
            "give them a label, or remove their rows",
        )
    return table


def label_list(table: pd.DataFrame) -> list[str]:
    """Returns the given labels of ``table``, each once, sorted: the classes, in the order of the model's outputs."""
    return sorted(str(label) for label in table["label"].dropna().unique())


def require_labels(table: pd.DataFrame, source: str = "the data") -> list[str]:
    """Returns :func:`label_list` if a classifier can be trained on it.

    Raises:
        DataError: samples without a label, or fewer than two labels.
    """
    unlabelled = table.index[table["label"].isna()]
    if len(unlabelled):
        raise DataError(
            f"{source}: {len(unlabelled):,} of {len(table):,} samples have no label: {format_list(unlabelled, 3)}",
            "sort the pictures into one folder per label, or give a table (data=table) with a label column "
            "(data.columns.label=<its name>)",
        )
    labels = label_list(table)
    if INVALID in labels:
        raise DataError(
            f"{source}: a label is called {INVALID!r}, which means 'take it out' in a fixes file", "rename the label"
        )
    if len(labels) < 2:
        raise DataError(
            f"{source}: all {len(table):,} samples have one label, {labels[0]!r}; a classifier needs two or more",
            "data.root must be the folder that holds one folder per label, not one of those folders",
        )
    return labels


def table_fingerprint(table: pd.DataFrame) -> str:
    """Returns a SHA-256 (hex) of the ids, labels, groups and splits: equal if and only if the samples are."""
    digest = hashlib.sha256()
    for values in (table.index, *(table[name] for name in ("label", "group", "split"))):
        digest.update("\x1f".join("" if pd.isna(value) else str(value) for value in values).encode())
        digest.update(b"\x1e")
    return digest.hexdigest()


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Writes a sample table as Parquet (``.parquet``) or CSV, ``sample_id`` first; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.reset_index().to_parquet(path, index=False)
    else:
        table.to_csv(path)
    return path
