"""The review session: answers what the page requests, through a server or a notebook widget.

A request is a kind and a JSON object, the response a JSON object; sprite sheets and images are bytes. Samples are named
by ``sample_id`` in marks, and by their row number elsewhere.
"""

import contextlib
import getpass
import hashlib
import logging
import math
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlfix_train.audit.review import requests
from mlfix_train.audit.review import sprites as sheets
from mlfix_train.audit.review.calibration import CalibratedReview, Calibrator
from mlfix_train.audit.review.confusion import summarize_labels
from mlfix_train.audit.review.explain import explain_sample
from mlfix_train.audit.review.filters import describe_columns
from mlfix_train.audit.review.fixes_file import FixesFile, open_fixes
from mlfix_train.audit.review.image_map import ImageMap, pack, quantize
from mlfix_train.audit.review.journal import Journal
from mlfix_train.audit.review.marks import Author, MarkStore, Outcome
from mlfix_train.audit.review.neighbours import SimilarImages, describe_neighbours
from mlfix_train.audit.review.progress import Pace, ReviewerStates, SeenLog, reviewed_mask, summarize
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.samples import N_TYPICAL, NONE, Samples, make_samples, typical_images
from mlfix_train.audit.review.sprites import Sprites
from mlfix_train.audit.review.views import MIN_SUSPICION, View, ViewSpec, make_view
from mlfix_train.audit.similarity.order_files import KeptEmbeddings
from mlfix_train.data.files.atomic import remove_leftovers
from mlfix_train.data.pixels.store import PixelStore
from mlfix_train.data.samples import INVALID, UNSURE, find_names, label_list
from mlfix_train.errors import DataError, MlfixError, did_you_mean

log = logging.getLogger(__name__)

N_SUGGESTIONS = 9  # labels suggested for a group, one per digit key
DRAW_COUNT = 100  # samples drawn at a time for the sample to judge
LABELS_PER_SHEET = 32  # labels whose typical images share a sheet, one label per line
MAX_VIEWS, MAX_VIEW_ROWS = 24, 8_000_000  # views, and rows of them, kept in memory
SORTING = "The images are being sorted by similarity. Until that is done, they are in the order of the files."
REQUESTS = (
    *("describe", "view", "block", "group", "sample", "neighbours", "confusion", "progress", "changes", "seen", "draw"),
    *("map", "save_state"),
    *("marks", "review_group", "undo", "redo", "add_label", "dismiss_conflicts"),
)
"""Kinds of requests: methods of :class:`ReviewSession`."""

Payload = Mapping[str, Any]
Response = dict[str, Any]


