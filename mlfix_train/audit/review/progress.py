"""How a review goes: what was looked at and found, how fast, what is still ahead, and whether looking further pays.

A sample is **judged** when it was on the screen, found fine with its group, or marked. Shapes: N samples.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlfix_train.audit.review.marks import Ledger
from mlfix_train.audit.review.samples import NONE, Samples, rows_of
from mlfix_train.audit.scores.estimates import STOP_PROBABILITY

log = logging.getLogger(__name__)

PRIOR = 5.0
"""Wrong labels' worth of trust in the audit's estimate before what is found corrects it."""
LATELY = 200
"""Judged samples that the rate of late finds is taken over, where no audit estimates one."""
WINDOW, SLOT = 600.0, 15.0
"""Seconds that the pace is taken over, and the length of a stretch that counts as worked in."""


class SeenLog:
    """Which samples were on the screen, kept in ``seen.jsonl``.

    Attributes:
        seen: bool ``N``.
        passed: bool ``N``, seen and passed by where the random sample was looked at.
        order: rows as they were first seen.

    Args:
        path: of the file; it is appended to, and what stands in it is taken over, as far as it can be read.
        samples: N samples.
    """

    def __init__(self, path: Path, samples: Samples) -> None:
        self.path, self.samples = path, samples
        self.seen = np.zeros(len(samples), bool)
        self.passed = np.zeros(len(samples), bool)
        self.order: list[int] = []
        for number, line in enumerate(path.read_bytes().split(b"\n") if path.exists() else [], start=1):
            if not line.strip():
                continue
            try:
                told = json.loads(line)
                rows = rows_of(samples, list(told["seen"]))
                random = bool(told.get("random"))
            except (ValueError, KeyError, TypeError, AttributeError):
                log.warning("%s: line %d can't be read (a write that was cut short) and is left out", path, number)
                continue
            self._take(rows[rows >= 0], random)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - held as long as the review
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def _take(self, rows: np.ndarray, random: bool) -> tuple[list[int], list[int]]:
        """Returns the rows that are new to what they are told for, and those that were never seen."""
        rows = np.asarray(list(dict.fromkeys(rows.tolist())), np.int64)
        told = rows[~(self.passed if random else self.seen)[rows]].tolist()
        new = rows[~self.seen[rows]].tolist()
        if random:
            self.passed[told] = True
        self.seen[new] = True
        self.order += new
        return told, new

    def add(self, rows: Sequence[int], random: bool = False) -> list[int]:
        """Notes that rows were on the screen (``random``: passed by in the random sample); returns the new ones."""
        told, new = self._take(np.asarray(rows, np.int64), random)
        if told:
            entry = {"seen": [self.samples.ids[row] for row in told], **({"random": True} if random else {})}
            self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        return new

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


class Pace:
    """Counts what is done a minute, over the stretches in which anything was done."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, int, int]] = deque()

    def add(self, seen: int = 0, marked: int = 0, at: float | None = None) -> None:
        """Notes samples seen and marked, ``at`` a time in seconds (now)."""
        self._events.append((time.monotonic() if at is None else at, seen, marked))

    def rates(self, at: float | None = None) -> tuple[float, float]:
        """Returns samples seen and marked a minute over the last ten minutes, as far as they were worked in."""
        now = time.monotonic() if at is None else at
        while self._events and now - self._events[0][0] > WINDOW:
            self._events.popleft()
        slots = {int(when // SLOT) for when, _, _ in self._events}
        minutes = len(slots) * SLOT / 60
        if not minutes:
            return 0.0, 0.0
        return (sum(seen for _, seen, _ in self._events) / minutes,
                sum(marked for _, _, marked in self._events) / minutes)  # fmt: skip


def judged_of(ledger: Ledger, seen: np.ndarray) -> np.ndarray:
    """Returns which of N samples were judged."""
    return np.asarray(seen | ledger.fine | (ledger.marks != NONE))


def summarise(samples: Samples, ledger: Ledger, log_: SeenLog, pace: Pace) -> dict[str, Any]:
    """Returns how the review goes.

    Returns:
        ``samples``, ``seen`` (judged), ``marked``, ``invalid``, ``per_minute`` (samples seen, samples marked),
        ``precision`` (percent of the judged that are marked, ``null`` before any), ``expected`` (wrong labels that the
        audit expected among the judged, ``null`` without calibrated suspicion), ``ahead`` (wrong labels expected among
        the rest, corrected by how the finds compare with what was expected), ``paying`` (samples not judged that are
        each expected to be wrong with 5% or more), ``pays`` (``true``, ``false``, or ``null`` where nothing tells),
        ``words`` (that in a sentence), ``random`` (see :func:`error_rate`).
    """
    marked = ledger.marks != NONE
    judged = judged_of(ledger, log_.seen)
    number, found = int(judged.sum()), int(marked.sum())
    fast, marks = pace.rates()
    told: dict[str, Any] = {
        "samples": len(samples), "seen": number, "marked": found, "invalid": int((ledger.marks < NONE).sum()),
        "per_minute": [round(fast, 1), round(marks, 1)],
        "precision": round(100 * found / number, 2) if number else None,
        "expected": None, "ahead": None, "paying": None, "pays": None,
        "random": error_rate(ledger, log_.passed, len(samples)),
    }  # fmt: skip
    if samples.calibrated:
        suspicion = np.nan_to_num(samples.suspicion.astype(np.float64))
        expected = float(suspicion[judged].sum())
        # Before something was found or found fine, and not just looked over, what was seen says nothing of the audit.
        begun = (found > 0 and number >= LATELY) or bool(ledger.fine.any())
        factor = (found + PRIOR) / (expected + PRIOR) if begun else 1.0
        rest = np.minimum(suspicion[~judged] * factor, 1)
        paying = int((rest >= STOP_PROBABILITY).sum())
        told |= {
            "expected": round(expected, 1),
            "ahead": round(float(rest.sum()), 1),
            "paying": paying,
            "pays": paying > 0,
        }
    elif number >= LATELY:
        lately = log_.order[-LATELY:]
        if len(lately) == LATELY:
            told["pays"] = bool(marked[lately].mean() >= STOP_PROBABILITY)
    told["words"] = _words(told)
    return told


def _words(told: dict[str, Any]) -> str:
    if told["seen"] >= told["samples"]:
        return "Everything has been looked at."
    if told["pays"] is None:
        return "Look on: too little was seen to say whether it pays."
    if told["ahead"] is not None:
        ahead = f"about {int(told['ahead'] + 0.5):,} wrong label{'s' if int(told['ahead'] + 0.5) != 1 else ''} ahead"
        if told["pays"]:
            return f"Looking on pays: {ahead}, {told['paying']:,} samples worth a look."
        return f"Looking further hardly pays from here: {ahead}, none likelier than 1 in {1 / STOP_PROBABILITY:.0f}."
    if told["pays"]:
        return f"Looking on pays: more than 1 in {1 / STOP_PROBABILITY:.0f} of the last {LATELY} was marked."
    return f"Looking further hardly pays here: fewer than 1 in {1 / STOP_PROBABILITY:.0f} of the last {LATELY} were marked."


def error_rate(ledger: Ledger, passed: np.ndarray, samples: int) -> dict[str, Any] | None:
    """Estimates the error rate of the data set from the random sample, without bias.

    What was looked at elsewhere, for its suspicion, plays no part: a sample counts once it was passed by, or found
    fine, where the random sample is looked at, and only before the first that was not.

    Args:
        ledger: with the random sample.
        passed: bool ``N``, seen and passed by as a random sample.
        samples: N.

    Returns:
        ``drawn``, ``judged``, ``wrong``, ``rate`` (percent), ``interval`` (95%, Clopper and Pearson 1934, percent) and
        ``wrong_in_all`` (the interval, as numbers of samples); ``None`` where none was drawn.
    """
    if not ledger.drawn:
        return None
    rows = np.asarray(ledger.drawn)
    judged = (passed | ledger.fine_drawn)[rows]
    n = int(np.argmin(judged)) if not judged.all() else len(rows)
    wrong = int((ledger.marks[rows[:n]] != NONE).sum())
    told: dict[str, Any] = {"drawn": len(rows), "judged": n, "wrong": wrong, "rate": None, "interval": None,
                            "wrong_in_all": None}  # fmt: skip
    if n:
        low, high = (wrong / n, wrong / n) if n >= samples else clopper_pearson(wrong, n)
        told |= {
            "rate": round(100 * wrong / n, 3), "interval": [round(100 * low, 3), round(100 * high, 3)],
            "wrong_in_all": [int(np.floor(low * samples)), int(np.ceil(high * samples))],
        }  # fmt: skip
    return told


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the exact interval of a binomial proportion (Clopper and Pearson 1934), 0 to 1."""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def draw_random(samples: Samples, drawn: Sequence[int], count: int, seed: int) -> list[int]:
    """Draws further samples for the random sample, without repeats; the same for the same seed and samples."""
    rng = np.random.default_rng([seed, len(samples)])
    sequence = rng.permutation(len(samples))
    have = set(drawn)
    return [int(row) for row in sequence if int(row) not in have][:count]
