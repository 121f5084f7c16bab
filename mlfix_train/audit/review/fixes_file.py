"""``fixes.csv`` of a review: written whole at every answer, read when the review begins."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.review.marks import Ledger
from mlfix_train.audit.review.samples import NONE, rows_of
from mlfix_train.data.files.atomic import atomic_path
from mlfix_train.data.fixes.table import COLUMNS, match_fixes, read_fixes
from mlfix_train.errors import DataError, FixesError

log = logging.getLogger(__name__)

HEADER = ",".join(COLUMNS) + "\n"
EDITED = "fixes.csv, edited by hand"
MANY = 20
"""More marks than these, and more than half of all, are not dropped because a file lacks them."""


class FixesFile:
    """Keeps ``fixes.csv`` as the ledger has it.

    Args:
        path: of the file.
        ledger: what is marked.
    """

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path, self.ledger = path, ledger
        self.stamp = path.with_name(".fixes.sha256")
        self._lines: dict[int, tuple[int, str]] = {}
        self.written: int | None = None
        self._stat: tuple[int, int] | None = None

    def text(self) -> str:
        """Returns the file's content: a line a marked sample, in the order of the samples."""
        rows = np.flatnonzero(self.ledger.marks != NONE).tolist()
        return HEADER + "".join([self._line(row) for row in rows])

    def _line(self, row: int) -> str:
        stamp = int(self.ledger.stamps[row])
        kept = self._lines.get(row)
        if kept is None or kept[0] != stamp:
            samples, (reviewer, when, note) = self.ledger.samples, self.ledger.about[row]
            old = samples.label(samples.given[row])
            cells = [samples.ids[row], self.ledger.mark_name(int(self.ledger.marks[row])), old, reviewer, when, note]
            buffer = io.StringIO()
            torn = any("\r" in str(cell) for cell in cells)  # csv leaves a bare carriage return unquoted
            csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if torn else csv.QUOTE_MINIMAL).writerow(
                cells
            )
            kept = self._lines[row] = (stamp, buffer.getvalue())
        return kept[1]

    def write(self) -> None:
        """Writes the file, whole or not at all, and has it on disk; does nothing where it is up to date.

        Raises:
            OSError: it could not be written; what it held is still there.
        """
        with self.ledger.lock:
            if self.written == self.ledger.number and self.path.exists():
                return
            content = self.text().encode()
            self._keep_edited()
            with atomic_path(self.path) as temporary, open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(OSError):  # only tells an edited file from ours
                self.stamp.write_text(hashlib.sha256(content).hexdigest())
            self.written = self.ledger.number
            self._stat = _stat(self.path)

    def _keep_edited(self) -> None:
        """Keeps a copy where someone else wrote the file since this review last did."""
        now = _stat(self.path)
        if self._stat is not None and now is not None and now != self._stat:
            kept = aside(self.path)
            log.warning(
                "%s was changed by another program while it is reviewed: that is kept as %s", self.path, kept.name
            )


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def aside(path: Path) -> Path:
    """Copies a file beside itself, named by the time; returns the copy."""
    kept = path.with_name(f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}-{number}{path.suffix}")
    shutil.copy2(path, kept)
    return kept


@dataclass
class Opened:
    """How a review began: words for the person, and samples that a fixes file and the journal mark differently."""

    notes: list[str] = field(default_factory=list)
    conflicts: dict[int, int] = field(default_factory=dict)


def begin(
    path: Path,
    ledger: Ledger,
    table: pd.DataFrame,
    given: str | None,
    allow: Collection[str],
    reviewer: str,
) -> tuple[FixesFile, Opened]:
    """Brings the journal, an existing ``fixes.csv`` and a fixes file that the user gives together.

    Args:
        path: ``fixes.csv`` of the review.
        ledger: played back from the journal.
        table: sample table.
        given: a fixes file to begin with (``fixes.path``), or ``None``.
        allow: as of :func:`mlfix_train.data.fixes.table.match_fixes`.
        reviewer: who does it.

    Returns:
        The file, up to date with the ledger, and what there is to tell.

    Raises:
        FixesError: a fixes file that doesn't fit the samples; nothing is changed.
    """
    file, opened = FixesFile(path, ledger), Opened()
    own_allow = {*allow, "empty_labels"}
    _check_other_data(path, ledger)
    if path.exists():
        _open_own(path, file, table, own_allow, reviewer, opened)
    if given is not None:
        digest = hashlib.sha256(Path(given).expanduser().read_bytes()).hexdigest() if Path(given).is_file() else ""
        source = f"{Path(given).name} {digest[:16]}"
        if not digest or source not in ledger.sources:
            before = ledger.marks.copy()
            touched = ledger.stamps > 0
            taken, _ = _take_over(Path(given), ledger, table, own_allow, source, reviewer, keep=touched)
            opened.conflicts = _differing(given, table, own_allow, ledger, before, touched)
            opened.notes.append(f"{taken:,} marks taken over from {given}")
            if opened.conflicts:
                opened.notes.append(f"{len(opened.conflicts):,} marks of {given} differ from what was decided in this "
                                    "review, which stays: the page shows them, to decide")  # fmt: skip
    if ledger.lost:
        opened.notes.append(f"{len(ledger.lost):,} marks name samples that are no longer in the data: the journal "
                            "keeps them, fixes.csv leaves them out")  # fmt: skip
    if ledger.stale:
        opened.notes.append(f"{len(ledger.stale):,} marks were made for another label than the sample has now and are "
                            "set aside (the journal keeps them): look at these again")  # fmt: skip
    file.write()
    return file, opened


