"""``fixes.csv`` of a review: rewritten atomically before every response, and read when the review opens."""

import contextlib
import csv
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.review.marks import KEEP_CODE, Author, MarkStore
from mlfix_train.audit.review.samples import NONE
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import COLUMNS, match_fixes, read_fixes
from mlfix_train.errors import DataError, FixesError

log = logging.getLogger(__name__)

HEADER = ",".join(COLUMNS) + "\n"
EDITED = "fixes.csv, edited outside the review"
MAX_DROPPED = 20  # an edited file that lacks more marks than this, and more than half of all, is refused


class FixesFile:
    """Keeps ``fixes.csv``, the file ``path``, equal to the marks in ``store``. Use :func:`open_fixes` to open one.

    Attributes:
        notes: What the reviewer should know.
        conflicts: Rows that a fixes file to start with marks differently, and its mark.
    """

    def __init__(self, path: Path, store: MarkStore) -> None:
        self.path, self.store = path, store
        self.notes: list[str] = []
        self.conflicts: dict[int, int] = {}
        self._digest_path = path.with_name(".fixes.sha256")
        self._lines: dict[int, tuple[int, str]] = {}
        self._written: int | None = None
        self._stat: tuple[int, int] | None = None

    def text(self) -> str:
        """Returns the content of the file: one line per marked sample, in the order of the samples."""
        rows = np.flatnonzero(self.store.is_marked).tolist()
        return HEADER + "".join([self._line(row) for row in rows])

    def _line(self, row: int) -> str:
        store, samples = self.store, self.store.samples
        revision, cached = int(store.revisions[row]), self._lines.get(row)
        if cached is None or cached[0] != revision:
            labels = (store.mark_name(int(store.marks[row]), row), samples.label(samples.given[row]))
            cells = [samples.ids[row], *labels, *store.authors[row]]
            # Blanks count only inside of quotes, and csv could not read an unquoted carriage return back.
            special = any("\r" in str(cell) or str(cell) != str(cell).strip() for cell in cells)
            quoting: Any = csv.QUOTE_ALL if special else csv.QUOTE_MINIMAL
            buffer = io.StringIO()
            csv.writer(buffer, lineterminator="\n", quoting=quoting).writerow(cells)
            cached = self._lines[row] = (revision, buffer.getvalue())
        return cached[1]

    def write(self) -> None:
        """Writes the file atomically and flushes it to disk; does nothing if it is up to date.

        A file that another program changed since the last write is copied first.

        Raises:
            OSError: It could not be written; the previous content is still there.
        """
        with self.store.lock:
            if self._written == self.store.revision and self.path.exists():
                return
            content = self.text().encode()
            stat = _stat(self.path)
            if self._stat is not None and stat is not None and stat != self._stat:
                backup = _backup(self.path)
                log.warning("%s was changed by another program; its version is kept as %s", self.path, backup.name)
            with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(OSError):  # it only helps to detect edits
                self._digest_path.write_text(hashlib.sha256(content).hexdigest())
            self._written = self.store.revision
            self._stat = _stat(self.path)

    def is_own(self) -> bool:
        """Whether the file on disk is exactly what a review wrote last."""
        try:
            return self._digest_path.read_text().strip() == hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError:
            return False


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
    file.write()
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
    """Imports what ``fixes.csv`` has and the journal lacks: an initial or edited file, or that of a lost journal."""
    path, store, entries = file.path, file.store, file.store.journal.entries
    rows = _read_rows(path)
    recent = [_rows_after(entries[: len(entries) - back]) for back in range(min(3, len(entries) + 1))]
    if rows is not None and (rows in recent or (file.is_own() and rows <= recent[0])):
        return  # a crash between journal and fixes.csv
    try:
        wanted = _wanted_marks(path, store, table, ignore)
        if file.is_own() or not entries:  # the journal was changed, or there was none
            imported = _import(store, wanted, str(path), reviewer)
            note = f"Marks imported from {path} that the journal lacks" if entries else f"Started from {path}, marks"
            file.notes.append(f"{note}: {imported:,}.")
            return
        lost = int(store.is_marked.sum()) - len(wanted)
        if lost > MAX_DROPPED and lost > len(store.authors) / 2:
            problem = f"{path} was changed outside the review and lacks {lost:,} of its marks"
            raise FixesError(problem, "to drop these marks, also move journal.jsonl away")
        previous = _with_timestamp(path.with_name("fixes-before.csv"))
        previous.write_text(file.text(), encoding="utf-8", newline="")
        edited = _backup(path)
        kept = {row for row, _, _ in wanted}
        dropped = [row for row in np.flatnonzero(store.is_marked).tolist() if row not in kept]
        imported = _import(store, [*wanted, *((row, NONE, Author()) for row in dropped)], EDITED, reviewer)
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
        for name, old, new, *author in entry.get("marks", []):
            rows.pop(name, None)
            if new is not None:
                reviewer, when, note = author if len(author) == 3 else ("", "", "")
                rows[name] = (name, new, old, reviewer or entry["reviewer"], when or entry["time"], note)
    return {COLUMNS, *rows.values()}
