"""The desk: answers what the page asks, whether it comes through a server or a notebook's widget.

Requests are a kind and a JSON object, answers a JSON object; sheets and images are bytes. Samples are named by their
row (a number) where only this session speaks of them, and by ``sample_id`` in marks.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlfix_train.audit.review import sprites as sheets
from mlfix_train.audit.review.fixes_file import FixesFile
from mlfix_train.audit.review.full_image import large_picture
from mlfix_train.audit.review.marks import Ledger, Outcome
from mlfix_train.audit.review.progress import Pace, SeenLog, draw_random, judged_of, summarise
from mlfix_train.audit.review.requests import (
    Refused,
    read_changes,
    read_key,
    read_new_label,
    read_number,
    read_reviewer,
    read_rows,
)
from mlfix_train.audit.review.reviewer_state import Places
from mlfix_train.audit.review.samples import NONE, REFERENCES, Samples, facts_of, typical_images
from mlfix_train.audit.review.views import View, ViewSpec, make_view
from mlfix_train.errors import MlfixError, did_you_mean

OFFERS, DRAW, REFERENCE_LABELS = 9, 200, 32
"""Labels on offer; samples drawn at random at a time; labels whose typical images share a sheet, a label a line."""


class Desk:
    """One review: what it shows, what is marked, how it goes.

    Args:
        samples: what is reviewed.
        ledger: what is marked.
        seen: what was on the screen.
        file: ``fixes.csv``.
        sprites: the pictures.
        title: what is reviewed, in words.
        reviewer: who reviews, unless the page says otherwise.
        notes: what the person has to know.
        conflicts: rows that a fixes file marks otherwise than the review, and how.
        new_labels: whether labels that no sample bears may be given.
    """

    def __init__(
        self,
        samples: Samples,
        ledger: Ledger,
        seen: SeenLog,
        file: FixesFile,
        sprites: sheets.Sprites,
        title: str,
        reviewer: str,
        notes: Sequence[str] = (),
        conflicts: Mapping[int, int] | None = None,
        new_labels: bool = False,
    ) -> None:
        self.samples, self.ledger, self.seen, self.file, self.sprites = samples, ledger, seen, file, sprites
        self.title, self.reviewer, self.notes, self.may_add_labels = title, reviewer, list(notes), new_labels
        self.opening_conflicts = dict(conflicts or {})
        self.paces: dict[str, Pace] = {}
        self.places = Places(file.path.with_name("places.json"))
        self.typical = typical_images(samples)
        self.looked_at: str | None = None
        self.asked_at = 0.0
        self.cut_ahead = (0, 0)
        self._views: OrderedDict[str, View] = OrderedDict()
        self._lock = threading.Lock()
        self._kinds = {
            "hello": self.hello, "view": self.view, "block": self.block, "group": self.group, "marks": self.marks,
            "fine": self.fine, "undo": self.undo, "redo": self.redo, "seen": self.note_seen, "changes": self.changes,
            "progress": self.progress, "detail": self.detail, "draw": self.draw, "place": self.keep_place,
            "label": self.new_label, "keep": self.keep,
        }  # fmt: skip

    def answer(self, kind: str, asked: Any) -> dict[str, Any]:
        """Answers a request.

        Raises:
            Refused: what is asked means nothing; nothing is changed.
            OSError: the disk refused; nothing was acknowledged.
        """
        if kind not in self._kinds:
            raise Refused(f"{kind[:80]!r} is nothing that can be asked", did_you_mean(kind[:80], self._kinds), 404)
        if not isinstance(asked, Mapping):
            raise Refused("a request is a JSON object", status=400)
        if kind not in ("progress", "changes", "seen"):
            self.asked_at = time.monotonic()
        try:
            return self._kinds[kind](asked)
        except Refused:
            raise
        except MlfixError as error:
            raise Refused(error.problem, error.hint) from error

    def hello(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Tells a page what there is."""
        samples = self.samples
        bright = bool(asked.get("bright", True))
        typical = [self._plan(self.typical[start : start + REFERENCE_LABELS].reshape(-1), "reference", bright)
                   for start in range(0, len(self.typical), REFERENCE_LABELS)]  # fmt: skip
        who = self._who(asked)
        return {
            "id": self.ledger.journal.name, "place": self.places.of(who), "title": self.title, "count": len(samples),
            "labels": samples.labels, "columns": list(samples.columns), "audited": samples.audited,
            "calibrated": samples.calibrated, "sorted": samples.place is not None,
            "labelled": bool((samples.given != NONE).any()), "reviewer": who, "notes": self.notes,
            "conflicts": [{**self._conflict(row, wish), "file": True} for row, wish in self.opening_conflicts.items()],
            "block": sheets.BLOCK,
            "small": [self.sprites.small, sheets.SMALL_COLUMNS], "large": [self.sprites.large, sheets.LARGE_COLUMNS],
            "references": [REFERENCES, REFERENCE_LABELS, typical], "typical": self.typical.tolist(),
            "new_labels": self.may_add_labels, "number": self.ledger.number, "steps": self.ledger.can(who),
        }  # fmt: skip

    def view(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a view; returns its key and its groups."""
        spec = ViewSpec.parse(asked, self.samples)
        if spec.by == "random" and not self.ledger.drawn:
            self.draw({"reviewer": self._who(asked)})
        with self.ledger.lock:
            judged = judged_of(self.ledger, self.seen.seen)
            view = make_view(self.samples, spec, self.ledger.marks, judged, np.asarray(self.ledger.drawn, np.int32))
        key = view.key
        with self._lock:
            self._views[key] = view
            self._views.move_to_end(key)
            while len(self._views) > 24:
                self._views.popitem(last=False)
            self.looked_at = key
        return {
            "view": key, "count": len(view.rows), "names": view.names, "sizes": np.diff(view.starts).tolist(),
            "given": view.given.tolist(), "other": view.other.tolist(),
            "expected": [round(float(value), 2) for value in view.expected], **self._done(view),
        }  # fmt: skip

    def _done(self, view: View) -> dict[str, Any]:
        """Returns how many samples of each group are judged and marked."""
        judged = judged_of(self.ledger, self.seen.seen)[view.rows]
        count = len(view.names)
        return {
            "judged": np.bincount(view.group_of[judged], minlength=count).tolist(),
            "marked": np.bincount(view.group_of[self.ledger.marks[view.rows] != NONE], minlength=count).tolist(),
        }

    def size_of(self, key: str) -> int:
        """Returns how many samples a view shows, 0 if it is gone."""
        view = self._views.get(key)
        return 0 if view is None else len(view.rows)

    def plan_block(self, key: str, number: int) -> str:
        """Names the sheet of small tiles of a block of a view."""
        view = self.find_view({"view": key})
        return self._plan(view.rows[number * sheets.BLOCK : (number + 1) * sheets.BLOCK], "small", True)

    def find_view(self, asked: Mapping[str, Any]) -> View:
        """Returns a view that was made before."""
        with self._lock:
            view = self._views.get(str(asked.get("view")))
        if view is None:
            raise Refused("this view is gone", "ask for it again", 410)
        return view

    def block(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a page draws of :data:`BLOCK` samples of a view, and the names of their sheets."""
        view = self.find_view(asked)
        number = read_number(asked, "number", 0, max(-(-len(view.rows) // sheets.BLOCK), 1))
        rows = view.rows[number * sheets.BLOCK : (number + 1) * sheets.BLOCK]
        bright = bool(asked.get("bright", True))
        per = sheets.LARGE_COLUMNS**2
        large = self.sprites.large > self.sprites.small
        samples, ledger = self.samples, self.ledger
        hidden = view.spec.by == "random"  # what the audit says would sway the judgement
        nothing = [NONE] * len(rows)
        return {
            "rows": rows.tolist(), "ids": samples.ids[rows].tolist(), "given": samples.given[rows].tolist(),
            "predicted": nothing if hidden else samples.predicted[rows].tolist(),
            "suggested": nothing if hidden else samples.suggested[rows].tolist(),
            "suspicion": [None] * len(rows) if hidden else _short(samples.suspicion[rows]),
            **self._state(rows, ledger),
            "small": self._plan(rows, "small", bright),
            "large": [self._plan(rows[i : i + per], "large", bright) for i in range(0, len(rows) if large else 0, per)],
        }  # fmt: skip

    def _state(self, rows: np.ndarray, ledger: Ledger) -> dict[str, list[int]]:
        flags = self.seen.seen[rows] + 2 * ledger.fine[rows]
        return {"mark": ledger.marks[rows].tolist(), "stamp": ledger.stamps[rows].tolist(), "flags": flags.tolist()}

    def _plan(self, rows: np.ndarray, kind: str, bright: bool) -> str:
        side, columns = {
            "small": (self.sprites.small, sheets.SMALL_COLUMNS), "large": (self.sprites.large, sheets.LARGE_COLUMNS),
            "reference": (self.sprites.small, REFERENCES),
        }[kind]  # fmt: skip
        return self.sprites.plan(rows, side, columns, bright)

    def group(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the labels on offer for a group: what the audit suggests there, and what was given there before."""
        view = self.find_view(asked)
        rows = view.group(read_number(asked, "group", 0, len(view.names)))
        samples = self.samples
        weights = np.zeros(len(samples.labels))
        if view.spec.by != "random":
            told = samples.suggested[rows]
            other = (told >= 0) & (told != samples.given[rows])
            weights += np.bincount(told[other], np.nan_to_num(samples.suspicion[rows][other]) + 1e-6, len(weights))
        same = np.isin(samples.given, np.unique(samples.given[rows])) & (self.ledger.marks >= 0)
        weights += 100.0 * np.bincount(self.ledger.marks[same], minlength=len(weights))
        return {"offers": [int(i) for i in np.argsort(-weights, kind="stable")[:OFFERS] if weights[i] > 0]}

    def marks(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Marks samples: ``marks`` is a list of ``sample_id``, ``new_label`` and, from a page, ``base``."""
        who = self._who(asked)
        changes = read_changes(asked, self.samples, self.ledger, self.may_add_labels)
        outcome = self.ledger.mark(changes, who, read_key(asked))
        rows = np.asarray(outcome.changed, np.int64)
        self._pace(who).add(int((~self.seen.seen[rows]).sum()), int((self.ledger.marks[rows] != NONE).sum()))
        wish = {change.row: change.mark for change in changes}
        for row in wish:
            self.opening_conflicts.pop(row, None)
        return self._told(outcome, who, wish)

    def fine(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Notes that a group of a view looks fine but for what is marked."""
        view = self.find_view(asked)
        who, number = self._who(asked), read_number(asked, "group", 0, len(view.names))
        drawn = view.spec.by == "random"
        return self._told(self.ledger.find_fine(view.group(number), who, drawn, read_key(asked)), who)

    def undo(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Takes back what the reviewer did last."""
        return self._told(self.ledger.undo(self._who(asked), read_key(asked)), self._who(asked))

    def redo(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Does again what the reviewer took back last."""
        return self._told(self.ledger.redo(self._who(asked), read_key(asked)), self._who(asked))

    def _told(self, outcome: Outcome, who: str, wish: Mapping[int, int] | None = None) -> dict[str, Any]:
        """Writes ``fixes.csv``, and only then says what became of a request."""
        self.file.write()
        asked = [*outcome.changed, *outcome.conflicts, *outcome.fine, *(wish or ())]
        rows = np.asarray(list(dict.fromkeys(asked)), np.int64)
        return {
            "saved": len(outcome.changed), "fine": len(outcome.fine), "words": outcome.words,
            "first": int(rows[0]) if len(rows) else None,
            "conflicts": [self._conflict(row, (wish or {}).get(row)) for row in outcome.conflicts],
            "steps": self.ledger.can(who), **self._rows(rows),
        }  # fmt: skip

    def _rows(self, rows: np.ndarray) -> dict[str, Any]:
        return {"number": self.ledger.number, "rows": rows.tolist(), **self._state(rows, self.ledger)}

    def _conflict(self, row: int, wish: int | None) -> dict[str, Any]:
        by, when, _ = self.ledger.about.get(row, ("", "", ""))
        return {"sample_id": self.samples.ids[row], "row": row, "mark": int(self.ledger.marks[row]), "by": by,
                "new_label": self.ledger.mark_name(int(self.ledger.marks[row])), "time": when,
                "stamp": int(self.ledger.stamps[row]), "wanted": wish}  # fmt: skip

    def new_label(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Takes up a new label; returns its code and the labels that the page doesn't know yet."""
        code = read_new_label(asked.get("name"), self.samples, self.may_add_labels)
        known = read_number(asked, "labels", 0, len(self.samples.labels) + 1)
        return {"code": code, "labels": self.samples.labels[known:], "labels_from": known}

    def keep(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps what is marked here where a fixes file says otherwise."""
        for row in read_rows(asked, len(self.samples)):
            self.opening_conflicts.pop(row, None)
        return {}

    def note_seen(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Notes which rows were on the screen."""
        rows = read_rows(asked, len(self.samples))
        with self.ledger.lock:
            new = self.seen.add(rows, asked.get("random") is True)
        self._pace(self._who(asked)).add(seen=len(new))
        return {"new": len(new)}

    def changes(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what was marked since entry ``since``, by whomever."""
        since = read_number(asked, "since", 0, 2**53)
        told = self._rows(np.asarray(self.ledger.since(since), np.int64))
        known = asked.get("labels")
        more = self.samples.labels[known:] if isinstance(known, int) and known >= 0 else []
        return {**told, "labels": more, "labels_from": known, "steps": self.ledger.can(self._who(asked))}

    def progress(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Returns how the review goes, and each group of a view."""
        who = self._who(asked)
        with self.ledger.lock:
            told = summarise(self.samples, self.ledger, self.seen, self._pace(who))
            with self._lock:
                view = self._views.get(str(asked.get("view")))
            done = {} if view is None else self._done(view)
            groups = {} if view is None else {"judged": done["judged"], "marked_in": done["marked"]}
        return {**told, "cut": list(self.cut_ahead), **groups}

    def detail(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Returns all that is known of one sample."""
        row = read_number(asked, "row", 0, len(self.samples))
        by, when, note = self.ledger.about.get(row, ("", "", ""))
        marked = self.ledger.marks[row] != NONE
        return {"row": row, "facts": facts_of(self.samples, row), "by": by if marked else "",
                "time": when if marked else "", "note": note if marked else ""}  # fmt: skip

    def keep_place(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps where a reviewer is and how the page is set, so that they go on there, whatever browser they use."""
        with self.ledger.lock:
            self.places.keep(self._who(asked), asked.get("place"))
        return {}

    def draw(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Draws further samples for the random sample."""
        count = read_number(asked, "count", 1, 100_001) if "count" in asked else DRAW
        with self.ledger.lock:
            new = draw_random(self.samples, self.ledger.drawn, count, seed=0)
            if new:
                self.ledger.draw(new, self._who(asked))
        return {"drawn": len(self.ledger.drawn), "new": len(new)}

    def picture(self, row: int) -> bytes:
        """Returns one sample's picture as large as its file has it, within limits, as a JPEG."""
        if not 0 <= row < len(self.samples):
            raise Refused("no such sample", status=404)
        return large_picture(str(self.samples.paths[row]), lambda: self.sprites.pixels(np.asarray([row]))[0])

    def close(self) -> None:
        """Writes ``fixes.csv`` where that is still to do."""
        self.file.write()
        self.ledger.journal.close()
        self.seen.close()

    def _who(self, asked: Mapping[str, Any]) -> str:
        return read_reviewer(asked, self.reviewer)

    def _pace(self, who: str) -> Pace:
        return self.paces.setdefault(who, Pace())


def _short(values: np.ndarray) -> list[float | None]:
    return [None if value != value else round(value, 3) for value in values.tolist()]
