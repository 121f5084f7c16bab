"""Readers: a folder of class folders, unsorted pictures, or a table of the user's own, to a sample table."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from mlfix_train.data.samples import make_table
from mlfix_train.errors import ConfigError, DataError, did_you_mean, format_list, nearest

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def read_folder(root: str | Path, group: str | None = None) -> pd.DataFrame:
    """Reads a folder of class folders, of ``train/`` and ``val/`` folders of class folders, or of unsorted pictures.

    The first folder below ``root`` is the label (deeper folders only make the ``sample_id`` longer). Where all first
    folders are named like splits (``train``, ``val``, ``test``, ...), they are the ``split`` and the second folder is
    the label. Pictures that lie in ``root`` itself have no label, and are left out, with a warning, beside class
    folders. Hidden files are ignored; links are followed, circles are not.

    Args:
        root: the folder.
        group: regular expression on the ``sample_id``; what its first parenthesis (or, without one, the whole match)
            catches names the photo or track. ``(.+)_\\d+`` groups ``stop/00003_00012.jpg`` as ``stop/00003``.

    Returns:
        A sample table sorted by ``sample_id``.

    Raises:
        DataError: the folder doesn't exist, holds no pictures, or ``group`` matches none of them.
    """
    if not str(root).strip():
        raise DataError("data.root is empty", "give the folder that holds one folder per label")
    base = Path(root).expanduser()
    if not base.is_dir():
        what = "is a file" if base.exists() else "does not exist"
        raise DataError(f"data.root={base} {what}", "give the folder that holds one folder per label")
    others: list[str] = []
    found = sorted(_walk(base, others))
    if not found:
        saw = f"it holds {len(others):,} other file(s), such as {format_list(others, 3)}" if others else "it is empty"
        raise DataError(
            f"no pictures below data.root={base}: {saw}",
            f"pictures are files that end in {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    parts = [PurePosixPath(name).parts for name in found]
    firsts = {p[0].lower() for p in parts if len(p) > 1}
    depth = 1 if firsts and firsts <= SPLIT_FOLDERS and any(len(p) > 2 for p in parts) else 0
    loose = [name for name, p in zip(found, parts, strict=True) if len(p) < depth + 2]
    if loose and len(loose) < len(found):
        log.warning("%s: %d picture(s) lie outside of the class folders and are left out: %s",
                    base, len(loose), format_list(loose, 3))  # fmt: skip
        skip = set(loose)
        kept = [(name, p) for name, p in zip(found, parts, strict=True) if name not in skip]
        found, parts = [name for name, _ in kept], [p for _, p in kept]
        loose = []
    labels = [None] * len(found) if loose else [p[depth] for p in parts]
    splits = [p[0].lower() if depth else "" for p in parts]
    prefix = os.path.abspath(base)
    paths = [os.path.join(prefix, *p) for p in parts]
    return make_table(found, paths, labels, group_names(found, group), splits, source=f"data.root={base}")


def _walk(base: Path, others: list[str]) -> Iterator[str]:
    """Yields the pictures below ``base`` as POSIX paths relative to it; collects other files in ``others``."""
    stat = os.stat(base)
    stack = [("", frozenset({(stat.st_dev, stat.st_ino)}))]
    while stack:
        relative, ancestors = stack.pop()
        try:
            entries = list(os.scandir(base / relative))
        except OSError as error:
            raise DataError(f"{base / relative} can't be read: {error.strerror}", "mend its permissions") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{relative}/{entry.name}" if relative else entry.name
            try:
                is_folder = entry.is_dir()
                if not is_folder and not entry.is_file() and os.path.exists(entry.path):
                    others.append(name)  # a pipe or a device, whatever its name
                    continue
                key = _identity(entry) if is_folder else None
            except OSError:
                others.append(name)
                continue
            if key is not None:
                if key in ancestors:
                    log.warning("%s links back to a folder above it and is not followed", base / name)
                else:
                    stack.append((name, ancestors | {key}))
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield _utf8(base, name)
            else:
                others.append(name)


def _identity(entry: os.DirEntry[str]) -> tuple[int, int]:
    stat = entry.stat()
    return stat.st_dev, stat.st_ino


def _utf8(base: Path, name: str) -> str:
    """Returns ``name`` unless its bytes are no UTF-8 (they could not be written to a CSV or JSON file)."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{str(base / name)!r}: the file's name is not UTF-8", "rename it (see `convmv`)") from error
    return name


