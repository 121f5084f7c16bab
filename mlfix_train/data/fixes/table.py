"""The fixes file: what a reviewer decided; read, checked against the samples, applied and written.

A fixes file is a CSV (or Parquet) file with the columns ``sample_id,new_label[,old_label,reviewer,time,note]``.
``new_label`` is a label or ``invalid`` (exclude the sample); the given label (looked at, and right) and ``unsure``
change nothing. MLfix's own file is read as well: its first column has no name and holds paths that begin with the
folder of the images. :mod:`mlfix_train.data.fixes.importers` reads other tools' files, and
:mod:`mlfix_train.data.matching` finds samples that are called by another path.
"""

import csv
import hashlib
import logging
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.tables import UNNAMED, is_json, open_table
from mlfix_train.data.fixes.importers import (
    CLEANLAB_COLUMNS,
    LABEL_STUDIO_COLUMNS,
    cleanlab_fixes,
    label_studio_fixes,
    read_json_fixes,
)
from mlfix_train.data.matching import IdMatcher, spelled_alike
from mlfix_train.data.samples import INVALID, UNSURE, known_labels
from mlfix_train.errors import FixesError, did_you_mean, format_list, nearest

log = logging.getLogger(__name__)

COLUMNS = ("sample_id", "new_label", "old_label", "reviewer", "time", "note")
IGNORABLE = ("unknown_samples", "new_labels", "stale", "conflicts", "empty_labels")
"""Problems of a fixes file that can be ignored, see :func:`match_fixes`."""


