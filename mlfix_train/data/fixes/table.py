"""The fixes file: what a reviewer decided, read, validated, applied and written.

A fixes file is a CSV with the columns ``sample_id,new_label[,old_label,reviewer,time,note]``. ``new_label`` is a label
or ``invalid`` (take the sample out). MLfix's own file is read too: its first column has no name and holds paths that
begin with the folder of the images. FiftyOne's, Label Studio's and cleanlab's files are read by
:mod:`mlfix_train.data.fixes.importers`.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.csv_rows import read_rows
from mlfix_train.data.fixes.importers import cleanlab_fixes, read_json_fixes
from mlfix_train.data.samples import INVALID, label_list
from mlfix_train.errors import FixesError, did_you_mean, format_list, nearest

log = logging.getLogger(__name__)

COLUMNS = ("sample_id", "new_label", "old_label", "reviewer", "time", "note")
ALLOWANCES = ("unknown_samples", "new_labels", "stale", "conflicts", "empty_labels")


def read_fixes(path: str | Path) -> pd.DataFrame:
    """Reads a fixes file.

    Args:
        path: the CSV file, or a JSON file of another tool.

    Returns:
        A DataFrame of strings with :data:`COLUMNS` (empty where the file says nothing) and ``row``, the line of the
        file (the header is line 1). ``attrs["published_format"]`` tells MLfix's own file, ``attrs["foreign"]`` another
        tool's, ``attrs["path"]`` the path.

    Raises:
        FixesError: the file is missing, not UTF-8, or lacks a column; a row has no id or no new label.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() == ".json":
        return _as_fixes(read_json_fixes(path), path, foreign=True)
    rows = read_rows(path, "fixes.path", FixesError)
    if not rows or not any(cell.strip() for cell in rows[0][1]):
        raise FixesError(f"{path} is empty", "a fixes file begins with the line sample_id,new_label")
    header = [cell.strip() for cell in rows[0][1]]
    published = header[0] in ("", "Unnamed: 0") and "new_label" in header
    if published:
        header[0] = "sample_id"
    if "is_label_issue" in header:
        return _as_fixes(cleanlab_fixes(header, rows[1:], path), path, foreign=True)
    missing = [name for name in ("sample_id", "new_label") if name not in header]
    if missing:
        raise FixesError(
            f"{path}: the header {','.join(header)!r} lacks {format_list(missing)}",
            "name the columns sample_id,new_label (and, if you like, old_label,reviewer,time,note)",
        )
    records = []
    for line, cells in rows[1:]:
        if not any(cells):
            continue
        if len(cells) > len(header):
            raise FixesError(
                f"{path}: line {line} has {len(cells)} cells, the header {len(header)}: {','.join(cells)!r}",
                'put names that hold a comma in double quotes: "a,b.jpg",invalid',
            )
        record = dict(zip(header, cells, strict=False))
        for name in ("sample_id", "new_label"):
            if not record.get(name):
                raise FixesError(
                    f"{path}: line {line} has no {name}: {','.join(cells)!r}", "complete or remove the line"
                )
        records.append({"row": line, **record})
    return _as_fixes(records, path, published=published)


def _as_fixes(
    records: list[dict[str, Any]], path: Path, published: bool = False, foreign: bool = False
) -> pd.DataFrame:
    rows = [{"row": record["row"], **{name: record.get(name, "") for name in COLUMNS}} for record in records]
    fixes = pd.DataFrame(rows, columns=["row", *COLUMNS])
    fixes.attrs.update(published_format=published, foreign=foreign, path=str(path))
    return fixes


