"""Reads a CSV or Parquet file with one row per sample."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from mlfix_train.data.files.find import FileFinder
from mlfix_train.data.files.tables import NO_HEADER, Table, infer_types, open_table
from mlfix_train.data.files.walk import find_images
from mlfix_train.data.readers.files import find_given, group_names
from mlfix_train.data.samples import make_table
from mlfix_train.errors import DataError, format_list, names_arguments, nearest

log = logging.getLogger(__name__)

COLUMNS = ("sample_id", "path", "label", "group", "split")
BOXES = {"xmin", "x_min", "xtl", "x1", "bbox", "bbox_x"}
"""Columns that tables of boxes have."""
LOOKED_UP = 200
"""Paths of a table that are looked up before all are."""


@names_arguments("data")
def read_table(
    file: str | Path,
    root: str | Path | None = None,
    columns: Mapping[str, str | None] | None = None,
    group: str | None = None,
) -> pd.DataFrame:
    """Reads a CSV or Parquet file with one row per sample, in its order; further columns are kept as metadata.

    Args:
        file: The table, CSV or Parquet, see :mod:`mlfix_train.data.files.tables`.
        root: Folder that relative paths start from; by default the folder of ``file``. Images that are not where the
            table says are looked for below it.
        columns: Names in the file of the columns ``sample_id`` (by default the path relative to ``root``), ``path``,
            ``label``, ``group`` and ``split``; by default the same names. Only ``path`` has to exist.
        group: Regular expression on the ``sample_id``, as in ``read_folder``; used if there is no group column.

    Raises:
        DataError: The file is missing, unreadable or lacks a column, or a row has no path.
    """
    source = find_given(file, "data.file", Path(), *([Path(root).expanduser()] if root else []))
    wanted = dict.fromkeys(COLUMNS) | (dict(columns) if columns is not None else {name: name for name in COLUMNS})
    table = open_table(source, "data.file", DataError, [name for name in wanted.values() if name])
    names = {key: name if name in table.frame.columns else None for key, name in wanted.items()}
    _check_columns(table, wanted, names)
    base = Path(os.path.abspath(Path(root).expanduser() if root else source.parent))
    table.leave_out_comments(_value_test(table, names, base))
    raw = table.frame
    texts = {key: table.text(name, DataError) for key, name in names.items() if name}
    given = texts["path"]
    if "" in given:
        raise DataError(f"{source}: {table.place(given.index(''))} has no path", "add it, or remove the row")
    prefix = os.path.join(base, "")
    paths = find_files([_join(prefix, value) for value in given], given, base, source)
    ids = texts.get("sample_id") or [
        path.removeprefix(prefix) if path.startswith(prefix) else Path(os.path.relpath(path, base)).as_posix()
        for path in paths
    ]
    _check_repeated(table, ids, paths, texts.get("label", []))
    labels = [value or None for value in texts.get("label", [""] * len(raw))]
    groups = texts["group"] if names["group"] else group_names(ids, group)
    if groups is not None:
        groups = [value or name for value, name in zip(groups, ids, strict=True)]
    splits = texts.get("split")
    metadata = raw.drop(columns=[name for name in names.values() if name])
    if table.lines is not None:
        table.frame = metadata
        table.read_decimal_commas(metadata.columns)
        metadata = infer_types(table.frame)
    metadata = metadata.rename(columns={name: f"{name}_in_file" for name in metadata.columns if name in COLUMNS})
    return make_table(ids, paths, labels, groups, splits, metadata, source=str(source))


def _value_test(table: Table, names: Mapping[str, str | None], base: Path) -> Callable[[str], bool]:
    """Returns which first cells that begin with a # are values: their row is a comment where what follows is one."""
    first = table.frame.columns[0]
    if first == names["label"]:
        labels = set(table.frame[first])
        return lambda cell: cell.lstrip("# ") not in labels
    if first == names["path"]:
        return lambda cell: (
            os.path.exists(base / cell) or not (cell.startswith("# ") or os.path.exists(base / cell.lstrip("# ")))
        )
    return lambda cell: not cell.startswith("# ")