def _check_other_data(path: Path, ledger: Ledger) -> None:
    """Refuses a journal all of whose samples are unknown here."""
    marked = {row[0] for row in _rows_at(ledger.journal.entries) if row != COLUMNS}
    if marked and marked == ledger.lost:
        raise DataError(
            f"{path.parent} holds a review of other data: none of its {len(marked):,} marked samples is here, such as "
            f"{min(marked)}", "give another out=<folder>, or the data that it is of",
        )  # fmt: skip


def _open_own(
    path: Path, file: FixesFile, table: pd.DataFrame, allow: Collection[str], reviewer: str, opened: Opened
) -> None:
    """Takes over what ``fixes.csv`` says and the journal doesn't: begun with, edited, or left of a lost journal."""
    ledger = file.ledger
    found = _rows(path)
    entries = ledger.journal.entries
    states = [_rows_at(entries[: len(entries) - back]) for back in range(min(3, len(entries) + 1))]
    if found is not None and (found in states or (_last_written(path, file) and found <= states[0])):
        return
    try:
        if _last_written(path, file) or not entries:  # the journal is what changed, or there never was one
            taken, _ = _take_over(path, ledger, table, allow, str(path), reviewer)
            opened.notes.append(f"begun with the {taken:,} fixes of {path}" if not entries else
                                f"{path.name} holds {taken:,} marks that the journal lacks: taken over")  # fmt: skip
            return
        lost = int((ledger.marks != NONE).sum()) - len(_read(path, table, allow))
        if lost > MANY and lost > len(ledger.about) / 2:
            raise FixesError(f"{path} was changed outside of the review and lacks {lost:,} of its marks",
                             "to drop them, move journal.jsonl away, too")  # fmt: skip
        before = path.with_name("fixes-before.csv")
        before.write_text(file.text(), encoding="utf-8", newline="")
        kept, previous = aside(path), aside(before)
        before.unlink()
        taken, back = _take_over(path, ledger, table, allow, EDITED, reviewer, whole=True)
    except FixesError as error:
        restore = "delete it, and the journal writes it anew" if entries else "mend it, or move it away"
        raise FixesError(error.problem, f"{error.hint}; or {restore}", error.details) from error
    opened.notes.append(f"{path.name} was changed outside of the review: {taken:,} marks taken over from it, {back:,} "
                        f"taken back; copies: {kept.name} and, as it was before, {previous.name}")  # fmt: skip


def _last_written(path: Path, file: FixesFile) -> bool:
    """Whether ``fixes.csv`` is the very file that a review wrote last."""
    try:
        return file.stamp.read_text().strip() == hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return False


def _rows(path: Path) -> set[tuple[str, ...]] | None:
    try:
        return {tuple(row) for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")) if row}
    except (UnicodeDecodeError, csv.Error):
        return None


def _rows_at(entries: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """Returns the rows that ``fixes.csv`` had after some entries of the journal, whatever the data are now."""
    rows: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        for name, old, new, *told in entry.get("marks", []):
            rows.pop(name, None)
            if new is not None:
                by, when, note = told if len(told) == 3 else ("", "", "")
                rows[name] = (name, new, old, by or entry["by"], when or entry["t"], note)
    return {COLUMNS, *rows.values()}


def _read(path: Path, table: pd.DataFrame, allow: Collection[str]) -> pd.DataFrame:
    return match_fixes(read_fixes(path), table, allow)


def _take_over(
    path: Path,
    ledger: Ledger,
    table: pd.DataFrame,
    allow: Collection[str],
    source: str,
    reviewer: str,
    keep: np.ndarray | None = None,
    whole: bool = False,
) -> tuple[int, int]:
    """Marks as a fixes file says; rows of ``keep`` stay. With ``whole`` marks that it lacks are taken back."""
    fixes = _read(path, table, allow)
    rows = rows_of(ledger.samples, fixes.index.tolist())
    wanted = []
    for row, (_, fix) in zip(map(int, rows), fixes.iterrows(), strict=True):
        code = ledger.mark_code(fix["new_label"])
        mark = ledger.samples.add_label(fix["new_label"]) if code is None else code
        same = mark == ledger.marks[row] or mark == ledger.samples.given[row]
        if not same and (keep is None or not keep[row]):
            wanted.append((row, mark, fix["reviewer"], fix["time"], fix["note"]))
    missing = np.setdiff1d(np.flatnonzero(ledger.marks != NONE), rows).tolist() if whole else []
    if wanted or missing or source not in ledger.sources:
        ledger.take_over([*wanted, *((row, NONE, "", "", "") for row in missing)], source, reviewer)
    return len(wanted), len(missing)


def _differing(
    given: str, table: pd.DataFrame, allow: Collection[str], ledger: Ledger, before: np.ndarray, touched: np.ndarray
) -> dict[int, int]:
    """Returns the rows that a file marks otherwise than they were marked here, and how it marks them."""
    fixes = _read(Path(given), table, allow)
    found = {}
    for row, label in zip(map(int, rows_of(ledger.samples, fixes.index.tolist())), fixes["new_label"], strict=True):
        code = ledger.mark_code(label)
        mark = ledger.samples.add_label(label) if code is None else code
        mark = NONE if mark == ledger.samples.given[row] else mark
        if touched[row] and before[row] != mark:
            found[row] = mark
    return found
