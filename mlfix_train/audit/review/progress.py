"""Progress of a review: what was reviewed and found, how fast, whether to keep going, and reviewers' positions.

A sample is **reviewed** when it was on the screen, is in a group marked as reviewed, or is marked. Shapes: N samples.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlfix_train.audit.review.journal import append_line
from mlfix_train.audit.review.marks import INVALID_CODE, KEEP_CODE, UNSURE_CODE, MarkStore
from mlfix_train.audit.review.requests import RequestError
from mlfix_train.audit.review.samples import Samples
from mlfix_train.audit.scores.estimates import STOP_PROBABILITY
from mlfix_train.data.files.atomic import atomic_path

if TYPE_CHECKING:
    from mlfix_train.audit.review.calibration import CalibratedReview

log = logging.getLogger(__name__)

RECENT = 200
"""Reviewed samples before the share of marked ones is used, and samples that it is taken over without an audit."""
WINDOW, SLOT = 600.0, 15.0
"""The rate is taken over the last ``WINDOW`` seconds, of which slots of ``SLOT`` seconds without work are left out."""
MAX_STATE, MAX_REVIEWERS = 4_000, 200
"""Longest state of a reviewer's page, characters of JSON, and reviewers whose state is kept."""


class SeenLog:
    """Samples that were on the screen, kept in ``seen.jsonl``; its lines are read as far as possible."""

    def __init__(self, path: Path, samples: Samples) -> None:
        self.samples = samples
        self.seen = np.zeros(len(samples), bool)
        self.seen_in_random = np.zeros(len(samples), bool)  # seen and scrolled past in the sample to judge
        self.order: list[int] = []  # rows in the order in which they were first seen
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open as long as the review
        self._file.seek(0)
        content = self._file.read()
        if content and not content.endswith(b"\n"):  # a write that was cut off
            content = content[: content.rfind(b"\n") + 1]
            os.ftruncate(self._file.fileno(), len(content))
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                rows, random = samples.rows(list(entry["seen"])), bool(entry.get("random"))
            except (ValueError, KeyError, TypeError, AttributeError):
                log.warning("%s: line %d cannot be read and is skipped", path, number)
                continue
            self._apply(rows[rows >= 0].tolist(), random)

    def add(self, rows: Sequence[int], random: bool = False) -> list[int]:
        """Records that rows were on the screen (``random``: in the sample to judge), and returns those not seen before.

        Raises:
            OSError: It could not be written; nothing is recorded.
        """
        known = self.seen_in_random if random else self.seen
        new = [row for row in dict.fromkeys(rows) if not known[row]]
        if not new:
            return []
        entry = {"seen": self.samples.names(new), **({"random": True} if random else {})}
        append_line(self._file, entry, sync=False)
        return self._apply(new, random)

    def _apply(self, rows: list[int], random: bool) -> list[int]:
        new = [row for row in dict.fromkeys(rows) if not self.seen[row]]
        if random:
            self.seen_in_random[rows] = True
        self.seen[new] = True
        self.order += new
        return new

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Pace:
    """Counts samples per minute, over the time in which anything was done."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, int, int]] = deque()

    def add(self, seen: int = 0, marked: int = 0, at: float | None = None) -> None:
        """Records samples seen and marked, ``at`` a time in seconds (by default now)."""
        self._events.append((time.monotonic() if at is None else at, seen, marked))

    def rates(self, at: float | None = None) -> tuple[float, float]:
        """Returns samples seen and samples marked per minute of work in the last ten minutes."""
        now = time.monotonic() if at is None else at
        while self._events and now - self._events[0][0] > WINDOW:
            self._events.popleft()
        minutes = len({int(when // SLOT) for when, _, _ in self._events}) * SLOT / 60
        if not minutes:
            return 0.0, 0.0
        seen, marked = (sum(event[i] for event in self._events) for i in (1, 2))
        return seen / minutes, marked / minutes


def reviewed_mask(store: MarkStore, seen: np.ndarray) -> np.ndarray:
    """Returns which samples are reviewed, bool ``(N,)``."""
    return np.asarray(seen | store.group_reviewed | store.is_marked)


def summarize(
    samples: Samples, store: MarkStore, seen_log: SeenLog, pace: Pace, calibrated: CalibratedReview | None = None
) -> dict[str, Any]:
    """Summarizes the progress of a review.

    Args:
        samples: of the review.
        store: its marks.
        seen_log: samples that were on the screen.
        pace: of the reviewer.
        calibrated: what the judgements say about all labels.

    Returns:
        A dict with

        - ``samples``, ``reviewed``, ``marked`` (as wrong), ``invalid``, ``unsure``, ``kept``: numbers of samples;
        - ``per_minute``: samples seen and samples marked per minute;
        - ``marked_percent``: of the reviewed samples, ``None`` before any;
        - ``expected``: wrong labels expected among the reviewed before they were, ``None`` unless suspicion is
          calibrated;
        - ``remaining``: wrong labels expected among the rest, by the judgements, else by the audit;
        - ``worth_reviewing``: samples of the rest whose label is wrong with a probability of at least 5%;
        - ``keep_going``: ``True``, ``False``, or ``None`` where it is not known; ``message``: that in a sentence;
        - ``random_sample``: the sample to judge: ``drawn``, ``reviewed``, ``wrong``; and what it says about all labels:
          ``rate`` (percent), ``interval`` (95%, percent) and ``wrong_in_all`` (the interval as numbers of samples);
          ``None`` if none was drawn;
        - ``estimate``: what the judgements say, ``None`` before there are enough: ``judged``, ``judged_wrong``,
          ``samples``, ``wrong``, ``interval``, ``share`` and ``share_interval`` (percent), and ``stop_rank``, down to
          which at least 1 in 20 is expected to be wrong (``None`` without an audit).
    """
    marked = store.is_wrong
    reviewed = reviewed_mask(store, seen_log.seen)
    n_reviewed, n_marked = int(reviewed.sum()), int(marked.sum())
    progress: dict[str, Any] = {
        "samples": len(samples),
        "reviewed": n_reviewed,
        "marked": n_marked,
        "invalid": int((store.marks == INVALID_CODE).sum()),
        "unsure": int((store.marks == UNSURE_CODE).sum()),
        "kept": int((store.marks == KEEP_CODE).sum()),
        "per_minute": [round(rate, 1) for rate in pace.rates()],
        "marked_percent": round(100 * n_marked / n_reviewed, 2) if n_reviewed else None,
        **dict.fromkeys(("expected", "remaining", "worth_reviewing", "keep_going", "estimate")),
        "random_sample": error_rate(store, seen_log.seen_in_random),
    }
    if calibrated is not None:
        probability = np.nan_to_num(calibrated.probability)
        left = ~(reviewed | calibrated.judged | marked)
        worth = int((probability[left] >= STOP_PROBABILITY).sum())
        progress["estimate"] = _summarize_estimate(calibrated)
        progress |= {
            "expected": round(float(probability[reviewed].sum()), 1),
            "remaining": max(round(calibrated.estimate.wrong - int(marked[samples.rank >= 0].sum()), 1), 0.0),
            "worth_reviewing": worth,
            "keep_going": worth > 0,
        }
    elif samples.calibrated:
        suspicion = np.nan_to_num(samples.suspicion.astype(np.float64))
        expected = float(suspicion[reviewed].sum())
        rest = suspicion[~reviewed]
        worth = int((rest >= STOP_PROBABILITY).sum())
        progress |= {
            "expected": round(expected, 1),
            "remaining": round(float(rest.sum()), 1),
            "worth_reviewing": worth,
            "keep_going": worth > 0,
        }
    elif n_reviewed >= RECENT and len(seen_log.order) >= RECENT:
        progress["keep_going"] = bool(marked[seen_log.order[-RECENT:]].mean() >= STOP_PROBABILITY)
    drawn, found = progress["random_sample"], progress["estimate"]
    if drawn is not None and (samples.rank >= 0).any():  # the sample is stratified by rank: its own rate is not theirs
        rate, interval, wrong_in_all = None, None, None
        if found is not None:
            rate, interval = found["share"], found["share_interval"]
            wrong_in_all = [int(np.floor(found["interval"][0])), int(np.ceil(found["interval"][1]))]
        progress["random_sample"] = {**drawn, "rate": rate, "interval": interval, "wrong_in_all": wrong_in_all}
    elif drawn is not None and drawn["interval"]:
        progress["estimate"] = {
            **{"judged": drawn["reviewed"] - drawn["unsure"], "judged_wrong": drawn["wrong"], "samples": len(samples)},
            **{"wrong": round(drawn["rate"] * len(samples) / 100, 1), "interval": drawn["wrong_in_all"]},
            **{"share": drawn["rate"], "share_interval": drawn["interval"], "stop_rank": None},
        }
    progress["message"] = _message(progress)
    return progress


def _summarize_estimate(calibrated: CalibratedReview) -> dict[str, Any]:
    estimate, n = calibrated.estimate, int(np.isfinite(calibrated.probability).sum())
    return {
        "judged": estimate.judged,
        "judged_wrong": estimate.judged_wrong,
        "samples": n,
        "wrong": estimate.wrong,
        "interval": estimate.interval,
        "share": estimate.share,
        "share_interval": [round(100 * end / n, 3) for end in estimate.interval],
        "stop_rank": estimate.review_yield["stop_rank"],
    }


def _message(progress: dict[str, Any]) -> str:
    one_in = f"1 in {1 / STOP_PROBABILITY:.0f}"
    if progress["reviewed"] >= progress["samples"]:
        return "Everything has been reviewed."
    if progress["keep_going"] is None:
        rest = f": {RECENT} samples have to be reviewed first" if progress["samples"] > RECENT else ""
        return f"Too early to say how far to go{rest}."
    if progress["remaining"] is None:
        how_many = f"At least {one_in}" if progress["keep_going"] else f"Fewer than {one_in}"
        advice = "keep going" if progress["keep_going"] else "stop if the rest is like these"
        return f"{how_many} of the last {RECENT} samples, of all groups, marked: {advice}."
    advice = "Keep going" if progress["keep_going"] else "You can stop, in all groups"
    remaining, worth = int(progress["remaining"] + 0.5), f"{progress['worth_reviewing']:,} samples worth reviewing"
    rest = worth if progress["keep_going"] else f"none with a chance above {one_in}"
    return f"{advice}: about {remaining:,} wrong label{'s' if remaining != 1 else ''} left in all, {rest}."


def error_rate(store: MarkStore, seen_in_random: np.ndarray) -> dict[str, Any] | None:
    """Estimates the error rate of the data set from a random sample that was not stratified, without bias.

    Samples reviewed elsewhere do not count. A sample counts once it was scrolled past or marked as reviewed in the
    view of the sample, and only before the first that was not; not if the answer was "unsure".

    Returns:
        ``drawn``, ``reviewed``, ``unsure`` (of these), ``wrong``, ``rate`` (percent), ``interval`` (95%, exact: Clopper
        and Pearson 1934; percent) and ``wrong_in_all`` (the interval as numbers of samples); ``None`` if no sample was
        drawn.
    """
    if not store.drawn:
        return None
    from scipy.stats import binomtest

    n_samples = len(store.samples)
    rows = np.asarray(store.drawn)
    reviewed = (seen_in_random | store.random_reviewed)[rows]
    n = len(rows) if reviewed.all() else int(np.argmin(reviewed))
    wrong, unsure = int(store.is_wrong[rows[:n]].sum()), int((store.marks[rows[:n]] == UNSURE_CODE).sum())
    estimate: dict[str, Any] = {"drawn": len(rows), "reviewed": n, "unsure": unsure, "wrong": wrong}
    n -= unsure
    if not n:
        return {**estimate, "rate": None, "interval": None, "wrong_in_all": None}
    low = high = wrong / n
    if n < n_samples:
        low, high = binomtest(wrong, n).proportion_ci(0.95, method="exact")
    estimate |= {"rate": round(100 * wrong / n, 3), "interval": [round(100 * low, 3), round(100 * high, 3)]}
    return estimate | {"wrong_in_all": [int(np.floor(low * n_samples)), int(np.ceil(high * n_samples))]}


def draw_random(n_samples: int, drawn: Sequence[int], count: int, seed: int = 0) -> list[int]:
    """Draws up to ``count`` further rows at random, without repeats; deterministic for a seed."""
    permutation = np.random.default_rng([seed, n_samples]).permutation(n_samples)
    rows: list[int] = permutation[~np.isin(permutation, drawn)][:count].tolist()
    return rows


class ReviewerStates:
    """``reviewer_state.json``: where each reviewer is and how they set up the page, so that any browser resumes there.

    A file that cannot be read is replaced, for nothing depends on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)
        except (OSError, ValueError):
            found = {}
        items = found.items() if isinstance(found, dict) else ()
        self._states = {name: state for name, state in items if isinstance(state, dict)}

    def get(self, reviewer: str) -> dict[str, Any] | None:
        """Returns the state that a reviewer's page sent last, ``None`` if it never did."""
        return self._states.get(reviewer)

    def set(self, reviewer: str, state: Any) -> None:
        """Stores the state of a reviewer's page.

        Raises:
            RequestError: It is not a JSON object, or too long.
        """
        try:
            is_valid = isinstance(state, Mapping) and len(json.dumps(state, allow_nan=False)) <= MAX_STATE
        except ValueError:
            is_valid = False
        if not is_valid:
            raise RequestError(f"state is not a JSON object of at most {MAX_STATE:,} characters")
        states = {name: value for name, value in self._states.items() if name != reviewer}
        states = {**dict(list(states.items())[-MAX_REVIEWERS + 1 :]), reviewer: dict(state)}
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(states), encoding="utf-8")
        self._states = states