def group_names(sample_ids: list[str], pattern: str | None, key: str = "data.group") -> list[str] | None:
    """Returns the group of each sample by a regular expression, or ``None`` without a pattern.

    Raises:
        ConfigError: the pattern is no regular expression.
        DataError: it matches no sample.
    """
    if not pattern:
        return None
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{key}={pattern} is no regular expression: {error}", "see Python's `re`") from error
    matches = [regex.search(name) for name in sample_ids]
    missed = [name for name, match in zip(sample_ids, matches, strict=True) if match is None]
    if len(missed) == len(sample_ids):
        raise DataError(
            f"{key}={pattern} matches none of the {len(sample_ids):,} samples, such as {sample_ids[0]!r}",
            r"it is a regular expression on the sample_id: '(.+)_\d+' groups a/7_01.jpg and a/7_02.jpg as a/7",
        )
    if missed:
        log.warning("%s matches all but %d samples, which stand alone: %s", key, len(missed), format_list(missed, 3))
    pick = 1 if regex.groups else 0
    return [m.group(pick) or name if m else name for name, m in zip(sample_ids, matches, strict=True)]


def read_samples_file(
    file: str | Path,
    root: str | Path | None = None,
    columns: Mapping[str, str | None] | None = None,
    group: str | None = None,
) -> pd.DataFrame:
    """Reads a CSV or Parquet file with a row a sample; further columns are kept as metadata.

    Args:
        file: the table, ``.csv`` (UTF-8) or ``.parquet``.
        root: folder that relative paths start from; by default the folder of ``file``.
        columns: names of the columns ``sample_id`` (where it is missing, the path relative to ``root``), ``path``,
            ``label``, ``group`` and ``split`` in the file. ``path`` has to be there, the others may be missing.
        group: as for :func:`read_folder`; used where there is no group column.

    Returns:
        A sample table in the file's order.

    Raises:
        DataError: the file is missing, unreadable or lacks a column, or a row has no path.
    """
    source = Path(file).expanduser()
    raw = _read_any(source, [name for name in (columns or {}).values() if name])
    names = {key: (columns or {}).get(key) for key in ("sample_id", "path", "label", "group", "split")}
    for key, name in names.items():
        if name is not None and name not in raw.columns:
            if key == "path":
                raise DataError(
                    f"{source}: no column {name!r} (data.columns.path)",
                    _separator(raw) or f"{did_you_mean(name, raw.columns)} It has {format_list(raw.columns, 12)}",
                )
            if key == "label":
                guess = nearest(name, map(str, raw.columns))
                hint = f"; did you mean data.columns.label={guess[0]}?" if guess else ""
                log.warning("%s has no column %r: its samples have no label%s", source, name, hint)
            names[key] = None
    base = Path(os.path.abspath(Path(root).expanduser() if root else source.parent))
    given = _strings(raw, names["path"] or "path")
    blank = [i for i, value in enumerate(given) if not value]
    if blank:
        raise DataError(f"{source}: row {blank[0] + 2} has no path", "give it one, or remove the row")
    paths = [os.path.normpath(os.path.join(base, value)) for value in given]
    ids = _strings(raw, names["sample_id"]) if names["sample_id"] else [_relative(path, base) for path in paths]
    labels = [value or None for value in _strings(raw, names["label"])] if names["label"] else [None] * len(raw)
    groups = _strings(raw, names["group"]) if names["group"] else group_names(ids, group)
    if groups is not None:
        groups = [value or name for value, name in zip(groups, ids, strict=True)]
    splits = _strings(raw, names["split"]) if names["split"] else None
    metadata = raw.drop(columns=[name for name in names.values() if name])
    taken = ("sample_id", "path", "label", "group", "split")
    metadata = metadata.rename(columns={name: f"{name}_in_file" for name in metadata.columns if name in taken})
    return make_table(ids, paths, labels, groups, splits, metadata, source=str(source))