def _join(prefix: str, path: str) -> str:
    """Returns a path as ``normpath(join(...))`` does; of hundreds of thousands most need neither."""
    is_plain = os.sep == "/" and path[0] not in "/." and "/." not in path and "//" not in path and path[-1] != "/"
    return prefix + path if is_plain else os.path.normpath(os.path.join(prefix, path))


def find_files(paths: list[str], given: list[str], base: Path, source: str | Path) -> list[str]:
    """Returns paths, those that don't exist replaced by the one image below ``base`` that they stand for, if any does.

    Tables written on another machine have its folders, or its backslashes. Of many paths, a part is looked up first.
    """
    if all(map(os.path.exists, paths[:: len(paths) // LOOKED_UP + 1])) or not base.is_dir():
        return paths
    images, prefix = find_images(base).images, os.path.join(base, "")
    if not images:
        return paths
    finder = FileFinder(base, images)
    there = list(map(os.path.exists, paths))
    names = [
        path.removeprefix(prefix) if exists else name for path, name, exists in zip(paths, given, there, strict=True)
    ]
    found = finder.find_all(names)
    for note in finder.notes():
        log.info("%s: %s", source, note)
    missing = [name for name, exists, file in zip(names, there, found, strict=True) if not exists and not file]
    if missing:
        log.warning(
            "%s: %d of %d images were not found: %s", source, len(missing), len(paths), finder.problem(missing[0])
        )
    return [
        path if exists or not file else os.path.join(base, file)
        for path, exists, file in zip(paths, there, found, strict=True)
    ]


def _check_repeated(table: Table, ids: list[str], paths: list[str], labels: list[str]) -> None:
    """Raises a DataError if ids repeat, and warns if images do."""
    if repeated := table.repeated(ids):
        problem = f"{table.path}: {len(repeated):,} sample_id(s) occur more than once: {format_list(repeated, 3)}"
        hint = "remove the repeated rows, or set data.columns.sample_id to a unique column"
        if BOXES.intersection(map(str.lower, table.frame.columns)):
            hint = "if the rows are boxes in photos, write them as COCO, YOLO or Pascal VOC, which `mlfix crop` reads"
        raise DataError(problem, hint)
    if repeated := table.repeated(paths):
        differ = len(set(zip(paths, labels, strict=False))) > len(set(paths))
        text = "%s: %d image(s) are in several rows%s: %s"
        more = ", some with other labels" if differ else ""
        log.warning(text, table.path, len(repeated), more, format_list(repeated, 3))


def _check_columns(table: Table, wanted: Mapping[str, str | None], names: Mapping[str, str | None]) -> None:
    """Raises a DataError without a path column, and warns without a label column."""
    source, columns = table.path, [str(name) for name in table.frame.columns]
    path, label = wanted["path"] or "path", wanted["label"]
    if path not in columns:
        if not columns:
            raise DataError(f"{source} can't be read as a table: it is empty", "set a CSV or Parquet file")
        if table.has_data_first:
            hint = f"add a first line with the names of the columns, such as path,label: {table.first_line[:80]!r}"
            raise DataError(f"{source}: no column {path!r} (data.columns.path): {NO_HEADER}", hint)
        closest = nearest(path, columns)
        guess = f"did you mean data.columns.path={closest[0]}?" if closest else "set data.columns.path=<column>."
        hint = f"{guess} It has {format_list(columns, 12)}"
        raise DataError(f"{source}: no column {path!r} (data.columns.path)", hint)
    if label and not names["label"]:
        closest = nearest(label, columns)
        hint = f"; did you mean data.columns.label={closest[0]}?" if closest else ""
        log.warning("%s has no column %r: its samples have no label%s", source, label, hint)