def match_fixes(fixes: pd.DataFrame, table: pd.DataFrame, allow: Collection[str] = ()) -> pd.DataFrame:
    """Checks fixes against a sample table and brings their ids into its form.

    Args:
        fixes: from :func:`read_fixes`.
        table: a sample table.
        allow: what is allowed on purpose, of :data:`ALLOWANCES`: ``unknown_samples`` are left out, ``new_labels`` are
            taken, ``stale`` answers are applied, of ``conflicts`` the last line wins, ``empty_labels`` may appear.

    Returns:
        ``fixes``, one row a sample, indexed by ``sample_id``, with ``given_label``.

    Raises:
        FixesError: an id that isn't in the table, a label that no sample bears, an ``old_label`` that no longer
            matches, a sample with two answers, or a label left without any sample; each with row, value and hint.
    """
    source = fixes.attrs.get("path", "the fixes")
    for name in allow:
        if name not in ALLOWANCES:
            raise FixesError(f"fixes.allow={name} is not known", did_you_mean(name, ALLOWANCES))
    fixes = _known_samples(fixes, table, source, allow)
    given = table["label"].reindex(fixes["sample_id"]).to_numpy()
    fixes = fixes.assign(given_label=given)
    if fixes.attrs.get("foreign"):
        fixes = fixes[fixes["new_label"] != fixes["given_label"]]  # looked at, and left as it was
    _check_labels(fixes, label_list(table), source, allow)
    _check_stale(fixes, source, allow)
    _check_conflicts(fixes, source, allow)
    fixes = fixes.drop_duplicates("sample_id", keep="last").set_index("sample_id")
    if "empty_labels" not in allow:
        _check_emptied(fixes, table, source)
    return fixes


def _known_samples(fixes: pd.DataFrame, table: pd.DataFrame, source: str, allow: Collection[str]) -> pd.DataFrame:
    """Resolves ids; paths of other tools may begin with folders that the table's ids don't have, or lack a suffix."""
    known = table.index
    if fixes.attrs.get("foreign"):
        fixes = fixes.assign(sample_id=_by_path(fixes["sample_id"], table))
    if fixes.attrs.get("published_format") or fixes.attrs.get("foreign"):
        fixes = fixes.assign(sample_id=[_strip_folders(name, known) for name in fixes["sample_id"]])
    unknown = fixes[~fixes["sample_id"].isin(known)]
    if len(unknown) and "unknown_samples" not in allow:
        first = unknown.iloc[0]
        hint = nearest(first["sample_id"], known[:20_000])
        raise FixesError(
            f"{source}: {len(unknown):,} of {len(fixes):,} lines name a sample that isn't in the data",
            (f"did you mean {hint[0]!r}? " if hint else "")
            + "Give the data that the fixes were made for, or fixes.allow=[unknown_samples] to leave these lines out",
            _lines(unknown, "sample_id"),
        )
    if len(unknown):
        log.warning("%s: %d lines name samples that aren't in the data and are left out", source, len(unknown))
    return fixes[fixes["sample_id"].isin(known)]


def _by_path(names: pd.Series, table: pd.DataFrame) -> list[str]:
    """Resolves names that are image files, or ids without their suffix, to ids; others stay."""
    known = set(table.index)
    by_path = {Path(path).as_posix(): name for name, path in table["path"].items()}
    stems: dict[str, Any] = {}
    for name in table.index:
        stem = name.rpartition(".")[0] or name
        stems[stem] = None if stem in stems else name  # two files of one stem can't be told apart
    return [str(name if name in known else by_path.get(name) or stems.get(name) or name) for name in names]


def _strip_folders(name: str, known: pd.Index) -> str:
    """Returns ``name`` less as many leading folders as make it a known id (``name`` itself if none does)."""
    candidate = name
    while candidate not in known:
        _, slash, candidate = candidate.partition("/")
        if not slash:
            return name
    return candidate


def _check_labels(fixes: pd.DataFrame, labels: list[str], source: str, allow: Collection[str]) -> None:
    strange = fixes[~fixes["new_label"].isin([*labels, INVALID])]
    if len(strange) and "new_labels" not in allow:
        first = strange.iloc[0]["new_label"]
        raise FixesError(
            f"{source}: {len(strange):,} lines give a label that no sample bears",
            f"for {first!r}: {did_you_mean(first, [*labels, INVALID])} "
            "Or fixes.allow=[new_labels] if it is meant to be new",
            _lines(strange, "new_label"),
        )