def _separator(raw: pd.DataFrame) -> str:
    """Says what to do where a table looks as if its cells were parted by something else than commas."""
    only = str(raw.columns[0]) if len(raw.columns) == 1 else ""
    found = next((sign for sign in (";", "\t", "|") if sign in only), None)
    return f"its cells are parted by {found!r}: save it again with commas" if found else ""


def _strings(table: pd.DataFrame, column: str) -> list[str]:
    """Returns a column as strings, missing values as empty ones."""
    return ["" if pd.isna(value) else str(value) for value in table[column]]


def _relative(path: str, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


def _check_widths(source: Path) -> None:
    """Raises a DataError for a line with more cells than the header (pandas would shift its columns)."""
    with open(source, encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        width = len(next(lines, []))
        for cells in lines:
            if len(cells) > width:
                raise DataError(
                    f"{source}: line {lines.line_num} has {len(cells)} cells, the header {width}: {','.join(cells)!r}",
                    'put values that hold a comma in double quotes: "a,b.jpg"',
                )


def _read_any(source: Path, text: list[str]) -> pd.DataFrame:
    """Reads a table; ``text`` names columns that stay text (a label ``020`` is no number)."""
    if not source.is_file():
        raise DataError(f"data.file={source} does not exist", "give a CSV or Parquet file with a row a sample")
    try:
        if source.suffix.lower() in {".parquet", ".pq"}:
            table = pd.read_parquet(source)
            return table.reset_index() if table.index.name else table
        # Only empty cells are missing: a label may well be "NA" or "null".
        _check_widths(source)
        types = dict.fromkeys(text, str)
        return pd.read_csv(
            source, keep_default_na=False, na_values=[""], encoding="utf-8-sig", dtype=types, index_col=False
        )
    except UnicodeDecodeError as error:
        kind = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        where = error.object[: error.start].count(b"\n") + 1 if len(error.object) > 2 else 1
        raise DataError(
            f"{source} is {kind} (byte {error.start})", f"save it again as CSV UTF-8 (see line {where})"
        ) from error
    except (ValueError, OSError, csv.Error) as error:
        raise DataError(f"{source} can't be read as a table: {error}", "give a CSV or Parquet file") from error


def read_crops(root: str | Path) -> pd.DataFrame:
    """Reads the crops that ``mlfix crop`` made: photos are groups, and all that the annotations say is metadata.

    Args:
        root: its ``out``.

    Returns:
        A sample table.

    Raises:
        DataError: no crops there, or a cropping that is not finished.
    """
    base = Path(str(root)).expanduser()
    file = base / "samples.parquet"
    if not file.is_file():
        what = "an unfinished cropping: give its command again" if (base / "crop.json").is_file() else "no crops"
        raise DataError(f"data.root={root} holds {what} (samples.parquet is missing)",
                        "give the folder that `mlfix crop` wrote; data=folder reads class folders")  # fmt: skip
    try:
        finished = json.loads((base / "crop.json").read_text(encoding="utf-8")).get("status") == "finished"
    except FileNotFoundError:
        finished = True  # a table and its crops without what made them
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{base / 'crop.json'} can't be read: {error}", "crop again") from error
    if not finished:
        raise DataError(f"data.root={root} holds an unfinished cropping", "give the command of `mlfix crop` again")
    return read_samples_file(file, columns={name: name for name in ("sample_id", "path", "label", "group", "split")})
