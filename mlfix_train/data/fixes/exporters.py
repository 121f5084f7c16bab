"""Fixed copies of data: of class folders, of a table, of a Hugging Face data set. The source is never written to.

Each copy is read back and compared before its function returns; on any error it is removed. ``changes.csv`` in it lists
what differs from the source.
"""

import csv
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from PIL import Image

from mlfix_train.data.crops.names import escape_name
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.files.documents import decode_text
from mlfix_train.data.files.tables import column_text, find_header
from mlfix_train.data.files.walk import is_of_system
from mlfix_train.data.fixes.table import apply_fixes
from mlfix_train.data.pixels.containers import is_contained, open_bytes, read_contained
from mlfix_train.data.pixels.formats import image_suffixes
from mlfix_train.data.readers.files import SPLIT_NAMES
from mlfix_train.data.readers.hf import HfData, arrow_column, class_names, label_values, quiet_and_offline
from mlfix_train.data.readers.labels import label_texts
from mlfix_train.data.samples import INVALID
from mlfix_train.errors import ConfigError, DataError, format_list

log = logging.getLogger(__name__)

LINKS = ("copy", "hard", "symbolic")
"""How an image file gets into a copy of class folders."""
SEPARATORS = (",", ";", "\t", "|")
CHANGES = "changes.csv"
UNLABELLED = "unlabelled"
"""Folder of samples without a label."""


@dataclass(frozen=True)
class FixedCopy:
    """What was written: the file or folder to read next, and counts of samples."""

    path: Path
    samples: int
    relabeled: int
    excluded: int
    renamed: int = 0


def write_fixed_folder(table: pd.DataFrame, fixes: pd.DataFrame, out: Path, links: str = "copy") -> FixedCopy:
    """Writes images as class folders, ``[<split>/]<label>/...``, in which fixes are applied.

    Paths of class folders stay, but for the folder of the label. An image whose new place is taken gets its old label,
    and if that is not enough a number, at the end of its name.

    Args:
        table: Sample table of any reader; images inside other files become files.
        fixes: Matched fixes, indexed by ``sample_id``.
        out: An empty or new folder.
        links: ``copy``, ``hard`` (no space, but the copy's images are the source's: an edit changes both, and the
            times of the source's files change) or ``symbolic``.

    Raises:
        ConfigError: ``out`` is on another device than the images, for hard links.
        DataError: An image is missing, or the copy read back differs.
    """
    labels, keep = apply_fixes(table["label"], fixes)
    splits = table["split"].astype(str)
    with_splits = bool((splits != "").all()) and set(splits.str.lower()) <= set(SPLIT_NAMES)
    if not with_splits and (splits != "").any():
        log.info("splits are not kept: folders stand for %s only", format_list(dict.fromkeys(SPLIT_NAMES.values())))
    folders = {part for path in table["path"] for part in PurePosixPath(str(path)).parent.parts}
    _note_names(labels[keep], folders)
    old, moved = table["label"], labels.ne(table["label"]) & ~(labels.isna() & table["label"].isna())
    order = [name for name in table.index[keep] if not moved[name]] + list(table.index[keep & moved])
    places: dict[str, str] = {}
    taken: set[str] = set()
    renamed: dict[str, str] = {}
    for name in order:
        folder = f"{splits[name].lower()}/" if with_splits else ""
        place = _folder_of(labels[name], folders)
        wanted = folder + _place(str(name), str(table.at[name, "path"]), old[name], place, with_splits)
        places[name] = _free_name(wanted, taken, old[name])
        taken.add(places[name])
        if places[name] != wanted:
            renamed[name] = places[name]
    if renamed:
        shown = format_list((f"{name} is {place}" for name, place in renamed.items()), 3)
        log.info("%d names were taken, so these are others: %s", len(renamed), shown)
    _check_there(table["path"][keep])
    with _new_folder(out) as made:
        for name in table.index[keep]:
            _put_image(str(table.at[name, "path"]), made / places[name], links)
        moves = {name: place for name, place in places.items() if moved[name] or name in renamed}
        _write_changes(made, table, labels, keep, moves)
        wanted_labels = {places[name]: _folder_of(labels[name], folders) for name in places}
        found = {
            path.relative_to(made).as_posix(): path.relative_to(made).parts[1 if with_splits else 0]
            for path in made.rglob("*")
            if not path.is_dir() and path.name != CHANGES
        }
        _compare(wanted_labels, found)
    return FixedCopy(out, len(places), int((moved & keep).sum()), int((~keep).sum()), len(renamed))