def read_fixes(path: str | Path) -> pd.DataFrame:
    """Reads a fixes file: a CSV or Parquet file, or a JSON file of another tool.

    Returns:
        A DataFrame of strings with :data:`COLUMNS` (empty where the file has no value) and ``row``, the line in the
        file (the header is line 1). ``attrs["published_format"]`` marks MLfix's own file, ``attrs["foreign"]`` another
        tool's; ``attrs["path"]`` is the path.

    Raises:
        FixesError: The file is missing or can't be read, or lacks a column; a row has no id or no new label.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() == ".json" or is_json(path):
        return _to_frame(read_json_fixes(path), path, foreign=True)
    table = open_table(path, "fixes.path", FixesError, (*COLUMNS, *CLEANLAB_COLUMNS))
    names = list(table.frame.columns)
    if not names:
        raise FixesError(f"{path} is empty", "a fixes file begins with the line sample_id,new_label")
    published = names[0] == UNNAMED and "new_label" in names and "sample_id" not in names
    if published:
        table.frame = table.frame.rename(columns={UNNAMED: "sample_id"})
    if "is_label_issue" in names:
        return _to_frame(cleanlab_fixes(table), path, foreign=True)
    if "new_label" not in names and len({*LABEL_STUDIO_COLUMNS} & {*names}) > 1:
        return _to_frame(label_studio_fixes(table), path, foreign=True)
    missing = [name for name in ("sample_id", "new_label") if name not in table.frame.columns]
    if missing:
        header = table.first_line or ",".join(names)
        problem = f"{path}: the header {header!r} lacks {format_list(missing)}"
        hint = "name the columns sample_id,new_label (optionally also old_label,reviewer,time,note)"
        raise FixesError(problem, hint)
    cells = {name: table.text(name, FixesError) for name in COLUMNS if name in table.frame.columns}
    for name in ("sample_id", "new_label"):
        if "" in cells[name]:
            row = cells[name].index("")
            text = ",".join(map(str, table.frame.iloc[row]))
            raise FixesError(f"{path}: {table.place(row)} has no {name}: {text!r}", "complete or remove the line")
    numbers = table.lines if table.lines is not None else range(1, len(table.frame) + 1)
    rows = zip(numbers, *cells.values(), strict=True)
    records = [{"row": row, **dict(zip(cells, values, strict=True))} for row, *values in rows]
    return _to_frame(records, path, published=published)


def _to_frame(
    records: list[dict[str, Any]], path: Path, published: bool = False, foreign: bool = False
) -> pd.DataFrame:
    rows = [[record["row"], *(record.get(name, "") for name in COLUMNS)] for record in records]
    fixes = pd.DataFrame(rows, columns=["row", *COLUMNS])
    fixes.attrs.update(published_format=published, foreign=foreign, path=str(path))
    return fixes


def match_fixes(
    fixes: pd.DataFrame, table: pd.DataFrame, ignore: Collection[str] = (), answers: bool = False
) -> pd.DataFrame:
    """Checks fixes (from :func:`read_fixes`) against a sample table and converts their ids to its form.

    Of :data:`IGNORABLE`, ``ignore`` names problems to ignore: ``unknown_samples`` are left out, ``new_labels`` and
    ``stale`` lines are applied, of ``conflicts`` the last line wins, ``empty_labels`` may appear. Lines that change
    nothing, ``unsure`` and the given label, are left out after they were checked, unless ``answers`` are wanted.

    Returns:
        ``fixes``, one row per sample, indexed by ``sample_id``, with ``given_label``.

    Raises:
        FixesError: An id that isn't in the table, a label that no sample has nor the data's class list, an
            ``old_label`` that no longer matches, a sample with two new labels, or a label left without any sample; each
            with line, value and hint.
    """
    source = fixes.attrs.get("path", "the fixes")
    for name in ignore:
        if name not in IGNORABLE:
            raise FixesError(f"fixes.ignore={name} is not known", did_you_mean(name, IGNORABLE))
    labels = [*known_labels(table), INVALID, UNSURE]
    fixes = _match_labels(_match_samples(fixes, table, source, ignore), labels, source)
    fixes = fixes.assign(given_label=table["label"].reindex(fixes["sample_id"]).to_numpy())
    if fixes.attrs.get("foreign"):
        fixes = fixes[fixes["new_label"] != fixes["given_label"]]  # reviewed, and left as it was
    _check_labels(fixes, labels, source, ignore)
    fixes = fixes.drop_duplicates("sample_id", keep="last").set_index("sample_id")
    if answers:
        return fixes
    fixes = fixes[~_changes_nothing(fixes, labels, source)]
    new, keep = apply_fixes(table["label"], fixes)
    emptied = sorted(set(table["label"].dropna()) - set(new[keep].dropna()))
    if emptied and "empty_labels" not in ignore:
        problem = f"{source}: the fixes leave no sample of {len(emptied)} label(s): {format_list(emptied)}"
        raise FixesError(problem, "check them, or set fixes.ignore=[empty_labels] if the label is meant to disappear")
    return fixes


def _changes_nothing(fixes: pd.DataFrame, labels: list[str], source: str) -> pd.Series:
    """Returns which fixes leave the label as it is: those of a reviewer who was unsure, or kept it."""
    is_unsure = (fixes["new_label"] == UNSURE) & (labels.count(UNSURE) == 1)  # else a label has this name
    is_kept = fixes["new_label"] == fixes["given_label"]
    if is_unsure.any() or is_kept.any():
        text = "%s: %d sample(s) marked %s, and %d kept as given, keep their label"
        log.info(text, source, int(is_unsure.sum()), UNSURE, int(is_kept.sum()))
    return is_unsure | is_kept


def _match_samples(fixes: pd.DataFrame, table: pd.DataFrame, source: str, ignore: Collection[str]) -> pd.DataFrame:
    """Resolves names of samples to ids where that is certain, and leaves out unknown ones if they are ignored."""
    names = fixes["sample_id"]
    if names.isin(table.index).all():
        return fixes
    matched = IdMatcher(table).match(names)
    comments = names.str.startswith("#") & ~names.isin([*matched.ids, *matched.ambiguous])
    if comments.any():
        lines = format_list(fixes["row"][comments], 3)
        log.info("%s: %d line(s) begin with a # and are left out: line %s", source, int(comments.sum()), lines)
        fixes = fixes[~comments]
    matched.log(source)
    fixes = fixes.assign(sample_id=[matched.ids.get(name, name) for name in fixes["sample_id"]])
    is_known = fixes["sample_id"].isin(table.index)
    unknown = fixes[~is_known]
    if len(unknown) and "unknown_samples" not in ignore:
        problem = f"{source}: {len(unknown):,} of {len(fixes):,} lines name a sample that isn't in the data"
        hint = "Use the data that the fixes were made for, or fixes.ignore=[unknown_samples] to leave these lines out"
        first = unknown.iloc[0]["sample_id"]
        reason = matched.ambiguous.get(first)
        if reason:
            problem = f"{source}: {len(unknown):,} of {len(fixes):,} lines name no sample for certain"
            raise FixesError(problem, f"For {first!r}, {reason}: use the whole sample_id. {hint}", _lines(unknown))
        numbers = re.findall(r"\d+", first)  # another number is another sample
        same = (name for name in table.index[:20_000] if re.findall(r"\d+", name) == numbers)
        closest = nearest(first, same)
        raise FixesError(problem, f"did you mean {closest[0]!r}? {hint}" if closest else hint, _lines(unknown))
    if len(unknown):
        log.warning("%s: %d lines name samples that aren't in the data and are left out", source, len(unknown))
    return fixes[is_known]


def _match_labels(fixes: pd.DataFrame, labels: list[str], source: str) -> pd.DataFrame:
    """Returns fixes with labels in the spelling of the data, if only blanks, ``1`` and ``1.0``, or Unicode differ.

    A label that could be any of several stays as it is.
    """
    renamed: dict[str, str] = {}
    for column in ("new_label", "old_label"):
        alike = spelled_alike(fixes[column].unique(), labels)
        renamed |= {name: found[0] for name, found in alike.items() if name and len(found) == 1}
    if not renamed:
        return fixes
    pairs = format_list((f"{name!r} is {label!r}" for name, label in renamed.items()), 3)
    log.info("%s: labels are spelled differently than in the data and were matched: %s", source, pairs)
    changed = {name: fixes[name].map(lambda label: renamed.get(label, label)) for name in ("new_label", "old_label")}
    return fixes.assign(**changed)


def _check_labels(fixes: pd.DataFrame, labels: list[str], source: str, ignore: Collection[str]) -> None:
    """Raises a FixesError for unknown new labels, stale old ones, and samples with two new ones."""
    unknown = fixes[~fixes["new_label"].isin(labels)]
    if len(unknown) and "new_labels" not in ignore:
        first = unknown.iloc[0]["new_label"]
        guess = did_you_mean(first, labels)
        guess += "" if guess.endswith("?") else "."
        hint = f"for {first!r}: {guess} Or fixes.ignore=[new_labels] if it is meant to be new"
        raise FixesError(f"{source}: {len(unknown):,} lines have a new_label that no sample has", hint, _lines(unknown))
    stale = fixes[(fixes["old_label"] != "") & (fixes["old_label"] != fixes["given_label"].fillna(""))]
    if len(stale) and "stale" not in ignore:
        rows = stale.head(5).itertuples()
        raise FixesError(
            f"{source}: {len(stale):,} lines have an old_label that is not the sample's label in the data",
            "review these samples again, or set fixes.ignore=[stale] to apply the lines anyway",
            [f"line {row.row}: {row.sample_id}: old_label {row.old_label!r}, now {row.given_label!r}" for row in rows],
        )
    answers = fixes.groupby("sample_id", sort=False)["new_label"].nunique()
    conflicting = fixes[fixes["sample_id"].isin(answers[answers > 1].index)]
    if len(conflicting) and "conflicts" not in ignore:
        problem = f"{source}: {conflicting['sample_id'].nunique():,} sample(s) have two different new labels"
        hint = "keep one line for each, or fixes.ignore=[conflicts] to let the last line win"
        raise FixesError(problem, hint, _lines(conflicting, 6))


def _lines(rows: pd.DataFrame, limit: int = 5) -> list[str]:
    shown = [f"line {row.row}: {row.sample_id} -> {row.new_label!r}" for row in rows.head(limit).itertuples()]
    return shown if len(rows) <= limit else [*shown, f"... and {len(rows) - limit:,} more"]


def apply_fixes(labels: pd.Series, fixes: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Applies matched fixes to labels (N,), indexed by ``sample_id``; fixes of other samples are skipped.

    Returns the new labels (N,), unchanged where the sample is marked invalid, and booleans (N,), false where it is.
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
    frame = fixes.reindex(columns=list(COLUMNS)).astype(object)
    frame = frame.where(frame.notna(), "").astype(str)
    # Blanks count only inside of quotes, and the csv module could not read an unquoted carriage return back.
    quote_all = any("\r" in cell or cell != cell.strip() for cell in frame.to_numpy().ravel())
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL)
        writer.writerows(frame.to_numpy().tolist())
        file.flush()
        os.fsync(file.fileno())
    return path


def fixes_fingerprint(fixes: pd.DataFrame) -> str:
    """Returns a SHA-256 (hex) of which sample gets which label, regardless of the order of the lines."""
    pairs = sorted(zip(fixes.index.astype(str), fixes["new_label"].astype(str), strict=True))
    return hashlib.sha256("\x1e".join(f"{a}\x1f{b}" for a, b in pairs).encode()).hexdigest()
