"""The ledger: what is marked now, by whom and since when; who may change it; undo and redo without end.

Everything that changes it is first in the journal, on disk; :mod:`mlfix_train.audit.review.journal` says how.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlfix_train.audit.review.journal import Journal
from mlfix_train.audit.review.samples import NONE, Samples, rows_of
from mlfix_train.data.samples import INVALID

OUT = -2
"""Code of the mark ``invalid``."""


@dataclass(frozen=True)
class Change:
    """A wish to mark a sample.

    Args:
        row: of the sample.
        mark: code of a label, :data:`OUT`, or :data:`NONE` to take the mark back.
        base: number of the entry that the page knows as the sample's last; ``None`` if it doesn't say.
    """

    row: int
    mark: int
    base: int | None = None


@dataclass
class Action:
    """Something a person did that can be undone: rows with the marks before and after, and rows found fine."""

    number: int
    reviewer: str
    changes: list[tuple[int, int, int]] = field(default_factory=list)
    fine: list[int] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)


@dataclass
class Outcome:
    """What became of a request: rows that changed, and rows that someone else had changed."""

    changed: list[int] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)
    fine: list[int] = field(default_factory=list)
    words: str = ""


class Ledger:
    """Marks of N samples.

    Attributes:
        marks: int32 ``N``: code of a label, :data:`OUT`, or :data:`NONE`.
        stamps: int64 ``N``: number of the journal's entry that last changed a sample, 0 for none.
        fine: bool ``N``, looked at and found right.
        fine_drawn: bool ``N``, found right where the random sample was looked at.
        about: row to (reviewer, time, note) of the samples that are or were marked.
        drawn: rows of the random sample, in order.
        keys: of requests that were answered, with the rows they touched: one that is repeated changes nothing.
        lost, stale: samples that the journal marks and that are gone, or that bear another label now.

    Args:
        samples: N samples.
        journal: its entries are played back.
    """

    def __init__(self, samples: Samples, journal: Journal) -> None:
        self.samples, self.journal = samples, journal
        n = len(samples)
        self.marks = np.full(n, NONE, np.int32)
        self.stamps = np.zeros(n, np.int64)
        self.fine = np.zeros(n, bool)
        self.fine_drawn = np.zeros(n, bool)
        self.about: dict[int, tuple[str, str, str]] = {}
        self.drawn: list[int] = []
        self.sources: set[str] = set()
        self.keys: dict[str, list[int]] = {}
        self.lost: set[str] = set()
        self.stale: set[str] = set()
        self.lock = threading.RLock()
        self._done: dict[str, list[Action]] = {}
        self._undone: dict[str, list[Action]] = {}
        self._touched: list[tuple[int, list[int]]] = []
        for entry in journal.entries:
            self._play(entry)

    @property
    def number(self) -> int:
        """Number of the last entry."""
        return self.journal.count

    def mark(self, changes: Sequence[Change], reviewer: str, key: str = "") -> Outcome:
        """Marks samples, and answers when that is on disk.

        A sample that someone changed since the page last heard of it is left alone and told, unless both want the same.
        A request of a ``key`` that was answered before (the answer was lost on its way) changes nothing.
        """
        with self.lock:
            if key in self.keys:
                return Outcome(list(self.keys[key]))
            outcome, wanted = Outcome(), dict[int, int]()
            for change in changes:
                new = NONE if change.mark == self.samples.given[change.row] else change.mark
                if self._contested(change, new, reviewer):
                    outcome.conflicts.append(change.row)
                elif new != wanted.get(change.row, int(self.marks[change.row])):
                    wanted[change.row] = new
            moves = [(row, int(self.marks[row]), new) for row, new in wanted.items() if new != self.marks[row]]
            if moves:
                entry = self.journal.append({"by": reviewer, "do": "mark", "marks": self._lines(moves), **_keyed(key)})
                self._apply(entry, moves)
                self._remember(Action(entry["n"], reviewer, moves))
            outcome.changed = [row for row, _, _ in moves]
            return outcome

    def _contested(self, change: Change, new: int, reviewer: str) -> bool:
        row = change.row
        if self.marks[row] == new:
            return False
        if change.base is not None:
            return bool(change.base != self.stamps[row])
        return bool(self.marks[row] != NONE and self.about[row][0] != reviewer)

    def find_fine(self, rows: Sequence[int] | np.ndarray, reviewer: str, drawn: bool = False, key: str = "") -> Outcome:
        """Notes that samples were looked at and, unless they are marked, found right; ``drawn``: as a random sample."""
        with self.lock:
            if key in self.keys:
                return Outcome(fine=list(self.keys[key]))
            new = [int(row) for row in rows if not self.fine[row]]
            new_drawn = [int(row) for row in rows if drawn and not self.fine_drawn[row]]
            if len(rows):
                told = {"by": reviewer, "do": "fine", "ids": self._ids(new), "drawn": self._ids(new_drawn)}
                entry = self.journal.append({**told, **_keyed(key)})
                self._apply(entry, [], new, new_drawn)
                self._remember(Action(entry["n"], reviewer, [], new, new_drawn))
            return Outcome(fine=new)

    def draw(self, rows: Sequence[int], reviewer: str) -> None:
        """Adds rows to the random sample."""
        with self.lock:
            entry = self.journal.append({"by": reviewer, "do": "draw", "ids": self._ids(rows)})
            self._play(entry)

    def undo(self, reviewer: str, key: str = "") -> Outcome:
        """Takes back the last thing that a reviewer did and did not take back yet."""
        return self._turn(reviewer, "undo", key)

    def redo(self, reviewer: str, key: str = "") -> Outcome:
        """Does again what a reviewer last took back."""
        return self._turn(reviewer, "redo", key)

    def _turn(self, reviewer: str, word: str, key: str) -> Outcome:
        source, target = (self._done, self._undone) if word == "undo" else (self._undone, self._done)
        with self.lock:
            if key in self.keys:
                return Outcome(list(self.keys[key]), words=word)
            stack = source.get(reviewer, [])
            if not stack:
                return Outcome(words=f"Nothing to {word}.")
            action = stack[-1]
            steps = [(row, b, a) if word == "redo" else (row, a, b) for row, b, a in action.changes]
            mine = [self.about.get(row, (reviewer,))[0] == reviewer for row, _, _ in steps]
            moves = [step for step, own in zip(steps, mine, strict=True) if own and self.marks[step[0]] == step[1]]
            others = [
                step[0] for step, own in zip(steps, mine, strict=True) if not own and self.marks[step[0]] != step[2]
            ]
            entry: dict[str, Any] = {"by": reviewer, "do": word, "of": action.number, **_keyed(key)}
            if action.changes:
                entry["marks"] = self._lines(moves)
            else:
                entry |= {"ids": self._ids(action.fine), "drawn": self._ids(action.drawn)}
            written = self.journal.append(entry)
            self._apply(written, moves, action.fine, action.drawn, word == "redo")
            target.setdefault(reviewer, []).append(stack.pop())
            words = "" if moves or not action.changes else f"Nothing left to {word}: it was changed since."
            return Outcome([row for row, _, _ in moves], others, action.fine, words)

    def can(self, reviewer: str) -> tuple[int, int]:
        """Returns how many steps a reviewer can undo and redo."""
        return len(self._done.get(reviewer, [])), len(self._undone.get(reviewer, []))

    def since(self, number: int) -> list[int]:
        """Returns the rows that entries after ``number`` touched."""
        with self.lock:
            found: dict[int, None] = {}
            for n, rows in reversed(self._touched):
                if n <= number:
                    break
                found.update(dict.fromkeys(rows))
            return list(found)

    def take_over(self, fixes: Sequence[tuple[int, int, str, str, str]], source: str, reviewer: str) -> list[int]:
        """Takes marks over from a fixes file: (row, mark, reviewer, time, note); returns the rows that changed."""
        with self.lock:
            moves = [(row, int(self.marks[row]), new) for row, new, *_ in fixes]
            lines = [[*line, *fix[2:]] for line, fix in zip(self._lines(moves), fixes, strict=True)]
            entry = self.journal.append({"by": reviewer, "do": "import", "source": source, "marks": lines})
            self._play(entry)
            return [row for row, before, after in moves if before != after]

    def mark_name(self, mark: int) -> str | None:
        """Returns what the fixes file says for a mark."""
        return INVALID if mark == OUT else self.samples.labels[mark] if mark >= 0 else None

    def mark_code(self, name: str | None) -> int | None:
        """Returns the code of what a fixes file or a page says; ``None`` for a label that isn't known."""
        return NONE if name is None else OUT if name == INVALID else self.samples.code.get(name)

    def _lines(self, moves: Sequence[tuple[int, int, int]]) -> list[list[str | None]]:
        samples = self.samples
        return [[samples.ids[row], samples.label(samples.given[row]), self.mark_name(new)] for row, _, new in moves]

    def _ids(self, rows: Sequence[int]) -> list[str]:
        return [self.samples.ids[row] for row in rows]

    def _remember(self, action: Action) -> None:
        self._done.setdefault(action.reviewer, []).append(action)
        self._undone[action.reviewer] = []

    def _apply(
        self,
        entry: dict[str, Any],
        moves: Sequence[tuple[int, int, int]],
        fine: Sequence[int] = (),
        drawn: Sequence[int] = (),
        on: bool = True,
    ) -> None:
        for row, _, new in moves:
            self.marks[row] = new
            self.stamps[row] = entry["n"]
            self.about[row] = (entry["by"], entry["t"], "")
        self.fine[list(fine)] = on
        self.fine_drawn[list(drawn)] = on
        touched = [*(row for row, _, _ in moves), *fine]
        self._touched.append((entry["n"], touched))
        if entry.get("key"):
            self.keys[entry["key"]] = touched

    def _play(self, entry: dict[str, Any]) -> None:
        """Plays an entry back; samples that are gone or bear another label now are counted, and not marked."""
        kind, by = entry["do"], entry.get("by", "")
        fine = [int(row) for row in rows_of(self.samples, entry.get("ids", [])) if row >= 0]
        drawn = [int(row) for row in rows_of(self.samples, entry.get("drawn", [])) if row >= 0]
        if kind == "draw":
            self.drawn += fine
            return
        moves = self._moves(entry)
        self._apply(entry, moves, fine, drawn, kind != "undo")
        if kind == "import":
            self.sources.add(str(entry.get("source", "")))
            for line in entry["marks"]:
                row = int(rows_of(self.samples, [line[0]])[0])
                if row in self.about and len(line) >= 6:
                    self.about[row] = (line[3] or by, line[4] or entry["t"], line[5] or "")
        elif kind in ("mark", "fine"):
            self._remember(Action(entry["n"], by, moves, fine, drawn))
        else:
            source, target = (self._done, self._undone) if kind == "undo" else (self._undone, self._done)
            stack = source.get(by, [])
            if stack and stack[-1].number == entry.get("of"):
                target.setdefault(by, []).append(stack.pop())

    def _moves(self, entry: dict[str, Any]) -> list[tuple[int, int, int]]:
        lines = entry.get("marks", [])
        rows = rows_of(self.samples, [line[0] for line in lines])
        moves = []
        for row, line in zip(map(int, rows), lines, strict=True):
            self.stale.discard(line[0])
            if row < 0:
                (self.lost.discard if line[2] is None else self.lost.add)(line[0])
                continue
            given = self.samples.label(self.samples.given[row])
            new = self.mark_code(line[2])
            if given != line[1] and line[2] is not None:
                if line[2] != given:
                    self.stale.add(line[0])
                new = NONE
            elif new is None:  # a label that was new, and that no sample bears
                new = self.samples.add_label(str(line[2]))
            moves.append((row, int(self.marks[row]), int(new)))
        return moves


def _keyed(key: str) -> dict[str, str]:
    return {"key": key} if key else {}
