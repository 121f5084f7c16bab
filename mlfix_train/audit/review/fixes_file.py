"""``fixes.csv`` of a review: rewritten atomically with every entry of the journal, and read when the review opens."""

import contextlib
import csv
import hashlib
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlfix_train.audit.review.marks import KEEP_CODE, Author, MarkStore, author_of
from mlfix_train.audit.review.samples import NONE
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import COLUMNS, match_fixes, read_fixes
from mlfix_train.errors import DataError, FixesError

log = logging.getLogger(__name__)

HEADER = ",".join(COLUMNS) + "\n"
EDITED = "fixes.csv, edited outside the review"
STAMP_SIZE = 512  # bytes; less than what disks write at once
MAX_DROPPED = 20  # an edited file that lacks more marks than this, and more than half of all, is refused


class Version(NamedTuple):
    """A version of the file: SHA-256 (hex), and the position in the journal, bytes, up to which it has all marks."""

    sha256: str
    position: int


class FixesFile:
    """Keeps ``fixes.csv``, the file ``path``, equal to the marks in ``store``. Use :func:`open_fixes` to open one.

    Its stamp, ``.fixes.json`` beside it, has the review and the version that is there; while the file is replaced, the
    next one too, so that one of them is the file's whenever the process is killed.

    Attributes:
        notes: What the reviewer should know.
        conflicts: Rows that a fixes file to start with marks differently, and its mark.
    """

    def __init__(self, path: Path, store: MarkStore) -> None:
        self.path, self.store = path, store
        self.notes: list[str] = []
        self.conflicts: dict[int, int] = {}
        self._stamp_path = path.with_name(".fixes.json")
        self._lines: dict[int, str] = {}  # of the marked samples, by row
        self._written: Version | None = None  # what is there
        self._stat: tuple[int, int] | None = None

    def write(self) -> None:
        """Writes the file with all marks of the store, unless it is so already.

        Raises:
            OSError: It could not be written; the previous content is still there.
        """
        with self.store.lock:
            self._lines = self._marked_lines()
            self._replace(self._lines)

    def publish(self, entry: dict[str, Any]) -> None:
        """Writes the file as it is after the last entry of the journal, which is not applied yet.

        Raises:
            OSError: It could not be written; the previous content is still there.
        """
        if not entry.get("marks"):
            return
        lines = dict(self._lines)
        for line in entry["marks"]:
            (name, given, new), row = line[:3], self.store.samples.row(line[0])
            if new is None:
                lines.pop(row, None)
            else:
                lines[row] = _csv_line(name, new, given, *author_of(entry, line))
        self._replace(lines)
        self._lines = lines

    def text(self) -> str:
        """Returns the content of the file: one line per marked sample, in the order of the samples."""
        return _csv_text(self._marked_lines())

    def _marked_lines(self) -> dict[int, str]:
        store, samples = self.store, self.store.samples
        lines, rows = {}, np.flatnonzero(store.is_marked).tolist()
        for row, name in zip(rows, samples.names(rows), strict=True):
            labels = store.mark_name(int(store.marks[row]), row), samples.label(samples.given[row])
            lines[row] = _csv_line(name, *labels, *store.authors[row])
        return lines

    def _replace(self, lines: Mapping[int, str]) -> None:
        """Replaces the file, after a copy of it if another program changed it since the last write."""
        content, stat, last = _csv_text(lines).encode(), _stat(self.path), self._written
        version = Version(hashlib.sha256(content).hexdigest(), self.store.journal.size)
        is_changed = self._stat is not None and stat is not None and stat != self._stat
        if last is not None and last.sha256 == version.sha256 and stat is not None and not is_changed:
            return
        if is_changed:
            backup = _backup(self.path)
            log.warning("%s was changed by another program; its version is kept as %s", self.path, backup.name)
        with atomic_path(self.path) as temporary:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._write_stamp([version] if last is None else [last, version])
        self._written, self._stat = version, _stat(self.path)
        with contextlib.suppress(OSError):  # the stamp of both versions tells it, too
            self._write_stamp([version], sync=False)

    def _write_stamp(self, versions: list[Version], sync: bool = True) -> None:
        stamp = {"review": self.store.journal.name, "versions": versions}
        with open(self._stamp_path, "r+b" if self._stamp_path.exists() else "wb", buffering=0) as file:
            file.write(json.dumps(stamp).encode().ljust(STAMP_SIZE))  # in place: a full disk has room for it
            if sync:
                os.fsync(file.fileno())

    def read_stamp(self) -> list[Version]:
        """Returns the versions in the stamp; their positions are -1 if it is of another review."""
        try:
            stamp = json.loads(self._stamp_path.read_bytes())
            is_own = stamp["review"] == self.store.journal.name
            return [Version(str(sha256), int(position) if is_own else -1) for sha256, position in stamp["versions"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def accept(self, version: Version) -> None:
        """Takes the file that is there for a version of the review's own."""
        self._written, self._stat = version, _stat(self.path)


def _csv_text(lines: Mapping[int, str]) -> str:
    return HEADER + "".join([lines[row] for row in sorted(lines)])


def _csv_line(*cells: str | None) -> str:
    # Blanks count only inside of quotes, and csv could not read an unquoted carriage return back.
    special = any("\r" in str(cell) or str(cell) != str(cell).strip() for cell in cells)
    quoting: Any = csv.QUOTE_ALL if special else csv.QUOTE_MINIMAL
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=quoting).writerow(cells)
    return buffer.getvalue()


def _stat(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        stat = os.stat(path)
        return stat.st_size, stat.st_mtime_ns
    return None


def _with_timestamp(path: Path) -> Path:
    """Returns a path that does not exist yet, with the current time in its name."""
    name = f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (f"{name}{end}{path.suffix}" for end in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def _backup(path: Path) -> Path:
    return Path(shutil.copy2(path, _with_timestamp(path)))


def open_fixes(
    path: Path,
    store: MarkStore,
    table: pd.DataFrame,
    fixes: str | Path | None = None,
    ignore: Collection[str] = (),
    reviewer: str = "",
) -> FixesFile:
    """Merges the marks of the journal, an existing ``fixes.csv`` and a fixes file to start with.

    Each version of ``fixes`` is imported once, in the name of ``reviewer``; ``ignore`` is as in
    :func:`mlfix_train.data.fixes.table.match_fixes`.

    Raises:
        FixesError: A fixes file does not match the samples; nothing is changed.
        DataError: The journal is of other data.
    """
    file = FixesFile(path, store)
    ignore = {*ignore, "empty_labels"}
    marked = {row[0] for row in _rows_after(store.journal.entries) if row != COLUMNS}
    if marked and marked == store.missing:
        samples = f"none of its {len(marked):,} marked samples is here, such as {min(marked)}"
        hint = "set another out=<folder>, or use the data that was reviewed"
        raise DataError(f"{path.parent} contains a review of other data: {samples}", hint)
    if path.exists():
        _open_existing(file, table, ignore, reviewer)
    if fixes is not None:
        _import_given(Path(fixes).expanduser(), file, table, ignore, reviewer)
    if store.missing:
        file.notes.append(
            f"{len(store.missing):,} marked samples are no longer in the data: the journal keeps their marks, "
            "fixes.csv leaves them out."
        )
    if store.stale:
        file.notes.append(
            f"{len(store.stale):,} marks were made for a label that has changed since and are not applied (the journal "
            "keeps them): review these samples again."
        )
    try:
        file.write()
    except OSError as error:
        if not store.journal.entries:
            raise
        file.notes.append(f"{path} can't be written ({error.strerror}) and lacks marks, which the journal keeps.")
    store.publish = file.publish
    store.journal.entries.clear()
    return file


def _import_given(path: Path, file: FixesFile, table: pd.DataFrame, ignore: Collection[str], reviewer: str) -> None:
    """Imports a fixes file to start with, once; what was decided in this review before stays."""
    store = file.store
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    source = f"{path.name} {digest[:16]}"
    if digest and source in store.sources:
        return
    touched = store.revisions > 0
    wanted = _wanted_marks(path, store, table, ignore)
    file.conflicts = {row: mark for row, mark, _ in wanted if touched[row] and store.marks[row] != mark}
    imported = _import(store, [fix for fix in wanted if not touched[fix[0]]], source, reviewer)
    file.notes.append(f"Marks imported from {path}: {imported:,}.")
    if file.conflicts:
        count = f"{len(file.conflicts):,} marks of {path}"
        file.notes.append(f"{count} differ from those of this review: decide on the page.")


def _open_existing(file: FixesFile, table: pd.DataFrame, ignore: Collection[str], reviewer: str) -> None:
    """Imports what ``fixes.csv`` has and the journal lacks: an initial or edited file, or that of a lost journal.

    A version that this review wrote, however far behind the journal, has nothing else, nor has a file with the marks of
    an earlier state. An edited file counts where it differs from the version that it was made from: marks that were not
    in that version stay.
    """
    path, store, journal = file.path, file.store, file.store.journal
    entries, stamp, rows = journal.entries, file.read_stamp(), _read_rows(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    own = next((version for version in stamp if version.sha256 == digest), None)
    bases = [journal.ends.index(version.position) for version in stamp if version.position in journal.ends]
    if own is not None and own.position in journal.ends:
        file.accept(own)
        return
    if own is None and rows is not None and (n := _find_state(rows, entries)) is not None:
        if n < max(bases, default=0):
            text = "%s is an earlier version of itself; it is rewritten from the journal, and kept as %s"
            log.warning(text, path, _backup(path).name)
        file.accept(Version(digest, journal.ends[n]))
        return
    try:
        wanted = _wanted_marks(path, store, table, ignore)
        if own is not None or not entries:  # the journal was changed, or there was none
            imported = _import(store, wanted, str(path), reviewer)
            note = f"Marks imported from {path} that the journal lacks" if entries else f"Started from {path}, marks"
            file.notes.append(f"{note}: {imported:,}.")
            return
        n = min(bases, default=len(entries))
        before, last = {row[0]: row[1] for row in _rows_after(entries[:n])}, entries[n - 1]["revision"] if n else 0
        changed = [fix for fix in wanted if before.get(store.samples.ids[fix[0]]) != store.mark_name(fix[1], fix[0])]
        named = {row for row, _, _ in wanted}
        candidates = np.flatnonzero(store.is_marked & (store.revisions <= last)).tolist()
        dropped = [row for row in candidates if row not in named]
        if len(dropped) > MAX_DROPPED and len(dropped) > len(store.authors) / 2:
            problem = f"{path} was changed outside the review and lacks {len(dropped):,} of its marks"
            raise FixesError(problem, "to drop these marks, also move journal.jsonl away")
        previous = _with_timestamp(path.with_name("fixes-before.csv"))
        previous.write_text(file.text(), encoding="utf-8", newline="")
        edited = _backup(path)
        imported = _import(store, [*changed, *((row, NONE, Author()) for row in dropped)], EDITED, reviewer)
    except FixesError as error:
        restore = "delete it, and it is rewritten from the journal" if entries else "correct it, or move it away"
        raise FixesError(error.problem, f"{error.hint}; or {restore}", error.details) from error
    file.notes.append(
        f"{path.name} was changed outside the review: {imported - len(dropped):,} marks imported from it, "
        f"{len(dropped):,} removed; copies: {edited.name} and, as it was before, {previous.name}."
    )


def _wanted_marks(
    path: Path, store: MarkStore, table: pd.DataFrame, ignore: Collection[str]
) -> list[tuple[int, int, Author]]:
    """Returns row, mark and author of each line of a fixes file."""
    fixes = match_fixes(read_fixes(path), table, ignore, answers=True)
    samples = store.samples
    columns = (fixes[name] for name in ("new_label", "reviewer", "time", "note"))
    wanted = []
    for row, label, *author in zip(samples.rows(fixes.index.tolist()).tolist(), *columns, strict=True):
        code = store.mark_code(label)
        mark = samples.add_label(label) if code is None else code
        wanted.append((row, KEEP_CODE if mark == samples.given[row] else mark, Author(*author)))
    return wanted


def _import(store: MarkStore, wanted: list[tuple[int, int, Author]], source: str, reviewer: str) -> int:
    """Imports the marks that differ from the current ones, and returns their number."""
    changes = [(row, mark, author) for row, mark, author in wanted if mark != store.marks[row]]
    if changes or source not in store.sources:
        store.import_marks(changes, source, reviewer)
    return len(changes)


def _read_rows(path: Path) -> set[tuple[str, ...]] | None:
    """Returns the rows of a CSV file, header included; ``None`` if it cannot be read."""
    try:
        return {tuple(row) for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")) if row}
    except (UnicodeDecodeError, csv.Error):
        return None


def _rows_after(entries: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """Returns the rows that ``fixes.csv`` had after these entries of the journal, whatever the data are now."""
    rows: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        for line in entry.get("marks", []):
            rows.pop(line[0], None)
            if line[2] is not None:
                rows[line[0]] = _row(entry, line)
    return {COLUMNS, *rows.values()}


def _find_state(rows: set[tuple[str, ...]], entries: list[dict[str, Any]]) -> int | None:
    """Returns after how many entries the file had these rows, at the latest; ``None`` if it never did."""
    wanted = {row[0]: row for row in rows if row != COLUMNS}
    differing = set(wanted) if COLUMNS in rows and len(wanted) == len(rows) - 1 else {""}  # ids
    found = None
    for number, entry in enumerate(entries, start=1):
        for line in entry.get("marks", []):
            row = None if line[2] is None else _row(entry, line)
            (differing.discard if row == wanted.get(line[0]) else differing.add)(line[0])
        found = found if differing else number
    return found


def _row(entry: dict[str, Any], line: list[Any]) -> tuple[str, ...]:
    return (line[0], line[2], line[1], *author_of(entry, line))
