"""The marks of a review: what is marked now, by whom and when; conflicts; unlimited undo and redo.

Every change is an entry of the journal (:mod:`mlfix_train.audit.review.journal`), applied when it is on disk, and again
when the review is opened.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mlfix_train.audit.review.journal import Journal
from mlfix_train.audit.review.samples import NONE, Samples
from mlfix_train.data.samples import INVALID, UNSURE

INVALID_CODE = -2  # code of the mark "invalid"
UNSURE_CODE = -3  # of the answer "unsure": the label stays, and counts as not judged
KEEP_CODE = -4  # of the answer "keep as given": looked at, and right


class Change(NamedTuple):
    """A request to give a sample a mark; :data:`NONE` removes it."""

    row: int
    mark: int
    base_revision: int | None = None  # the latest revision of the sample that the page has


class Move(NamedTuple):
    """A sample whose mark changes."""

    row: int
    old: int
    new: int


@dataclass
class Action:
    """An action that can be undone: marks that changed, or rows that were marked as reviewed."""

    revision: int
    moves: list[Move]
    reviewed: list[int]
    random: list[int]


@dataclass
class Outcome:
    """Result of a request: the rows it concerned, and a message to the reviewer, if there is any."""

    changed: list[int] = field(default_factory=list)  # their mark changed
    conflicts: list[int] = field(default_factory=list)  # left alone because someone else had changed them
    reviewed: list[int] = field(default_factory=list)  # marked as reviewed, or no longer
    message: str = ""


class Author(NamedTuple):
    """Who set the mark of a sample, when, and with which note."""

    reviewer: str = ""
    time: str = ""
    note: str = ""


def author_of(entry: dict[str, Any], line: Sequence[Any]) -> Author:
    """Returns who made a mark of an entry of the journal; ``line`` is one of its ``marks``."""
    reviewer, when, note = line[3:] or ("", "", "")
    return Author(reviewer or entry["reviewer"], when or entry["time"], note or "")


class MarkStore:
    """Marks of N samples, replayed from a journal; all methods may be called from several threads."""

    def __init__(self, samples: Samples, journal: Journal) -> None:
        self.samples, self.journal, n = samples, journal, len(samples)
        self.marks = np.full(n, NONE, np.int32)  # code of a label or an answer, or NONE
        self.revisions = np.zeros(n, np.int64)  # revision that last changed each sample, 0 for none
        self.group_reviewed = np.zeros(n, bool)  # whether a group with the sample was marked as reviewed
        self.random_reviewed = np.zeros(n, bool)  # the same in the sample to judge
        self.authors: dict[int, Author] = {}  # of the samples that are or were marked, by row
        self.drawn: list[int] = []  # rows of the sample to judge, in order
        self.sources: set[str] = set()  # fixes files that were imported
        self.requests: dict[str, list[int]] = {}  # ids of answered requests, with the rows they touched
        self.missing: set[str] = set()  # ids that the journal marks and the data no longer have
        self.stale: set[str] = set()  # ids whose given label is not the one that was reviewed
        self.lock = threading.RLock()  # held while anything is read and changed together
        self.publish: Callable[[dict[str, Any]], None] | None = None  # writes fixes.csv as it is after an entry
        self._done: dict[str, list[Action]] = {}
        self._undone: dict[str, list[Action]] = {}
        self._touched: list[tuple[int, list[int]]] = []
        samples.remember(list({line[0] for entry in journal.entries for line in entry.get("marks", [])}))
        for entry in journal.entries:
            self._apply(entry)

    @property
    def revision(self) -> int:
        """The last revision."""
        return self.journal.revision

    @property
    def is_marked(self) -> np.ndarray:
        """Bool ``(N,)``, whether each sample is marked, with a label or any answer."""
        return np.asarray(self.marks != NONE)

    @property
    def is_wrong(self) -> np.ndarray:
        """Bool ``(N,)``, whether each sample is marked as wrong: with another label, or as invalid."""
        return np.asarray((self.marks >= 0) | (self.marks == INVALID_CODE))

    def mark(self, changes: Sequence[Change], reviewer: str, request_id: str = "", random: bool = False) -> Outcome:
        """Marks samples, and returns when that is on disk; ``random``: they are answers in the sample to judge.

        A sample that someone changed since ``base_revision`` is left alone and reported as a conflict, unless both
        agree. A request whose id was answered before (its response was lost) changes nothing.
        """
        with self.lock:
            if request_id in self.requests:
                return Outcome(list(self.requests[request_id]))
            outcome, wanted = Outcome(), dict[int, int]()
            for change in changes:
                new = NONE if change.mark == self.samples.given[change.row] else change.mark
                if self._is_conflict(change, new, reviewer):
                    outcome.conflicts.append(change.row)
                elif new != wanted.get(change.row, int(self.marks[change.row])):
                    wanted[change.row] = new
            moves = [Move(row, int(self.marks[row]), new) for row, new in wanted.items() if new != self.marks[row]]
            answered = [change.row for change in changes if random and change.row not in outcome.conflicts]
            judged = self._ids([row for row in answered if not self.random_reviewed[row]])
            if moves or judged:
                more = {"random_ids": judged} if judged else {}
                self._record("mark", reviewer, request_id, marks=self._mark_lines(moves), **more)
            outcome.changed = [move.row for move in moves]
            return outcome

    def _is_conflict(self, change: Change, new: int, reviewer: str) -> bool:
        row, base, mark = change.row, change.base_revision, self.marks[change.row]
        is_others = mark != NONE and self.authors[row].reviewer != reviewer
        return bool(mark != new and (is_others if base is None else base != self.revisions[row]))

    def mark_reviewed(
        self, rows: Sequence[int] | np.ndarray, reviewer: str, random: bool = False, request_id: str = ""
    ) -> Outcome:
        """Records that samples were reviewed: those without a mark have the right label.

        ``random``: whether they were reviewed in the sample to judge; for the other arguments see :meth:`mark`.
        """
        with self.lock:
            if request_id in self.requests:
                return Outcome(reviewed=list(self.requests[request_id]))
            new = [int(row) for row in rows if not self.group_reviewed[row]]
            new_random = [int(row) for row in rows if random and not self.random_reviewed[row]]
            if len(rows):
                ids, random_ids = self._ids(new), self._ids(new_random)
                self._record("review", reviewer, request_id, sample_ids=ids, random_ids=random_ids)
            return Outcome(reviewed=new)

    def draw(self, rows: Sequence[int], reviewer: str) -> None:
        """Adds rows to the sample to judge."""
        with self.lock:
            self._record("draw", reviewer, sample_ids=self._ids(rows))

    def undo(self, reviewer: str, request_id: str = "", redo: bool = False) -> Outcome:
        """Undoes a reviewer's last action, or redoes the one undone last; later changes by others stay."""
        action = "redo" if redo else "undo"
        with self.lock:
            if request_id in self.requests:
                return Outcome(list(self.requests[request_id]), message=action)
            stack, _ = self._stacks(action, reviewer)
            if not stack:
                return Outcome(message=f"Nothing to {action}.")
            last = stack[-1]
            moves, conflicts = [], []
            for row, old, new in last.moves:
                move = Move(row, old, new) if redo else Move(row, new, old)
                is_own = self.authors.get(row, Author(reviewer)).reviewer == reviewer
                if is_own and self.marks[row] == move.old:
                    moves.append(move)
                elif not is_own and self.marks[row] != move.new:
                    conflicts.append(row)
            if last.moves:
                more: dict[str, Any] = {"marks": self._mark_lines(moves)}
                if last.random:
                    more["random_ids"] = self._ids(last.random)
            else:
                more = {"sample_ids": self._ids(last.reviewed), "random_ids": self._ids(last.random)}
            self._record(action, reviewer, request_id, target=last.revision, **more)
            message = (
                ""
                if moves or not last.moves
                else f"Nothing to {action}: these marks were changed again in the meantime."
            )
            return Outcome([move.row for move in moves], conflicts, last.reviewed or last.random, message)

    def steps(self, reviewer: str) -> tuple[int, int]:
        """Returns how many actions a reviewer can undo and redo."""
        return len(self._done.get(reviewer, [])), len(self._undone.get(reviewer, []))

    def changed_since(self, revision: int) -> list[int]:
        """Returns the rows that entries after ``revision`` touched."""
        with self.lock:
            rows: dict[int, None] = {}
            for number, touched in reversed(self._touched):
                if number <= revision:
                    break
                rows.update(dict.fromkeys(touched))
            return list(rows)

    def import_marks(self, fixes: Sequence[tuple[int, int, Author]], source: str, reviewer: str) -> None:
        """Sets marks from a fixes file: (row, mark, author); ``source`` names the file."""
        with self.lock:
            moves = [Move(row, int(self.marks[row]), new) for row, new, _ in fixes]
            lines = [[*line, *author] for line, (_, _, author) in zip(self._mark_lines(moves), fixes, strict=True)]
            self._record("import", reviewer, source=source, marks=lines)

    def mark_name(self, mark: int, row: int) -> str | None:
        """Returns a mark of a sample as the fixes file has it; ``None`` for no mark."""
        if mark == KEEP_CODE:
            mark = int(self.samples.given[row])
        names = {INVALID_CODE: INVALID, UNSURE_CODE: UNSURE}
        return self.samples.labels[mark] if mark >= 0 else names.get(mark)

    def mark_code(self, name: str | None) -> int | None:
        """Returns the code of a mark that a fixes file or a page gives; ``None`` for an unknown label."""
        names = {None: NONE, INVALID: INVALID_CODE, UNSURE: UNSURE_CODE}
        return self.samples.code.get(name or "", names.get(name))

    def _mark_lines(self, moves: Sequence[Move]) -> list[list[str | None]]:
        samples, names = self.samples, self._ids([move.row for move in moves])
        samples.remember(names)
        lines = zip(names, moves, strict=True)
        return [[name, samples.label(samples.given[row]), self.mark_name(new, row)] for name, (row, _, new) in lines]

    def _ids(self, rows: Sequence[int]) -> list[str]:
        return self.samples.names(rows)

    def _stacks(self, action: str, reviewer: str) -> tuple[list[Action], list[Action]]:
        """Returns the stacks that ``undo`` or ``redo`` moves a reviewer's last action from and to."""
        done, undone = (stacks.setdefault(reviewer, []) for stacks in (self._done, self._undone))
        return (done, undone) if action == "undo" else (undone, done)

    def _record(self, action: str, reviewer: str, request_id: str = "", **fields: Any) -> None:
        """Appends an entry to the journal, and applies it once it is there and in ``fixes.csv``, or in neither."""
        more = {"request_id": request_id} if request_id else {}
        entry = self.journal.make_entry({"reviewer": reviewer, "action": action, **fields, **more})
        with self.journal.appended(entry):
            if self.publish is not None:
                self.publish(entry)
        self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        """Applies an entry of the journal; marks of missing or relabeled samples are counted, not applied."""
        action, reviewer, revision = entry["action"], entry["reviewer"], entry["revision"]
        reviewed = self._known_rows(entry.get("sample_ids", []))
        if action == "draw":
            self.drawn += reviewed
            return
        random, moves = self._known_rows(entry.get("random_ids", [])), self._moves(entry)
        for row, _, new in moves:
            self.marks[row], self.revisions[row] = new, revision
        for line in entry.get("marks", []):
            row = self.samples.row(line[0])
            if row >= 0:
                self.authors[row] = author_of(entry, line)
        self.group_reviewed[reviewed] = self.random_reviewed[random] = action != "undo"
        touched = list(dict.fromkeys([*(move.row for move in moves), *reviewed, *random]))
        self._touched.append((revision, touched))
        if entry.get("request_id"):
            self.requests[entry["request_id"]] = touched
        if action == "import":
            self.sources.add(str(entry.get("source", "")))
        elif action in ("mark", "review"):
            self._done.setdefault(reviewer, []).append(Action(revision, moves, reviewed, random))
            self._undone[reviewer] = []
        else:
            stack, target = self._stacks(action, reviewer)
            if stack and stack[-1].revision == entry.get("target"):
                target.append(stack.pop())

    def _known_rows(self, ids: Sequence[str]) -> list[int]:
        rows: list[int] = self.samples.rows(ids).tolist()
        return [row for row in rows if row >= 0]

    def _moves(self, entry: dict[str, Any]) -> list[Move]:
        moves, samples = [], self.samples
        for name, old_label, new_label, *_ in entry.get("marks", []):
            row = samples.row(name)
            self.stale.discard(name)
            if row < 0:
                (self.missing.discard if new_label is None else self.missing.add)(name)
                continue
            given, new = samples.label(samples.given[row]), self.mark_code(new_label)
            if given != old_label and new_label is not None:
                new = NONE
                if new_label != given:
                    self.stale.add(name)
            elif new_label == given:
                new = KEEP_CODE
            elif new is None:  # a new label that no sample has
                new = samples.add_label(str(new_label))
            moves.append(Move(row, int(self.marks[row]), int(new)))
        return moves