@dataclass
class ReviewSession:
    """A review: what it shows, what is marked, and its progress. Use :func:`open_session` to open one."""

    samples: Samples
    store: MarkStore
    seen_log: SeenLog
    fixes: FixesFile
    sprites: Sprites
    image_map: ImageMap
    similar: SimilarImages
    title: str
    reviewer: str  # unless the page gives another name
    allow_new_labels: bool = False
    current_view: str | None = None  # key of the view that was requested last
    last_request: float = 0.0  # when a person requested something last, as of time.monotonic
    sprites_ready: tuple[int, int] = (0, 0)  # samples of the current view whose tiles are cut, and all of them

    def __post_init__(self) -> None:
        self.fixes_path = self.fixes.path
        self.reviewer_states = ReviewerStates(self.fixes_path.with_name("reviewer_state.json"))
        self.typical = typical_images(self.samples)
        self.calibrator = Calibrator(self.samples, self.store, self.seen_log)
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)  # by reviewer
        self._is_suspicious = self.samples.suspicion >= MIN_SUSPICION
        self._stop_sorting: Callable[[], None] | None = None  # while the images are being sorted
        self._views: OrderedDict[str, View] = OrderedDict()
        self._keys: dict[ViewSpec, str] = {}  # of views that marks do not change
        self._views_lock = threading.Lock()

    def respond(self, kind: str, payload: Any) -> tuple[int, Response]:
        """Handles a request; returns an HTTP status and a response, which has ``error`` and ``hint`` if it failed."""
        try:
            response = self.handle(kind, payload)
        except RequestError as error:
            return error.status, error.response
        except OSError as error:
            log.error("not saved: %s", error)
            hint = "free some space, or check the permissions; the page keeps unsaved changes and tries again"
            return 507, {"error": f"not saved: {error.strerror or error}", "hint": hint}
        return 409 if kind == "marks" and response["conflicts"] else 200, response

    def handle(self, kind: str, payload: Any) -> Response:
        """Handles a request.

        Raises:
            RequestError: The request is invalid; nothing is changed.
            OSError: It could not be written to disk; nothing is acknowledged.
        """
        if kind not in REQUESTS:
            hint = did_you_mean(kind[:80], REQUESTS)
            raise RequestError(f"unknown request {kind[:80]!r}", hint, HTTPStatus.NOT_FOUND)
        if not isinstance(payload, Mapping):
            raise RequestError("the request is not a JSON object", status=HTTPStatus.BAD_REQUEST)
        if kind not in ("progress", "changes", "seen"):
            self.last_request = time.monotonic()
        try:
            response: Response = getattr(self, kind)(payload)
            return response
        except RequestError:
            raise
        except MlfixError as error:
            raise RequestError(error.problem, error.hint) from error

    def describe(self, payload: Payload) -> Response:
        """Returns what a page needs to know when it opens."""
        samples, reviewer, n = self.samples, self._reviewer(payload), LABELS_PER_SHEET
        parts = [self.typical[i : i + n].reshape(-1) for i in range(0, len(self.typical), n)]
        with self.store.lock:
            conflicts = list(self.fixes.conflicts.items())
        return {
            "id": self.store.journal.name,
            "title": self.title,
            "fixes": str(self.fixes_path),
            "count": len(samples),
            "labels": samples.labels,
            "digits": self._digits(),
            "columns": list(samples.columns),
            "filters": describe_columns(samples),
            "has_unsure": UNSURE not in samples.code,
            "audited": samples.audited,
            "calibrated": samples.calibrated,
            "sorted": samples.position is not None,
            "labeled": bool((samples.given != NONE).any()),
            "allow_new_labels": self.allow_new_labels,
            "reviewer": reviewer,
            "state": self.reviewer_states.get(reviewer),
            "notes": [*self.fixes.notes, *([SORTING] if self._stop_sorting else [])],
            "conflicts": [{**self._conflict(row, wanted), "from_file": True} for row, wanted in conflicts],
            "block_size": sheets.BLOCK,
            "small": [self.sprites.small, sheets.SMALL_COLUMNS],
            "large": [self.sprites.large, sheets.LARGE_COLUMNS],
            "typical": self.typical.tolist(),
            "typical_size": [N_TYPICAL, LABELS_PER_SHEET],
            "typical_sheets": [self._plan(part, "typical", payload) for part in parts],
            "revision": self.store.revision,
            "steps": self.store.steps(reviewer),
        }

    def _digits(self) -> list[int]:
        """Returns the labels that the digit keys set: all, or those that the audit suggests most."""
        samples, n = self.samples, len(self.samples.labels)
        if n <= N_SUGGESTIONS:
            return list(range(n))
        other = (samples.suggested >= 0) & (samples.suggested != samples.given)
        weights = np.bincount(samples.suggested[other], np.nan_to_num(samples.suspicion[other]), n)
        order = np.argsort(-weights, kind="stable")[:N_SUGGESTIONS]
        return sorted(int(label) for label in order if weights[label] > 0)

    def view(self, payload: Payload) -> Response:
        """Makes a view, and returns its key and groups."""
        spec, calibrated = ViewSpec.parse(payload, self.samples), self.calibrator.calibrated()
        if spec.group_by == "random" and not self.store.drawn:
            self.draw({"reviewer": self._reviewer(payload)})
        key, view, used = self._open_view(spec)
        return {
            "view": key,
            "count": len(view.rows),
            "names": view.names,
            "sizes": np.diff(view.starts).tolist(),
            "given": view.given.tolist(),
            "other": view.other.tolist(),
            "used": used,
            **self._expected(view, calibrated),
            **self._group_counts(view, calibrated),
        }

    def _open_view(self, spec: ViewSpec) -> tuple[str, View, str]:
        """Returns a view, its key, and what its images are compared by; one that marks do not change is made once."""
        view, used, position = self._views.get(self._keys.get(spec, "")), "", self.samples.position
        if view is None:
            similar, used = (None, "") if spec.similar_to is None else self.similar.nearest(spec.similar_to)
            with self.store.lock:
                reviewed = reviewed_mask(self.store, self.seen_log.seen)
                listed = np.asarray(self.store.drawn, np.int32) if similar is None else similar
                view = make_view(self.samples, spec, self.store.marks, reviewed, listed, self._narrow(spec))
        key = view.key
        with self._views_lock:
            if spec.stays_the_same and self.samples.position is position:
                self._keys[spec] = key
            self._views[key] = view
            self._views.move_to_end(key)
            while len(self._views) > MAX_VIEWS or (
                len(self._views) > 2 and sum(len(one.rows) for one in self._views.values()) > MAX_VIEW_ROWS
            ):
                self._views.popitem(last=False)
            self.current_view = key
        return key, view, used

    def _narrow(self, spec: ViewSpec) -> np.ndarray | None:
        """Returns bool ``(N,)``, which samples the least suspicion, filters on columns and a lasso leave; None: all."""
        if not (spec.min_suspicion or spec.columns or spec.area):
            return None
        shown = np.ones(len(self.samples), bool)
        if spec.min_suspicion:
            shown &= np.nan_to_num(self._suspicion()) >= spec.min_suspicion
        for one in spec.columns:
            shown &= one.matches(self.samples, self.store.marks)
        if spec.area:
            shown &= self.image_map.inside(spec.area)
        return shown

    def _suspicion(self) -> np.ndarray:
        """Returns the suspicion that the page shows, float ``(N,)``: by the judgements, else by the audit."""
        calibrated = self.calibrator.latest
        return self.samples.suspicion if calibrated is None else calibrated.probability

    def _expected(self, view: View, calibrated: CalibratedReview | None) -> Response:
        """Returns the wrong labels expected in each group of a view, and their intervals where there are any.

        Where suspicion is not a probability, that is the number of suspicious samples.
        """
        if calibrated is None:
            expected = view.expected if self.samples.calibrated else view.total(self._is_suspicious)
            return {"expected": [round(float(value), 2) for value in expected], "intervals": None}
        expected = view.total(calibrated.probability).copy()
        intervals: list[list[float] | None] = [None] * len(view.names)
        is_whole = view.spec == replace(ViewSpec(), group_order=view.spec.group_order, sort_by=view.spec.sort_by)
        if is_whole:  # each group holds all samples of a label
            for group, code in enumerate(view.given.tolist()):
                row = calibrated.estimate.labels.get(self.samples.label(code))
                if row is not None:
                    expected[group], intervals[group] = row["wrong"], row["interval"]
        return {"expected": [round(float(value), 2) for value in expected], "intervals": intervals}

    def _group_counts(self, view: View, calibrated: CalibratedReview | None) -> Response:
        """Returns how many samples of each group are reviewed and marked, and what is left in the rest.

        That is the number of wrong labels expected there, where suspicion is not a probability the number of suspicious
        ones, and ``None`` where there is no audit.
        """
        reviewed = np.flatnonzero(reviewed_mask(self.store, self.seen_log.seen))
        marked, count = np.flatnonzero(self.store.is_wrong), len(view.names)
        groups, left = view.groups_of(reviewed), None
        if self.samples.audited and view.spec.group_by != "random":
            suspicion = self.samples.suspicion if calibrated is None else calibrated.probability
            if calibrated is None and not self.samples.calibrated:
                suspicion = self._is_suspicious
            weights = np.nan_to_num(suspicion[reviewed[groups != NONE]].astype(np.float64))
            seen = np.bincount(groups[groups != NONE], weights, count)
            left = np.maximum(view.total(suspicion) - seen, 0).round(2).tolist()
        return {
            "group_reviewed": np.bincount(groups[groups != NONE], minlength=count).tolist(),
            "group_marked": np.bincount(view.groups_of(marked) + 1, minlength=count + 1)[1:].tolist(),
            "group_left": left,
        }

    def plan_sheets(self, key: str) -> list[tuple[str, tuple[int, int]]]:
        """Returns the sheets of small tiles of a view: name, samples up to its end, and all samples."""
        rows = self._views[key].rows if key in self._views else np.zeros(0, np.int32)
        blocks = [rows[start : start + sheets.BLOCK] for start in range(0, len(rows), sheets.BLOCK)]
        ends = np.cumsum([len(block) for block in blocks], dtype=int).tolist()
        return [(self._plan(block, "small", {}), (end, len(rows))) for block, end in zip(blocks, ends, strict=True)]

    def _view(self, payload: Payload) -> View:
        view = self._views.get(str(payload.get("view")))
        if view is None:
            raise RequestError("this view is no longer in memory", "request it again", HTTPStatus.GONE)
        return view

    def block(self, payload: Payload) -> Response:
        """Returns what a page draws for :data:`sprites.BLOCK` samples of a view, and the names of their sheets."""
        view, samples = self._view(payload), self.samples
        n_blocks = max(-(-len(view.rows) // sheets.BLOCK), 1)
        start = sheets.BLOCK * requests.parse_int(payload, "number", 0, n_blocks)
        rows = view.rows[start : start + sheets.BLOCK]
        has_large, per_sheet = self.sprites.large > self.sprites.small, sheets.LARGE_COLUMNS**2
        parts = [rows[i : i + per_sheet] for i in range(0, len(rows), per_sheet)] if has_large else []
        if view.spec.group_by == "random":  # the audit must not bias the reviewer
            predicted = suggested = [NONE] * len(rows)
            suspicion: list[float | None] = [None] * len(rows)
        else:
            predicted, suggested = samples.predicted[rows].tolist(), samples.suggested[rows].tolist()
            suspicion = [None if math.isnan(value) else round(value, 3) for value in self._suspicion()[rows].tolist()]
        return {
            "rows": rows.tolist(),
            "ids": samples.names(rows),
            "given": samples.given[rows].tolist(),
            "predicted": predicted,
            "suggested": suggested,
            "suspicion": suspicion,
            **self._row_state(rows),
            "small": self._plan(rows, "small", payload),
            "large": [self._plan(part, "large", payload) for part in parts],
        }

    def _row_state(self, rows: np.ndarray) -> Response:
        store, seen_log = self.store, self.seen_log
        judged = seen_log.seen_in_random[rows] | store.random_reviewed[rows]
        flags = seen_log.seen[rows] + 2 * store.group_reviewed[rows] + 4 * judged
        state = {"marks": store.marks[rows], "revisions": store.revisions[rows], "flags": flags}
        return {name: values.tolist() for name, values in state.items()}

    def _plan(self, rows: np.ndarray, kind: str, payload: Payload) -> str:
        columns = {"small": sheets.SMALL_COLUMNS, "large": sheets.LARGE_COLUMNS, "typical": N_TYPICAL}[kind]
        side = self.sprites.large if kind == "large" else self.sprites.small
        return self.sprites.plan(rows, side, columns, bool(payload.get("brighten", True)))

    def group(self, payload: Payload) -> Response:
        """Returns the labels to suggest for a group: those given there before, then those the audit suggests."""
        view, samples = self._view(payload), self.samples
        rows = view.group(requests.parse_int(payload, "group", 0, len(view.names)))
        marked = np.flatnonzero(self.store.marks >= 0)
        marked = marked[np.isin(samples.given[marked], np.unique(samples.given[rows]))]
        weights = 100.0 * np.bincount(self.store.marks[marked], minlength=len(samples.labels))
        if view.spec.group_by != "random":
            suggested = samples.suggested[rows]
            other = (suggested >= 0) & (suggested != samples.given[rows])
            suspicion = np.nan_to_num(samples.suspicion[rows][other]) + 1e-6
            weights += np.bincount(suggested[other], suspicion, len(weights))
        order = np.argsort(-weights, kind="stable")[:N_SUGGESTIONS]
        return {"suggestions": [int(label) for label in order if weights[label] > 0]}

    def sample(self, payload: Payload) -> Response:
        """Returns what the audit says of a sample, its scores and metadata, and who marked it."""
        row = requests.parse_int(payload, "row", 0, len(self.samples))
        author = self.store.authors[row] if self.store.marks[row] != NONE else Author()
        probability = None if self.calibrator.latest is None else float(self.calibrator.latest.probability[row])
        suspicion = float(self._suspicion()[row])
        audit = {
            "suspicion": None if math.isnan(suspicion) else round(suspicion, 3),
            "suggested": int(self.samples.suggested[row]),
            "told": explain_sample(self.samples, row, probability),
        }
        facts = {"mark": int(self.store.marks[row]), "details": self.samples.details(row)}
        return {"row": row, **audit, **facts, **author._asdict()}

    def neighbours(self, payload: Payload) -> Response:
        """Returns the images most like one, with their labels, and the name of the sheet that shows them."""
        row = requests.parse_int(payload, "row", 0, len(self.samples))
        shown, facts = describe_neighbours(self.similar, row)
        rows = np.asarray(shown + [NONE] * (N_TYPICAL - len(shown)))
        given, marks = self.samples.given[shown].tolist(), self.store.marks[shown].tolist()
        sheet = self._plan(rows, "typical", payload)
        return {"row": row, "rows": shown, "given": given, "marks": marks, "sheet": sheet, **facts}

    def confusion(self, payload: Payload) -> Response:
        """Returns where suspicion is, by label and by pair of labels (:func:`confusion.summarize_labels`)."""
        calibrated = self.calibrator.calibrated()
        with self.store.lock:
            reviewed = reviewed_mask(self.store, self.seen_log.seen)
            summary = summarize_labels(self.samples, self._suspicion(), reviewed, self.store.is_wrong)
        return {"is_count": calibrated is not None or self.samples.calibrated, **summary}

    def marks(self, payload: Payload) -> Response:
        """Marks samples: ``marks`` is a list of ``sample_id``, ``new_label`` and, from the page, ``base_revision``."""
        reviewer = self._reviewer(payload)
        changes = requests.parse_marks(payload, self.samples, self.store, self.allow_new_labels)
        with self.store.lock:
            outcome = self.store.mark(
                changes, reviewer, requests.parse_request_id(payload), payload.get("random") is True
            )
            rows = np.asarray(outcome.changed, np.int64)
            self._paces[reviewer].add(int((~self.seen_log.seen[rows]).sum()), int(self.store.is_wrong[rows].sum()))
            self._settle_conflicts(change.row for change in changes)
        return self._changed(outcome, reviewer, {change.row: change.mark for change in changes})

    def review_group(self, payload: Payload) -> Response:
        """Records that a group of a view was reviewed: labels that are not marked are right.

        With ``rows``, those on the screen now, only these and what was seen before count; without, the whole group.
        """
        view, reviewer = self._view(payload), self._reviewer(payload)
        rows = view.group(requests.parse_int(payload, "group", 0, len(view.names)))
        request_id, random = requests.parse_request_id(payload), view.spec.group_by == "random"
        if "rows" in payload:
            seen = np.isin(rows, requests.parse_rows(payload, len(self.samples)))
            rows = rows[seen | (self.seen_log.seen_in_random if random else self.seen_log.seen)[rows]]
        return self._changed(self.store.mark_reviewed(rows, reviewer, random, request_id), reviewer)

    def undo(self, payload: Payload, redo: bool = False) -> Response:
        """Undoes the reviewer's last action."""
        reviewer = self._reviewer(payload)
        return self._changed(self.store.undo(reviewer, requests.parse_request_id(payload), redo), reviewer)

    def redo(self, payload: Payload) -> Response:
        """Redoes the action that the reviewer undid last."""
        return self.undo(payload, redo=True)

    def _changed(self, outcome: Outcome, reviewer: str, wanted: Mapping[int, int] | None = None) -> Response:
        """Returns the response to a change."""
        wanted = wanted or {}
        touched = dict.fromkeys([*outcome.changed, *outcome.conflicts, *outcome.reviewed, *wanted])
        rows = np.asarray(list(touched), np.int64)
        return {
            "saved": len(outcome.changed),
            "reviewed": len(outcome.reviewed),
            "message": outcome.message,
            "first_row": int(rows[0]) if len(rows) else None,
            "conflicts": [self._conflict(row, wanted.get(row)) for row in outcome.conflicts],
            "steps": self.store.steps(reviewer),
            **self._changed_rows(rows),
        }

    def _changed_rows(self, rows: np.ndarray) -> Response:
        return {"revision": self.store.revision, "rows": rows.tolist(), **self._row_state(rows)}

    def _conflict(self, row: int, wanted: int | None) -> Response:
        reviewer, when, _ = self.store.authors.get(row, Author())
        mark = int(self.store.marks[row])
        return {
            **{"sample_id": self.samples.ids[row], "row": row, "reviewer": reviewer, "time": when, "wanted": wanted},
            **{"mark": mark, "new_label": self.store.mark_name(mark, row), "revision": int(self.store.revisions[row])},
        }

    def add_label(self, payload: Payload) -> Response:
        """Adds a label, and returns its code and the labels that the page does not have yet."""
        code = requests.parse_new_label(payload.get("name"), self.samples, self.allow_new_labels)
        known = requests.parse_int(payload, "known_labels", 0, len(self.samples.labels) + 1)
        return {"code": code, "labels": self.samples.labels[known:], "known_labels": known}

    def dismiss_conflicts(self, payload: Payload) -> Response:
        """Keeps the marks of this review for rows that a fixes file marks differently."""
        self._settle_conflicts(requests.parse_rows(payload, len(self.samples)))
        return {}

    def _settle_conflicts(self, rows: Iterable[int]) -> None:
        with self.store.lock:
            for row in rows:
                self.fixes.conflicts.pop(row, None)

    def seen(self, payload: Payload) -> Response:
        """Records which rows were on the screen."""
        rows, reviewer = requests.parse_rows(payload, len(self.samples)), self._reviewer(payload)
        with self.store.lock:
            new = self.seen_log.add(rows, payload.get("random") is True)
            self._paces[reviewer].add(seen=len(new))
        return {"new": len(new)}

    def changes(self, payload: Payload) -> Response:
        """Returns what anyone changed after revision ``since``."""
        since = requests.parse_int(payload, "since", 0, 2**53)
        with self.store.lock:
            changed = self._changed_rows(np.asarray(self.store.changed_since(since), np.int64))
        known, steps = payload.get("known_labels"), self.store.steps(self._reviewer(payload))
        labels = self.samples.labels[known:] if isinstance(known, int) and known >= 0 else []
        more = {"labels": labels, "known_labels": known, "sorted": self.samples.position is not None}
        return {**changed, **more, "steps": steps}

    def progress(self, payload: Payload) -> Response:
        """Returns the progress of the review (:func:`progress.summarize`), and of each group of a view."""
        reviewer = self._reviewer(payload)
        view = self._views.get(str(payload.get("view")))
        calibrated = self.calibrator.calibrated()
        with self.store.lock:
            summary = summarize(self.samples, self.store, self.seen_log, self._paces[reviewer], calibrated)
            groups = {}
            if view is not None:
                expected = self._expected(view, calibrated)
                groups = {**self._group_counts(view, calibrated), "expected_in_groups": expected["expected"]}
                groups["intervals"] = expected["intervals"]
        return {
            **summary,
            **{"sprites_ready": list(self.sprites_ready), "calibrating": self.calibrator.is_behind},
            **groups,
        }

    def draw(self, payload: Payload) -> Response:
        """Adds samples to the sample to judge."""
        count = requests.parse_int(payload, "count", 1, 100_001) if "count" in payload else DRAW_COUNT
        with self.store.lock:
            rows = self.calibrator.draw(count)
            if rows:
                self.store.draw(rows, self._reviewer(payload))
        return {"drawn": len(self.store.drawn), "new": len(rows)}

    def map(self, payload: Payload) -> Response:
        """Returns the map of all images, or how far it is; ``action``: ``start`` or ``stop`` computing it.

        With ``view``, also which samples are in it. Of a map whose key is ``known``, what cannot change is left out.
        """
        action = payload.get("action")
        if action not in (None, "start", "stop"):
            raise RequestError(f"there is no action {str(action)[:80]!r}", "use start, stop, or leave it out")
        if action:
            (self.image_map.start if action == "start" else self.image_map.stop)()
        response = self.image_map.response(payload.get("known"))
        if response["state"] == "ready":
            if "points" in response:
                response["given"] = pack(self.samples.given, np.int32)
            response["suspicion"] = pack(quantize(self._suspicion()), np.uint8)
            if "view" in payload:
                shown = np.zeros(len(self.samples), np.uint8)
                shown[self._view(payload).rows] = 1
                response["shown"] = pack(shown, np.uint8)
        return response

    def save_state(self, payload: Payload) -> Response:
        """Stores where a reviewer is and how they set up the page."""
        with self.store.lock:
            self.reviewer_states.set(self._reviewer(payload), payload.get("state"))
        return {}

    def full_image(self, row: Any, is_zoomed: bool = False) -> bytes:
        """Returns a sample's image as a JPEG, enlarged; larger still if it is to be zoomed."""
        if not isinstance(row, int) or not 0 <= row < len(self.samples):
            raise RequestError(f"there is no sample {row!r}", status=HTTPStatus.NOT_FOUND)
        path, rows = str(self.samples.paths[row]), np.asarray([row])
        largest = sheets.SHARP if is_zoomed else sheets.FULL
        return sheets.encode_full_image(path, lambda: self.sprites.pixels(rows)[0], self.sprites.white, largest)

    def sprite_sheet(self, name: str) -> bytes:
        """Returns a sprite sheet, a JPEG."""
        sheet = self.sprites.sheet(name)
        if sheet is None:
            raise RequestError("there is no such sprite sheet", status=HTTPStatus.NOT_FOUND)
        return sheet

    def sort_meanwhile(self, sort: Callable[[], pd.DataFrame | None], stop: Callable[[], None]) -> None:
        """Waits in a thread for a visual order, which views that are opened after that have.

        Args:
            sort: Returns the order, as :func:`open_session` takes it; ``None`` if there is none.
            stop: Ends ``sort`` when the session is closed.
        """

        def wait() -> None:
            try:
                order = sort()
                if order is not None:
                    self.samples.place(order)
                    with self._views_lock:
                        self._keys.clear()
                    self.typical = typical_images(self.samples)
            except MlfixError as error:
                log.warning("%s: the images stay in the order of the files", error.problem)
            self._stop_sorting = None

        self._stop_sorting = stop
        threading.Thread(target=wait, daemon=True, name="sorting").start()

    def close(self) -> None:
        """Writes ``fixes.csv`` if it is not up to date, and closes the files."""
        if self._stop_sorting is not None:
            self._stop_sorting()
        self.fixes.write()
        self.store.journal.close()
        self.seen_log.close()
        self.image_map.stop()

    def _reviewer(self, payload: Payload) -> str:
        return requests.parse_reviewer(payload, self.reviewer)


def open_session(
    table: pd.DataFrame,
    images: PixelStore | np.ndarray | Callable[[], PixelStore],
    out: str | Path,
    *,
    ranking: pd.DataFrame | None = None,
    order: pd.DataFrame | None = None,
    calibrated: bool = False,
    fixes: str | Path | None = None,
    ignore: Collection[str] = (),
    reviewer: str | None = None,
    title: str = "",
    notes: Sequence[str] = (),
    find_embeddings: Callable[[], KeptEmbeddings | None] = lambda: None,
) -> ReviewSession:
    """Opens a review: a new one, or one that continues from the files in ``out``.

    Args:
        table: Sample table with N rows.
        images: Pixels of the samples: a pixel store, a function that returns one when all else is read, or a uint8
            array ``(N, H, W, 3)``.
        out: Folder of ``journal.jsonl``, ``seen.jsonl`` and ``fixes.csv``; created if missing.
        ranking: Ranking of an audit: shown most suspicious first, with the labels it suggests.
        order: Visual order, indexed by ``sample_id``, as read by
            :func:`mlfix_train.audit.similarity.order_files.read_order`.
        calibrated: Whether the suspicion of the ranking is a probability, so that its sum estimates a number.
        fixes: A fixes file to start with.
        ignore: Problems of fixes files to ignore, as in :func:`mlfix_train.data.fixes.table.match_fixes`;
            ``new_labels`` also lets reviewers add labels.
        reviewer: Name of the reviewer; by default that of the account.
        title: Title of the page.
        notes: Further notes to show when the page opens.
        find_embeddings: Finds embeddings of the images, for the map and for similar images, such as
            :func:`mlfix_train.audit.similarity.order_files.find_embeddings`; ``None`` as long as there are none.

    Raises:
        DataError: The samples, or the files in ``out``, cannot be used; nothing is changed.
        FixesError: A fixes file does not match the samples; nothing is changed.
    """
    out = Path(out).expanduser()
    if INVALID in label_list(table):
        problem = f"a label is called {INVALID!r}, which means 'exclude the sample' in a fixes file"
        raise DataError(problem, "rename the label")
    samples = make_samples(table, ranking, order, calibrated)
    images = images() if callable(images) else images
    sprites = _make_sprites(images, len(table), out)
    reviewer = reviewer or account_name()
    with contextlib.ExitStack() as stack:
        try:
            journal = Journal(out / "journal.jsonl")
            stack.callback(journal.close)
            remove_leftovers(out)
            store = MarkStore(samples, journal)
            fixes_file = open_fixes(out / "fixes.csv", store, table, fixes, ignore, reviewer)
            seen_log = SeenLog(out / "seen.jsonl", samples)
        except OSError as error:
            hint = "free some space, check the permissions, or set another out=<folder>"
            raise DataError(f"{error.filename or out}: {error.strerror or error}", hint) from error
        stack.pop_all()
    fixes_file.notes += [*_notes(samples, table, images, ranking), *notes]
    image_map = ImageMap(samples.ids, find_embeddings, out / "map.npz")
    similar = SimilarImages(samples, find_embeddings, sprites.pixels)
    allow_new = "new_labels" in ignore
    return ReviewSession(samples, store, seen_log, fixes_file, sprites, image_map, similar, title, reviewer, allow_new)


def account_name() -> str:
    """Returns the name of the user's account, as a reviewer's name."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "reviewer"
    return name if requests.is_valid_name(name) else "reviewer"


def _make_sprites(images: PixelStore | np.ndarray, count: int, out: Path) -> Sprites:
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[0] != count or shape[-1] != 3:
        raise DataError(f"images has shape {shape}; there are {count:,} samples", "pass images of shape (N, H, W, 3)")
    if isinstance(images, PixelStore):
        folder = images.folder / "sprites"
        return Sprites(images.__getitem__, shape[1], images.fingerprint, folder, white=images.white)
    if images.dtype != np.uint8:
        raise DataError(f"images has dtype {images.dtype}", "pass uint8 images, 0 to 255")
    source = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    return Sprites(images.__getitem__, max(shape[1:3]), source, out / ".sprites")


def _notes(
    samples: Samples, table: pd.DataFrame, images: PixelStore | np.ndarray, ranking: pd.DataFrame | None
) -> list[str]:
    missing = 0 if ranking is None else int((find_names(samples.ids, ranking["sample_id"]) < 0).sum())
    unreadable = len(images.unreadable) if isinstance(images, PixelStore) else 0
    notes = {
        f"{missing:,} of {len(table):,} samples are not in the audit: nothing is known about them.": missing,
        f"{unreadable:,} images cannot be read and are shown grey.": unreadable,
        "The images have no labels: mark what should be excluded.": not label_list(table),
    }
    return [note for note, applies in notes.items() if applies]