def _check_stale(fixes: pd.DataFrame, source: str, allow: Collection[str]) -> None:
    stale = fixes[(fixes["old_label"] != "") & (fixes["old_label"] != fixes["given_label"].fillna(""))]
    if len(stale) and "stale" not in allow:
        details = [
            f"line {row.row}: {row.sample_id}: old_label {row.old_label!r}, now {row.given_label!r}"
            for row in stale.head(5).itertuples()
        ]
        raise FixesError(
            f"{source}: {len(stale):,} lines were made for another label than the sample has now (old_label)",
            "review these samples again, or fixes.allow=[stale] to apply the lines all the same",
            details,
        )


def _check_conflicts(fixes: pd.DataFrame, source: str, allow: Collection[str]) -> None:
    answers = fixes.groupby("sample_id", sort=False)["new_label"].nunique()
    torn = fixes[fixes["sample_id"].isin(answers[answers > 1].index)]
    if len(torn) and "conflicts" not in allow:
        details = [f"line {row.row}: {row.sample_id} -> {row.new_label!r}" for row in torn.head(6).itertuples()]
        raise FixesError(
            f"{source}: {torn['sample_id'].nunique():,} sample(s) have two different answers",
            "keep one line for each, or fixes.allow=[conflicts] to let the last line win",
            details,
        )


def _check_emptied(fixes: pd.DataFrame, table: pd.DataFrame, source: str) -> None:
    labels, keep = apply_fixes(table["label"], fixes)
    emptied = sorted(set(table["label"].dropna()) - set(labels[keep].dropna()))
    if emptied:
        raise FixesError(
            f"{source}: the fixes leave no sample of {len(emptied)} label(s): {format_list(emptied)}",
            "check them, or fixes.allow=[empty_labels] if the label is meant to vanish",
        )


def _lines(rows: pd.DataFrame, column: str) -> list[str]:
    shown = [f"line {row['row']}: {row['sample_id']} -> {row['new_label']!r}" for _, row in rows.head(5).iterrows()]
    return shown if len(rows) <= 5 else [*shown, f"... and {len(rows) - 5:,} more"]


def apply_fixes(labels: pd.Series, fixes: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Applies matched fixes to labels.

    Args:
        labels: given labels, indexed by ``sample_id``.
        fixes: from :func:`match_fixes`; samples that ``labels`` lacks are passed over.

    Returns:
        The new labels (unchanged where the sample is marked invalid) and a boolean Series, false where the sample is
        taken out; both indexed like ``labels``.
    """
    new = fixes["new_label"].reindex(labels.index)
    keep = new.ne(INVALID) | new.isna()
    changed = labels.where(new.isna() | ~keep, new)
    return changed, keep.astype(bool)


def write_fixes(fixes: pd.DataFrame, path: str | Path) -> Path:
    """Writes fixes (columns of :data:`COLUMNS`, or indexed by ``sample_id``) as CSV, atomically; returns the path."""
    path = Path(path)
    if "sample_id" not in fixes.columns:
        fixes = fixes.reset_index()
    frame = fixes.reindex(columns=list(COLUMNS)).fillna("").astype(str)
    torn = any("\r" in cell for cell in frame.to_numpy().ravel())
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        # csv leaves a bare carriage return unquoted, and could not read it back.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if torn else csv.QUOTE_MINIMAL)
        writer.writerows(frame.to_numpy().tolist())
        file.flush()
        os.fsync(file.fileno())
    return path


def fixes_fingerprint(fixes: pd.DataFrame) -> str:
    """Returns a SHA-256 (hex) of which sample gets which label, whatever order the lines stand in."""
    pairs = sorted(zip(fixes.index.astype(str), fixes["new_label"].astype(str), strict=True))
    return hashlib.sha256("\x1e".join(f"{a}\x1f{b}" for a, b in pairs).encode()).hexdigest()