def _check_there(paths: pd.Series) -> None:
    """Raises a DataError if images are not there, or are links to nothing."""
    missing = [path for path in map(str, paths) if not is_contained(path) and not os.path.exists(path)]
    if missing:
        links = sum(map(os.path.islink, missing))
        problem = f"{len(missing):,} images are missing" + (f", {links:,} of them links to nothing" if links else "")
        hint = "restore them, or mark their samples invalid in the fixes"
        raise DataError(problem, hint, [*missing[:5], *(["..."] if len(missing) > 5 else [])])


def extract_images(paths: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Writes images that are inside other files to ``<folder>/<sample_id>``; returns the image file of each sample.

    Args:
        paths: ``sample_id`` to path.
        folder: Where the images go; it is made if there are any.

    Raises:
        DataError: An image is missing.
    """
    found = dict(paths)
    for name, path in paths.items():
        if is_contained(path):
            target = folder / _with_suffix("/".join(_safe_parts(name)), path)
            _put_image(path, target, "copy")
            found[name] = os.path.abspath(target)
    written = sum(is_contained(path) for path in paths.values())
    if written:
        log.info("%d images are not files of their own: copies are in %s ({file} in url=)", written, folder)
    return found


def _note_names(labels: pd.Series, folders: Collection[str]) -> None:
    names = {label: _folder_of(label, folders) for label in labels.dropna().unique()}
    encoded = [f"{label!r} as {name}" for label, name in names.items() if name != label]
    if encoded:
        log.warning("%d label(s) can't be the name of a folder: %s", len(encoded), format_list(encoded, 3))
    if labels.isna().any():
        log.info("%d samples have no label: they are in %s/", int(labels.isna().sum()), UNLABELLED)


def _folder_of(label: Any, folders: Collection[str]) -> str:
    """Returns the folder of a label: its name if the data have such a folder, else one that any reader takes."""
    if pd.isna(label):
        return UNLABELLED
    if label in folders:
        return str(label)
    name = escape_name(str(label))
    return f"%{ord(name[0]):02X}{name[1:]}" if is_of_system((str(label),)) and name.isascii() else name


def _place(name: str, path: str, old: Any, folder: str, with_splits: bool) -> str:
    """Returns the place of an image in its split: its id, with the new label's folder for that of the old one."""
    parts = _safe_parts(name)
    if with_splits and len(parts) > 1 and parts[0].lower() in SPLIT_NAMES:
        parts = parts[1:]
    if len(parts) > 1 and parts[0] == old:
        parts = parts[1:]
    return "/".join([folder, *parts[:-1], _with_suffix(parts[-1], path)])


def _safe_parts(name: str) -> list[str]:
    return [part for part in PurePosixPath(name).parts if part not in ("/", "..")]


def _with_suffix(name: str, path: str) -> str:
    return name if os.path.splitext(name)[1].lower() in image_suffixes() else name + _suffix(path)


def _suffix(path: str) -> str:
    """Returns the suffix of an image whose id has none."""
    if not is_contained(path):
        return os.path.splitext(path)[1]
    if path.startswith("torchvision://"):
        return ".png"
    try:
        with Image.open(open_bytes(path)) as image:
            name = str(image.format).lower()
        return {"jpeg": ".jpg", "tiff": ".tif"}.get(name, f".{name}")
    except Exception:  # it is copied as it is
        return ".jpg"


def _free_name(wanted: str, taken: set[str], old: Any) -> str:
    stem, suffix = os.path.splitext(wanted)
    number, name = 1, wanted
    while name in taken:
        name = f"{stem}-{_folder_of(old, ())}{f'-{number}' if number > 1 else ''}{suffix}"
        number += 1
    return name


def _put_image(path: str, target: Path, links: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if is_contained(path):
            target.write_bytes(read_contained(path))
        elif links == "hard":
            os.link(os.path.realpath(path), target)
        elif links == "symbolic":
            os.stat(path)
            target.symlink_to(os.path.abspath(path))
        else:
            shutil.copy2(path, target)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing", "restore it, or mark its sample invalid in the fixes") from error
    except OSError as error:
        if links == "hard" and not is_contained(path):
            problem = f"{path} can't be linked to {target}: {error.strerror}"
            raise ConfigError(problem, "set links=symbolic or links=copy, or an out= on the same disk") from error
        raise


def write_fixed_table(source: Path, table: pd.DataFrame, fixes: pd.DataFrame, column: str, out: Path) -> FixedCopy:
    """Writes a copy of a CSV or Parquet file with fixed labels, without rows marked invalid; the rest stays as it is.

    Args:
        source: The file.
        table: What :func:`mlfix_train.data.readers.table.read_table` returned of it.
        fixes: Matched fixes, indexed by ``sample_id``.
        column: Name of the label column in the file.
        out: An empty or new folder; the copy has the name of ``source``.

    Raises:
        DataError: The file has no such column, other rows than ``table``, or the copy read back differs.
    """
    labels, keep = apply_fixes(table["label"], fixes)
    moved = labels.ne(table["label"]) & ~(labels.isna() & table["label"].isna())
    with _new_folder(out) as made:
        target = made / source.name
        if source.suffix.lower() in (".parquet", ".pq"):
            _write_fixed_parquet(source, target, column, table, labels, keep)
            found = _parquet_labels(target, column)
        else:
            values, paths = {*table["label"], *labels, *table.index}, list(map(str, table["path"]))
            text = CsvText(source, column, lambda cell: cell in values or any(path.endswith(cell) for path in paths))
            _check_rows(source, text.labels(), table)
            changed = [None if pd.isna(label) else str(label) for label in labels.where(moved)]
            target.write_bytes(text.changed(changed, keep.tolist()))
            found = CsvText(target, column, text.is_value).labels()
        wanted = [label.strip() for label in labels[keep].fillna("")]  # blanks don't count in a CSV
        _compare(dict(enumerate(wanted)), dict(enumerate(label.strip() for label in found)))
        _write_changes(made, table, labels, keep, {})
    return FixedCopy(out / source.name, int(keep.sum()), int((moved & keep).sum()), int((~keep).sum()))


def _check_rows(source: object, given: Sequence[str], table: pd.DataFrame) -> None:
    wanted = [label.strip() for label in table["label"].fillna("")]
    found = [label.strip() for label in given]
    if found != wanted:
        pairs = zip(found, wanted, strict=False)
        row = next((row for row, (one, other) in enumerate(pairs, start=1) if one != other), len(wanted) + 1)
        problem = f"{source}: the labels from row {row} on are not those that were read of it"
        raise DataError(problem, "run the command again; if it fails again, save the file as plain CSV UTF-8 first")


class CsvText:
    """The text of a CSV file and where its cells are, so that single ones can be changed.

    Args:
        path: The file; UTF-8, UTF-16 or UTF-32.
        column: Name of the label column; among the usual separators, that with which the header has it is taken.
        is_value: Whether a first cell that begins with a ``#`` is a value; if not, its line is a comment.

    Raises:
        DataError: The header has no such column.
    """

    def __init__(self, path: Path, column: str, is_value: Callable[[str], bool]) -> None:
        self.is_value = is_value
        self.text, self.encoding, self.mark = decode_text(path.read_bytes())
        named, start = find_header(self.text, [column])
        for separator in [named] if named else SEPARATORS:
            rows = [row for row in self._cells(start, separator) if any(map(self.value, row))]
            names = [self.value(cell) for cell in rows[0]] if rows else []
            found = [place for place, name in enumerate(names) if name == column]
            found = found or [place for place, name in enumerate(names) if _simple(name) == _simple(column)]
            if found:
                self.separator, self.column = separator, found[0]
                self.rows = [row for row in rows[1:] if not self._is_comment(row, len(names))]
                return
        hint = "set data.columns.label to the column of the labels"
        raise DataError(f"{path}: no column {column!r} (data.columns.label)", hint)

    def _cells(self, at: int, separator: str) -> Iterator[list[tuple[int, int]]]:
        """Yields start and end of each cell of each row, quotes included."""
        pattern = re.compile(rf'[ \t]*"(?:[^"]|"")*"[^{re.escape(separator)}\r\n]*|[^{re.escape(separator)}\r\n]*')
        row: list[tuple[int, int]] = []
        while at <= len(self.text):
            found = pattern.match(self.text, at)
            assert found is not None
            row.append(found.span())
            at = found.end()
            if self.text.startswith(separator, at):
                at += 1
                continue
            yield row
            row = []
            if at == len(self.text):
                return
            at += 2 if self.text.startswith("\r\n", at) else 1

    def _is_comment(self, row: list[tuple[int, int]], width: int) -> bool:
        first = self.value(row[0])
        return first.startswith("#") and (len(row) == 1 < width or not self.is_value(first))

    def value(self, cell: tuple[int, int]) -> str:
        """Returns what a cell means, without quotes and the blanks around it."""
        text = self.text[cell[0] : cell[1]].strip()
        if len(text) > 1 and text[0] == text[-1] == '"':
            return text[1:-1].replace('""', '"').strip()
        return text

    def labels(self) -> list[str]:
        """Returns the label of each row, empty where there is none."""
        return [self.value(row[self.column]) if len(row) > self.column else "" for row in self.rows]

    def changed(self, labels: Sequence[str | None], keep: Sequence[bool]) -> bytes:
        """Returns the content with new labels (``None``: as it is) and without the rows that are not kept."""
        pieces, at = [], 0
        for row, new, kept in zip(self.rows, labels, keep, strict=True):
            if not kept:
                pieces.append(self.text[at : row[0][0]])
                end = row[-1][1]
                at = end + (2 if self.text.startswith("\r\n", end) else 1)
            elif new is not None:
                if len(row) <= self.column:
                    pieces += [self.text[at : row[-1][1]], self.separator * (self.column - len(row) + 1)]
                    start = at = row[-1][1]
                    old = ""
                else:
                    start, end = row[self.column]
                    old = self.text[start:end]
                    start, end = start + len(old) - len(old.lstrip()), end - (len(old) - len(old.rstrip()))
                    start, end = (row[self.column][0], row[self.column][1]) if not old.strip() else (start, end)
                    pieces.append(self.text[at:start])
                    at = end
                pieces.append(self._quote(new, old.strip().startswith('"')))
        pieces.append(self.text[at:])
        return self.mark + "".join(pieces).encode(self.encoding)

    def _quote(self, value: str, quoted: bool) -> str:
        needs = quoted or value != value.strip() or any(sign in value for sign in (self.separator, '"', "\r", "\n"))
        return '"' + value.replace('"', '""') + '"' if needs else value


def _simple(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _parquet_labels(path: Path, column: str) -> list[str]:
    return column_text(pd.read_parquet(path, columns=[column])[column], f"{path}: {{place}}", error_type=DataError)


def _write_fixed_parquet(
    source: Path, target: Path, column: str, table: pd.DataFrame, labels: pd.Series, keep: pd.Series
) -> None:
    """Replaces the label column; its type stays unless a new label does not fit it, in which case it becomes text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = pq.read_table(source)
    if column not in stored.column_names:
        hint = "set data.columns.label to the column of the labels"
        raise DataError(f"{source}: no column {column!r} (data.columns.label)", hint)
    _check_rows(source, _parquet_labels(source, column), table)
    place = stored.column_names.index(column)
    field, values = stored.schema.field(place), stored.column(place).to_pylist()
    known = dict(zip(table["label"], values, strict=True))
    new = [known.get(label, label) for label in labels]
    try:
        array = pa.array(new, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        log.warning("%s: new labels are no %s, the column %r becomes text", source, field.type, column)
        array = pa.array([None if pd.isna(label) else str(label) for label in labels], pa.string())
    fixed = stored.set_column(place, field.with_type(array.type), array).filter(pa.array(keep.tolist()))
    pq.write_table(fixed.replace_schema_metadata(stored.schema.metadata), target)


def write_fixed_hf(data: HfData, table: pd.DataFrame, fixes: pd.DataFrame, out: Path) -> FixedCopy:
    """Writes a Hugging Face data set with fixed labels, without samples marked invalid, as ``save_to_disk`` does.

    Splits and columns stay; a ``ClassLabel`` gets new labels at its end, numbers of the others don't change.

    Args:
        data: The data set, from :func:`mlfix_train.data.readers.hf.open_hf`.
        table: What :func:`mlfix_train.data.readers.hf.read_hf` returned of it.
        fixes: Matched fixes, indexed by ``sample_id``.
        out: An empty or new folder.

    Raises:
        DataError: The data set has no label column, other rows than ``table``, or the copy read back differs.
    """
    import datasets

    if data.label is None:
        raise DataError(f"{data.source} has no label column to fix", "set data.columns.label, or export to=folder")
    labels, keep = apply_fixes(table["label"], fixes)
    moved = labels.ne(table["label"]) & ~(labels.isna() & table["label"].isna())
    parts, start = dict[str, Any](), 0
    known = class_names(data)
    added = dict.fromkeys(label for label in labels[keep & moved] if label not in known)
    for split, part in data.splits.items():
        rows = slice(start, start + len(part))
        start += len(part)
        _check_rows(data.source, [label or "" for label in label_values(data, part)], table.iloc[rows])
        parts[split] = _fixed_split(data.label, part, labels.iloc[rows].tolist(), keep.iloc[rows].tolist(), list(added))
    with _new_folder(out) as made, quiet_and_offline(datasets):
        fixed = datasets.DatasetDict(parts) if data.has_splits else next(iter(parts.values()))
        fixed.save_to_disk(str(made))
        again = datasets.load_from_disk(str(made))
        found = [again[split] for split in parts] if data.has_splits else [again]
        written = [label or "" for part in found for label in label_values(data, part)]
        _compare(dict(enumerate(labels[keep].fillna(""))), dict(enumerate(written)))
        _write_changes(made, table, labels, keep, {})
    log.info("images are inside the copy's Arrow files: without a column of ids its samples are numbered anew")
    return FixedCopy(out, int(keep.sum()), int((moved & keep).sum()), int((~keep).sum()))


def _fixed_split(column: str, part: Any, labels: list[Any], keep: list[bool], added: list[str]) -> Any:
    """Returns a split with new labels, without the rows that are not kept."""
    import datasets

    feature, order = part.features[column], part.column_names
    given: list[Any] = arrow_column(part, column).to_pylist()
    values: list[Any]
    if isinstance(feature, datasets.ClassLabel):
        of_others = [label for label in labels if isinstance(label, str)]  # a label that only another split had
        feature = datasets.ClassLabel(names=list(dict.fromkeys([*feature.names, *added, *of_others])))
        numbers = {name: number for number, name in enumerate(feature.names)}
        values = [numbers[new] if isinstance(new, str) else old for new, old in zip(labels, given, strict=True)]
    else:
        values = [None if pd.isna(label) else label for label in labels]
        if feature.dtype not in ("string", "large_string"):
            known = dict(zip(label_texts(given, column, "data.columns.label"), given, strict=True))
            if all(label is None or label in known for label in values):
                values = [known[label] for label in values]
            else:
                log.warning("new labels are no %s, the column %r becomes text", feature.dtype, column)
                feature = datasets.Value("string")
    fixed = part.remove_columns(column).add_column(column, values, feature=feature).select_columns(order)
    return fixed.select([row for row, kept in enumerate(keep) if kept])


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yields a hidden folder beside ``out``, which becomes ``out`` once it is complete, and is removed on any error.

    So a copy that was stopped, even by a kill, is never read as data.
    """
    made = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(made, ignore_errors=True)  # of an export that was killed
    made.mkdir(parents=True)
    try:
        yield made
        if out.exists():
            out.rmdir()
        made.replace(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _write_changes(
    out: Path, table: pd.DataFrame, labels: pd.Series, keep: pd.Series, places: Mapping[str, str]
) -> None:
    """Lists samples with another label, with their ``places``, those left out (``invalid``), and those renamed."""
    rows = []
    for name, old, new, kept in zip(table.index, table["label"], labels, keep, strict=True):
        old_label, new_label = ("" if pd.isna(label) else str(label) for label in (old, new))
        if not kept or new_label != old_label or name in places:
            rows.append([name, old_label, new_label if kept else INVALID, places.get(name, "")])
    with atomic_path(out / CHANGES) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["sample_id", "old_label", "new_label", "path"], *rows])


def _compare(wanted: Mapping[Any, str], found: Mapping[Any, str]) -> None:
    """Raises a DataError if a copy read back is not as it should be."""
    if dict(wanted) == dict(found):
        return
    differing = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    details = [f"{key}: {found.get(key)!r} instead of {wanted.get(key)!r}" for key in differing[:3]]
    problem = f"the copy, read back, differs in {len(differing):,} samples from the source with the fixes applied"
    raise DataError(problem, "nothing was written; please report this, with the rows below", details)
